//! Counts the bytes that a thread has allocated, so that a test can bound what hostile bytes make a decoder take.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are plain thread-local cells that
// allocate nothing and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get().wrapping_add(layout.size());
        NOW.set(now);
        // A block from before the measurement may be freed in it: `now` is then "negative" and no peak.
        if now <= isize::MAX as usize {
            PEAK.set(PEAK.get().max(now));
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.set(NOW.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most bytes that were allocated and not yet freed while `f` ran on this thread, above what was before.
pub(crate) fn peak_bytes_during(f: impl FnOnce()) -> usize {
    NOW.set(0);
    PEAK.set(0);
    f();
    PEAK.get()
}
