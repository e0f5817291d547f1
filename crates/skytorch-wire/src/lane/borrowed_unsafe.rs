//! Unsafe: byte parts that point into memory of the caller, which therefore is never copied.
//!
//! The owner's `on_drop` runs once the last part is gone, wherever that happens: that is the moment from which the
//! caller may change or free the memory.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::payload::Payload;

/// See the module.
pub(crate) struct Borrowed {
    address: *const u8,
    bytes: usize,
    on_drop: Option<Box<dyn FnOnce() + Send>>,
}

// SAFETY: the memory is only read, and by the promise of `lent_by` it stays readable from any thread.
unsafe impl Send for Borrowed {}

impl Borrowed {
    /// Bytes at `address`; `on_drop` runs when nothing refers to them any more.
    ///
    /// # Safety
    /// `address` is readable for `bytes` bytes, and nobody writes to it, until `on_drop` is called.
    pub(crate) unsafe fn lent_by(address: *const u8, bytes: usize, on_drop: impl FnOnce() + Send + 'static) -> Bytes {
        Bytes::from_owner(Borrowed { address, bytes, on_drop: Some(Box::new(on_drop)) })
    }
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        if self.bytes == 0 {
            return &[];
        }
        // SAFETY: readable and unchanging by the promise of `lent_by`, for as long as this owner lives.
        unsafe { std::slice::from_raw_parts(self.address, self.bytes) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

/// Whether lent memory is still referred to.
#[derive(Default)]
pub(crate) struct Loan {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Loan {
    pub(crate) fn is_over(&self) -> bool {
        *self.over.lock()
    }

    /// Sleep until the loan is over, or `pause` has passed.
    pub(crate) fn wait(&self, pause: Duration) {
        let mut over = self.over.lock();
        if !*over {
            self.changed.wait_for(&mut over, pause);
        }
    }
}

/// Aborts if the lender would unwind while its memory is lent.
struct Unwinding;

impl Drop for Unwinding {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Ends the loan when the last piece is gone.
struct Returned(Arc<Loan>);

impl Drop for Returned {
    fn drop(&mut self) {
        *self.0.over.lock() = true;
        self.0.changed.notify_all();
    }
}

/// Lend `pieces` as parts to `start`; returns once nothing refers to them any more. Until then `wait` is called, over and
/// over, to pass the time.
pub(crate) fn lend(pieces: &[&[u8]], start: impl FnOnce(Payload), mut wait: impl FnMut(&Loan)) {
    let loan = Arc::new(Loan::default());
    let returned = Arc::new(Returned(loan.clone()));
    let guard = Unwinding;
    let lent = pieces.iter().map(|piece| {
        let returned = returned.clone();
        // SAFETY: `piece` is borrowed until this function returns, and it neither returns nor unwinds before the loan is
        // over, which it is when every `on_drop` ran.
        unsafe { Borrowed::lent_by(piece.as_ptr(), piece.len(), move || drop(returned)) }
    });
    let payload = lent.collect();
    drop(returned);
    start(payload);
    while !loan.is_over() {
        wait(&loan);
    }
    std::mem::forget(guard);
}
