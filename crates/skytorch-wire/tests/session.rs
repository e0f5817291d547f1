//! Sessions end to end over real sockets, through both C ABIs, with a fake executor.
#![allow(missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::client::Client;
use common::executor::{FakeServer, SLOW_METHOD};
use common::{in_fork, socket_path};
use skytorch_wire::abi::*;
use skytorch_wire::client::ConnectOptions;
use skytorch_wire::error::Code;
use skytorch_wire::server::{Server, ServerOptions};

fn unix() -> FakeServer {
    FakeServer::start(options(&format!("unix://{}", socket_path().display())))
}

fn options(address: &str) -> ServerOptions {
    ServerOptions { listen: vec![address.to_owned()], ..Default::default() }
}

#[test]
fn a_tensor_comes_back_over_a_unix_socket() {
    let server = unix();
    let client = Client::to(&server.address());
    let data: Vec<u8> = (0..100).collect();
    assert_eq!(client.round(&data).unwrap(), data);
    assert_eq!(client.round(&[]).unwrap(), []);
    client.session.close().unwrap();
    assert!(!client.session.is_open());
    assert_eq!(client.lock().unwrap_err().0, SKY_ERR_SESSION_CLOSED);
}

#[test]
fn records_keep_their_order() {
    let server = FakeServer::start(options("tcp://127.0.0.1:0"));
    let client = Client::to(&server.address());
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, 8).unwrap();
    let read = client.define_bytes(SKY_TEMPLATE_READ, 8).unwrap();
    let storage = client.alloc(8).unwrap();
    for round in 0..2000u64 {
        client.write(write, storage, &round.to_le_bytes()).unwrap();
        if round % 7 == 0 {
            let mut back = [0; 8];
            client.read(read, storage, &mut back).unwrap();
            assert_eq!(u64::from_le_bytes(back), round);
        }
    }
    assert_eq!(client.ask(SKY_CALL_MEMORY_STATS, &[41], b"").unwrap(), (41, Vec::new()));
    client.session.close().unwrap();
}

#[test]
fn many_ops_are_sent_without_a_wait() {
    let server = unix();
    let client = Client::to(&server.address());
    let op = client.define_op().unwrap();
    let input = client.alloc(64).unwrap();
    for _ in 0..200_000 {
        let ids = [input, client.new_storage()];
        client.op(op, &ids).unwrap();
        client.free(ids[1]).unwrap();
    }
    client.ask(SKY_CALL_MEMORY_STATS, &[0], b"").unwrap();
    assert_eq!(server.server.counters().records, 400_003);
    client.session.close().unwrap();
}

#[test]
fn a_quiet_program_is_flushed_soon() {
    let server = unix();
    let client = Client::to(&server.address());
    let before = server.server.counters().records;
    client.alloc(64).unwrap();
    let start = Instant::now();
    while server.server.counters().records == before {
        assert!(start.elapsed() < Duration::from_secs(5), "nothing was sent");
        std::thread::yield_now();
    }
    client.session.close().unwrap();
}

#[test]
fn errors_of_the_executor_reach_the_reader_only() {
    let server = unix();
    let client = Client::to(&server.address());
    let read = client.define_bytes(SKY_TEMPLATE_READ, 8).unwrap();
    let good = client.alloc(8).unwrap();
    let missing = client.new_storage();
    let failure = client.read(read, missing, &mut [0; 8]).unwrap_err();
    assert_eq!(failure, (SKY_ERR_OP_RUNTIME, "storage is poisoned".to_owned()));
    client.read(read, good, &mut [0; 8]).unwrap();
    let failure = client.read(read, good, &mut [0; 9]).unwrap_err();
    assert_eq!(failure.0, SKY_ERR_INVALID_ARGUMENT);
    client.read(read, good, &mut [0; 8]).unwrap();
}

#[test]
fn a_second_session_is_refused_until_the_first_ends() {
    let server = unix();
    let first = Client::to(&server.address());
    let options = ConnectOptions { address: server.address(), ..Default::default() };
    let refused = Client::connect(&options).map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Code::ServerBusy);
    assert!(refused.message.contains("in use by") && refused.message.contains("for 0 s"), "{refused}");
    first.round(b"still here").unwrap();
    first.session.close().unwrap();
    let second = Client::to(&server.address());
    second.round(b"taken over").unwrap();
    // A client that vanishes gives the server up as well.
    drop(second);
    let start = Instant::now();
    let third = loop {
        match Client::connect(&options) {
            Ok(client) => break client,
            Err(error) => assert_eq!(error.code, Code::ServerBusy),
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    };
    third.round(b"once more").unwrap();
}

#[test]
fn a_wrong_or_missing_token_is_refused() {
    let token = Some("correct horse".into());
    let server = FakeServer::start(ServerOptions { token: token.clone(), ..options("tcp://127.0.0.1:0") });
    let good = ConnectOptions { address: server.address(), token, ..Default::default() };
    for token in [None, Some("correct hors".into()), Some("correct horsf".into())] {
        let refused = Client::connect(&ConnectOptions { token, ..good.clone() }).map(|_| ()).unwrap_err();
        assert_eq!(refused.code, Code::Unauthenticated, "{refused}");
        assert!(!refused.message.contains("horse"));
    }
    Client::connect(&good).unwrap().round(b"in").unwrap();
}

#[test]
fn addresses_that_others_can_reach_need_tls_and_a_token() {
    for address in ["tcp://0.0.0.0:0", "tls://0.0.0.0:0"] {
        let error = Server::bind(options(address)).map(|_| ()).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains("token"), "{error}");
    }
}

#[test]
fn a_unix_socket_is_private_and_leaves_nothing_behind() {
    use std::os::unix::fs::PermissionsExt;
    let path = socket_path();
    let address = format!("unix://{}", path.display());
    // Left over from a server that died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = FakeServer::start(options(&address));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = Server::bind(options(&address)).map(|_| ()).unwrap_err();
    assert!(error.message.contains("in use"), "{error}");
    Client::to(&address).round(b"in").unwrap();
    drop(server);
    assert!(!path.exists());
}

#[test]
fn nobody_there_is_unreachable() {
    for address in ["unix:///nonexistent/x.sock", "tcp://127.0.0.1:1"] {
        let error = Client::connect(&ConnectOptions { address: address.to_owned(), ..Default::default() });
        assert_eq!(error.map(|_| ()).unwrap_err().code, Code::Unreachable);
    }
}

#[test]
fn a_server_that_stops_is_a_lost_connection_soon() {
    let server = unix();
    let client = Arc::new(Client::to(&server.address()));
    let waiting = client.clone();
    client.round(b"alive").unwrap();
    let waiter = std::thread::spawn(move || waiting.ask(SLOW_METHOD, &[300], b""));
    let start = Instant::now();
    drop(server);
    let failure = waiter.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    if let Err((code, message)) = failure {
        assert!(code == SKY_ERR_CONNECTION_LOST || code == SKY_ERR_SESSION_CLOSED, "{message}");
    }
    let start = Instant::now();
    while client.lock().is_ok() {
        client.unlock();
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn several_threads_wait_at_once() {
    let server = unix();
    let client = Arc::new(Client::to(&server.address()));
    let threads: Vec<_> = (0..4i64)
        .map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..500 {
                    let sum = client.ask(SKY_CALL_MEMORY_STATS, &[thread * 1000 + round], b"").unwrap().0;
                    assert_eq!(sum, thread * 1000 + round);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    client.session.close().unwrap();
}

#[test]
fn a_long_computation_does_not_break_the_connection() {
    let server = unix();
    let client = Client::to(&server.address());
    client.ask(SLOW_METHOD, &[2500], b"").unwrap();
    client.round(b"alive").unwrap();
}

#[test]
fn a_forked_child_is_told_so_and_does_no_harm() {
    let server = unix();
    let client = Client::to(&server.address());
    client.round(b"before").unwrap();
    let code = in_fork(|| match client.lock() {
        Err((SKY_ERR_FORKED, message)) if message.contains("forked") => {
            client.flush();
            drop(client.session.close());
            i32::from(client.session.is_open())
        }
        _ => 2,
    });
    assert_eq!(code, 0);
    client.round(b"after").unwrap();
    // A child that drops what it inherited.
    let code = in_fork(|| {
        drop(client.session.clone());
        0
    });
    assert_eq!(code, 0);
    client.round(b"after that").unwrap();
    client.session.close().unwrap();
}

/// Of the server processes here.
const RESUME_TIMEOUT: Duration = Duration::from_secs(1);

/// Not a test of its own: the process that `Killed` starts and kills.
#[test]
fn the_server_process() {
    let Some(address) = std::env::var_os("SKY_TEST_SERVE") else { return };
    let resume_timeout = RESUME_TIMEOUT;
    let server = FakeServer::start(ServerOptions { resume_timeout, ..options(address.to_str().unwrap()) });
    println!("\nready");
    let _ = std::io::stdin().read(&mut [0]);
    drop(server);
}

/// A server in a process of its own.
struct Killed {
    child: Child,
    address: String,
}

impl Killed {
    fn start() -> Killed {
        let address = format!("unix://{}", socket_path().display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_server_process", "--nocapture"])
            .env("SKY_TEST_SERVE", &address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"));
        Killed { child, address }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_server_that_is_killed_is_a_lost_connection_within_two_seconds() {
    let mut server = Killed::start();
    let client = Arc::new(Client::to(&server.address));
    client.round(b"alive").unwrap();
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || client.ask(SLOW_METHOD, &[20_000], b"").unwrap_err())
        })
        .collect();
    // Both requests are on their way once the server has seen more records than the round made.
    while client.session.stats().records < 7 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    server.kill();
    for waiter in waiters {
        let (code, message) = waiter.join().unwrap();
        assert_eq!(code, SKY_ERR_CONNECTION_LOST, "{message}");
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    // Every later call fails at once, for the same reason.
    assert_eq!(client.round(b"dead").unwrap_err().0, SKY_ERR_CONNECTION_LOST);
    client.session.close().unwrap();
}

#[test]
fn a_killed_server_ends_a_large_upload_and_a_large_read() {
    for upload in [true, false] {
        let mut server = Killed::start();
        let client = Client::to(&server.address);
        let n = 256u64 << 20;
        let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
        let read = client.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
        let storage = client.alloc(n).unwrap();
        client.ask(SKY_CALL_MEMORY_STATS, &[0], b"").unwrap();
        let mut data = vec![1; n as usize];
        let killer = std::thread::spawn(move || {
            server.kill();
            Instant::now()
        });
        let result = match upload {
            true => client.write(write, storage, &data).and_then(|()| client.read(read, storage, &mut data[..])),
            false => client.read(read, storage, &mut data),
        };
        let killed = killer.join().unwrap();
        assert_eq!(result.unwrap_err().0, SKY_ERR_CONNECTION_LOST);
        assert!(killed.elapsed() < Duration::from_secs(2));
    }
}

#[test]
#[ignore = "takes 20 s: longer than the keepalive"]
fn a_computation_longer_than_the_keepalive_does_not_break_the_connection() {
    let server = unix();
    let client = Client::to(&server.address());
    client.ask(SLOW_METHOD, &[20_000], b"").unwrap();
    client.round(b"alive").unwrap();
}

#[test]
#[ignore = "takes 17 s: the keepalive and the resume time-out"]
fn a_server_that_falls_silent_is_a_lost_connection_within_the_keepalive_and_the_time_out() {
    let mut server = Killed::start();
    let client = Client::to(&server.address);
    client.round(b"alive").unwrap();
    common::stop_process(server.child.id());
    let start = Instant::now();
    assert_eq!(client.ask(SKY_CALL_MEMORY_STATS, &[0], b"").unwrap_err().0, SKY_ERR_CONNECTION_LOST);
    assert!(start.elapsed() < Duration::from_secs(16) + RESUME_TIMEOUT, "{:?}", start.elapsed());
    server.kill();
}
