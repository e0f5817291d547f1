//! What a server does with connections that mean it no good: it refuses them, and serves the next client.
#![allow(missing_docs)]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::client::Client;
use common::executor::FakeServer;
use common::socket_path;
use skytorch_wire::client::{ConnectOptions, ControlLink};
use skytorch_wire::error::Code;
use skytorch_wire::server::ServerOptions;
use tonic::body::Body;
use tower_service::Service as _;

fn server(change: impl FnOnce(&mut ServerOptions)) -> FakeServer {
    let listen = vec![format!("unix://{}", socket_path().display())];
    let mut options = ServerOptions { listen, ..Default::default() };
    change(&mut options);
    FakeServer::start(options)
}

fn raw(server: &FakeServer) -> UnixStream {
    let stream = UnixStream::connect(server.address().strip_prefix("unix://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Read until the server hangs up; false if it does not.
fn hangs_up(mut stream: UnixStream) -> bool {
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn bytes_that_are_not_http_end_the_connection_only() {
    let server = server(|_| {});
    let mut noise = 0x2545_f491_4f6c_dd1du64;
    for length in [1usize, 9, 24, 100, 5000] {
        let mut stream = raw(&server);
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        assert!(hangs_up(stream), "{length} bytes of noise");
    }
    Client::to(&server.address()).round(b"unharmed").unwrap();
}

#[test]
fn a_connection_that_says_nothing_is_closed_in_time() {
    let server = server(|options| options.auth_timeout = Duration::from_millis(200));
    let (silent, mut half) = (raw(&server), raw(&server));
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let start = Instant::now();
    assert!(hangs_up(silent) && hangs_up(half));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn connections_are_limited_and_come_back() {
    let server = server(|options| options.max_connections = 3);
    let options = ConnectOptions { address: server.address(), ..Default::default() };
    let mut held: Vec<ControlLink> = (0..3).map(|_| ControlLink::connect(&options).unwrap()).collect();
    for link in &held {
        assert_eq!(ask(link, "/no.such.Service/Method", None, Body::empty()), Some(Code::NotSupported.number()));
    }
    let refused = Client::connect(&options).map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Code::LimitExceeded, "{refused}");
    held.pop();
    let start = Instant::now();
    let client = loop {
        match Client::connect(&options) {
            Ok(client) => break client,
            Err(_) => assert!(start.elapsed() < Duration::from_secs(5)),
        }
    };
    client.round(b"room again").unwrap();
}

#[test]
fn the_oldest_connection_without_a_token_makes_room() {
    let server = server(|options| options.max_pending = 3);
    let mut crowd: Vec<UnixStream> = (0..5).map(|_| raw(&server)).collect();
    let rest = crowd.split_off(2);
    for oldest in crowd {
        assert!(hangs_up(oldest));
    }
    Client::to(&server.address()).round(b"through the crowd").unwrap();
    drop(rest);
}

/// Call `path` with a body, on a connection of its own; the number of the error code that comes back.
fn call(server: &FakeServer, path: &str, ticket: Option<&str>, body: Body) -> Option<u32> {
    let options = ConnectOptions { address: server.address(), ..Default::default() };
    ask(&ControlLink::connect(&options).unwrap(), path, ticket, body)
}

fn ask(link: &ControlLink, path: &str, ticket: Option<&str>, body: Body) -> Option<u32> {
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    if let Some(ticket) = ticket {
        request = request.header("skytorch-ticket", ticket);
    }
    let sent = link.service().call(request.body(body).unwrap());
    let response = link.block_on(sent, Some(Duration::from_secs(10))).unwrap().unwrap();
    response.headers().get("skytorch-code")?.to_str().ok()?.parse().ok()
}

#[test]
fn uploads_without_a_good_ticket_are_refused() {
    let server = server(|_| {});
    let path = "/skytorch.v1.Transfer/Upload";
    let refused = Some(Code::Unauthenticated.number());
    // Nobody's session yet.
    assert_eq!(call(&server, path, Some("00"), Body::empty()), refused);
    let client = Client::to(&server.address());
    client.round(b"session").unwrap();
    for ticket in
        [None, Some(""), Some("00"), Some(&*"0".repeat(112)), Some(&*"z".repeat(112)), Some(&*"f".repeat(4000))]
    {
        assert_eq!(call(&server, path, ticket, Body::empty()), refused, "{ticket:?}");
    }
    client.round(b"unharmed").unwrap();
}

#[test]
fn sessions_that_begin_wrong_are_refused() {
    let server = server(|_| {});
    let path = "/skytorch.v1.Session/Open";
    let bad: [&[u8]; 5] =
        [b"", b"\0\0\0\0\0", b"\0\0\0\0\x08\x01\x01\0\0\0\0\0\0", b"\x01\0\0\0\x01\x01", b"\0\xff\xff\xff\xff\x02"];
    for bytes in bad {
        let code = call(&server, path, None, Body::new(http_body_of(bytes)));
        assert!(code.is_some_and(|code| code != 0), "{bytes:?} was answered {code:?}");
    }
    assert_eq!(call(&server, "/no.such.Service/Method", None, Body::empty()), Some(Code::NotSupported.number()));
    let client = Client::to(&server.address());
    client.round(b"unharmed").unwrap();
}

fn http_body_of(bytes: &'static [u8]) -> impl http_body::Body<Data = bytes::Bytes, Error = tonic::Status> + Send {
    struct Once(Option<bytes::Bytes>);
    impl http_body::Body for Once {
        type Data = bytes::Bytes;
        type Error = tonic::Status;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>> {
            std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
        }
    }
    Once(Some(bytes::Bytes::from_static(bytes)))
}
