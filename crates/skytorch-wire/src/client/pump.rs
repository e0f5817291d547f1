//! The helper thread of a session: late flushes, acknowledgements and keepalive while nobody waits, and the next
//! connection when one broke.
//!
//! It owns nothing: it takes the connection and the stream by `try_lock`. While the program appends it looks every
//! millisecond, sends what has been lying for one, and reads acknowledgements every 20. Once the program is quiet it
//! looks every 20 as long as the server has work, and then once a second, which is all that keepalive needs. The server
//! is asked once a second what has become of messages that it does not acknowledge: one that was lost on the way is
//! missed then. The subtle thing is `fast`: an append may skip waking the pump only while it is certain that the pump
//! will look within a millisecond.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connect::Connector;
use super::session::ClientSession;
use super::stream::Progress;
use crate::error::{Code, Result, WireError};

const FAST: Duration = Duration::from_millis(1);
const BUSY: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_secs(1);
/// Quiet fast ticks after which the pump slows down.
const FAST_TICKS: u32 = 50;
/// How long copies are gathered while more of them come: a loop without a pause is to be under way while it runs, and to
/// wait for the other server once in that time and not for each copy.
const GATHER: Duration = Duration::from_millis(20);
/// Fast ticks from one look at the socket to the next.
const LOOK_TICKS: u32 = 20;

/// See the module.
pub(super) struct Pump {
    fast: AtomicBool,
    stop: AtomicBool,
    /// The connection broke.
    broken: AtomicBool,
    gate: Mutex<()>,
    wake: Condvar,
}

impl Pump {
    pub(super) fn new() -> Arc<Pump> {
        Arc::new(Pump {
            fast: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            gate: Mutex::new(()),
            wake: Condvar::new(),
        })
    }

    pub(super) fn start(self: &Arc<Pump>, session: &Arc<ClientSession>, connector: Connector) -> Result<()> {
        let (pump, session) = (self.clone(), Arc::downgrade(session));
        let spawned =
            std::thread::Builder::new().name("sky-pump".into()).spawn(move || pump.run(&session, &connector));
        spawned
            .map(drop)
            .map_err(|e| WireError::new(Code::Internal, format!("cannot start the helper thread of a session: {e}")))
    }

    /// The connection broke: make another.
    pub(super) fn reconnect(&self) {
        let _gate = self.gate.lock();
        self.broken.store(true, Ordering::SeqCst);
        self.wake.notify_all();
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _gate = self.gate.lock();
        self.wake.notify_all();
    }

    /// Something was appended and not sent, or sent and not acknowledged.
    #[inline]
    pub(super) fn has_work(&self) {
        if !self.fast.load(Ordering::Relaxed) {
            self.speed_up();
        }
    }

    #[cold]
    fn speed_up(&self) {
        let _gate = self.gate.lock();
        if !self.fast.swap(true, Ordering::SeqCst) {
            self.wake.notify_all();
        }
    }

    fn run(&self, session: &Weak<ClientSession>, connector: &Connector) {
        let mut seen: Option<Progress> = None;
        let (mut quiet_ticks, mut ticks, mut busy) = (0, 0, false);
        let mut news = (None, Instant::now());
        loop {
            {
                let mut gate = self.gate.lock();
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                let pause = match self.fast.load(Ordering::SeqCst) {
                    true => FAST,
                    false if busy => BUSY,
                    false => SLOW,
                };
                if !self.broken.load(Ordering::SeqCst) {
                    self.wake.wait_for(&mut gate, pause);
                }
            }
            if self.broken.swap(false, Ordering::SeqCst) {
                connector.reconnect();
            }
            // The session's own drop stops the pump; if this was the last reference, that happens here.
            let Some(session) = session.upgrade() else { return };
            let progress = session.progress();
            let (lying, gathering) = match (&progress, &seen) {
                (Some(now), Some(before)) if now.is_open && before.is_open => {
                    (now.messages == before.messages, now.gathered != before.gathered)
                }
                _ => (false, false),
            };
            let gathering_since = progress.and_then(|now| now.gathering_since);
            let overdue = gathering_since.is_some_and(|since| since.elapsed() > GATHER);
            quiet_ticks = if progress.is_none() || progress != seen { 0 } else { quiet_ticks + 1 };
            if progress.is_some() {
                seen = progress;
            }
            let fast = self.fast.load(Ordering::SeqCst);
            ticks += 1;
            session.tick(lying || overdue, gathering && !overdue, !fast || ticks % LOOK_TICKS == 0);
            busy = session.is_behind();
            let acknowledged = Some(session.acknowledged());
            if !busy || news.0 != acknowledged {
                news = (acknowledged, Instant::now());
            } else if news.1.elapsed() > SLOW {
                news.1 = Instant::now();
                session.ask_for_news();
                session.link.check_partial();
            }
            if fast && quiet_ticks > FAST_TICKS {
                // Cleared first and looked at afterwards: an append in between is either seen here or wakes the pump.
                self.fast.store(false, Ordering::SeqCst);
                if session.progress().is_none_or(|progress| progress.is_open) {
                    self.fast.store(true, Ordering::SeqCst);
                }
            }
        }
    }
}
