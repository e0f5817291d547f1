//! What is known about one socket: whether reading or writing is worth a system call, and which task to wake.
//!
//! The socket type in `net` clears a flag when a call came back short or would block; the core sets it again when
//! poll(2) says so. That is what keeps a round trip at one `recv` and one `send`: nobody tries a read that cannot
//! succeed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

use crate::net::process_unsafe::{Registered, register};

/// Readiness of one direction.
#[derive(Default)]
pub(crate) struct Direction {
    ready: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Direction {
    /// Worth trying?
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The last call showed that there is nothing more for now.
    pub(crate) fn exhausted(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// Wake this task when the direction becomes ready.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut slot = self.waker.lock();
        match &mut *slot {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    /// Somebody waits for this direction.
    pub(crate) fn wanted(&self) -> bool {
        self.waker.lock().is_some()
    }

    /// poll(2) reported it.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// One socket as the driver sees it.
pub(crate) struct Readiness {
    // Dropped before the descriptor, which the last owner closes.
    _registered: Registered,
    fd: OwnedFd,
    pub(crate) read: Direction,
    pub(crate) write: Direction,
}

impl Readiness {
    /// For this descriptor, which stays open as long as this lives. Both directions start as worth trying.
    pub(crate) fn new(fd: OwnedFd) -> Arc<Readiness> {
        let _registered = register(fd.as_fd());
        let readiness = Readiness { _registered, fd, read: Direction::default(), write: Direction::default() };
        readiness.read.set_ready();
        readiness.write.set_ready();
        Arc::new(readiness)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
