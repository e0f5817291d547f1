//! The fake executor; see the module above.

use std::collections::HashMap;
use std::ptr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use skytorch_wire::abi::*;
use skytorch_wire::ffi::server_api;
use skytorch_wire::server::{Server, ServerOptions};

use super::landing::Landings;

pub type Journal = Arc<Mutex<Vec<(u8, Vec<u64>)>>>;

/// A server with its executor thread.
pub struct FakeServer {
    pub server: Arc<Server>,
    pub landings: Arc<Landings>,
    /// Every record that was executed: its kind and its storages, or its method and arguments.
    pub journal: Journal,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    pub fn start(options: ServerOptions) -> FakeServer {
        FakeServer::start_with(options, 8 << 30)
    }

    pub fn start_with(options: ServerOptions, landing_limit: u64) -> FakeServer {
        let mut server = FakeServer::without_executor(options, landing_limit);
        server.start_executor();
        server
    }

    /// It listens, as a server does that is still loading what it needs to run anything.
    pub fn without_executor(options: ServerOptions, landing_limit: u64) -> FakeServer {
        let server = Server::bind(options).unwrap();
        server.start().unwrap();
        FakeServer { server, landings: Landings::new(landing_limit), journal: Journal::default(), thread: None }
    }

    pub fn start_executor(&mut self) {
        unsafe { (server_api().set_landing)(self.server.as_raw(), &self.landings.api()) };
        let (held, landed, kept) = (self.server.clone(), self.landings.clone(), self.journal.clone());
        let thread = std::thread::Builder::new().name("executor".into());
        self.thread = Some(thread.spawn(move || serve(&held, &landed, &kept)).unwrap());
    }

    pub fn address(&self) -> String {
        self.server.addresses().remove(0)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.server.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn error() -> SkyError {
    SkyError { code: 0, message: [0; SKY_MESSAGE_BYTES] }
}

fn text(error: &SkyError) -> String {
    let end = error.message.iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8(error.message[..end].to_vec()).unwrap()
}

fn serve(server: &Arc<Server>, landings: &Landings, journal: &Journal) {
    let api = server_api();
    loop {
        let (mut session, mut err) = (ptr::null_mut(), error());
        match unsafe { (api.accept)(server.as_raw(), 100, &mut session, &mut err) } {
            SKY_OK => {
                let (storages, poisons, reads) = (HashMap::new(), HashMap::new(), HashMap::new());
                Executor { api, session, landings, journal, storages, poisons, reads }.run();
            }
            SKY_ERR_TIMEOUT => {}
            _ => return,
        }
    }
}

struct Executor<'a> {
    api: &'static SkyServerApi,
    session: *mut SkyServerSession,
    landings: &'a Landings,
    journal: &'a Journal,
    storages: HashMap<u64, Vec<u8>>,
    /// The codes with which transfers into storages ended.
    poisons: HashMap<u64, u32>,
    /// Bytes that the template in a slot moves.
    reads: HashMap<u32, usize>,
}

/// The method numbers that the fake executor treats specially.
pub const SLOW_METHOD: u32 = SKY_CALL_EVENT_SYNCHRONIZE;

impl Executor<'_> {
    fn run(mut self) {
        loop {
            let (mut batch, mut err) = (SkyBatch { records: ptr::null(), n_records: 0 }, error());
            match unsafe { (self.api.next)(self.session, 1000, &mut batch, &mut err) } {
                SKY_OK => {
                    for record in unsafe { skytorch_wire::codec::raw::slice(batch.records, batch.n_records as usize) }
                    {
                        self.execute(record);
                    }
                }
                SKY_ERR_TIMEOUT => {}
                code => {
                    let message = text(&err);
                    let bytes = SkyBytes { data: message.as_ptr(), size: message.len() as u64 };
                    let code = if code == SKY_ERR_SESSION_CLOSED { SKY_OK } else { code };
                    unsafe { (self.api.session_close)(self.session, code, bytes) };
                    return;
                }
            }
        }
    }

    fn execute(&mut self, record: &SkyRecord) {
        let ids = unsafe { skytorch_wire::codec::raw::slice(record.storages, record.n_storages as usize) };
        let payload = unsafe { skytorch_wire::codec::raw::bytes(record.payload) };
        let args = unsafe { skytorch_wire::codec::raw::slice(record.args, record.n_args as usize) };
        let call = record.kind == SKY_RECORD_CALL;
        let named: Vec<u64> = if call { args.iter().map(|arg| *arg as u64).collect() } else { ids.to_vec() };
        self.journal.lock().unwrap().push((record.kind, named));
        match record.kind {
            SKY_RECORD_DEFINE => {
                let template = unsafe { &*record.template_def };
                if template.kind != SKY_TEMPLATE_OP {
                    let geometry = unsafe { (*template.args).geometry };
                    let sizes =
                        unsafe { skytorch_wire::codec::raw::slice(geometry.sizes, usize::from(geometry.ndim)) };
                    self.reads.insert(record.slot, sizes.iter().product::<i64>() as usize);
                }
            }
            SKY_RECORD_ALLOC => drop(self.storages.insert(ids[0], vec![0; record.n_bytes as usize])),
            SKY_RECORD_RESIZE => self.storages.get_mut(&ids[0]).unwrap().resize(record.n_bytes as usize, 0),
            SKY_RECORD_FREE => ids.iter().for_each(|id| drop(self.storages.remove(id))),
            SKY_RECORD_WRITE => self.storages.get_mut(&ids[0]).unwrap()[..payload.len()].copy_from_slice(payload),
            SKY_RECORD_WRITE_LANE => self.land(record, ids),
            SKY_RECORD_READ => self.read(record, ids[0]),
            SKY_RECORD_CALL if record.request != 0 => self.call(record, payload),
            SKY_RECORD_QUERY => self.answer(record.request, record.n_storages.into(), &[]),
            SKY_RECORD_SEND => self.send(record, ids),
            _ => {}
        }
    }

    fn lengths(&self, record: &SkyRecord) -> Vec<usize> {
        let slots = unsafe { skytorch_wire::codec::raw::slice(record.slots, record.n_storages as usize) };
        slots.iter().map(|slot| self.reads[slot]).collect()
    }

    fn send(&mut self, record: &SkyRecord, ids: &[u64]) {
        let lengths = self.lengths(record);
        let several = ids.len() > 1;
        // Of several tensors one that has no value is zeros; of a single one nothing is sent.
        let zeros = vec![0; if several { lengths.iter().copied().max().unwrap_or(0) } else { 0 }];
        let good: Vec<u8> = ids.iter().map(|id| self.storages.contains_key(id).into()).collect();
        let tensors = ids.iter().zip(&lengths).map(|(id, n)| {
            let data = self.storages.get(id).unwrap_or(&zeros);
            &data[..data.len().min(*n)]
        });
        let pieces: Vec<SkyBytes> = tensors
            .chain(several.then_some(&good[..]))
            .map(|piece| SkyBytes { data: piece.as_ptr(), size: piece.len() as u64 })
            .collect();
        let mut err = error();
        unsafe { (self.api.send)(self.session, record.payload, pieces.as_ptr(), pieces.len() as u32, &mut err) };
    }

    fn land(&mut self, record: &SkyRecord, ids: &[u64]) {
        let (api, session) = (self.api, self.session);
        let landed = self.landings.take(record.transfer, || unsafe { (api.session_dead)(session) } != 0);
        let Some(landed) = landed else { return };
        let lengths = self.lengths(record);
        let (total, mut at) = (lengths.iter().sum::<usize>(), 0);
        for (i, (storage, n)) in ids.iter().zip(lengths).enumerate() {
            let value = match &landed {
                Ok(bytes) if ids.len() == 1 => Ok(bytes.clone()),
                Ok(bytes) if bytes[total + i] == 1 => Ok(bytes[at..at + n].to_vec()),
                Ok(_) => Err(SKY_ERR_OP_RUNTIME),
                Err(code) => Err(*code),
            };
            match value {
                Ok(bytes) => drop(self.storages.insert(*storage, bytes)),
                Err(code) => {
                    self.storages.remove(storage);
                    self.poisons.insert(*storage, code);
                }
            }
            at += n;
        }
    }

    fn read(&mut self, record: &SkyRecord, storage: u64) {
        let mut err = error();
        let Some(data) = self.storages.get(&storage) else {
            let why = self.poisons.get(&storage).map(|code| format!(": its transfer ended with code {code}"));
            let message = format!("storage is poisoned{}", why.unwrap_or_default());
            let bytes = SkyBytes { data: message.as_ptr(), size: message.len() as u64 };
            unsafe { (self.api.reply_error)(self.session, record.request, SKY_ERR_OP_RUNTIME, bytes, &mut err) };
            return;
        };
        let n = self.reads[&record.slot] as u64;
        // Large answers in two pieces, to exercise them.
        let first = if n > 1 << 20 { n / 3 } else { n };
        loop {
            let mut code =
                unsafe { (self.api.reply_bytes)(self.session, record.request, n, data.as_ptr(), first, &mut err) };
            if code == SKY_OK && first < n {
                let rest = unsafe { data.as_ptr().add(first as usize) };
                code = unsafe { (self.api.reply_bytes)(self.session, record.request, n, rest, n - first, &mut err) };
            }
            if code != SKY_ERR_INTERRUPTED {
                return;
            }
        }
    }

    fn call(&mut self, record: &SkyRecord, payload: &[u8]) {
        let args = unsafe { skytorch_wire::codec::raw::slice(record.args, record.n_args as usize) };
        let value = match record.method {
            SKY_CALL_PROBE => i64::from(unsafe { (self.api.probe)(self.session, record.payload) }),
            SLOW_METHOD => {
                std::thread::sleep(std::time::Duration::from_millis(args[0] as u64));
                0
            }
            _ => args.iter().sum(),
        };
        self.answer(record.request, value, payload);
    }

    fn answer(&mut self, request: u64, value: i64, bytes: &[u8]) {
        let values = [SkyScalar { kind: SKY_SCALAR_INT, integer: value, ..SkyScalar::default() }];
        let reply = SkyReply {
            geometries: ptr::null(),
            n_geometries: 0,
            values: values.as_ptr(),
            n_values: 1,
            bytes: SkyBytes { data: bytes.as_ptr(), size: bytes.len() as u64 },
        };
        let mut err = error();
        unsafe { (self.api.reply)(self.session, request, &reply, &mut err) };
    }
}
