//! What a session keeps from one connection to the next: its position, the answers that the client may not have, and
//! which connection is the newest.
//!
//! A connection's thread puts a newer connection in (`resume`, then `offer`), the executor takes it over when it next
//! comes by (`claim`). The subtle thing is that both hold the one lock: once a newer connection was told the position,
//! no record of an older one is taken any more, so every record is taken exactly once (INV-6).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};

use super::serve::Connection;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::net::body::OutQueue;
use crate::net::message::Messages;
use crate::proto;

/// A connection as the executor uses it.
pub(super) struct Wire {
    pub(super) attempt: u64,
    pub(super) connection: Arc<Connection>,
    pub(super) driver: Arc<Driver>,
    pub(super) body: Incoming,
    pub(super) messages: Messages,
}

/// An answer that the client has not said to have.
struct Kept {
    request: u64,
    parts: Vec<Bytes>,
}

pub(super) struct State {
    /// Of the newest connection.
    connection: Arc<Connection>,
    out: Arc<OutQueue>,
    /// The newest connection, until the executor takes it over.
    next: Option<Wire>,
    /// What the executor waits on.
    executor: Weak<Driver>,
    /// Position of the last record that was taken.
    pub(super) position: u64,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// Request up to which the client has its answers.
    received: u64,
    closed: bool,
}

/// See the module.
pub(super) struct Link {
    state: Mutex<State>,
    /// Number of the newest connection; written under the lock.
    attempt: AtomicU64,
}

impl Link {
    pub(super) fn new(connection: Arc<Connection>, out: Arc<OutQueue>, position: u64) -> Link {
        Link {
            state: Mutex::new(State {
                connection,
                out,
                next: None,
                executor: Weak::new(),
                position,
                kept: VecDeque::new(),
                kept_bytes: 0,
                received: 0,
                closed: false,
            }),
            attempt: AtomicU64::new(0),
        }
    }

    // --- Connections ------------------------------------------------------------------------------------------

    /// A client shows up on a new connection, which wins over every older one. Its queue begins with what `welcome`
    /// makes of the position, then come the answers that it does not have.
    pub(super) fn resume(
        &self,
        resume: &proto::Resume,
        connection: &Arc<Connection>,
        welcome: impl FnOnce(u64) -> Bytes,
    ) -> Result<Arc<OutQueue>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(WireError::new(Code::ConnectionLost, "the session has ended"));
        }
        if resume.attempt <= self.attempt.load(Ordering::SeqCst) {
            return Err(WireError::new(Code::Unauthenticated, "this handshake was used before"));
        }
        if resume.replies < state.received || resume.acknowledged > state.position {
            return Err(WireError::protocol("the client and the server do not remember the same session"));
        }
        state.forget(resume.replies);
        let out = OutQueue::new();
        out.push([welcome(state.position)]);
        for kept in &state.kept {
            out.push(kept.parts.iter().cloned());
        }
        state.connection = connection.clone();
        state.out = out.clone();
        state.next = None;
        self.attempt.store(resume.attempt, Ordering::SeqCst);
        state.wake_executor();
        Ok(out)
    }

    /// Let the executor have a connection that was resumed. False if a newer one came meanwhile.
    pub(super) fn offer(&self, wire: Wire) -> bool {
        let mut state = self.state.lock();
        if state.closed || !self.is_newest(wire.attempt) {
            return false;
        }
        state.next = Some(wire);
        state.wake_executor();
        true
    }

    /// Whether the connection waits to be taken over.
    pub(super) fn is_offered(&self, attempt: u64) -> bool {
        self.state.lock().next.as_ref().is_some_and(|wire| wire.attempt == attempt)
    }

    pub(super) fn is_newest(&self, attempt: u64) -> bool {
        self.attempt.load(Ordering::SeqCst) == attempt
    }

    /// How long the client has been away; `None` while it is connected.
    pub(super) fn away(&self) -> Option<Duration> {
        self.state.lock().connection.ended_since()
    }

    // --- The executor -----------------------------------------------------------------------------------------

    /// From now on the executor waits on this driver.
    pub(super) fn wait_on(&self, driver: &Arc<Driver>) {
        self.state.lock().executor = Arc::downgrade(driver);
    }

    pub(super) fn has_offer(&self) -> bool {
        self.state.lock().next.is_some()
    }

    /// Take the newest connection over.
    pub(super) fn claim(&self) -> Option<Wire> {
        let mut state = self.state.lock();
        let wire = state.next.take()?;
        state.executor = Arc::downgrade(&wire.driver);
        Some(wire)
    }

    /// Hold the connections still to take records from the one numbered `attempt`, if it is still the newest.
    pub(super) fn hold(&self, attempt: u64) -> Option<MutexGuard<'_, State>> {
        let state = self.state.lock();
        self.is_newest(attempt).then_some(state)
    }

    /// No connection takes the session up any more. With a limit only if the client has been away for longer.
    pub(super) fn close(&self, away_limit: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        let expired = |limit| state.connection.ended_since().is_some_and(|away| away > limit);
        if !state.closed && away_limit.is_none_or(expired) {
            state.closed = true;
            state.next = None;
        }
        state.closed
    }

    // --- Answers ----------------------------------------------------------------------------------------------

    /// Queue something that need not arrive, if the connection numbered `attempt` is still the newest.
    pub(super) fn push(&self, attempt: u64, parts: impl IntoIterator<Item = Bytes>) {
        if let Some(state) = self.hold(attempt) {
            state.out.push(parts);
        }
    }

    /// Queue an answer and keep it until the client has it.
    pub(super) fn answer(&self, request: u64, parts: Vec<Bytes>) {
        let mut state = self.state.lock();
        state.kept_bytes += parts.iter().map(Bytes::len).sum::<usize>();
        state.out.push(parts.iter().cloned());
        state.kept.push_back(Kept { request, parts });
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.state.lock().kept_bytes
    }

    /// The client has every answer up to `request`.
    pub(super) fn received(&self, request: u64) {
        self.state.lock().forget(request);
    }

    pub(super) fn is_received(&self, request: u64) -> bool {
        self.state.lock().received >= request
    }

    /// The queue to the newest connection.
    pub(super) fn out(&self) -> Arc<OutQueue> {
        self.state.lock().out.clone()
    }
}

impl State {
    fn wake_executor(&self) {
        if let Some(driver) = self.executor.upgrade() {
            driver.poke();
        }
    }

    fn forget(&mut self, request: u64) {
        self.received = self.received.max(request);
        while self.kept.front().is_some_and(|kept| kept.request <= self.received) {
            let Some(kept) = self.kept.pop_front() else { break };
            self.kept_bytes -= kept.parts.iter().map(Bytes::len).sum::<usize>();
        }
    }
}
