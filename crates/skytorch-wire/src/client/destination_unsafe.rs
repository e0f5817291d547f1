//! Unsafe: the caller's memory into which a READ's bytes go.
//!
//! The pending table owns the destination while the caller waits and gives it up before the caller returns, so that
//! a late reply can never write to memory that is somebody else's by then.
#![allow(unsafe_code)]

/// See the module.
pub(crate) struct Destination {
    address: *mut u8,
    bytes: u64,
}

// SAFETY: the memory is only written through `write`, by whichever thread drives the connection, under the lock of
// the pending table.
unsafe impl Send for Destination {}

impl Destination {
    /// # Safety
    /// `address` is writable for `bytes` bytes until the destination is dropped.
    pub(crate) unsafe fn new(address: *mut u8, bytes: u64) -> Destination {
        Destination { address, bytes }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copy `data` to `offset`. The caller has checked that it fits; if it does not, this panics.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset.checked_add(data.len() as u64);
        assert!(end.is_some_and(|end| end <= self.bytes), "reply data past the end of its destination");
        if data.is_empty() {
            return;
        }
        // SAFETY: the range lies inside the destination by the assertion, which is writable by the promise of `new`.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.address.add(offset as usize), data.len()) };
    }
}
