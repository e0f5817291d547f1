//! What a session of the fuzzer sends: a beginning that any client might send, then something that none would.
//!
//! Most of it is well encoded and means nothing: ids, geometries, operators and requests that the decoder must let
//! through and the executor must refuse (INV-5). Some of it is then damaged, with its CRC right.

use bytes::Bytes;
use skytorch_wire::abi::SKY_LAYOUT_MEMORY;
use skytorch_wire::codec::frame;
use skytorch_wire::codec::{Geometry, Method, OpEncoder, Part, Record, Template, TemplateKind};
use skytorch_wire::limits;
use skytorch_wire::proto::{Hello, Resume};

use crate::mutate::{self, Random};
use crate::operators::{self, Operator};
use crate::raw::{self, End, Outgoing, framed, hello};

/// Frames of a session and how it ends.
pub(crate) struct Script {
    pub(crate) id: [u8; 16],
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) end: End,
    /// The last thing in it may wait for something that never comes.
    pub(crate) waits: bool,
}

struct Writer<'a> {
    random: &'a mut Random,
    operators: &'a [Operator],
    encoder: OpEncoder,
    out: Vec<u8>,
    frames: Vec<Vec<u8>>,
    first: u64,
    /// Id and bytes.
    storages: Vec<(u64, u64)>,
    next_id: u64,
    next_slot: u32,
    next_request: u64,
    waits: bool,
}

pub(crate) fn script(random: &mut Random, operators: &[Operator]) -> Script {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.next().to_le_bytes());
    let mut writer = Writer {
        random,
        operators,
        encoder: OpEncoder::new(limits::SLOTS, 0),
        out: Vec::new(),
        frames: Vec::new(),
        first: 1,
        storages: Vec::new(),
        next_id: 1,
        next_slot: 0,
        next_request: 1,
        waits: false,
    };
    for _ in 0..1 + writer.random.below(4) {
        let bytes = *writer.random.of(&[16, 64, 256, 4096]);
        writer.alloc(bytes);
        writer.write();
    }
    for _ in 0..writer.random.below(16) {
        writer.step();
    }
    writer.cut();
    let Writer { frames, waits, random, .. } = writer;
    let mut all = vec![frame::hello(&hello(id))];
    all.extend(frames);
    let mut end = End::Finish;
    match random.below(8) {
        0 => {}
        1 => end = End::Stay,
        _ => all.push(frame::close()),
    }
    damage_frames(random, &mut all);
    let mut chunks: Vec<Bytes> = all.iter().map(|frame| framed(frame)).collect();
    damage_chunks(random, &mut chunks);
    Script { id, chunks, end, waits }
}

/// A second connection of the same session: what it has acknowledged, and its messages from some point on.
pub(crate) fn resumed(random: &mut Random, id: [u8; 16], chunks: &[Bytes]) -> Outgoing {
    let number = |random: &mut Random| *random.of(&[0, 0, 1, 3, u64::MAX]);
    let resume = Resume { acknowledged: number(random), replies: number(random), attempt: number(random) as _ };
    let again = framed(&frame::hello(&Hello { resume: Some(resume), ..hello(id) }));
    let from = random.below(chunks.len() + 1);
    Outgoing::new([again].into_iter().chain(chunks[from..].iter().cloned()), End::Finish)
}

/// Frames in an order that is none, and with bytes that are none.
fn damage_frames(random: &mut Random, frames: &mut Vec<Vec<u8>>) {
    match random.below(24) {
        0 => drop(frames.remove(0)),
        1 => {
            let again = random.of(frames).clone();
            frames.push(again);
        }
        2 => frames.reverse(),
        3 => {
            let at = random.below(frames.len());
            let byte = random.below(frames[at].len());
            frames[at][byte] ^= 1 << random.below(8);
        }
        4 => {
            let resume = Resume { acknowledged: random.next(), replies: 1, ..Default::default() };
            frames[0] = frame::hello(&Hello { resume: Some(resume), ..hello([9; 16]) });
        }
        5 => {
            let mut other = hello([9; 16]);
            other.session_id.truncate(random.below(16));
            other.pointer_bits = *random.of(&[32, 64]);
            frames[0] = frame::hello(&other);
        }
        6 => frames.push(frame::ack(random.next())),
        _ => {}
    }
}

/// gRPC messages that are cut, or announce what does not come.
fn damage_chunks(random: &mut Random, chunks: &mut Vec<Bytes>) {
    let at = random.below(chunks.len());
    let mut bytes = chunks[at].to_vec();
    match random.below(32) {
        0 => bytes[0] = 1,
        1 => bytes[1..5].copy_from_slice(&u32::MAX.to_be_bytes()),
        2 => bytes.truncate(random.below(bytes.len())),
        3 => bytes[1..5].copy_from_slice(&0u32.to_be_bytes()),
        _ => return,
    }
    chunks[at] = bytes.into();
    if random.below(2) == 0 {
        chunks.truncate(at + 1);
    }
}

impl Writer<'_> {
    /// Appends a record, unless the encoder itself would never make it.
    fn push(&mut self, record: &Record) -> bool {
        self.encoder.record(&mut self.out, record).is_ok()
    }

    /// The message so far becomes a frame; one in six is damaged first.
    fn cut(&mut self) {
        let mut records = std::mem::take(&mut self.out);
        if self.random.below(6) == 0 {
            records = mutate::damaged(&[records], self.random);
        }
        let first = if self.random.below(60) == 0 { self.random.next() } else { self.first };
        self.frames.push(raw::ops(first, &records));
        self.first = self.encoder.position() + 1;
        self.encoder.begin_message();
    }

    fn fresh(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn request(&mut self) -> u64 {
        let request = self.next_request;
        self.next_request += u64::from(self.random.below(30) != 0);
        request
    }

    fn define(&mut self, template: &Template) -> Option<u32> {
        let slot = self.next_slot;
        if self.push(&Record::Define { slot, template: template.clone() }) {
            self.next_slot += 1;
            return Some(slot);
        }
        None
    }

    fn alloc(&mut self, n_bytes: u64) {
        let storage = self.fresh();
        if self.push(&Record::Alloc { storage, n_bytes, device: 0 }) {
            self.storages.push((storage, n_bytes));
        }
    }

    /// Mostly one that exists.
    fn storage(&mut self) -> (u64, u64) {
        match self.random.below(16) {
            0 => (1 + self.random.next() % (self.next_id + 5), 64),
            1 => (self.random.next() | 1, 64),
            _ => *self.random.of(&self.storages),
        }
    }

    /// A transfer template; of the whole storage most of the time.
    fn transfer(&mut self, kind: TemplateKind, room: u64) -> Option<(u32, u64)> {
        let geometry = match self.random.below(3) {
            0 => operators::geometry(self.random, room),
            _ => Geometry::contiguous(0, &[room as i64]),
        };
        let layout = if self.random.below(8) == 0 { SKY_LAYOUT_MEMORY } else { 0 };
        let template = Template::transfer(kind, layout, 0, geometry);
        let bytes = template.transfer_bytes();
        self.define(&template).map(|slot| (slot, bytes))
    }

    /// What a SEND or WRITE_LANE names: mostly one tensor, none at all if there is no room for its template.
    fn parts(&mut self, kind: TemplateKind) -> Vec<Part> {
        let n = 1 + self.random.below(2) * self.random.below(4);
        let mut part = || {
            let (storage, room) = self.storage();
            self.transfer(kind, room).map(|(slot, _)| Part::new(slot, storage))
        };
        (0..n).filter_map(|_| part()).collect()
    }

    fn write(&mut self) {
        let (storage, room) = self.storage();
        let Some((slot, bytes)) = self.transfer(TemplateKind::Write, room) else { return };
        if bytes <= 8192 {
            let payload = (0..bytes).map(|_| self.random.next() as u8 & 1).collect();
            self.push(&Record::Write { slot, storage, payload });
        }
    }

    fn operator(&mut self) {
        let operator = self.random.of(self.operators);
        let inputs: Vec<(u64, u64)> = (0..1 + self.random.below(3)).map(|_| self.storage()).collect();
        let rooms: Vec<u64> = inputs.iter().map(|(_, room)| *room).collect();
        let mut template = operators::template(self.random, operator, &rooms);
        let query = self.random.below(3) != 0;
        if !query {
            let n = self.random.below(2);
            template.outputs = (0..n).map(|_| operators::geometry(self.random, 64)).collect();
        }
        let Some(slot) = self.define(&template) else { return };
        let mut storages: Vec<u64> = inputs.iter().map(|(id, _)| *id).collect();
        let scalars = template
            .scalar_kinds()
            .iter()
            .map(|&kind| {
                let scalar = operators::scalar(self.random);
                skytorch_wire::abi::SkyScalar { kind, ..scalar }
            })
            .collect();
        let n_outputs = if query { operator.returns } else { template.outputs.len() as u32 };
        let first = self.next_id;
        storages.extend((0..n_outputs).map(|_| self.fresh()));
        let record = match query {
            true => Record::Query { slot, storages, n_outputs, scalars, request: self.request() },
            false => Record::Op { slot, storages, scalars },
        };
        if self.push(&record) {
            self.storages.extend((first..self.next_id).map(|id| (id, 16)));
        }
    }

    /// One thing: half of them are operators.
    fn step(&mut self) {
        match self.random.below(28) {
            0 => {
                let bytes = *self.random.of(&[0, 1, 1 << 20, 1 << 40, i64::MAX as u64]);
                self.alloc(bytes);
            }
            1 => {
                // An id that is there, or one far away.
                let storage = *self.random.of(&[1, 2, 1 << 20, 1 << 40]);
                let device = *self.random.of(&[0, 1, 7, u32::MAX]);
                self.push(&Record::Alloc { storage, n_bytes: 4, device });
                self.next_id = self.next_id.max(storage.saturating_add(1));
            }
            2 => {
                let (storage, _) = self.storage();
                let n_bytes = *self.random.of(&[0, 1, 100, 1 << 20, 1 << 50]);
                self.push(&Record::Resize { storage, n_bytes });
            }
            3 => {
                let storages = (0..1 + self.random.below(5)).map(|_| self.storage().0).collect();
                self.push(&Record::Free { storages });
            }
            4..=6 => {
                let (storage, room) = self.storage();
                if let Some((slot, _)) = self.transfer(TemplateKind::Read, room) {
                    let request = self.request();
                    self.push(&Record::Read { slot, storage, request });
                }
            }
            7 | 8 => self.write(),
            9 if self.random.below(8) == 0 => {
                let parts = self.parts(TemplateKind::Write);
                let transfer = 1 + self.random.below(3) as u64;
                self.waits |= self.push(&Record::WriteLane { parts, transfer, n_bytes: 0 });
            }
            10 | 11 => self.call(),
            12 => {
                let parts = self.parts(TemplateKind::Read);
                let payload = self.target();
                self.push(&Record::Send { parts, payload, n_bytes: 0 });
            }
            13 => self.unknown_operator(),
            14 => {
                // More templates than there are slots, and slots in the middle of nowhere.
                self.next_slot = *self.random.of(&[0, 1, 1000, limits::SLOTS - 2, limits::SLOTS - 1]);
            }
            15 => self.cut(),
            _ => self.operator(),
        }
    }

    fn call(&mut self) {
        let method = self.random.of(Method::ALL);
        let args = (0..method.n_args).map(|_| *self.random.of(&[0, 0, 1, 2, 9, -1, i64::MAX, i64::MIN])).collect();
        let n = if method.payload { self.random.below(64) } else { 0 };
        let payload = (0..n).map(|_| self.random.next() as u8).collect();
        let request = if method.answers { self.request() } else { 0 };
        self.push(&Record::Call { method: method.number, args, payload, request });
    }

    /// Where a SEND goes: nowhere.
    fn target(&mut self) -> Vec<u8> {
        let addresses = ["unix:///nonexistent", "tcp://127.0.0.1:1", "tls://localhost:1", "http://x:1", ""];
        let address = *self.random.of(&addresses);
        let mut payload = [&[0x0a, address.len() as u8][..], address.as_bytes()].concat();
        payload.extend_from_slice(&[0x30, self.random.below(5) as u8]);
        if self.random.below(4) == 0 {
            payload = mutate::damaged(&[payload], self.random);
        }
        payload
    }

    fn unknown_operator(&mut self) {
        let names = [
            "aten::frobnicate",
            "aten::from_file",
            "aten::set_.source_Tensor",
            "aten::resize_",
            "os::system",
            "prim::PythonOp",
            "",
            "aten::",
            "::",
        ];
        let (storage, room) = self.storage();
        let args =
            vec![skytorch_wire::codec::Arg::Tensor { storage: 0, geometry: Geometry::contiguous(0, &[room as i64]) }];
        let name = (*self.random.of(&names)).to_owned();
        let template = Template { name, args, n_storages: 1, ..Template::default() };
        if let Some(slot) = self.define(&template) {
            self.push(&Record::Op { slot, storages: vec![storage], scalars: Vec::new() });
        }
    }
}
