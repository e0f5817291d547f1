//! The landing that C++ offers for bulk bytes, behind safe functions.

use std::ffi::c_void;

use crate::abi::SkyLandingApi;
use crate::error::Code;

/// The functions that C++ gave. C++ promises that they may be called from any thread.
#[derive(Clone, Copy)]
pub(crate) struct LandingApi(SkyLandingApi);

// SAFETY: `ctx` is only handed back to C++, whose functions are thread-safe by the ABI ("called on lane threads").
unsafe impl Send for LandingApi {}
// SAFETY: as above; nothing here has state of its own.
unsafe impl Sync for LandingApi {}

impl LandingApi {
    /// # Safety
    /// The functions and `ctx` stay valid until they are replaced and no transfer is under way.
    pub(super) unsafe fn new(api: SkyLandingApi) -> LandingApi {
        LandingApi(api)
    }

    /// Begin a transfer; `None` if there is no memory for it.
    pub(crate) fn begin(&self, transfer: u64, bytes: u64) -> Option<Landing> {
        // SAFETY: the promise of `new`.
        let landing = unsafe { self.0.begin?(self.0.ctx, transfer, bytes) };
        (!landing.is_null()).then_some(Landing { api: self.0, landing })
    }
}

/// A transfer under way. It must be finished: dropping it does nothing, as C++ owns it from `finish` on.
pub(crate) struct Landing {
    api: SkyLandingApi,
    landing: *mut c_void,
}

// SAFETY: one thread at a time uses it, and C++ takes calls from any.
unsafe impl Send for Landing {}

impl Landing {
    /// Put `data` at `offset`. False if the transfer is dead.
    pub(crate) fn write(&mut self, mut offset: u64, mut data: &[u8]) -> bool {
        let (Some(window), Some(commit)) = (self.api.window, self.api.commit) else { return false };
        while !data.is_empty() {
            let mut capacity = 0;
            // SAFETY: the landing is one that `begin` returned and that was not finished.
            let address = unsafe { window(self.landing, offset, &mut capacity) };
            if address.is_null() || capacity == 0 {
                return false;
            }
            let count = usize::try_from(capacity).unwrap_or(usize::MAX).min(data.len());
            // SAFETY: C++ says that `capacity` bytes can be written at `address`, which nobody else refers to.
            unsafe {
                std::ptr::copy_nonoverlapping(data.as_ptr(), address, count);
                commit(self.landing, offset, count as u64);
            }
            offset += count as u64;
            data = &data[count..];
        }
        true
    }

    /// All bytes are there, or no more will come.
    pub(crate) fn finish(self, code: Code) {
        if let Some(finish) = self.api.finish {
            // SAFETY: as in `write`; the landing is not used afterwards.
            unsafe { finish(self.landing, code.number()) };
        }
    }
}
