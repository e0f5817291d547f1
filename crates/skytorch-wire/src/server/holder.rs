//! The session that holds the server: one at a time, from HELLO until the executor closes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::shared::Shared;
use crate::error::{Code, Result, WireError};
use crate::lane::ticket::{Ticket, Used};
use crate::proto;

/// What everybody may know of the session; the executor's side is `ServerSession`.
pub(crate) struct Holder {
    id: [u8; 16],
    since: Instant,
    client: String,
    used: Mutex<Used>,
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
    pub(super) fn new(hello: &proto::Hello, id: [u8; 16]) -> Arc<Holder> {
        let client = hello.client.clone().unwrap_or_default();
        let client = format!("{}@{} (process {})", client.user, client.host, client.pid);
        Arc::new(Holder {
            id,
            since: Instant::now(),
            client,
            used: Mutex::default(),
            dead: AtomicBool::new(false),
            active_ms: AtomicU64::new(0),
        })
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

    /// The connection is gone or the session closed.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn set_dead(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// Let an upload in, once.
    pub(crate) fn admit(&self, ticket: &str) -> Result<Ticket> {
        let ticket = Ticket::verify(ticket, &self.id, self.age())?;
        if self.is_dead() || !self.used.lock().claim(ticket.transfer) {
            return Err(WireError::new(Code::Unauthenticated, "the ticket of an upload was used before"));
        }
        Ok(ticket)
    }

    /// What a second client is told.
    pub(super) fn busy(&self) -> WireError {
        let text = format!(
            "the server is in use by {} for {} s, idle for {} s; one server serves one session, so wait or start another",
            self.client,
            self.age().as_secs(),
            self.idle().as_secs()
        );
        WireError::new(Code::ServerBusy, text)
    }
}
