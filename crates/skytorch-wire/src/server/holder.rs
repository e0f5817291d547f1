//! The session that holds the server: one at a time, from HELLO until the executor closes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use subtle::ConstantTimeEq;

use super::link::Link;
use super::shared::Shared;
use crate::error::{Code, Result, WireError};
use crate::lane::Ticket;
use crate::lane::arrival::Arrivals;
use crate::proto;

/// Between looks whether the session is over, while an upload waits for the executor to take it.
const LOOK: Duration = Duration::from_millis(50);

/// What everybody may know of the session; the executor's side is `ServerSession`.
pub(crate) struct Holder {
    id: [u8; 16],
    pub(super) link: Link,
    /// Template slots that were granted.
    pub(super) slots: u32,
    since: Instant,
    client: String,
    pub(crate) arrivals: Arrivals,
    /// The executor has taken it.
    taken: Mutex<bool>,
    changed: Condvar,
    dead: AtomicBool,
    /// Milliseconds from `since` to the last message.
    active_ms: AtomicU64,
}

/// The right to be the session; given up when it is dropped.
pub(super) struct Seat {
    pub(super) shared: Arc<Shared>,
    pub(super) holder: Arc<Holder>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.vacate(&self.holder);
    }
}

impl Holder {
    pub(super) fn new(hello: &proto::Hello, id: [u8; 16], slots: u32, link: Link, numbered_from: u64) -> Arc<Holder> {
        let client = hello.client.clone().unwrap_or_default();
        let client = format!("{}@{} (process {})", client.user, client.host, client.pid);
        Arc::new(Holder {
            id,
            link,
            slots,
            since: Instant::now(),
            client,
            arrivals: Arrivals::numbered_from(numbered_from),
            taken: Mutex::new(false),
            changed: Condvar::new(),
            dead: AtomicBool::new(false),
            active_ms: AtomicU64::new(0),
        })
    }

    /// Whether this is the session's id, in a time that tells nothing about it.
    pub(super) fn is_called(&self, id: &[u8; 16]) -> bool {
        self.id.ct_eq(id).into()
    }

    pub(super) fn id(&self) -> [u8; 16] {
        self.id
    }

    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Since the last message.
    pub(super) fn idle(&self) -> Duration {
        self.age().saturating_sub(Duration::from_millis(self.active_ms.load(Ordering::Relaxed)))
    }

    pub(super) fn touch(&self) {
        self.active_ms.store(u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn set_taken(&self) {
        *self.taken.lock() = true;
        self.changed.notify_all();
    }

    /// Wait until the executor has taken the session: a client is welcome before that, and so are its bytes, but there
    /// is nowhere to land them, and a transfer that was refused then would be waited for in vain.
    pub(crate) fn until_taken(&self, shared: &Shared) -> Result<()> {
        let mut taken = self.taken.lock();
        while !*taken {
            if self.is_dead() || shared.is_stopping() {
                return Err(WireError::new(
                    Code::SessionClosed,
                    "the session ended before the executor had taken it",
                ));
            }
            self.changed.wait_for(&mut taken, LOOK);
        }
        Ok(())
    }

    /// The session is over.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn set_dead(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// Check the ticket of an upload.
    pub(crate) fn verify(&self, ticket: &str) -> Result<Ticket> {
        let ticket = Ticket::verify(ticket, &self.id, self.age())?;
        if self.is_dead() {
            return Err(WireError::new(Code::Unauthenticated, "the session of an upload has ended"));
        }
        Ok(ticket)
    }

    /// What a second client is told.
    pub(super) fn busy(&self, resume_timeout: Duration) -> WireError {
        let state = match self.link.away() {
            None => format!("idle for {} s", self.idle().as_secs()),
            Some(away) => format!(
                "whose connection broke {} s ago and which may come back for {} s more",
                away.as_secs(),
                resume_timeout.saturating_sub(away).as_secs()
            ),
        };
        let text = format!(
            "the server is in use by {} for {} s, {state}; one server serves one session, so wait or start another",
            self.client,
            self.age().as_secs(),
        );
        WireError::new(Code::ServerBusy, text)
    }
}
