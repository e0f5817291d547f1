//! Unsafe: the two things that are the process's and not a session's: fork detection and malloc's thresholds.
//!
//! The static counter is the process's identity: a fork handler can reach nothing else. It holds how often this
//! process is the child of a fork since the library was loaded.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Once;

static FORKS: AtomicU64 = AtomicU64::new(0);
static PREPARE: Once = Once::new();

/// Blocks below this size are recycled by malloc and not mapped anew each time: it covers HTTP/2 frame buffers, whose
/// pages would otherwise be cleared by the kernel once per megabyte received.
const MMAP_THRESHOLD_BYTES: i32 = 4 << 20;
/// Free memory at the top of the heap that is kept.
const TRIM_THRESHOLD_BYTES: i32 = 32 << 20;

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Do once per process what needs doing before the first connection.
pub(crate) fn prepare() {
    PREPARE.call_once(|| {
        // SAFETY: the handler only touches an atomic, which is all that a forked child may do safely.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        #[cfg(target_env = "gnu")]
        // SAFETY: mallopt takes plain integers and may be called at any time.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES);
        }
    });
}

/// Remembers the process in which something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    forks: u64,
}

impl Lifetime {
    pub(crate) fn here() -> Lifetime {
        prepare();
        Lifetime { forks: FORKS.load(Ordering::Relaxed) }
    }

    /// False in a forked child of that process.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.forks
    }
}
