//! What a session's threads share about its connection: the queue to it, the replay log, the waits, and its end.
//!
//! It does no I/O. A connection that breaks is replaced by the pump, and until then what is sent only goes into the
//! log. The first failure of the session itself is the one that everybody is told; it never changes afterwards.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::pending::Pending;
use super::pump::Pump;
use crate::codec::frame::{self, OPS_HEADER_BYTES};
use crate::driver::Spawner;
use crate::error::{Code, WireError};
use crate::lane::Lane;
use crate::net::body::OutQueue;
use crate::net::message::framed;
use crate::{limits, proto};

/// A message that the server has not acknowledged.
struct Sent {
    last: u64,
    message: Bytes,
}

/// How things are with the newest connection.
enum Phase {
    /// It was told HELLO.
    Greeting,
    /// The server took the session, or took it up again.
    Welcomed(Box<proto::Welcome>),
    Connected,
    Broken(WireError),
    Refused(WireError),
}

/// Why a connection did not carry the session on.
pub(super) enum Stuck {
    /// Nobody listens at the address: the server is gone.
    Gone(WireError),
    /// It broke, or never came to be; another may do better.
    Broke(WireError),
    /// The server does not take the session, or the session is over.
    Refused(WireError),
}

struct Log {
    sent: VecDeque<Sent>,
    /// Position of the last record that was sent, and of the last that was acknowledged.
    last: u64,
    acknowledged: u64,
    /// Number of the newest connection.
    attempt: u64,
    phase: Phase,
    /// The session is to end after the last message.
    closing: bool,
    /// Since when part of a message is there.
    partial_since: Option<Instant>,
}

/// See the module.
pub(crate) struct Link {
    pub(super) out: Arc<OutQueue>,
    pub(super) pending: Pending,
    pub(super) lane: Arc<Lane>,
    pub(super) pump: Arc<Pump>,
    spawner: Spawner,
    log: Mutex<Log>,
    unacknowledged_bytes: AtomicUsize,
    unacknowledged_messages: AtomicUsize,
    failed: AtomicBool,
    failure: OnceLock<WireError>,
    /// What is added to some of the server's errors if it runs another torch.
    torches: OnceLock<String>,
}

impl Link {
    pub(super) fn new(spawner: Spawner, lane: Arc<Lane>) -> Link {
        let phase = Phase::Greeting;
        let log = Log {
            sent: VecDeque::new(),
            last: 0,
            acknowledged: 0,
            attempt: 0,
            phase,
            closing: false,
            partial_since: None,
        };
        Link {
            out: OutQueue::new(),
            pending: Pending::default(),
            lane,
            pump: Pump::new(),
            spawner,
            log: Mutex::new(log),
            unacknowledged_bytes: AtomicUsize::new(0),
            unacknowledged_messages: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failure: OnceLock::new(),
            torches: OnceLock::new(),
        }
    }

    /// The server runs another torch than this process: `note` says so.
    pub(super) fn set_torches(&self, note: String) {
        let _ = self.torches.set(note);
    }

    /// An error of the server, which names both torches where their difference may be the reason.
    pub(super) fn explained(&self, mut error: WireError) -> WireError {
        let by_torch = matches!(error.code, Code::NotSupported | Code::InvalidArgument | Code::Internal);
        if let (true, Some(note)) = (by_torch, self.torches.get()) {
            error.message.to_mut().push_str(note);
        }
        error
    }

    // --- Messages ---------------------------------------------------------------------------------------------

    /// Queue a message whose last record is at `last`, and keep it until it is acknowledged. Wakes nobody.
    pub(super) fn send(&self, last: u64, message: Bytes) {
        self.unacknowledged_bytes.fetch_add(message.len(), Ordering::Relaxed);
        self.unacknowledged_messages.fetch_add(1, Ordering::Relaxed);
        let mut log = self.log.lock();
        log.last = last;
        log.sent.push_back(Sent { last, message: message.clone() });
        if matches!(log.phase, Phase::Connected) {
            self.out.push([message]);
        }
    }

    /// Tell the server which answers have come: it keeps them until then.
    pub(super) fn send_receipt(&self) {
        let log = self.log.lock();
        if matches!(log.phase, Phase::Connected) && !log.closing {
            let mut receipt = [0; OPS_HEADER_BYTES];
            frame::seal_ops(&mut receipt, log.last + 1, self.pending.answered());
            self.out.push([framed(&receipt)]);
            drop(log);
            self.out.wake();
        }
    }

    /// Nothing comes after what was sent.
    pub(super) fn send_close(&self) {
        let mut log = self.log.lock();
        log.closing = true;
        if matches!(log.phase, Phase::Connected) {
            self.out.push([framed(&frame::close())]);
            self.out.finish(None);
        }
    }

    /// Whether `send_close` was called.
    pub(super) fn is_closing(&self) -> bool {
        self.log.lock().closing
    }

    /// Every record up to `position` is done with.
    pub(super) fn acknowledge(&self, position: u64) {
        self.forget(&mut self.log.lock(), position);
    }

    fn forget(&self, log: &mut Log, position: u64) {
        log.acknowledged = log.acknowledged.max(position);
        while log.sent.front().is_some_and(|sent| sent.last <= position) {
            let Some(sent) = log.sent.pop_front() else { break };
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

    // --- Connections ------------------------------------------------------------------------------------------

    /// A new connection is tried, and nobody listens to an older one any more.
    pub(super) fn begin_attempt(&self, attempt: u64) {
        let mut log = self.log.lock();
        log.attempt = attempt;
        log.phase = Phase::Greeting;
        log.partial_since = None;
    }

    /// Number of the newest connection.
    pub(super) fn attempts(&self) -> u64 {
        self.log.lock().attempt
    }

    /// What the server must know to take the session up over connection `attempt`.
    pub(super) fn resume(&self, attempt: u64) -> proto::Resume {
        self.pending.rewind();
        proto::Resume { acknowledged: self.log.lock().acknowledged, replies: self.pending.answered(), attempt }
    }

    /// The server's answer to the HELLO of connection `attempt`.
    pub(super) fn welcome(&self, attempt: u64, welcome: proto::Welcome) -> Result<(), WireError> {
        let mut log = self.log.lock();
        match log.phase {
            Phase::Greeting if log.attempt == attempt => log.phase = Phase::Welcomed(Box::new(welcome)),
            _ if log.attempt != attempt => {}
            _ => return Err(WireError::protocol("a second welcome on one connection")),
        }
        Ok(())
    }

    /// Whether the attempt has come to something.
    pub(super) fn is_greeted(&self) -> bool {
        self.is_failed() || !matches!(self.log.lock().phase, Phase::Greeting)
    }

    /// Go on over the connection that was welcomed: what the server does not have is sent again.
    pub(super) fn go_on(&self) -> Result<proto::Welcome, Stuck> {
        let mut log = self.log.lock();
        let welcome = match &log.phase {
            Phase::Welcomed(welcome) => (**welcome).clone(),
            Phase::Broken(error) => return Err(Stuck::Broke(error.clone())),
            Phase::Refused(error) => return Err(Stuck::Refused(error.clone())),
            Phase::Greeting | Phase::Connected => return Err(Stuck::Refused(self.failure())),
        };
        if log.attempt == 0 {
            // The session begins: its numbers follow the one that the server names.
            (log.last, log.acknowledged) = (welcome.position, welcome.position);
        }
        if welcome.position < log.acknowledged || welcome.position > log.last {
            let text = "the server does not remember the same session as this client";
            return Err(Stuck::Refused(WireError::new(Code::ConnectionLost, text)));
        }
        log.phase = Phase::Connected;
        self.forget(&mut log, welcome.position);
        self.out.push(log.sent.iter().map(|sent| sent.message.clone()));
        if log.closing {
            self.out.push([framed(&frame::close())]);
            self.out.finish(None);
        }
        drop(log);
        self.out.wake();
        Ok(welcome)
    }

    /// Connection `attempt` is of no more use. The pump replaces it, if the session had begun.
    pub(super) fn broke(&self, attempt: u64, error: WireError) {
        let mut log = self.log.lock();
        if log.attempt != attempt || matches!(log.phase, Phase::Broken(_) | Phase::Refused(_)) {
            return;
        }
        let was_connected = matches!(log.phase, Phase::Connected);
        log.phase = Phase::Broken(error);
        drop(log);
        if was_connected {
            self.pump.reconnect();
        }
        self.notify();
    }

    /// Only part of a message has come over connection `attempt`, or the rest of it as well.
    pub(super) fn set_partial(&self, attempt: u64, partial: bool) {
        let mut log = self.log.lock();
        if log.attempt == attempt {
            log.partial_since = partial.then(Instant::now);
        }
    }

    /// Give the connection up if the rest of a message does not come.
    pub(super) fn check_partial(&self) {
        let log = self.log.lock();
        if log.partial_since.is_some_and(|since| since.elapsed() > limits::MESSAGE_TIMEOUT) {
            let attempt = log.attempt;
            drop(log);
            self.broke(attempt, WireError::new(Code::ConnectionLost, "a message of the server is not complete"));
        }
    }

    /// The server does not take the session over connection `attempt`, or not any more.
    pub(super) fn refused(&self, attempt: u64, error: WireError) {
        let mut log = self.log.lock();
        if log.attempt == attempt {
            log.phase = Phase::Refused(error);
            drop(log);
            self.notify();
        }
    }

    /// Why the newest connection broke.
    pub(super) fn trouble(&self) -> Option<WireError> {
        match &self.log.lock().phase {
            Phase::Broken(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// What grows while the session makes progress.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.log.lock().acknowledged, self.pending.answered())
    }

    // --- The end ----------------------------------------------------------------------------------------------

    /// The session is over, because of this.
    pub(super) fn fail(&self, error: WireError) {
        let error = self.failure.get_or_init(|| error);
        self.failed.store(true, Ordering::Release);
        self.pending.fail_all(error);
        self.lane.abort(error);
        // Ends our half of the stream, so that the connection closes without waiting for the session's owner.
        self.out.finish(None);
        self.log.lock().sent.clear();
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
