//! Metrics, logs and health between a real server and its clients, over a Unix socket and over TCP.
//!
//! Nothing here has an executor: control calls must work whether or not a session is served (INV-7).

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use skytorch_wire::client::ConnectOptions;
use skytorch_wire::control::{Control, ControlSource, Hangup, Logs, Snapshots, check_health};
use skytorch_wire::error::Code;
use skytorch_wire::limits;
use skytorch_wire::proto::{LogLines, Metric};
use skytorch_wire::server::{Server, ServerOptions};

const TOKEN: &str = "a-token-for-tests";

/// Lines that a test adds to, with the index of the first one kept.
#[derive(Default)]
struct Book {
    first_index: u64,
    lines: Vec<String>,
}

#[derive(Default)]
struct Source {
    book: Mutex<Book>,
}

impl Source {
    fn log(&self, line: impl Into<String>) {
        self.book.lock().unwrap().lines.push(line.into());
    }
}

impl ControlSource for Source {
    fn metrics(&self) -> Vec<Metric> {
        let labels = BTreeMap::from([("device".to_owned(), "0".to_owned())]);
        vec![Metric { name: "gpu.memory.used".to_owned(), value: 3.5, unit: "bytes".to_owned(), labels }]
    }

    fn log_lines(&self, from_index: u64) -> LogLines {
        let book = self.book.lock().unwrap();
        let skip = from_index.saturating_sub(book.first_index) as usize;
        let lines = book.lines.iter().skip(skip).cloned().collect();
        LogLines { first_index: from_index.max(book.first_index), lines }
    }
}

struct Fixture {
    server: Arc<Server>,
    control: Control,
    source: Arc<Source>,
    client: ConnectOptions,
    _folder: tempfile::TempDir,
}

fn fixture(tcp: bool) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let listen = if tcp { "tcp://127.0.0.1:0".to_owned() } else { format!("unix://{}/s", folder.path().display()) };
    let server =
        Server::bind(ServerOptions { listen: vec![listen], token: Some(TOKEN.into()), ..ServerOptions::default() })
            .unwrap();
    let source = Arc::new(Source::default());
    let control = Control::new(source.clone());
    server.set_control_service(control.service());
    server.start().unwrap();
    control.set_serving(true);
    let client = ConnectOptions {
        address: server.addresses().remove(0),
        token: Some(TOKEN.into()),
        timeout: Duration::from_secs(10),
        ..ConnectOptions::default()
    };
    Fixture { server, control, source, client, _folder: folder }
}

#[test]
fn health_follows_the_server() {
    for tcp in [false, true] {
        let at = fixture(tcp);
        assert!(check_health(&at.client).unwrap());
        at.control.set_serving(false);
        assert!(!check_health(&at.client).unwrap());
        at.server.stop();
        assert_eq!(check_health(&at.client).unwrap_err().code, Code::Unreachable);
    }
}

#[test]
fn a_wrong_token_is_refused() {
    let at = fixture(true);
    for token in [None, Some("another-token".into())] {
        let options = ConnectOptions { token, ..at.client.clone() };
        // A kubelet's probe has no token; one that shows a wrong one is told so.
        match &options.token {
            None => assert!(check_health(&options).unwrap()),
            Some(_) => assert_eq!(check_health(&options).unwrap_err().code, Code::Unauthenticated),
        }
        let logs = Logs::open(&options, false, Hangup::default());
        assert_eq!(logs.err().unwrap().code, Code::Unauthenticated);
        let snapshots = Snapshots::open(&options, Duration::from_millis(50), Hangup::default());
        assert_eq!(snapshots.err().unwrap().code, Code::Unauthenticated);
    }
    at.server.stop();
}

#[test]
fn snapshots_come_on_time_and_end_with_the_server() {
    let at = fixture(false);
    let mut snapshots = Snapshots::open(&at.client, Duration::from_millis(50), Hangup::default()).unwrap();
    let mut times = Vec::new();
    for _ in 0..3 {
        let snapshot = snapshots.next().unwrap().unwrap();
        assert_eq!(snapshot.metrics, at.source.metrics());
        times.push(snapshot.unix_ms);
    }
    assert!(times[2] - times[0] >= 95, "three snapshots within {} ms", times[2] - times[0]);
    let waiter = std::thread::spawn(move || {
        // A clean end or a lost connection; in either case an end, and nothing after it.
        while let Some(Ok(_)) = snapshots.next() {}
        assert!(snapshots.next().is_none());
    });
    at.server.stop();
    waiter.join().unwrap();
}

#[test]
fn a_hangup_ends_a_wait_although_nothing_comes() {
    let at = fixture(false);
    let hangup = Hangup::default();
    let mut snapshots = Snapshots::open(&at.client, Duration::from_secs(3600), hangup.clone()).unwrap();
    snapshots.next().unwrap().unwrap();
    let waiter = std::thread::spawn(move || snapshots.next().is_none());
    hangup.raise();
    assert!(waiter.join().unwrap());
    at.server.stop();
}

#[test]
fn logs_end_unless_they_are_followed() {
    let at = fixture(false);
    assert!(Logs::open(&at.client, false, Hangup::default()).unwrap().next().is_none());
    at.source.log("one");
    at.source.log("two");
    let lines: Vec<_> = Logs::open(&at.client, false, Hangup::default()).unwrap().map(Result::unwrap).collect();
    assert_eq!(lines, ["one", "two"]);

    let hangup = Hangup::default();
    let mut followed = Logs::open(&at.client, true, hangup.clone()).unwrap();
    let (sender, receiver) = mpsc::channel();
    let waiter = std::thread::spawn(move || followed.by_ref().for_each(|line| sender.send(line.unwrap()).unwrap()));
    let next = || receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!([next(), next()], ["one", "two"]);
    at.source.log("three");
    assert_eq!(next(), "three");
    {
        // The book drops what it had; the follower goes on with the first line that is kept.
        let mut book = at.source.book.lock().unwrap();
        *book = Book { first_index: 10, lines: vec!["eleven".to_owned()] };
    }
    assert_eq!(next(), "eleven");
    at.source.log("twelve");
    assert_eq!(next(), "twelve");
    hangup.raise();
    waiter.join().unwrap();
    at.server.stop();
}

#[test]
fn many_and_long_lines_arrive_in_pieces() {
    let at = fixture(false);
    let long = "é".repeat(limits::LOG_LINE_BYTES);
    at.source.log(&long);
    let many: Vec<String> = (0..20_000).map(|i| format!("{i} {}", "x".repeat(200))).collect();
    many.iter().for_each(|line| at.source.log(line));
    let lines: Vec<_> = Logs::open(&at.client, false, Hangup::default()).unwrap().map(Result::unwrap).collect();
    assert_eq!(lines[0], &long[..limits::LOG_LINE_BYTES]);
    assert_eq!(lines[1..], many);
    at.server.stop();
}
