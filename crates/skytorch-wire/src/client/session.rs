//! A client session: the stream and its lock, the connection's driver, and the rules for when to send.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::connect::Connector;
use super::link::Link;
use super::stream::{Progress, Stream};
use super::{ConnectOptions, ServerInfo};
use crate::abi::{SKY_CALL_TAKE_POISON, SkySession, SkyStats};
use crate::driver::{Driver, Stop};
use crate::error::{Code, Result, WireError};
use crate::net::DeviceInfo;
use crate::net::address::Address;
use crate::net::http::{Target, stopped};
use crate::net::process_unsafe::Lifetime;

/// How long a close waits for the server to run what was issued before.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// One session with a server. All its functions may be called from any thread.
pub struct ClientSession {
    pub(super) stream: Mutex<Stream>,
    pub(super) link: Arc<Link>,
    pub(super) driver: Arc<Driver>,
    pub(super) target: Target,
    /// How other servers reach this session's.
    pub(super) peer: Address,
    pub(super) session_id: [u8; 16],
    pub(super) welcomed: Instant,
    pub(super) options: ConnectOptions,
    /// Addresses of other servers, and whether this session's server can reach them.
    pub(super) reachable: Mutex<HashMap<String, bool>>,
    info: ServerInfo,
    lifetime: Lifetime,
    /// Appending must look twice: the session is dead or closed.
    stopped: AtomicBool,
}

/// What `connect` has put together.
pub(super) struct Parts {
    pub(super) link: Arc<Link>,
    pub(super) driver: Arc<Driver>,
    pub(super) target: Target,
    pub(super) peer: Address,
    pub(super) session_id: [u8; 16],
    pub(super) options: ConnectOptions,
    pub(super) info: ServerInfo,
    /// Behind which records are numbered.
    pub(super) position: u64,
}

impl ClientSession {
    /// Connect, authenticate and open a session.
    pub fn connect(options: &ConnectOptions) -> Result<Arc<ClientSession>> {
        super::connect::connect(options)
    }

    pub(super) fn new(parts: Parts, connector: Connector) -> Result<Arc<ClientSession>> {
        let session = Arc::new(ClientSession {
            stream: Mutex::new(Stream::new(parts.options.slots, parts.position)),
            link: parts.link,
            driver: parts.driver,
            target: parts.target,
            peer: parts.peer,
            session_id: parts.session_id,
            welcomed: Instant::now(),
            options: parts.options,
            reachable: Mutex::default(),
            info: parts.info,
            lifetime: Lifetime::here(),
            stopped: AtomicBool::new(false),
        });
        session.link.pump.start(&session, connector)?;
        Ok(session)
    }

    /// Whether the session can be used: connected, not closed, and not a forked child's.
    pub fn is_open(&self) -> bool {
        self.check().is_ok()
    }

    /// The server's devices.
    pub fn devices(&self) -> &[DeviceInfo] {
        &self.info.devices
    }

    /// What the server said about itself.
    pub fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// Template slots.
    pub fn slots(&self) -> u32 {
        self.options.slots
    }

    /// Counters since the session began.
    pub fn stats(&self) -> SkyStats {
        let mut stats = if self.lifetime.is_here() { self.stream.lock().stats } else { SkyStats::default() };
        stats.bytes_received = self.target.traffic.received.load(Ordering::Relaxed);
        stats.lane_bytes_sent = self.link.lane.bytes_sent();
        stats
    }

    /// False in a forked child.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.lifetime.is_here()
    }

    pub(crate) fn stream_lock(&self) -> &Mutex<Stream> {
        &self.stream
    }

    /// Append with the lock held.
    #[inline]
    pub(crate) fn append(
        &self,
        stream: &mut Stream,
        write: impl FnOnce(&mut Stream, &Link) -> Result<()>,
    ) -> Result<()> {
        write(stream, &self.link)
    }

    /// For the C ABI: borrowed, valid while the `Arc` is.
    pub fn as_raw(self: &Arc<Self>) -> *const SkySession {
        Arc::as_ptr(self).cast()
    }

    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        if self.lifetime.is_here() && !self.stopped.load(Ordering::Relaxed) && !self.link.is_failed() {
            return Ok(());
        }
        Err(self.trouble())
    }

    #[cold]
    fn trouble(&self) -> WireError {
        if !self.lifetime.is_here() {
            return WireError::new(
                Code::Forked,
                "this session belongs to the process that was forked; open a Compute of its own in the child",
            );
        }
        // A failure that came first is the better answer: the program closed what was broken already.
        if self.link.is_failed() && !self.stopped.load(Ordering::Relaxed) {
            return self.link.failure();
        }
        WireError::new(Code::SessionClosed, "the session was closed; tensors of a closed Compute cannot be used")
    }

    /// Take the stream lock; waits first while too much is unacknowledged.
    #[inline]
    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, Stream>> {
        self.check()?;
        if self.link.unacknowledged_bytes() > self.options.replay_bytes {
            self.wait_for_room()?;
        }
        Ok(self.stream.lock())
    }

    #[cold]
    fn wait_for_room(&self) -> Result<()> {
        let room = self.options.replay_bytes / 2;
        let waited = self.driver.wait(None, || self.link.is_failed() || self.link.unacknowledged_bytes() <= room);
        waited.map_err(|stop| stopped(stop, "waiting for the server to catch up"))?;
        self.check()
    }

    /// Release the lock; send if it is time to.
    #[inline]
    pub(crate) fn unlock(&self, mut stream: MutexGuard<'_, Stream>) {
        if stream.is_due() {
            stream.cut(&self.link);
        }
        let queued = stream.take_queued();
        let open = stream.has_open_message();
        drop(stream);
        if queued {
            self.send();
        }
        if open {
            self.link.pump.has_work();
        }
    }

    /// Send everything that was appended, at once.
    pub(crate) fn unlock_and_flush(&self, mut stream: MutexGuard<'_, Stream>) {
        stream.close_gather(&self.link);
        self.unlock_and_cut(stream);
    }

    /// Send everything but what is being gathered.
    fn unlock_and_cut(&self, mut stream: MutexGuard<'_, Stream>) {
        stream.cut(&self.link);
        let queued = stream.take_queued();
        drop(stream);
        if queued {
            self.send();
        }
    }

    /// Hand what is queued to the socket, unless another thread is about to.
    fn send(&self) {
        self.link.out.wake();
        self.driver.turn(self.link.unacknowledged_messages() > 1);
        self.link.pump.has_work();
    }

    /// Flush without waiting for the server. Takes the lock itself.
    pub(crate) fn flush(&self) {
        if self.check().is_ok() {
            self.unlock_and_flush(self.stream.lock());
        }
    }

    /// A tick of the pump: send what has been lying around, look for news. Copies are not sent while they are `gathering`.
    pub(super) fn tick(&self, flush: bool, gathering: bool, look: bool) {
        if !self.lifetime.is_here() {
            return;
        }
        if flush && let Some(stream) = self.stream.try_lock() {
            if gathering {
                self.unlock_and_cut(stream);
            } else {
                self.unlock_and_flush(stream);
            }
        }
        if look {
            self.driver.turn(true);
        }
    }

    /// Ask what has become of messages that the server has not acknowledged for long: one may have been lost on the way.
    pub(super) fn ask_for_news(&self) {
        self.link.send_receipt();
        self.driver.turn(false);
    }

    /// Position of the last record that the server has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.link.progress().0
    }

    /// The server has not acknowledged everything that was sent.
    pub(super) fn is_behind(&self) -> bool {
        self.link.unacknowledged_messages() > 0
    }

    /// What the pump compares between ticks. `None` while somebody appends.
    pub(super) fn progress(&self) -> Option<Progress> {
        Some(self.stream.try_lock()?.progress())
    }

    /// The first failure that nobody has read, once the server has run what was issued; it counts as read from then on.
    /// `Timeout` if the server takes longer than that.
    pub fn take_failure(&self, timeout: Option<Duration>) -> Result<()> {
        self.check()?;
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.ask_until(self.stream.lock(), deadline, SKY_CALL_TAKE_POISON, &[], b"").map(drop)
    }

    /// [`close_within`](ClientSession::close_within) a minute.
    pub fn close(&self) -> Result<()> {
        self.close_within(CLOSE_TIMEOUT)
    }

    /// Flush, say goodbye, let the server run everything; it does so also if that takes longer than the `timeout`.
    /// Later calls do nothing. What was closed stays closed whatever this answers.
    pub fn close_within(&self, timeout: Duration) -> Result<()> {
        if !self.lifetime.is_here() || self.stopped.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let result = if self.link.is_failed() { Ok(()) } else { self.say_goodbye(timeout) };
        self.link.fail(WireError::new(Code::SessionClosed, "the session was closed"));
        self.link.lane.stop();
        self.link.pump.stop();
        self.driver.clear();
        result
    }

    fn say_goodbye(&self, timeout: Duration) -> Result<()> {
        {
            let mut stream = self.stream.lock();
            stream.close_gather(&self.link);
            stream.cut(&self.link);
            self.link.send_close();
        }
        let deadline = Instant::now() + timeout;
        match self.driver.wait(Some(deadline), || self.link.is_failed()) {
            Ok(()) => match self.link.failure() {
                error if error.code == Code::SessionClosed => Ok(()),
                error => Err(error),
            },
            Err(Stop::TimedOut) => {
                Err(WireError::new(Code::Timeout, "the server did not finish before the close timed out"))
            }
            Err(stop) => Err(stopped(stop, "closing the session")),
        }
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        if !self.lifetime.is_here() {
            return;
        }
        self.stopped.store(true, Ordering::SeqCst);
        self.link.fail(WireError::new(Code::SessionClosed, "the session was dropped"));
        // The end of our half of the stream tells the server not to wait for us.
        self.driver.turn(false);
        self.link.lane.stop();
        self.link.pump.stop();
        self.driver.clear();
    }
}
