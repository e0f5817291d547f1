//! A client's lane: a thread with a connection of its own, opened when the first upload comes.
//!
//! Jobs go out in order: the bytes of one after those of another, without waiting for the acknowledgement in between.
//! When the connection breaks, what was under way goes back into the queue and on over the next one. The subtle promise
//! is that a job ends exactly once, whatever happens: it is either in the queue or held by its `UnderWay`, which puts
//! it back when it is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;

use super::payload::Payload;
use super::upload::{Cancel, Upload, needs_checksum, upload};
use super::watch::Watch;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::limits;
use crate::net::body::OutBody;
use crate::net::http::{Target, connect};

/// Uploads that may wait for their acknowledgement at once.
const IN_FLIGHT: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One upload.
pub(crate) struct Job {
    ticket: String,
    data: Payload,
    /// Counts against the replay log: the bytes are our copy.
    copied: bool,
    cancel: Arc<Cancel>,
    done: Box<dyn FnOnce(Result<()>) + Send>,
    /// It gives its transfer up, because of this.
    abort: Option<Code>,
    /// Its place in the queue.
    order: u64,
    /// How often it was begun: the server may know of it.
    attempts: u32,
}

impl Job {
    /// `done` is told the outcome, once.
    pub(crate) fn new(
        ticket: String,
        data: Payload,
        copied: bool,
        cancel: Arc<Cancel>,
        done: Box<dyn FnOnce(Result<()>) + Send>,
    ) -> Job {
        Job { ticket, data, copied, cancel, done, abort: None, order: 0, attempts: 0 }
    }

    /// Tells the server that a transfer's bytes will never come, and why. If the transfer had begun, this ends it.
    pub(crate) fn abort(ticket: String, why: Code) -> Job {
        Job { abort: Some(why), ..Job::new(ticket, Payload::default(), false, Arc::default(), Box::new(|_| {})) }
    }
}

/// A job whose upload has begun.
struct UnderWay {
    lane: Arc<Lane>,
    job: Option<Job>,
}

impl UnderWay {
    fn end(mut self, result: Result<()>) {
        if let Some(job) = self.job.take() {
            self.lane.forget(&job);
            self.lane.end(job, result);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.lane.forget(&job);
            self.lane.insert(Job { attempts: job.attempts + 1, ..job });
        }
    }
}

/// Lives as long as the bytes of an upload are going out.
struct Sending(Arc<Lane>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.sending.store(false, Ordering::SeqCst);
        self.0.driver.poke();
    }
}

/// See the module.
pub(crate) struct Lane {
    target: Target,
    checksum: bool,
    driver: Driver,
    jobs: Mutex<VecDeque<Job>>,
    jobs_so_far: AtomicU64,
    /// Order and ticket of the uploads that have begun on the present connection.
    under_way: Mutex<VecDeque<(u64, String)>>,
    started: AtomicBool,
    stopping: AtomicBool,
    /// The connection is of no more use.
    broken: AtomicBool,
    /// The bytes of an upload are going out.
    sending: AtomicBool,
    copied_bytes: AtomicUsize,
    bytes_sent: AtomicU64,
    flow: Arc<AtomicU64>,
    failure: Mutex<Option<WireError>>,
}

impl Lane {
    pub(crate) fn new(target: Target, checksum: bool) -> Result<Arc<Lane>> {
        let checksum = checksum && needs_checksum(&target.address);
        Ok(Arc::new(Lane {
            target,
            checksum,
            driver: Driver::new()?,
            jobs: Mutex::default(),
            jobs_so_far: AtomicU64::new(0),
            under_way: Mutex::default(),
            started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            sending: AtomicBool::new(false),
            copied_bytes: AtomicUsize::new(0),
            bytes_sent: AtomicU64::new(0),
            flow: Arc::default(),
            failure: Mutex::default(),
        }))
    }

    /// Bytes of uploads that were copied and are not acknowledged.
    #[inline]
    pub(crate) fn copied_bytes(&self) -> usize {
        self.copied_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Queue an upload.
    pub(crate) fn push(self: &Arc<Lane>, mut job: Job) {
        if job.copied {
            self.copied_bytes.fetch_add(job.data.bytes() as usize, Ordering::Relaxed);
        }
        // An abort overtakes what waits: the server may wait for nothing else.
        job.order = if job.abort.is_some() { 0 } else { self.jobs_so_far.fetch_add(1, Ordering::Relaxed) + 1 };
        self.insert(job);
        if !self.started.swap(true, Ordering::SeqCst) {
            let lane = self.clone();
            let spawned = std::thread::Builder::new().name("sky-lane".into()).spawn(move || lane.run());
            if let Err(e) = spawned {
                self.abort(&WireError::new(Code::Internal, format!("cannot start the thread of a lane: {e}")));
                self.drain();
            }
        } else if self.stopping.load(Ordering::SeqCst) {
            self.drain();
        }
        self.poke();
    }

    /// Have the lane's thread look: an upload was cancelled, for example.
    pub(crate) fn poke(&self) {
        self.driver.poke();
    }

    /// Give the connection up: what is under way goes on over the next one, what was cancelled ends.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.poke();
    }

    /// End every upload with this error and take no more.
    pub(crate) fn abort(&self, error: &WireError) {
        self.failure.lock().get_or_insert_with(|| error.clone());
        self.stop();
    }

    /// End the thread.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.poke();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn insert(&self, job: Job) {
        let mut jobs = self.jobs.lock();
        let at = jobs.partition_point(|other| other.order <= job.order);
        jobs.insert(at, job);
    }

    fn forget(&self, job: &Job) {
        self.under_way.lock().retain(|(order, ticket)| *order != job.order || *ticket != job.ticket);
    }

    fn end(&self, job: Job, result: Result<()>) {
        let Job { data, copied, done, .. } = job;
        if copied {
            self.copied_bytes.fetch_sub(data.bytes() as usize, Ordering::Relaxed);
        }
        // Before the data is let go: whoever lent it looks for the outcome as soon as it has it back.
        done(result);
        drop(data);
    }

    /// Nobody will send what is queued.
    fn drain(&self) {
        let jobs = std::mem::take(&mut *self.jobs.lock());
        let error = self.failure.lock().clone();
        let gone = || WireError::new(Code::ConnectionLost, "the lane was closed before the upload ended");
        let error = error.unwrap_or_else(gone);
        for job in jobs {
            self.end(job, Err(error.clone()));
        }
    }

    /// End what was cancelled while it was queued.
    fn sweep(&self) {
        let cancelled: Vec<Job> = {
            let mut jobs = self.jobs.lock();
            let all = std::mem::take(&mut *jobs).into_iter();
            let (out, rest): (Vec<Job>, Vec<Job>) = all.partition(|job| job.cancel.is_cancelled());
            *jobs = rest.into();
            out
        };
        for job in cancelled {
            self.cancelled(job);
        }
    }

    fn cancelled(&self, job: Job) {
        // The server waits for the transfer in the op stream.
        self.insert(Job::abort(job.ticket.clone(), Code::Interrupted));
        self.end(job, Err(WireError::new(Code::Interrupted, "the upload was cancelled")));
    }

    fn has_cancelled(&self) -> bool {
        self.jobs.lock().iter().any(|job| job.cancel.is_cancelled())
    }

    fn is_ready(&self) -> bool {
        !self.sending.load(Ordering::SeqCst)
            && self.under_way.lock().len() < IN_FLIGHT
            && !self.jobs.lock().is_empty()
    }

    fn run(self: Arc<Lane>) {
        let mut sender: Option<SendRequest<OutBody>> = None;
        let (mut watch, mut fruitless, mut seen) = (Watch::new(), 0, 0);
        loop {
            let broken = || self.broken.load(Ordering::SeqCst);
            let oldest = self.under_way.lock().front().map(|(_, ticket)| ticket.clone());
            let until = oldest.is_some().then(|| watch.next());
            let _ = self
                .driver
                .serve(until, || self.is_stopping() || broken() || self.is_ready() || self.has_cancelled());
            if self.is_stopping() {
                break;
            }
            self.sweep();
            let flow = self.flow.load(Ordering::Relaxed);
            if watch.is_silent(&self.target, oldest.as_deref(), flow) || broken() {
                // What was under way goes back into the queue.
                self.driver.clear();
                (sender, watch) = (None, Watch::new());
                self.broken.store(false, Ordering::SeqCst);
                fruitless = if flow == seen { fruitless + 1 } else { 0 };
                seen = flow;
                if fruitless > limits::FRUITLESS_CONNECTIONS {
                    let text = "the lane breaks again and again without any progress";
                    self.abort(&WireError::new(Code::ConnectionLost, text));
                }
                continue;
            }
            if !self.is_ready() {
                continue;
            }
            if sender.as_ref().is_none_or(SendRequest::is_closed) {
                sender = self.connect(fruitless);
            }
            let Some(sender) = &sender else { continue };
            let Some(job) = self.jobs.lock().pop_front() else { continue };
            self.start(job, sender.clone());
        }
        self.driver.clear();
        self.drain();
    }

    /// A connection; `None` if the lane is to stop, or to look at its queue.
    fn connect(self: &Arc<Lane>, fruitless: u32) -> Option<SendRequest<OutBody>> {
        let start = Instant::now();
        let mut pause = limits::FIRST_PAUSE * (1 << fruitless.min(5));
        if fruitless > 0 {
            let _ = self.driver.serve(Some(start + pause), || self.is_stopping());
        }
        while !self.is_stopping() {
            let lane = self.clone();
            let ended = move |_| lane.broken.store(true, Ordering::SeqCst);
            match connect(&self.driver, &self.target, Instant::now() + CONNECT_TIMEOUT, false, ended) {
                Ok(sender) => {
                    self.broken.store(false, Ordering::SeqCst);
                    return Some(sender);
                }
                // That the server is gone is for the session to find out.
                Err(error) if start.elapsed() > limits::RESUME_TIMEOUT => {
                    let text = format!("cannot open a lane: {}", WireError::from(error));
                    self.abort(&WireError::new(Code::ConnectionLost, text));
                }
                Err(_) => {
                    let until = Instant::now() + pause;
                    let _ = self.driver.serve(Some(until), || self.is_stopping() || self.has_cancelled());
                    self.sweep();
                    pause = (2 * pause).min(limits::LAST_PAUSE);
                }
            }
        }
        None
    }

    fn start(self: &Arc<Lane>, job: Job, mut sender: SendRequest<OutBody>) {
        self.under_way.lock().push_back((job.order, job.ticket.clone()));
        self.sending.store(true, Ordering::SeqCst);
        let (lane, sending) = (self.clone(), Box::new(Sending(self.clone())));
        let (ticket, cancel) = (job.ticket.clone(), job.cancel.clone());
        let (attempt, abort) = (job.attempts, job.abort);
        // The job keeps its data until the acknowledgement, also after the last of it went out.
        let data = job.data.clone();
        let mut under_way = UnderWay { lane: self.clone(), job: Some(job) };
        self.driver.spawner().spawn(async move {
            let bytes = data.bytes();
            let outgoing = Upload {
                target: &lane.target,
                ticket: &ticket,
                checksum: lane.checksum,
                cancel: &cancel,
                flow: &lane.flow,
                abort,
            };
            match upload(&mut sender, &outgoing, data, attempt, sending).await {
                // The lane's thread puts it back.
                Err(error) if error.code == Code::ConnectionLost => {
                    lane.break_off();
                    std::future::pending::<()>().await;
                }
                Err(error) if error.code == Code::Interrupted => {
                    if let Some(job) = under_way.job.take() {
                        lane.forget(&job);
                        lane.cancelled(job);
                    }
                }
                result => {
                    match &result {
                        Ok(()) => drop(lane.bytes_sent.fetch_add(bytes, Ordering::Relaxed)),
                        // If its transfer has not begun there, the server waits for it in the op stream.
                        Err(_) if abort.is_none() => lane.insert(Job::abort(ticket, Code::ConnectionLost)),
                        Err(_) => {}
                    }
                    under_way.end(result);
                }
            }
            lane.poke();
        });
    }
}
