//! What the threads of a server share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use subtle::ConstantTimeEq;

use super::doors::Doors;
use super::holder::{Holder, Seat};
use super::session::Accepted;
use super::{ControlService, ServerCounters, ServerOptions};
use crate::error::{Code, Result, WireError};
use crate::ffi::{Landing, LandingApi};
use crate::net::socket::Traffic;

/// Ended sessions that are remembered.
const ENDED: usize = 1024;

/// See the module.
pub(crate) struct Shared {
    pub(super) options: ServerOptions,
    pub(super) control: Arc<OnceLock<ControlService>>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) sessions: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) records: AtomicU64,
    /// Readable once the server stops.
    pub(super) stop_event: OwnedFd,
    stopping: AtomicBool,
    landing: RwLock<Option<LandingApi>>,
    holder: Mutex<Option<Arc<Holder>>>,
    /// The last sessions that ended and how: what a client is told that missed the goodbye. None begins anew.
    ended: Mutex<VecDeque<([u8; 16], WireError)>>,
    /// When the last session lost its connection for good, or the start.
    last_used: Mutex<Instant>,
    waiting: Mutex<Option<Accepted>>,
    arrived: Condvar,
    pub(super) doors: Doors,
}

impl Shared {
    pub(super) fn new(options: ServerOptions, control: Arc<OnceLock<ControlService>>) -> Result<Shared> {
        let stop_event = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|e| WireError::new(Code::Internal, format!("cannot make an eventfd: {e}")))?;
        let doors = Doors::new(options.max_pending, options.max_connections);
        Ok(Shared {
            options,
            control,
            traffic: Arc::default(),
            sessions: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            records: AtomicU64::new(0),
            stop_event,
            stopping: AtomicBool::new(false),
            landing: RwLock::new(None),
            holder: Mutex::new(None),
            ended: Mutex::default(),
            last_used: Mutex::new(Instant::now()),
            waiting: Mutex::new(None),
            arrived: Condvar::new(),
            doors,
        })
    }

    pub(crate) fn set_landing(&self, api: Option<LandingApi>) {
        *self.landing.write() = api;
    }

    pub(crate) fn begin_landing(&self, transfer: u64, bytes: u64) -> Result<Landing> {
        let api = *self.landing.read();
        let begun = api.and_then(|api| api.begin(transfer, bytes));
        begun.ok_or_else(|| {
            let text = format!("the server has no memory for an upload of {bytes} bytes");
            WireError::new(Code::OpOutOfMemory, text)
        })
    }

    /// The session that is open.
    pub(crate) fn holder(&self) -> Option<Arc<Holder>> {
        self.holder.lock().clone()
    }

    /// Make `holder` the one, or say who is.
    pub(super) fn occupy(self: &Arc<Self>, holder: &Arc<Holder>) -> Result<Seat> {
        let mut slot = self.holder.lock();
        if self.is_stopping() {
            return Err(WireError::new(Code::SessionClosed, "the server is stopping"));
        }
        if let Some(other) = &*slot {
            return Err(other.busy(self.options.resume_timeout));
        }
        if self.ended.lock().iter().any(|(other, _)| holder.is_called(other)) {
            let text = "this hello was heard before: a session begins once, so connect anew";
            return Err(WireError::new(Code::Unauthenticated, text));
        }
        *slot = Some(holder.clone());
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(Seat { shared: self.clone(), holder: holder.clone() })
    }

    /// The session that a client wants to go on with, or why it cannot.
    pub(super) fn find(&self, id: &[u8; 16]) -> Result<Arc<Holder>> {
        if let Some(holder) = self.holder().filter(|holder| holder.is_called(id)) {
            return Ok(holder);
        }
        let ended =
            self.ended.lock().iter().find(|(other, _)| other.ct_eq(id).into()).map(|(_, error)| error.clone());
        let unknown = "the server does not know the session: was it started anew?";
        Err(ended.unwrap_or_else(|| WireError::new(Code::ConnectionLost, unknown)))
    }

    /// Remember how a session ended.
    pub(super) fn bury(&self, holder: &Holder, error: WireError) {
        let mut ended = self.ended.lock();
        if ended.len() == ENDED {
            ended.pop_front();
        }
        ended.push_back((holder.id(), error));
    }

    /// The session has ended.
    pub(super) fn vacate(&self, holder: &Arc<Holder>) {
        holder.set_dead();
        holder.arrivals.close();
        let mut slot = self.holder.lock();
        if slot.as_ref().is_some_and(|held| Arc::ptr_eq(held, holder)) {
            *slot = None;
        }
        let now = Instant::now();
        let away = holder.link.away().unwrap_or_default();
        *self.last_used.lock() = now.checked_sub(away).unwrap_or(now);
    }

    /// Hand a new session to whoever accepts.
    pub(super) fn deliver(&self, accepted: Accepted) {
        *self.waiting.lock() = Some(accepted);
        self.arrived.notify_all();
    }

    /// The next session, waiting at most this long.
    pub(super) fn accept(&self, timeout: Duration) -> Result<Accepted> {
        let deadline = Instant::now() + timeout;
        let mut waiting = self.waiting.lock();
        loop {
            if self.is_stopping() {
                return Err(WireError::new(Code::SessionClosed, "the server is stopping"));
            }
            if let Some(accepted) = waiting.take() {
                return Ok(accepted);
            }
            if self.arrived.wait_until(&mut waiting, deadline).timed_out() && waiting.is_none() {
                return Err(WireError::new(Code::Timeout, "no session yet"));
            }
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn stop(&self) {
        if self.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        let _ = rustix::io::write(&self.stop_event, &1u64.to_ne_bytes());
        for driver in self.doors.drivers() {
            driver.poke();
        }
        let waiting = self.waiting.lock().take();
        self.arrived.notify_all();
        drop(waiting);
    }

    pub(super) fn counters(&self) -> ServerCounters {
        let holder = self.holder();
        let (connected, unused, idle) = match &holder {
            None => {
                let unused = self.last_used.lock().elapsed();
                (false, unused, unused)
            }
            Some(holder) => {
                let away = holder.link.away();
                (away.is_none(), away.unwrap_or_default(), holder.idle())
            }
        };
        ServerCounters {
            sessions_served: self.sessions.load(Ordering::Relaxed),
            connections: self.doors.drivers().len() as u64,
            bytes_received: self.traffic.received.load(Ordering::Relaxed),
            bytes_sent: self.traffic.sent.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            session_age: holder.map(|holder| holder.age()),
            idle,
            connected,
            unused,
        }
    }
}
