//! Who may go on with a session, for how long, and what everybody else is told.
#![allow(missing_docs)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::client::Client;
use common::executor::{FakeServer, SLOW_METHOD};
use common::proxy::{Plan, Proxy, Way};
use skytorch_wire::abi::*;
use skytorch_wire::client::ConnectOptions;
use skytorch_wire::error::{Code, WireError};
use skytorch_wire::net::Credential;
use skytorch_wire::server::ServerOptions;

fn server(resume_timeout: Duration) -> FakeServer {
    FakeServer::start(ServerOptions {
        listen: vec!["tcp://127.0.0.1:0".to_owned()],
        resume_timeout,
        ..Default::default()
    })
}

/// A client whose connections go through `proxy`.
fn connected(resume_timeout: Duration, proxy: fn(&str) -> Proxy) -> (FakeServer, Proxy, Client) {
    let server = server(resume_timeout);
    let proxy = proxy(&server.address());
    let client = Client::to(&proxy.address("tcp"));
    (server, proxy, client)
}

const LONG: Duration = Duration::from_secs(60);

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_second_client_is_told_that_the_first_may_come_back() {
    let (server, proxy, client) = connected(LONG, Proxy::start);
    client.round(b"before").unwrap();
    proxy.refuse(true);
    proxy.cut_all();
    let options = ConnectOptions { address: server.address(), ..Default::default() };
    wait_until("the server does not say that its client is away", || {
        let error = Client::connect(&options).map(|_| ()).unwrap_err();
        assert_eq!(error.code, Code::ServerBusy, "{error}");
        error.message.contains("connection broke") && error.message.contains("may come back for")
    });
    proxy.refuse(false);
    client.round(b"after").unwrap();
    client.session.close().unwrap();
    Client::to(&server.address()).round(b"free").unwrap();
}

#[test]
fn a_client_that_stays_away_loses_its_session_and_frees_the_server() {
    let (server, proxy, client) = connected(Duration::from_millis(300), Proxy::start);
    client.round(b"before").unwrap();
    proxy.refuse(true);
    proxy.cut_all();
    let options = ConnectOptions { address: server.address(), ..Default::default() };
    wait_until("the seat is not freed", || Client::connect(&options).is_ok());
    let (code, message) = client.round(b"too late").unwrap_err();
    assert_eq!(code, SKY_ERR_CONNECTION_LOST);
    assert!(message.contains("broke") || message.contains("closed"), "{message}");
}

#[test]
fn a_client_that_comes_back_too_late_is_told_so() {
    let (server, proxy, client) = connected(Duration::from_millis(300), Proxy::start);
    client.round(b"before").unwrap();
    proxy.refuse(true);
    proxy.cut_all();
    wait_until("the session does not end", || server.server.counters().session_age.is_none());
    proxy.refuse(false);
    wait_until("the client does not notice", || !client.session.is_open());
    let (code, message) = client.round(b"late").unwrap_err();
    assert_eq!(code, SKY_ERR_CONNECTION_LOST);
    assert!(!message.is_empty());
}

/// Send recorded bytes to the server; what it answers until it hangs up or says nothing for a moment.
fn replay(server: &FakeServer, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address().strip_prefix("tcp://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(bytes).unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..n]);
    }
    answer
}

#[test]
fn a_recorded_handshake_gets_nowhere() {
    let (server, proxy, client) = connected(LONG, Proxy::recording);
    client.round(b"before").unwrap();
    proxy.cut_all();
    client.round(b"again").unwrap();
    // The first connection said hello, the second went on with the session: neither does so twice.
    assert_eq!(proxy.connections(), 2);
    for at in 0..2 {
        let answer = replay(&server, &proxy.recorded(at));
        assert!(!contains(&answer, b"0.1.0"), "connection {at} was welcomed when it was replayed");
        client.round(b"unharmed").unwrap();
    }
    assert_eq!(proxy.connections(), 2, "the session lost its connection to a replay");
    client.session.close().unwrap();
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn somebody_elses_secret_gets_nowhere() {
    let (server, proxy, client) = connected(LONG, Proxy::recording);
    proxy.cut_all();
    client.round(b"again").unwrap();
    // The same handshake of a later attempt, with one bit of the session's id changed.
    let mut hello = proxy.recorded(1);
    let at = position_of_id(&hello);
    hello[at] ^= 1;
    replay(&server, &hello);
    client.round(b"unharmed").unwrap();
    assert_eq!(proxy.connections(), 2, "the session lost its connection to a stranger");
    client.session.close().unwrap();
}

/// Where the session's id lies in the recorded bytes: field 8 of Hello, sixteen bytes.
fn position_of_id(bytes: &[u8]) -> usize {
    bytes.windows(2).rposition(|window| window == [0x42, 0x10]).unwrap() + 2
}

#[test]
fn a_client_wins_over_its_own_old_connection() {
    let (_server, proxy, client) = connected(LONG, Proxy::start);
    client.round(b"before").unwrap();
    // Only the client hears of it: the server believes the old connection to be alive.
    proxy.cut_client_side();
    client.round(b"after").unwrap();
    assert_eq!(proxy.connections(), 2);
    client.session.close().unwrap();
}

#[test]
fn a_client_wins_while_the_server_computes() {
    let server = server(LONG);
    let proxy = Proxy::start(&server.address());
    let client = Arc::new(Client::to(&proxy.address("tcp")));
    let records = client.session.stats().records;
    let busy = client.clone();
    let waiter = std::thread::spawn(move || busy.ask(SLOW_METHOD, &[700], b""));
    wait_until("nothing was sent", || server.server.counters().records > records);
    proxy.cut_client_side();
    proxy.wait_for_connections(2);
    waiter.join().unwrap().unwrap();
    client.round(b"after").unwrap();
    client.session.close().unwrap();
}

#[test]
fn a_program_that_runs_ahead_of_a_broken_connection_is_held_back() {
    let server = server(LONG);
    let proxy = Proxy::start(&server.address());
    let replay_bytes = 1 << 20;
    let address = proxy.address("tcp");
    let client = Arc::new(Client::connect(&ConnectOptions { address, replay_bytes, ..Default::default() }).unwrap());
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, 64 << 10).unwrap();
    let read = client.define_bytes(SKY_TEMPLATE_READ, 64 << 10).unwrap();
    let storage = client.alloc(64 << 10).unwrap();
    proxy.refuse(true);
    proxy.cut_all();
    let ahead = client.clone();
    let writer = std::thread::spawn(move || {
        for round in 0..64u8 {
            ahead.write(write, storage, &vec![round; 64 << 10]).unwrap();
        }
    });
    // It stops once the log is full: a message more than that at most.
    let sent = || client.session.stats().op_bytes_sent;
    wait_until("the log does not fill", || sent() >= replay_bytes as u64);
    std::thread::sleep(Duration::from_millis(200));
    assert!(sent() < replay_bytes as u64 + (256 << 10), "{} bytes are kept", sent());
    assert!(!writer.is_finished());
    proxy.refuse(false);
    writer.join().unwrap();
    let mut back = vec![0; 64 << 10];
    client.read(read, storage, &mut back).unwrap();
    assert!(back.iter().all(|byte| *byte == 63));
    client.session.close().unwrap();
}

#[test]
fn a_session_that_was_closed_is_closed_even_if_the_goodbye_is_lost() {
    let (server, proxy, client) = connected(LONG, Proxy::start);
    client.round(b"before").unwrap();
    proxy.stop_way(Way::ToClient, true);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("the session does not end", || server.server.counters().session_age.is_none());
            proxy.cut_all();
            proxy.stop_way(Way::ToClient, false);
        });
        client.session.close()
    });
    assert_eq!(result, Ok::<(), WireError>(()));
}

#[test]
fn a_server_that_keeps_no_sessions_is_lost_at_once() {
    let (_server, proxy, client) = connected(Duration::ZERO, Proxy::start);
    client.round(b"before").unwrap();
    proxy.cut_all();
    let start = Instant::now();
    wait_until("the client goes on", || !client.session.is_open());
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(proxy.connections(), 1);
}

/// A server and a client that have the token `old` in a file each, and a proxy between them.
fn with_token_files(resume_timeout: Duration) -> (tempfile::TempDir, FakeServer, Proxy, ConnectOptions) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        std::fs::write(folder.path().join(name), "old").unwrap();
        Some(Credential::File(folder.path().join(name)))
    };
    let server = FakeServer::start(ServerOptions {
        listen: vec!["tcp://127.0.0.1:0".to_owned()],
        token: file("server"),
        resume_timeout,
        ..Default::default()
    });
    let proxy = Proxy::start(&server.address());
    let options = ConnectOptions { address: proxy.address("tcp"), token: file("client"), ..Default::default() };
    (folder, server, proxy, options)
}

#[test]
fn a_session_survives_the_time_in_which_its_sides_have_other_tokens() {
    let (folder, _server, proxy, options) = with_token_files(LONG);
    let client = Client::connect(&options).unwrap();
    // The server is first, and the client; and each time the other's file is read while it is being written.
    for (first, second, begun) in
        [("server", "client", "new"), ("client", "server", "newer"), ("client", "client", "")]
    {
        client.round(b"before").unwrap();
        std::fs::write(folder.path().join(first), begun).unwrap();
        let before = proxy.connections();
        proxy.cut_all();
        proxy.wait_for_connections(before + 3);
        assert!(client.session.is_open(), "{first}");
        std::fs::write(folder.path().join(second), if begun.is_empty() { "newer" } else { begun }).unwrap();
        client.round(b"after").unwrap();
    }
    client.session.close().unwrap();
}

#[test]
fn a_token_that_stays_wrong_loses_the_session_when_the_server_does_not_keep_it_any_longer() {
    let (folder, server, proxy, options) = with_token_files(Duration::from_millis(500));
    let client = Client::connect(&options).unwrap();
    client.round(b"before").unwrap();
    std::fs::write(folder.path().join("server"), "new").unwrap();
    let start = Instant::now();
    proxy.cut_all();
    wait_until("the client goes on", || !client.session.is_open());
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&start.elapsed()), "{:?}", start.elapsed());
    let (code, message) = client.round(b"too late").unwrap_err();
    assert_eq!(code, SKY_ERR_CONNECTION_LOST);
    assert!(message.contains("refused the token"), "{message}");
    // A session that never began is refused at once. The lost one may still be on its way to the other proxy.
    let proxy = Proxy::start(&server.address());
    let options = ConnectOptions { address: proxy.address("tcp"), ..options };
    let refused = Client::connect(&options).map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated, "{refused}");
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn changed_bytes_are_a_broken_connection() {
    let server = server(LONG);
    for way in [Way::ToServer, Way::ToClient] {
        for at in (150..900).step_by(13) {
            let proxy = Proxy::start(&server.address());
            proxy.plan(Plan::Flip(way, at));
            let start = Instant::now();
            let Ok(client) = Client::connect(&ConnectOptions {
                address: proxy.address("tcp"),
                timeout: Duration::from_secs(5),
                ..Default::default()
            }) else {
                // The greeting itself: there was no session yet.
                continue;
            };
            for round in 0..3u8 {
                assert_eq!(client.round(&[round; 40]).unwrap(), [round; 40], "{way:?} {at}");
            }
            client.session.close().unwrap_or_else(|error| panic!("{way:?} {at}: {error}"));
            assert!(start.elapsed() < Duration::from_secs(20), "{way:?} {at} took {:?}", start.elapsed());
            eprintln!("{way:?} {at} {:?}", start.elapsed());
        }
    }
}
