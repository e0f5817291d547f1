//! A client that speaks through the C ABI, as C++ does, with bytes for tensors.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use skytorch_wire::abi::*;
use skytorch_wire::client::{ClientSession, ConnectOptions};
use skytorch_wire::error::WireError;
use skytorch_wire::ffi::client_api;

/// A code and a message.
pub type Failure = (u32, String);

pub struct Client {
    pub session: Arc<ClientSession>,
    pub api: &'static SkyClientApi,
    next_slot: AtomicU64,
    next_storage: AtomicU64,
}

thread_local! {
    /// One for each thread, as C++ has it: clearing four kilobytes per call would cost more than the call.
    static ERROR: UnsafeCell<SkyError> = const { UnsafeCell::new(SkyError { code: 0, message: [0; SKY_MESSAGE_BYTES] }) };
}

fn check(f: impl FnOnce(*mut SkyError) -> u32) -> Result<(), Failure> {
    ERROR.with(|error| {
        let code = f(error.get());
        if code == SKY_OK {
            return Ok(());
        }
        let err = unsafe { &*error.get() };
        let end = err.message.iter().position(|byte| *byte == 0).unwrap();
        Err((code, String::from_utf8(err.message[..end].to_vec()).unwrap()))
    })
}

const NONE: SkyBytes = SkyBytes { data: ptr::null(), size: 0 };

impl Client {
    pub fn connect(options: &ConnectOptions) -> Result<Client, WireError> {
        let session = ClientSession::connect(options)?;
        Ok(Client { session, api: client_api(), next_slot: AtomicU64::new(0), next_storage: AtomicU64::new(1) })
    }

    pub fn to(address: &str) -> Client {
        Client::connect(&ConnectOptions { address: address.to_owned(), ..Default::default() }).unwrap()
    }

    pub fn raw(&self) -> *const SkySession {
        self.session.as_raw()
    }

    pub fn lock(&self) -> Result<(), Failure> {
        check(|err| unsafe { (self.api.lock)(self.raw(), err) })
    }

    pub fn unlock(&self) {
        unsafe { (self.api.unlock)(self.raw()) };
    }

    pub fn flush(&self) {
        unsafe { (self.api.flush)(self.raw()) };
    }

    /// Run one appending function of the table.
    pub fn append(
        &self,
        f: impl FnOnce(&SkyClientApi, *const SkySession, *mut SkyError) -> u32,
    ) -> Result<(), Failure> {
        self.lock()?;
        let result = check(|err| f(self.api, self.raw(), err));
        self.unlock();
        result
    }

    /// A READ or WRITE template for `bytes` bytes.
    pub fn define_bytes(&self, kind: u8, bytes: u64) -> Result<u32, Failure> {
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed) as u32;
        self.redefine_bytes(slot, kind, bytes)?;
        Ok(slot)
    }

    /// The same, into a slot that is in use.
    pub fn redefine_bytes(&self, slot: u32, kind: u8, bytes: u64) -> Result<(), Failure> {
        let (sizes, strides) = ([bytes as i64], [1i64]);
        let geometry =
            SkyGeometry { dtype: 0, ndim: 1, flags: 0, offset: 0, sizes: sizes.as_ptr(), strides: strides.as_ptr() };
        let arg = SkyArg {
            kind: SKY_ARG_TENSOR,
            flag: 0,
            count: 0,
            integer: 0,
            real: 0.0,
            imag: 0.0,
            bytes: NONE,
            geometry,
        };
        let template = SkyTemplate {
            kind,
            layout: SKY_LAYOUT_LOGICAL,
            device: 0,
            name: NONE,
            args: &arg,
            n_args: 1,
            outputs: ptr::null(),
            n_outputs: 0,
            n_storages: 1,
            n_scalars: 0,
        };
        self.append(|api, s, err| unsafe { (api.define)(s, slot, &template, err) })
    }

    /// An op with one input and one output of 16 floats.
    pub fn define_op(&self) -> Result<u32, Failure> {
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed) as u32;
        let (sizes, strides) = ([16i64], [1i64]);
        let geometry =
            SkyGeometry { dtype: 6, ndim: 1, flags: 0, offset: 0, sizes: sizes.as_ptr(), strides: strides.as_ptr() };
        let arg = SkyArg {
            kind: SKY_ARG_TENSOR,
            flag: 0,
            count: 0,
            integer: 0,
            real: 0.0,
            imag: 0.0,
            bytes: NONE,
            geometry,
        };
        let name = "aten::relu";
        let template = SkyTemplate {
            kind: SKY_TEMPLATE_OP,
            layout: SKY_LAYOUT_LOGICAL,
            device: 0,
            name: SkyBytes { data: name.as_ptr(), size: name.len() as u64 },
            args: &arg,
            n_args: 1,
            outputs: &geometry,
            n_outputs: 1,
            n_storages: 1,
            n_scalars: 0,
        };
        self.append(|api, s, err| unsafe { (api.define)(s, slot, &template, err) })?;
        Ok(slot)
    }

    pub fn new_storage(&self) -> u64 {
        self.next_storage.fetch_add(1, Ordering::Relaxed)
    }

    pub fn alloc(&self, bytes: u64) -> Result<u64, Failure> {
        let storage = self.new_storage();
        self.append(|api, s, err| unsafe { (api.alloc)(s, storage, bytes, 0, err) })?;
        Ok(storage)
    }

    pub fn op(&self, slot: u32, ids: &[u64]) -> Result<(), Failure> {
        let n = ids.len() as u32;
        self.append(|api, s, err| unsafe { (api.op)(s, slot, ids.as_ptr(), n, ptr::null(), 0, err) })
    }

    pub fn free(&self, storage: u64) -> Result<(), Failure> {
        self.append(|api, s, err| unsafe { (api.free)(s, &storage, 1, err) })
    }

    pub fn write(&self, slot: u32, storage: u64, data: &[u8]) -> Result<(), Failure> {
        self.lock()?;
        let n = data.len() as u64;
        check(|err| unsafe {
            (self.api.write)(self.raw(), slot, storage, data.as_ptr(), n, None, ptr::null_mut(), err)
        })
    }

    /// A write that holds `data` until it is released, which sets `released`.
    pub fn write_held(&self, slot: u32, storage: u64, data: &[u8], released: &AtomicU64) -> Result<(), Failure> {
        unsafe extern "C" fn release(ctx: *mut c_void) {
            unsafe { &*ctx.cast::<AtomicU64>() }.fetch_add(1, Ordering::SeqCst);
        }
        self.lock()?;
        let ctx = ptr::from_ref(released).cast_mut().cast();
        let n = data.len() as u64;
        check(|err| unsafe { (self.api.write)(self.raw(), slot, storage, data.as_ptr(), n, Some(release), ctx, err) })
    }

    pub fn read(&self, slot: u32, storage: u64, into: &mut [u8]) -> Result<(), Failure> {
        self.lock()?;
        let n = into.len() as u64;
        check(|err| unsafe { (self.api.read)(self.raw(), slot, storage, into.as_mut_ptr(), n, err) })
    }

    /// The first value and the bytes of an answer.
    pub fn ask(&self, method: u32, args: &[i64], payload: &[u8]) -> Result<(i64, Vec<u8>), Failure> {
        self.lock()?;
        let mut reply = ptr::null_mut();
        let payload = SkyBytes { data: payload.as_ptr(), size: payload.len() as u64 };
        check(|err| unsafe {
            (self.api.ask)(self.raw(), method, args.as_ptr(), args.len() as u32, payload, &mut reply, err)
        })?;
        let answer = unsafe {
            let reply = &*reply;
            let bytes = skytorch_wire::codec::raw::bytes(reply.bytes).to_vec();
            ((*reply.values).integer, bytes)
        };
        unsafe { (self.api.reply_free)(reply) };
        Ok(answer)
    }

    pub fn can_send(&self, other: &Client) -> bool {
        let mut can = 0;
        check(|err| unsafe { (self.api.can_send)(self.raw(), other.raw(), &mut can, err) }).unwrap();
        can == 1
    }

    pub fn send_between(&self, from: (u32, u64), other: &Client, to: (u32, u64), n: u64) -> Result<(), Failure> {
        self.lock()?;
        other.lock()?;
        let result = check(|err| unsafe {
            (self.api.send_between)(self.raw(), from.0, from.1, other.raw(), to.0, to.1, n, err)
        });
        other.unlock();
        self.unlock();
        result
    }

    /// Alloc, write and read back.
    pub fn round(&self, data: &[u8]) -> Result<Vec<u8>, Failure> {
        let n = data.len() as u64;
        let (write, read) = (self.define_bytes(SKY_TEMPLATE_WRITE, n)?, self.define_bytes(SKY_TEMPLATE_READ, n)?);
        let storage = self.alloc(n)?;
        self.write(write, storage, data)?;
        let mut back = vec![0; data.len()];
        self.read(read, storage, &mut back)?;
        Ok(back)
    }
}
