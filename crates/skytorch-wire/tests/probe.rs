//! The door for probes, and what a server says of its use: the two things that an operator watches.
#![allow(missing_docs)]

mod common;

use std::future::poll_fn;
use std::io::Read;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::client::Client;
use common::executor::FakeServer;
use common::proxy::Proxy;
use common::socket_path;
use http_body::Body as _;
use skytorch_wire::client::{ConnectOptions, ControlLink};
use skytorch_wire::control::{Control, ControlSource, check_health};
use skytorch_wire::error::Code;
use skytorch_wire::limits;
use skytorch_wire::proto::{LogLines, Metric};
use skytorch_wire::server::{Server, ServerCounters, ServerOptions};
use tonic::body::Body;
use tower_service::Service as _;

const TEN_SECONDS: Duration = Duration::from_secs(10);
/// gRPC's framing of an empty message.
const EMPTY: &[u8] = &[0; 5];

struct Nothing;

impl ControlSource for Nothing {
    fn metrics(&self) -> Vec<Metric> {
        Vec::new()
    }

    fn log_lines(&self, from_index: u64) -> LogLines {
        LogLines { first_index: from_index, lines: Vec::new() }
    }
}

/// A server at a Unix socket with a door for probes on every interface.
fn probed() -> (FakeServer, Control, ConnectOptions) {
    let server = FakeServer::start(ServerOptions {
        listen: vec![format!("unix://{}", socket_path().display())],
        token: Some("secret".into()),
        health: Some("tcp://0.0.0.0:0".to_owned()),
        ..Default::default()
    });
    let control = Control::new(Arc::new(Nothing));
    server.server.set_control_service(control.service());
    control.set_serving(true);
    let address = server.server.health_address().unwrap().replace("0.0.0.0", "127.0.0.1");
    (server, control, ConnectOptions { address, timeout: TEN_SECONDS, ..Default::default() })
}

fn call(link: &ControlLink, path: &str) -> http::Response<Body> {
    let body = Body::new(Once(Some(EMPTY)));
    let request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    let sent = link.service().call(request.body(body).unwrap());
    link.block_on(sent, Some(TEN_SECONDS)).unwrap().unwrap()
}

/// The status in the next message of health's Watch.
fn next_state(link: &ControlLink, body: &mut Body) -> u8 {
    let next = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
    let frame = link.block_on(next, Some(TEN_SECONDS)).unwrap().unwrap().unwrap();
    let message = frame.into_data().unwrap();
    assert_eq!(message[..6], [0, 0, 0, 0, 2, 8], "{message:?}");
    message[6]
}

#[test]
fn a_probe_needs_neither_tls_nor_token_and_finds_health_only() {
    let (_server, control, probe) = probed();
    assert!(check_health(&probe).unwrap());
    control.set_serving(false);
    assert!(!check_health(&probe).unwrap());
    let link = ControlLink::connect(&probe).unwrap();
    for path in [
        "/skytorch.v1.Session/Open",
        "/skytorch.v1.Transfer/Upload",
        "/skytorch.v1.Transfer/Status",
        "/skytorch.v1.Metrics/Watch",
        "/skytorch.v1.Metrics/Logs",
        "/grpc.health.v1.Health/Switch",
        "/",
    ] {
        let answer = call(&link, path);
        assert_eq!(answer.headers().get("grpc-status").unwrap(), "12", "{path}");
    }
    // Nor does the token open more.
    let session = Client::connect(&ConnectOptions { token: Some("secret".into()), ..probe });
    assert_eq!(session.map(|_| ()).unwrap_err().code, Code::NotSupported);
}

#[test]
fn a_stopping_server_says_so_while_its_session_ends() {
    let (server, control, probe) = probed();
    let options =
        ConnectOptions { address: server.address(), token: Some("secret".into()), ..ConnectOptions::default() };
    let client = Client::connect(&options).unwrap();
    let link = ControlLink::connect(&probe).unwrap();
    let mut states = call(&link, "/grpc.health.v1.Health/Watch").into_body();
    assert_eq!(next_state(&link, &mut states), 1);
    control.set_serving(false);
    assert_eq!(next_state(&link, &mut states), 2);
    client.round(b"the session goes on").unwrap();
    server.server.stop();
    assert!(!check_health(&probe).unwrap(), "a server that has stopped is not silent");
    assert!(client.round(b"no more").is_err());
    drop((server, client));
    assert_eq!(check_health(&probe).unwrap_err().code, Code::Unreachable);
}

#[test]
fn probes_are_bounded_and_keep_nobody_out() {
    let (_server, _control, probe) = probed();
    let target = probe.address.strip_prefix("tcp://").unwrap();
    let extra = 3;
    let mut crowd: Vec<TcpStream> =
        (0..limits::PROBE_CONNECTIONS + extra).map(|_| TcpStream::connect(target).unwrap()).collect();
    for oldest in crowd.drain(..extra) {
        oldest.set_read_timeout(Some(TEN_SECONDS)).unwrap();
        // What the server says first, and then the end: a reset if our side had said something.
        let mut oldest = oldest;
        oldest.read_to_end(&mut Vec::new()).unwrap();
    }
    assert!(check_health(&probe).unwrap());
}

#[test]
fn a_door_for_probes_is_plain_tcp() {
    for health in ["unix:///tmp/probe.sock", "tls://127.0.0.1:0"] {
        let listen = vec![format!("unix://{}", socket_path().display())];
        let options = ServerOptions { listen, health: Some(health.to_owned()), ..Default::default() };
        let refused = Server::bind(options).map(|_| ()).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument, "{refused}");
    }
}

/// Wait until the counters are as they should be.
fn when(server: &FakeServer, fulfilled: impl Fn(&ServerCounters) -> bool) -> ServerCounters {
    let start = Instant::now();
    loop {
        let counters = server.server.counters();
        if fulfilled(&counters) {
            return counters;
        }
        assert!(start.elapsed() < TEN_SECONDS, "{counters:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_session_whose_client_is_away_counts_as_unused_from_then_on() {
    let server =
        FakeServer::start(ServerOptions { listen: vec!["tcp://127.0.0.1:0".to_owned()], ..Default::default() });
    let start = Instant::now();
    let before = server.server.counters();
    assert!(!before.connected);
    let proxy = Proxy::start(&server.address());
    let client = Client::to(&proxy.address("tcp"));
    client.round(b"in use").unwrap();
    let counters = server.server.counters();
    assert!(counters.connected && counters.unused.is_zero(), "{counters:?}");

    proxy.refuse(true);
    let lost = Instant::now();
    proxy.cut_all();
    let counters = when(&server, |counters| !counters.connected);
    assert!(counters.session_age.is_some() && counters.unused <= lost.elapsed(), "{counters:?}");
    proxy.refuse(false);
    client.round(b"in use again").unwrap();
    let counters = server.server.counters();
    assert!(counters.connected && counters.unused.is_zero(), "{counters:?}");

    client.session.close().unwrap();
    let counters = when(&server, |counters| !counters.connected);
    assert!(counters.session_age.is_none() && counters.unused < start.elapsed(), "{counters:?}");
}

#[test]
fn a_session_that_nobody_resumed_was_last_used_when_its_connection_was_lost() {
    let resume_timeout = Duration::from_millis(700);
    let server = FakeServer::start(ServerOptions {
        listen: vec!["tcp://127.0.0.1:0".to_owned()],
        resume_timeout,
        ..Default::default()
    });
    let proxy = Proxy::start(&server.address());
    let client = Client::to(&proxy.address("tcp"));
    client.round(b"in use").unwrap();
    proxy.refuse(true);
    proxy.cut_all();
    let counters = when(&server, |counters| counters.session_age.is_none());
    assert!(!counters.connected && counters.unused >= resume_timeout, "{counters:?}");
}

struct Once(Option<&'static [u8]>);

impl http_body::Body for Once {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes.into()))))
    }
}
