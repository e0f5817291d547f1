//! Unsafe: the things that are the process's and not a session's: forks and malloc's thresholds.
//!
//! The statics are what a fork handler can reach: how often this process is the child of a fork since the library was
//! loaded, and the sockets that are open. In the child each socket is replaced by /dev/null, so that a child that
//! lives on does not keep its parent's connections open; nothing is shut down or sent. Replacing and not closing keeps
//! the numbers taken, so that whoever owns a descriptor may still close it.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);
static PREPARE: Once = Once::new();
/// Sockets of this process; `NO_SOCKET` marks a free entry. Those beyond the table stay open in a child.
static SOCKETS: [AtomicI32; 256] = [const { AtomicI32::new(NO_SOCKET) }; 256];
const NO_SOCKET: i32 = -1;

/// Blocks below this size are recycled by malloc and not mapped anew each time: it covers HTTP/2 frame buffers, whose
/// pages would otherwise be cleared by the kernel once per megabyte received.
const MMAP_THRESHOLD_BYTES: i32 = 4 << 20;
/// Free memory at the top of the heap that is kept.
const TRIM_THRESHOLD_BYTES: i32 = 32 << 20;

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: open, dup2 and close are safe between fork and exec, and touch only descriptors that are sockets of
    // ours: an entry is removed before its socket is closed.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if null < 0 {
            return;
        }
        for entry in &SOCKETS {
            let socket = entry.swap(NO_SOCKET, Ordering::Relaxed);
            if socket != NO_SOCKET {
                libc::dup3(null, socket, libc::O_CLOEXEC);
            }
        }
        libc::close(null);
    }
}

/// A socket that a forked child must let go of, until this is dropped.
#[derive(Debug)]
pub(crate) struct Registered(Option<usize>);

/// Enter a socket; drop the answer before it is closed.
pub(crate) fn register(socket: BorrowedFd<'_>) -> Registered {
    prepare();
    let fd = socket.as_raw_fd();
    let free = |entry: &AtomicI32| entry.compare_exchange(NO_SOCKET, fd, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    Registered(SOCKETS.iter().position(free))
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(at) = self.0 {
            SOCKETS[at].store(NO_SOCKET, Ordering::SeqCst);
        }
    }
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
