//! What a session's threads share about its connection: the queue to it, the replay log, the waits, and its end.
//!
//! It does no I/O. The first failure is the one that everybody is told; it never changes afterwards.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use super::pending::Pending;
use crate::driver::Spawner;
use crate::error::{Code, WireError};
use crate::lane::Lane;
use crate::net::body::OutQueue;
use crate::proto;

/// A message that the server has not acknowledged.
struct Sent {
    last: u64,
    message: Bytes,
}

/// See the module.
pub(crate) struct Link {
    pub(super) out: Arc<OutQueue>,
    pub(super) pending: Pending,
    pub(super) lane: Arc<Lane>,
    spawner: Spawner,
    log: Mutex<VecDeque<Sent>>,
    unacknowledged_bytes: AtomicUsize,
    unacknowledged_messages: AtomicUsize,
    welcome: OnceLock<proto::Welcome>,
    failed: AtomicBool,
    failure: OnceLock<WireError>,
}

impl Link {
    pub(super) fn new(spawner: Spawner, lane: Arc<Lane>) -> Link {
        Link {
            out: OutQueue::new(),
            pending: Pending::default(),
            lane,
            spawner,
            log: Mutex::default(),
            unacknowledged_bytes: AtomicUsize::new(0),
            unacknowledged_messages: AtomicUsize::new(0),
            welcome: OnceLock::new(),
            failed: AtomicBool::new(false),
            failure: OnceLock::new(),
        }
    }

    /// Queue a message whose last record is at `last`, and keep it until it is acknowledged. Wakes nobody.
    pub(super) fn send(&self, last: u64, message: Bytes) {
        self.unacknowledged_bytes.fetch_add(message.len(), Ordering::Relaxed);
        self.unacknowledged_messages.fetch_add(1, Ordering::Relaxed);
        self.log.lock().push_back(Sent { last, message: message.clone() });
        self.out.push([message]);
    }

    /// Every record up to `position` is done with.
    pub(super) fn acknowledge(&self, position: u64) {
        let mut log = self.log.lock();
        while log.front().is_some_and(|sent| sent.last <= position) {
            let Some(sent) = log.pop_front() else { break };
            self.unacknowledged_bytes.fetch_sub(sent.message.len(), Ordering::Relaxed);
            self.unacknowledged_messages.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Bytes that would have to be sent again if the connection broke, copied uploads included.
    pub(super) fn unacknowledged_bytes(&self) -> usize {
        self.unacknowledged_bytes.load(Ordering::Relaxed) + self.lane.copied_bytes()
    }

    pub(super) fn unacknowledged_messages(&self) -> usize {
        self.unacknowledged_messages.load(Ordering::Relaxed)
    }

    pub(super) fn set_welcome(&self, welcome: proto::Welcome) -> Result<(), WireError> {
        self.welcome.set(welcome).map_err(|_| WireError::protocol("a second welcome on one connection"))
    }

    pub(super) fn welcome(&self) -> Option<&proto::Welcome> {
        self.welcome.get()
    }

    /// The session is over, because of this.
    pub(super) fn fail(&self, error: WireError) {
        let error = self.failure.get_or_init(|| error);
        self.failed.store(true, Ordering::Release);
        self.pending.fail_all(error);
        self.lane.abort(error);
        // Ends our half of the stream, so that the connection closes without waiting for the session's owner.
        self.out.finish(None);
        self.log.lock().clear();
        self.unacknowledged_bytes.store(0, Ordering::Relaxed);
        self.notify();
    }

    #[inline]
    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Why the session is over.
    pub(super) fn failure(&self) -> WireError {
        let unknown = || WireError::new(Code::ConnectionLost, "the connection to the server is gone");
        self.failure.get().cloned().unwrap_or_else(unknown)
    }

    /// Somebody's wait may be over.
    pub(super) fn notify(&self) {
        self.spawner.notify_waiters();
    }
}
