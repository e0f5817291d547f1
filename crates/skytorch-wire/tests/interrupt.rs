//! Ctrl-C during a wait: what waits returns soon, a late answer hurts nobody, the session goes on.
//!
//! The hooks are the process's, so these tests have a process of their own and take turns.
#![allow(missing_docs)]

mod common;

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::client::Client;
use common::executor::{FakeServer, SLOW_METHOD};
use common::socket_path;
use skytorch_wire::abi::*;
use skytorch_wire::hooks::{WaitHooks, set_hooks};
use skytorch_wire::server::ServerOptions;

static INTERRUPT: AtomicBool = AtomicBool::new(false);
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    /// How often this thread has left the language above without coming back.
    static OUTSIDE: Cell<i64> = const { Cell::new(0) };
}

fn start() -> (FakeServer, Client) {
    set_hooks(WaitHooks {
        enter_wait: || {
            OUTSIDE.set(OUTSIDE.get() + 1);
            1
        },
        leave_wait: |state| {
            assert_eq!(state, 1);
            OUTSIDE.set(OUTSIDE.get() - 1);
        },
        interrupted: || INTERRUPT.swap(false, Ordering::SeqCst),
    });
    let listen = vec![format!("unix://{}", socket_path().display())];
    let server = FakeServer::start(ServerOptions { listen, ..Default::default() });
    let client = Client::to(&server.address());
    (server, client)
}

#[test]
fn a_read_is_interrupted_and_its_late_answer_thrown_away() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let (_server, client) = start();
    let n = 100_000;
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
    let read = client.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
    let storage = client.alloc(n).unwrap();
    client.write(write, storage, &vec![7; n as usize]).unwrap();
    std::thread::scope(|scope| {
        // Keeps the executor busy, so that the read's answer is late.
        let busy = scope.spawn(|| client.ask(SLOW_METHOD, &[600], b""));
        while client.session.stats().records < 5 {
            std::thread::yield_now();
        }
        let mut into = vec![1; n as usize];
        INTERRUPT.store(true, Ordering::SeqCst);
        let start = Instant::now();
        let failures = [client.read(read, storage, &mut into), busy.join().unwrap().map(|_| ())];
        // Whichever of the two looked first was interrupted; the other had its answer.
        let interrupted = failures.iter().filter(|f| matches!(f, Err((SKY_ERR_INTERRUPTED, _)))).count();
        assert_eq!(interrupted, 1, "{failures:?}");
        if failures[0].is_err() {
            assert!(start.elapsed() < Duration::from_secs(2));
            assert!(into.iter().all(|byte| *byte == 1));
        }
    });
    let mut back = vec![0; n as usize];
    client.read(read, storage, &mut back).unwrap();
    assert!(back.iter().all(|byte| *byte == 7));
    assert_eq!(OUTSIDE.get(), 0);
    client.session.close().unwrap();
}

#[test]
fn a_session_is_closed_while_a_large_answer_is_late() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let (_server, client) = start();
    let n = 1 << 20;
    let read = client.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
    let storage = client.alloc(n).unwrap();
    let interrupted = |wait: &dyn Fn() -> Result<(), (u32, String)>| {
        INTERRUPT.store(true, Ordering::SeqCst);
        assert_eq!(wait().unwrap_err().0, SKY_ERR_INTERRUPTED);
    };
    // The goodbye is there before the answer: the server must not wait to hear that the answer has come.
    interrupted(&|| client.ask(SLOW_METHOD, &[600], b"").map(drop));
    interrupted(&|| client.read(read, storage, &mut vec![0; n as usize]));
    client.session.close().unwrap();
}

#[test]
fn an_upload_is_interrupted_and_lets_go_of_its_memory() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let (server, client) = start();
    let n = 64 << 20;
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
    let read = client.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
    let storage = client.alloc(n).unwrap();
    let data = vec![5; n as usize];
    server.landings.pause(true);
    INTERRUPT.store(true, Ordering::SeqCst);
    // The server stops taking bytes; it goes on once the interruption was seen, so that the stream can be reset.
    let failure = std::thread::scope(|scope| {
        scope.spawn(|| {
            while INTERRUPT.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            server.landings.pause(false);
        });
        client.write(write, storage, &data).unwrap_err()
    });
    assert_eq!(failure.0, SKY_ERR_INTERRUPTED, "{}", failure.1);
    drop(data);
    // The tensor's value is lost, and nothing else; the server knows why.
    let lost = client.read(read, storage, &mut vec![0; n as usize]).unwrap_err();
    assert!(lost.1.ends_with(&format!("ended with code {SKY_ERR_INTERRUPTED}")), "{}", lost.1);
    let data: Vec<u8> = (0..9 << 20).map(|at| at as u8).collect();
    assert!(client.round(&data).unwrap() == data);
    assert_eq!(OUTSIDE.get(), 0);
    client.session.close().unwrap();
}
