//! A client's lane: a thread with a connection of its own, opened when the first upload comes.
//!
//! Jobs go out in order: the bytes of one after those of another, without waiting for the acknowledgement in between.
//! The subtle promise is that a job ends exactly once, whatever happens: its
//! `Done` reports a failure when it is dropped unreported, and the connection is dropped before the thread ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;

use super::upload::{Cancel, needs_checksum, upload};
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::net::body::OutBody;
use crate::net::http::{Target, connect};

/// Uploads that may wait for their acknowledgement at once.
const IN_FLIGHT: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// One upload.
pub(crate) struct Job {
    pub(crate) ticket: String,
    pub(crate) data: Bytes,
    /// Counts against the replay log: the bytes are our copy.
    pub(crate) copied: bool,
    pub(crate) cancel: Arc<Cancel>,
    pub(crate) done: Box<dyn FnOnce(Result<()>) + Send>,
}

impl Job {
    /// Tells the server that a transfer's bytes will never come: an upload that ends before its last byte. If the
    /// transfer had begun otherwise, this is refused, and that is well.
    pub(crate) fn abort(ticket: String) -> Job {
        Job { ticket, data: Bytes::new(), copied: false, cancel: Arc::default(), done: Box::new(|_| {}) }
    }
}

/// Reports a job's end once.
struct Done {
    lane: Arc<Lane>,
    copied_bytes: usize,
    report: Option<Box<dyn FnOnce(Result<()>) + Send>>,
}

impl Done {
    fn report(&mut self, result: Result<()>) {
        if let Some(report) = self.report.take() {
            self.lane.copied_bytes.fetch_sub(self.copied_bytes, Ordering::Relaxed);
            report(result);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if self.report.is_some() {
            let error = self.lane.failure.lock().clone();
            let gone = || WireError::new(Code::ConnectionLost, "the lane was closed before the upload ended");
            self.report(Err(error.unwrap_or_else(gone)));
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
    started: AtomicBool,
    stopping: AtomicBool,
    in_flight: AtomicUsize,
    /// The bytes of an upload are going out.
    sending: AtomicBool,
    copied_bytes: AtomicUsize,
    bytes_sent: AtomicU64,
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
            started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            sending: AtomicBool::new(false),
            copied_bytes: AtomicUsize::new(0),
            bytes_sent: AtomicU64::new(0),
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
    pub(crate) fn push(self: &Arc<Lane>, job: Job) {
        if job.copied {
            self.copied_bytes.fetch_add(job.data.len(), Ordering::Relaxed);
        }
        self.jobs.lock().push_back(job);
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
        self.driver.poke();
    }

    /// End every upload with this error and take no more.
    pub(crate) fn abort(&self, error: &WireError) {
        self.failure.lock().get_or_insert_with(|| error.clone());
        self.stop();
    }

    /// End the thread.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.driver.poke();
    }

    fn done_of(self: &Arc<Lane>, job: &mut Job) -> Done {
        let report = std::mem::replace(&mut job.done, Box::new(|_| {}));
        Done { lane: self.clone(), copied_bytes: if job.copied { job.data.len() } else { 0 }, report: Some(report) }
    }

    /// Nobody will send what is queued.
    fn drain(self: &Arc<Lane>) {
        let jobs = std::mem::take(&mut *self.jobs.lock());
        for mut job in jobs {
            drop(self.done_of(&mut job));
        }
    }

    fn run(self: Arc<Lane>) {
        let mut sender: Option<SendRequest<OutBody>> = None;
        loop {
            // Cannot time out without a deadline.
            let _ = self.driver.serve(None, || {
                self.stopping.load(Ordering::SeqCst)
                    || (!self.sending.load(Ordering::SeqCst)
                        && self.in_flight.load(Ordering::SeqCst) < IN_FLIGHT
                        && !self.jobs.lock().is_empty())
            });
            if self.stopping.load(Ordering::SeqCst) {
                break;
            }
            if sender.as_ref().is_none_or(SendRequest::is_closed) {
                match connect(&self.driver, &self.target, Instant::now() + CONNECT_TIMEOUT, false, |_| {}) {
                    Ok(new) => sender = Some(new),
                    Err(error) => {
                        let text = format!("cannot open a lane: {error}");
                        self.abort(&WireError::new(Code::ConnectionLost, text));
                        break;
                    }
                }
            }
            let Some(job) = self.jobs.lock().pop_front() else { continue };
            if let Some(sender) = &sender {
                self.start(job, sender.clone());
            }
        }
        self.driver.clear();
        self.drain();
    }

    fn start(self: &Arc<Lane>, mut job: Job, mut sender: SendRequest<OutBody>) {
        let mut done = self.done_of(&mut job);
        let lane = self.clone();
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.sending.store(true, Ordering::SeqCst);
        let sending = Box::new(Sending(self.clone()));
        self.driver.spawner().spawn(async move {
            let bytes = job.data.len() as u64;
            // `job.data` is kept until the acknowledgement, also after the last of it went out.
            let data = job.data.clone();
            let result =
                upload(&mut sender, &lane.target, &job.ticket, data, lane.checksum, &job.cancel, sending).await;
            match &result {
                Ok(()) => {
                    lane.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(error) if error.code == Code::Interrupted => {
                    // The server may not have heard of the transfer, and waits for it in the op stream.
                    lane.jobs.lock().push_front(Job::abort(job.ticket));
                }
                Err(_) => {}
            }
            lane.in_flight.fetch_sub(1, Ordering::SeqCst);
            // Before the data is let go: whoever lent it looks for the outcome as soon as it has it back.
            done.report(result);
            drop(job.data);
        });
    }
}
