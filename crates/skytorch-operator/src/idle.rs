//! Asks each ready pod's `/status` who is connected, and since when nobody is. A task per Compute, so that a pod that
//! does not answer delays nobody; a reading that says something new has the Compute reconciled, which then acts.
//!
//! What cannot be asked is not idle: a Compute is never deleted because its pod was out of reach.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::crd::Compute;
use crate::queue::Queue;

/// A pod answers within this, or not at all.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// And in no more bytes than this.
const ANSWER_LIMIT: usize = 64 << 10;
/// A reading older than this is no ground to act on.
const FRESH: Duration = Duration::from_secs(5);
/// The longest time between two readings.
const INTERVAL: Duration = Duration::from_secs(30);

/// What is followed: a change of it begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where `/status` is.
    pub(crate) address: SocketAddr,
    /// The pod.
    pub(crate) pod_uid: String,
    /// After how long without a session the Compute is idle.
    pub(crate) timeout: Duration,
    /// When it became ready; it was not idle before.
    pub(crate) since: Timestamp,
}

/// What a pod said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    /// How many clients are connected.
    pub(crate) sessions: i32,
    /// When the last one was: now, while there is one.
    pub(crate) last_used: Timestamp,
    /// The server's devices.
    pub(crate) devices: Vec<String>,
    /// When it was said.
    pub(crate) at: Instant,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    devices: Vec<String>,
    sessions: i32,
    last_used_unix: f64,
}

impl Reading {
    /// For how long nobody has been connected, as of `now`.
    pub(crate) fn idle_for(&self, target: &Target, now: Timestamp) -> Duration {
        if self.sessions > 0 {
            return Duration::ZERO;
        }
        let since = self.last_used.max(target.since);
        Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
    }

    /// Whether it is time to act: idle for long enough, by a reading of just now.
    pub(crate) fn is_idle(&self, target: &Target, now: Timestamp) -> bool {
        self.at.elapsed() < FRESH && self.idle_for(target, now) >= target.timeout
    }

    /// When to ask next: so often that a time of use is known well, and at the moment when it may be idle.
    fn next(&self, target: &Target, now: Timestamp) -> Duration {
        let often = (target.timeout / 4).clamp(Duration::from_secs(1), INTERVAL);
        match target.timeout.checked_sub(self.idle_for(target, now)) {
            Some(left) if self.sessions == 0 => often.min(left + Duration::from_millis(20)),
            _ => often,
        }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        let used = self.sessions > 0 || self.last_used == other.last_used;
        self.sessions == other.sessions && self.devices == other.devices && used
    }
}

/// See the module.
pub(crate) struct Idle {
    followers: Mutex<HashMap<String, Follower>>,
    queue: Queue,
    polls: IntCounterVec,
}

struct Follower {
    target: Target,
    reading: Arc<Mutex<Option<Reading>>>,
    task: AbortHandle,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Idle {
    /// Queues what has something new, and counts what it asks.
    pub(crate) fn new(queue: Queue, polls: IntCounterVec) -> Self {
        Self { followers: Mutex::default(), queue, polls }
    }

    /// Follows a Compute's pod, and returns what it said last.
    pub(crate) fn follow(&self, uid: &str, compute: &ObjectRef<Compute>, target: &Target) -> Option<Reading> {
        let mut followers = self.followers.lock();
        if followers.get(uid).is_none_or(|follower| follower.target != *target) {
            let reading = Arc::default();
            let ask =
                ask_on(target.clone(), compute.clone(), Arc::clone(&reading), self.queue.clone(), self.polls.clone());
            let task = tokio::spawn(ask).abort_handle();
            followers.insert(uid.to_owned(), Follower { target: target.clone(), reading, task });
        }
        followers.get(uid)?.reading.lock().clone()
    }

    /// Follows it no longer.
    pub(crate) fn forget(&self, uid: &str) {
        self.followers.lock().remove(uid);
    }

    /// Follows no others than these.
    pub(crate) fn retain(&self, known: impl Fn(&str) -> bool) {
        self.followers.lock().retain(|uid, _| known(uid));
    }
}

async fn ask_on(
    target: Target,
    compute: ObjectRef<Compute>,
    reading: Arc<Mutex<Option<Reading>>>,
    queue: Queue,
    polls: IntCounterVec,
) {
    loop {
        let answer = match tokio::time::timeout(ANSWER_TIME, ask(target.address)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", ANSWER_TIME.as_secs())),
        };
        let wait = match answer {
            Ok(new) => {
                polls.with_label_values(&["ok"]).inc();
                let now = Timestamp::now();
                let wait = new.next(&target, now);
                let idle = new.is_idle(&target, now);
                let old = reading.lock().replace(new.clone());
                if idle || !old.is_some_and(|old| new.says_the_same(&old)) {
                    queue.push(compute.clone());
                }
                wait
            }
            Err(error) => {
                polls.with_label_values(&["error"]).inc();
                tracing::warn!(%compute, address = %target.address, error, "cannot ask the pod who is connected");
                (target.timeout / 4).clamp(Duration::from_secs(1), INTERVAL)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn ask(address: SocketAddr) -> Result<Reading, String> {
    let at = Instant::now();
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = hyper::Request::get("/status")
        .header(hyper::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        if response.status() != hyper::StatusCode::OK {
            return Err(format!("answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(|e| e.to_string())?;
        parse(&body.to_bytes(), at)
    };
    tokio::select! {
        answer = exchange => answer,
        // The connection ends with its one exchange; an error of it is one of the exchange.
        Err(error) = connection => Err(error.to_string()),
    }
}

fn parse(body: &[u8], at: Instant) -> Result<Reading, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let since = Duration::try_from_secs_f64(answer.last_used_unix).map_err(|e| e.to_string())?;
    let last_used = Timestamp::UNIX_EPOCH.checked_add(since).map_err(|e| e.to_string())?;
    Ok(Reading { sessions: answer.sessions, last_used, devices: answer.devices, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn target(timeout_s: u64, since: i64) -> Target {
        Target {
            address: ([127, 0, 0, 1], 1).into(),
            pod_uid: "p".to_owned(),
            timeout: Duration::from_secs(timeout_s),
            since: at(since),
        }
    }

    fn reading(sessions: i32, last_used: i64) -> Reading {
        Reading { sessions, last_used: at(last_used), devices: vec![], at: Instant::now() }
    }

    #[test]
    fn idleness_counts_from_the_last_use_or_from_readiness() {
        assert_eq!(reading(0, 10).idle_for(&target(60, 0), at(50)), Duration::from_secs(40));
        assert_eq!(reading(0, 10).idle_for(&target(60, 30), at(50)), Duration::from_secs(20));
        assert_eq!(reading(1, 10).idle_for(&target(60, 0), at(50)), Duration::ZERO);
        assert_eq!(reading(0, 90).idle_for(&target(60, 0), at(50)), Duration::ZERO, "a clock that is ahead");
    }

    #[test]
    fn only_a_fresh_reading_is_acted_on() {
        let fresh = reading(0, 0);
        assert!(fresh.is_idle(&target(60, 0), at(60)));
        assert!(!fresh.is_idle(&target(60, 0), at(59)));
        let Some(then) = Instant::now().checked_sub(FRESH) else { return };
        assert!(!Reading { at: then, ..fresh }.is_idle(&target(60, 0), at(600)));
    }

    #[test]
    fn it_asks_at_the_moment_when_it_may_be_idle() {
        let next = |reading: Reading, timeout_s, now| reading.next(&target(timeout_s, 0), at(now)).as_millis();
        assert_eq!(next(reading(0, 0), 600, 10), 30_000);
        assert_eq!(next(reading(0, 0), 600, 590), 10_020);
        assert_eq!(next(reading(0, 0), 2, 0), 1_000);
        assert_eq!(next(reading(1, 0), 20, 100), 5_000);
        assert_eq!(next(reading(0, 0), 20, 100), 5_000, "due, and not gone yet");
    }

    #[test]
    fn an_answer_is_read() {
        let body = br#"{"version":"0.1.0","torch":"2.15.0","devices":["cpu"],"sessions":0,"last_used_unix":1800000000.5,"started_unix":1}"#;
        let reading = parse(body, Instant::now()).expect("an answer");
        assert_eq!((reading.sessions, reading.devices), (0, vec!["cpu".to_owned()]));
        assert_eq!(reading.last_used.as_millisecond(), 1_800_000_000_500);
        for body in [&b"{}"[..], b"[]", b"", br#"{"sessions":0,"last_used_unix":-1}"#] {
            assert!(parse(body, Instant::now()).is_err());
        }
    }
}
