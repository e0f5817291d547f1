//! Asks each ready pod's `/status` who is connected, and since when nobody is. A task per Compute, so that a pod that
//! does not answer delays nobody; a reading that says something new has the Compute reconciled, which asks once more
//! before it acts.
//!
//! What cannot be asked is not idle: a Compute is never deleted because its pod was out of reach.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
/// The longest time between two readings.
const INTERVAL: Duration = Duration::from_secs(30);
/// Two times of use that are no further apart are one: a server reckons the time back from its own clock's now, so it
/// tells the same use with another fraction each time, and a status has whole seconds.
const SAME_USE: Duration = Duration::from_secs(2);

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
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    devices: Vec<String>,
    sessions: i32,
    last_used_unix: f64,
}

impl Target {
    /// How often it is asked: so that a time of use is known well.
    fn often(&self) -> Duration {
        (self.timeout / 4).clamp(Duration::from_secs(1), INTERVAL)
    }
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

    /// Whether it is idle for long enough.
    pub(crate) fn is_idle(&self, target: &Target, now: Timestamp) -> bool {
        self.idle_for(target, now) >= target.timeout
    }

    /// When to ask next: often, and at the moment when it may be idle.
    fn next(&self, target: &Target, now: Timestamp) -> Duration {
        match target.timeout.checked_sub(self.idle_for(target, now)) {
            Some(left) if self.sessions == 0 => target.often().min(left + Duration::from_millis(20)),
            _ => target.often(),
        }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        let used = self.sessions > 0 || is_same_use(self.last_used, other.last_used);
        self.sessions == other.sessions && self.devices == other.devices && used
    }
}

/// Whether two times tell of one use.
pub(crate) fn is_same_use(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).unsigned_abs() <= SAME_USE
}

/// See the module.
pub(crate) struct Idle {
    followers: Mutex<HashMap<String, Follower>>,
    queue: Queue,
    polls: IntCounterVec,
}

struct Follower {
    pod: Arc<Asked>,
    task: AbortHandle,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A Compute's pod, and what it said last: nothing, if it did not answer.
struct Asked {
    compute: ObjectRef<Compute>,
    target: Target,
    reading: Mutex<Option<Reading>>,
    queue: Queue,
    polls: IntCounterVec,
}

impl Idle {
    /// Queues what has something new, and counts what it asks.
    pub(crate) fn new(queue: Queue, polls: IntCounterVec) -> Self {
        Self { followers: Mutex::default(), queue, polls }
    }

    /// Follows a Compute's pod, and returns what it said last.
    pub(crate) fn follow(&self, uid: &str, compute: &ObjectRef<Compute>, target: &Target) -> Option<Reading> {
        let mut followers = self.followers.lock();
        if followers.get(uid).is_none_or(|follower| follower.pod.target != *target) {
            let pod = Arc::new(Asked {
                compute: compute.clone(),
                target: target.clone(),
                reading: Mutex::default(),
                queue: self.queue.clone(),
                polls: self.polls.clone(),
            });
            let task = tokio::spawn(ask_on(Arc::clone(&pod))).abort_handle();
            followers.insert(uid.to_owned(), Follower { pod, task });
        }
        followers.get(uid)?.pod.reading.lock().clone()
    }

    /// Asks the pod that is followed once more, now.
    pub(crate) async fn ask(&self, uid: &str) -> Option<Reading> {
        let pod = Arc::clone(&self.followers.lock().get(uid)?.pod);
        pod.ask().await
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

impl Asked {
    /// What it says now. What is new has the Compute reconciled.
    async fn ask(&self) -> Option<Reading> {
        let answer = match tokio::time::timeout(ANSWER_TIME, ask(self.target.address)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", ANSWER_TIME.as_secs())),
        };
        self.polls.with_label_values(&[if answer.is_ok() { "ok" } else { "error" }]).inc();
        let new = answer
            .inspect_err(|error| {
                let (compute, address) = (&self.compute, self.target.address);
                tracing::warn!(%compute, %address, error, "cannot ask the pod who is connected");
            })
            .ok();
        let old = std::mem::replace(&mut *self.reading.lock(), new.clone());
        if new.as_ref().is_some_and(|new| !old.is_some_and(|old| new.says_the_same(&old))) {
            self.queue.push(self.compute.clone());
        }
        new
    }
}

async fn ask_on(pod: Arc<Asked>) {
    loop {
        let wait = match pod.ask().await {
            Some(reading) => {
                let now = Timestamp::now();
                if reading.is_idle(&pod.target, now) {
                    pod.queue.push(pod.compute.clone());
                }
                reading.next(&pod.target, now)
            }
            None => pod.target.often(),
        };
        tokio::time::sleep(wait).await;
    }
}

async fn ask(address: SocketAddr) -> Result<Reading, String> {
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
        parse(&body.to_bytes())
    };
    tokio::select! {
        answer = exchange => answer,
        // The connection ends with its one exchange; an error of it is one of the exchange.
        Err(error) = connection => Err(error.to_string()),
    }
}

fn parse(body: &[u8]) -> Result<Reading, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let since = Duration::try_from_secs_f64(answer.last_used_unix).map_err(|e| e.to_string())?;
    let last_used = Timestamp::UNIX_EPOCH.checked_add(since).map_err(|e| e.to_string())?;
    Ok(Reading { sessions: answer.sessions, last_used, devices: answer.devices })
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
        Reading { sessions, last_used: at(last_used), devices: vec![] }
    }

    #[test]
    fn idleness_counts_from_the_last_use_or_from_readiness() {
        assert_eq!(reading(0, 10).idle_for(&target(60, 0), at(50)), Duration::from_secs(40));
        assert_eq!(reading(0, 10).idle_for(&target(60, 30), at(50)), Duration::from_secs(20));
        assert_eq!(reading(1, 10).idle_for(&target(60, 0), at(50)), Duration::ZERO);
        assert_eq!(reading(0, 90).idle_for(&target(60, 0), at(50)), Duration::ZERO, "a clock that is ahead");
    }

    #[test]
    fn it_is_idle_from_the_end_of_its_time() {
        assert!(reading(0, 0).is_idle(&target(60, 0), at(60)));
        assert!(!reading(0, 0).is_idle(&target(60, 0), at(59)));
        assert!(!reading(1, 0).is_idle(&target(60, 0), at(60)));
    }

    #[test]
    fn the_same_use_with_another_fraction_says_nothing_new() {
        let earlier = |ms| Reading {
            last_used: at(10).checked_sub(Duration::from_millis(ms)).expect("a time"),
            ..reading(0, 10)
        };
        assert!(reading(0, 10).says_the_same(&earlier(1)));
        assert!(!reading(0, 10).says_the_same(&earlier(2_001)));
        assert!(!reading(1, 10).says_the_same(&reading(0, 10)));
        assert!(reading(1, 10).says_the_same(&reading(1, 50)));
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
        let reading = parse(body).expect("an answer");
        assert_eq!((reading.sessions, reading.devices), (0, vec!["cpu".to_owned()]));
        assert_eq!(reading.last_used.as_millisecond(), 1_800_000_000_500);
        for body in [&b"{}"[..], b"[]", b"", br#"{"sessions":0,"last_used_unix":-1}"#] {
            assert!(parse(body).is_err());
        }
    }
}
