//! A landing in plain memory: one vector for each transfer.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use skytorch_wire::abi::*;

struct Transfer {
    number: u64,
    serial: u64,
    bytes: Vec<u8>,
    landings: *const Landings,
}

/// Transfers that have ended: their bytes, or the code they ended with.
#[derive(Default)]
pub struct Landings {
    ended: Mutex<HashMap<u64, Result<Vec<u8>, u32>>>,
    /// The newest landing of each transfer: an older one has no say.
    serials: Mutex<HashMap<u64, u64>>,
    changed: Condvar,
    resumed: Condvar,
    /// While set, nothing lands.
    paused: Mutex<bool>,
    /// A transfer larger than this gets no memory.
    pub limit: u64,
}

impl Landings {
    pub fn new(limit: u64) -> Arc<Landings> {
        Arc::new(Landings { limit, ..Landings::default() })
    }

    /// The functions for `set_landing`; they keep a plain pointer to `self`.
    pub fn api(self: &Arc<Landings>) -> SkyLandingApi {
        SkyLandingApi {
            ctx: Arc::as_ptr(self).cast_mut().cast(),
            begin: Some(begin),
            window: Some(window),
            commit: Some(commit),
            finish: Some(finish),
        }
    }

    /// The transfers that have begun, in order of their numbers.
    pub fn begun(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.serials.lock().unwrap().keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    pub fn pause(&self, paused: bool) {
        *self.paused.lock().unwrap() = paused;
        self.resumed.notify_all();
    }

    /// Wait for a transfer; `None` if `dead` says that it will not come.
    pub fn take(&self, transfer: u64, dead: impl Fn() -> bool) -> Option<Result<Vec<u8>, u32>> {
        let mut ended = self.ended.lock().unwrap();
        let start = Instant::now();
        loop {
            if let Some(found) = ended.remove(&transfer) {
                return Some(found);
            }
            if dead() || start.elapsed() > Duration::from_secs(60) {
                return None;
            }
            ended = self.changed.wait_timeout(ended, Duration::from_millis(50)).unwrap().0;
        }
    }
}

unsafe extern "C" fn begin(ctx: *mut c_void, transfer: u64, n_bytes: u64) -> *mut c_void {
    let landings = ctx.cast::<Landings>().cast_const();
    if n_bytes > unsafe { &*landings }.limit {
        unsafe { &*landings }.ended.lock().unwrap().insert(transfer, Err(SKY_ERR_LIMIT_EXCEEDED));
        unsafe { &*landings }.changed.notify_all();
        return std::ptr::null_mut();
    }
    let bytes = vec![0; n_bytes as usize];
    let mut serials = unsafe { &*landings }.serials.lock().unwrap();
    let serial = *serials.entry(transfer).and_modify(|serial| *serial += 1).or_insert(0);
    Box::into_raw(Box::new(Transfer { number: transfer, serial, bytes, landings })).cast()
}

unsafe extern "C" fn window(landing: *mut c_void, offset: u64, capacity: *mut u64) -> *mut u8 {
    let transfer = unsafe { &mut *landing.cast::<Transfer>() };
    let landings = unsafe { &*transfer.landings };
    let paused = landings.paused.lock().unwrap();
    drop(landings.resumed.wait_while(paused, |paused| *paused).unwrap());
    unsafe { *capacity = transfer.bytes.len() as u64 - offset };
    unsafe { transfer.bytes.as_mut_ptr().add(offset as usize) }
}

unsafe extern "C" fn commit(_: *mut c_void, _: u64, _: u64) {}

unsafe extern "C" fn finish(landing: *mut c_void, code: u32) {
    let transfer = unsafe { Box::from_raw(landing.cast::<Transfer>()) };
    let result = if code == SKY_OK { Ok(transfer.bytes) } else { Err(code) };
    let landings = unsafe { &*transfer.landings };
    if landings.serials.lock().unwrap().get(&transfer.number) != Some(&transfer.serial) {
        return;
    }
    landings.ended.lock().unwrap().insert(transfer.number, result);
    landings.changed.notify_all();
}
