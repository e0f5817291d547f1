//! The server's end: the bytes of one message to the plain structs of the C ABI ("Records" in docs/wire.md).
//!
//! Nothing is trusted: counts are compared with the bytes that are left before anything is allocated, and what a
//! message can make the decoder allocate is bounded by `limits::MESSAGE_*`. An error is fatal to the session, since
//! the slots and the newest id are then no longer those of the client.
//!
//! The subtle thing is that the arenas grow while a message is decoded. So records first hold indexes where pointers
//! belong, and [`Arena::link`] turns them into pointers once nothing moves any more.

use std::ptr;

use super::call::Method;
use super::encode::form;
use super::parcel;
use super::raw::{self, RawTemplate};
use super::record::Record;
use super::scalar;
use super::slots::Slots;
use super::template::{self, TemplateKind};
use super::varint::Reader;
use crate::abi::*;
use crate::error::{Result, WireError};
use crate::limits;

/// Decodes the messages of one session, in order.
pub struct Decoder {
    slots: Slots,
    position: u64,
    newest: u64,
    failed: Option<WireError>,
    arena: Arena,
}

/// The records of one message. Their pointers lead into the decoder and into the message.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    records: &'a [SkyRecord],
}

#[derive(Default)]
struct Arena {
    records: Vec<SkyRecord>,
    storages: Vec<u64>,
    slots: Vec<u32>,
    scalars: Vec<SkyScalar>,
    args: Vec<i64>,
    templates: Vec<RawTemplate>,
    /// Arguments and outputs in `templates`.
    template_items: usize,
}

const NO_BYTES: SkyBytes = SkyBytes { data: ptr::null(), size: 0 };

const EMPTY: SkyRecord = SkyRecord {
    kind: 0,
    sequence: 0,
    slot: 0,
    template_def: ptr::null(),
    storages: ptr::null(),
    n_storages: 0,
    n_outputs: 0,
    scalars: ptr::null(),
    n_scalars: 0,
    payload: NO_BYTES,
    request: 0,
    transfer: 0,
    n_bytes: 0,
    device: 0,
    method: 0,
    args: ptr::null(),
    n_args: 0,
    slots: ptr::null(),
};

impl Batch<'_> {
    /// The records, for Rust that only counts or looks at plain fields.
    pub fn records(&self) -> &[SkyRecord] {
        self.records
    }

    /// For the C ABI: valid while the decoder is not asked for the next message and the message itself lives.
    pub fn as_sky(&self) -> SkyBatch {
        SkyBatch { records: self.records.as_ptr(), n_records: self.records.len() as u32 }
    }

    /// The records as safe, owned values.
    pub fn to_records(&self) -> Vec<Record> {
        self.records.iter().map(raw::record).collect()
    }
}

impl Decoder {
    /// A decoder at the start of a stream, for a session with this many template slots, whose first record comes after
    /// `position`.
    pub fn new(slots: u32, position: u64) -> Decoder {
        Decoder { slots: Slots::new(slots), position, newest: 0, failed: None, arena: Arena::default() }
    }

    /// Position of the last record decoded; what it began with before the first.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Decodes the records of one OPS frame, the first of which has position `first`. After an error every later
    /// call answers the same error.
    pub fn decode<'a>(&'a mut self, first: u64, records: &'a [u8]) -> Result<Batch<'a>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.arena.clear();
        if let Err(error) = self.decode_all(first, records) {
            self.arena.clear();
            let error = WireError::new(error.code, format!("record {}: {}", self.position + 1, error.message));
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.arena.link();
        Ok(Batch { records: &self.arena.records })
    }

    fn decode_all(&mut self, first: u64, records: &[u8]) -> Result<()> {
        if first != self.position.wrapping_add(1) {
            return Err(WireError::protocol(format!("message begins at position {first}")));
        }
        if records.len() > limits::MESSAGE_BYTES {
            let (n, limit) = (records.len(), limits::MESSAGE_BYTES);
            return Err(WireError::limit(format!("message of {n} bytes: the limit is {limit}")));
        }
        let mut reader = Reader::new(records);
        while !reader.is_empty() {
            if self.arena.records.len() == limits::MESSAGE_RECORDS {
                let limit = limits::MESSAGE_RECORDS;
                return Err(WireError::limit(format!("more records than a message may have ({limit})")));
            }
            let before = reader.remaining();
            let record = self.record(&mut reader)?;
            if before - reader.remaining() > limits::RECORD_BYTES {
                let (n, limit) = (before - reader.remaining(), limits::RECORD_BYTES);
                return Err(WireError::limit(format!("record of {n} bytes: the limit is {limit}")));
            }
            self.arena.records.push(record);
            self.position += 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn record(&mut self, reader: &mut Reader<'_>) -> Result<SkyRecord> {
        let head = reader.varint()?;
        let rest = head >> form::BITS;
        let sequence = self.position + 1;
        match head & ((1 << form::BITS) - 1) {
            form::OP => self.op(reader, sequence, rest, false),
            form::OP_NAMED => self.op(reader, sequence, rest, true),
            form::FREE_ONE => {
                let storages = self.arena.storages_here();
                self.arena.expect_storages(1)?;
                self.arena.storages.push(nonzero(self.newest.wrapping_sub(rest))?);
                Ok(SkyRecord { kind: SKY_RECORD_FREE, sequence, storages, n_storages: 1, ..EMPTY })
            }
            _ => self.other(reader, sequence, rest),
        }
    }

    #[inline(always)]
    fn op(&mut self, reader: &mut Reader<'_>, sequence: u64, slot: u64, named: bool) -> Result<SkyRecord> {
        let slot = slot_number(slot)?;
        let found = self.slots.get(slot, TemplateKind::Op)?;
        let (inputs, outputs) = (found.n_inputs as usize, found.n_outputs as usize);
        let storages = self.arena.storages_here();
        self.arena.expect_storages(inputs + outputs)?;
        let newest = self.newest;
        for _ in 0..inputs {
            self.arena.storages.push(id(reader, newest)?);
        }
        if named {
            for _ in 0..outputs {
                self.arena.storages.push(fresh(reader, &mut self.newest)?);
            }
        } else {
            let Some(end) = newest.checked_add(outputs as u64) else { return Err(ids_end()) };
            self.arena.storages.extend((1..=outputs as u64).map(|i| newest + i));
            self.newest = end;
        }
        let scalars = self.arena.scalars_here();
        let n_scalars = found.scalars.len();
        if n_scalars != 0 {
            let start = self.arena.scalars.len();
            for _ in 0..n_scalars {
                self.arena.scalars.push(scalar::get(reader)?);
            }
            found.check_scalars(slot, &self.arena.scalars[start..])?;
        }
        Ok(SkyRecord {
            kind: SKY_RECORD_OP,
            sequence,
            slot,
            storages,
            n_storages: (inputs + outputs) as u32,
            n_outputs: outputs as u32,
            scalars,
            n_scalars: n_scalars as u32,
            ..EMPTY
        })
    }

    fn other(&mut self, reader: &mut Reader<'_>, sequence: u64, kind: u64) -> Result<SkyRecord> {
        let Ok(kind) = u8::try_from(kind) else { return Err(unknown_kind(kind)) };
        let empty = SkyRecord { kind, sequence, ..EMPTY };
        match kind {
            SKY_RECORD_DEFINE => self.define(reader, empty),
            SKY_RECORD_QUERY => self.query(reader, empty),
            SKY_RECORD_FREE => self.free(reader, empty),
            SKY_RECORD_ALLOC => {
                let empty = self.one_storage(empty)?;
                self.arena.storages.push(fresh(reader, &mut self.newest)?);
                Ok(SkyRecord { n_bytes: reader.size()? as u64, device: reader.u32()?, ..empty })
            }
            SKY_RECORD_RESIZE => {
                let empty = self.one_storage(empty)?;
                self.arena.storages.push(id(reader, self.newest)?);
                Ok(SkyRecord { n_bytes: reader.size()? as u64, ..empty })
            }
            SKY_RECORD_WRITE => {
                let record = self.transfer(reader, empty, TemplateKind::Write)?;
                if record.n_bytes > limits::INLINE_WRITE_BYTES {
                    let (n, limit) = (record.n_bytes, limits::INLINE_WRITE_BYTES);
                    return Err(WireError::limit(format!("write of {n} bytes in a message: the limit is {limit}")));
                }
                let payload = reader.bytes(record.n_bytes as usize)?;
                Ok(SkyRecord { payload: borrowed(payload), ..record })
            }
            SKY_RECORD_WRITE_LANE => {
                let record = self.parts(reader, empty, TemplateKind::Write)?;
                Ok(SkyRecord { transfer: reader.varint()?, ..record })
            }
            SKY_RECORD_READ => {
                let record = self.transfer(reader, empty, TemplateKind::Read)?;
                Ok(SkyRecord { request: request(reader)?, ..record })
            }
            SKY_RECORD_CALL => self.call(reader, empty),
            SKY_RECORD_SEND => {
                let record = self.parts(reader, empty, TemplateKind::Read)?;
                let n = reader.count(limits::PAYLOAD_BYTES, 1, "bytes of payload")?;
                Ok(SkyRecord { payload: borrowed(reader.bytes(n)?), ..record })
            }
            // SKY_RECORD_OP has forms of its own.
            other => Err(unknown_kind(other.into())),
        }
    }

    fn define(&mut self, reader: &mut Reader<'_>, empty: SkyRecord) -> Result<SkyRecord> {
        let slot = reader.u32()?;
        self.slots.check_number(slot)?;
        let template = template::get(reader)?;
        self.arena.template_items += template.flat_args() + template.outputs.len();
        if self.arena.template_items > limits::MESSAGE_TEMPLATE_ITEMS {
            let limit = limits::MESSAGE_TEMPLATE_ITEMS;
            return Err(WireError::limit(format!("more template arguments than a message may have ({limit})")));
        }
        self.slots.define(slot, &template);
        let template_def = ptr::without_provenance(self.arena.templates.len() * size_of::<RawTemplate>());
        self.arena.templates.push(RawTemplate::new(template));
        Ok(SkyRecord { slot, template_def, ..empty })
    }

    fn query(&mut self, reader: &mut Reader<'_>, empty: SkyRecord) -> Result<SkyRecord> {
        let slot = reader.u32()?;
        let found = self.slots.get(slot, TemplateKind::Op)?;
        let request = request(reader)?;
        let outputs = reader.count(limits::TEMPLATE_OUTPUTS, 1, "outputs of a query")?;
        let inputs = found.n_inputs as usize;
        let storages = self.arena.storages_here();
        self.arena.expect_storages(inputs + outputs)?;
        for _ in 0..inputs {
            self.arena.storages.push(id(reader, self.newest)?);
        }
        for _ in 0..outputs {
            self.arena.storages.push(fresh(reader, &mut self.newest)?);
        }
        let scalars = self.arena.scalars_here();
        let start = self.arena.scalars.len();
        for _ in 0..found.scalars.len() {
            self.arena.scalars.push(scalar::get(reader)?);
        }
        found.check_scalars(slot, &self.arena.scalars[start..])?;
        Ok(SkyRecord {
            slot,
            storages,
            n_storages: (inputs + outputs) as u32,
            n_outputs: outputs as u32,
            scalars,
            n_scalars: found.scalars.len() as u32,
            request,
            ..empty
        })
    }

    fn free(&mut self, reader: &mut Reader<'_>, empty: SkyRecord) -> Result<SkyRecord> {
        let n = reader.count(limits::RECORD_STORAGES, 1, "storages of a free")?;
        if n == 0 {
            return Err(WireError::protocol("free of no storage"));
        }
        let storages = self.arena.storages_here();
        self.arena.expect_storages(n)?;
        for _ in 0..n {
            self.arena.storages.push(id(reader, self.newest)?);
        }
        Ok(SkyRecord { storages, n_storages: n as u32, ..empty })
    }

    fn call(&mut self, reader: &mut Reader<'_>, empty: SkyRecord) -> Result<SkyRecord> {
        let method = Method::find(reader.u32()?)?;
        let request = reader.varint()?;
        let args = ptr::without_provenance(self.arena.args.len() * size_of::<i64>());
        for _ in 0..method.n_args {
            self.arena.args.push(reader.signed()?);
        }
        let n = reader.count(limits::PAYLOAD_BYTES, 1, "bytes of payload")?;
        let payload = borrowed(reader.bytes(n)?);
        method.check(method.n_args, n, request)?;
        let (method, n_args) = (method.number, method.n_args as u32);
        Ok(SkyRecord { method, args, n_args, payload, request, ..empty })
    }

    /// Slots and storages of a WRITE_LANE or SEND, and the bytes of the transfer.
    fn parts(&mut self, reader: &mut Reader<'_>, empty: SkyRecord, kind: TemplateKind) -> Result<SkyRecord> {
        let n = reader.count(limits::PARCEL_TENSORS, 2, "tensors of a transfer")?;
        let (storages, slots) = (self.arena.storages_here(), self.arena.slots_here());
        self.arena.expect_storages(n)?;
        let mut bytes = 0u64;
        for _ in 0..n {
            let slot = reader.u32()?;
            bytes = bytes.saturating_add(self.slots.get(slot, kind)?.bytes);
            self.arena.slots.push(slot);
            self.arena.storages.push(id(reader, self.newest)?);
        }
        let n_bytes = parcel::transfer_bytes(n, bytes)?;
        Ok(SkyRecord { slots, storages, n_storages: n as u32, n_bytes, ..empty })
    }

    /// Slot and storage of a READ or WRITE, and the bytes that its template stands for.
    fn transfer(&mut self, reader: &mut Reader<'_>, empty: SkyRecord, kind: TemplateKind) -> Result<SkyRecord> {
        let slot = reader.u32()?;
        let n_bytes = self.slots.get(slot, kind)?.bytes;
        let empty = self.one_storage(empty)?;
        self.arena.storages.push(id(reader, self.newest)?);
        Ok(SkyRecord { slot, n_bytes, ..empty })
    }

    fn one_storage(&mut self, empty: SkyRecord) -> Result<SkyRecord> {
        let storages = self.arena.storages_here();
        self.arena.expect_storages(1)?;
        Ok(SkyRecord { storages, n_storages: 1, ..empty })
    }
}

#[inline(always)]
fn id(reader: &mut Reader<'_>, newest: u64) -> Result<u64> {
    nonzero(newest.wrapping_sub(reader.varint()?))
}

#[inline(always)]
fn fresh(reader: &mut Reader<'_>, newest: &mut u64) -> Result<u64> {
    let id = nonzero(newest.wrapping_add(1).wrapping_add(reader.signed()? as u64))?;
    *newest = id.max(*newest);
    Ok(id)
}

#[inline(always)]
fn nonzero(id: u64) -> Result<u64> {
    match id {
        0 => Err(ids_end()),
        _ => Ok(id),
    }
}

#[cold]
fn ids_end() -> WireError {
    WireError::protocol("storage id 0: ids begin at 1 and do not wrap")
}

#[inline(always)]
fn slot_number(slot: u64) -> Result<u32> {
    u32::try_from(slot).map_err(|_| WireError::protocol("slot does not fit 32 bits"))
}

#[cold]
fn unknown_kind(kind: u64) -> WireError {
    WireError::protocol(format!("record kind {kind} means nothing"))
}

fn request(reader: &mut Reader<'_>) -> Result<u64> {
    match reader.varint()? {
        0 => Err(WireError::protocol("record that is answered has no request number")),
        request => Ok(request),
    }
}

fn borrowed(bytes: &[u8]) -> SkyBytes {
    SkyBytes { data: bytes.as_ptr(), size: bytes.len() as u64 }
}

impl Arena {
    fn clear(&mut self) {
        self.records.clear();
        self.storages.clear();
        self.slots.clear();
        self.scalars.clear();
        self.args.clear();
        self.templates.clear();
        self.template_items = 0;
    }

    /// Where the next storage id will be, as an index in bytes for [`Arena::link`].
    #[inline(always)]
    fn storages_here(&self) -> *const u64 {
        ptr::without_provenance(self.storages.len() * size_of::<u64>())
    }

    fn slots_here(&self) -> *const u32 {
        ptr::without_provenance(self.slots.len() * size_of::<u32>())
    }

    #[inline(always)]
    fn scalars_here(&self) -> *const SkyScalar {
        ptr::without_provenance(self.scalars.len() * size_of::<SkyScalar>())
    }

    /// Refuses what would take the message over its limit of ids. Ids of outputs may take no bytes at all.
    #[inline(always)]
    fn expect_storages(&self, n: usize) -> Result<()> {
        match self.storages.len() + n <= limits::MESSAGE_STORAGES {
            true => Ok(()),
            false => Err(too_many_storages()),
        }
    }

    fn link(&mut self) {
        let (storages, scalars, args) = (self.storages.as_ptr(), self.scalars.as_ptr(), self.args.as_ptr());
        let (slots, templates) = (self.slots.as_ptr(), self.templates.as_ptr());
        for record in &mut self.records {
            // Wrapping arithmetic on the arena's own pointer keeps its provenance; indexes are in bytes.
            record.storages = storages.wrapping_byte_add(record.storages.addr());
            record.scalars = scalars.wrapping_byte_add(record.scalars.addr());
            record.args = args.wrapping_byte_add(record.args.addr());
            record.slots = slots.wrapping_byte_add(record.slots.addr());
            if record.kind == SKY_RECORD_DEFINE {
                let template = templates.wrapping_byte_add(record.template_def.addr());
                record.template_def = template.cast::<SkyTemplate>();
            }
        }
    }
}

#[cold]
fn too_many_storages() -> WireError {
    let limit = limits::MESSAGE_STORAGES;
    WireError::limit(format!("more storage ids than a message may have ({limit})"))
}
