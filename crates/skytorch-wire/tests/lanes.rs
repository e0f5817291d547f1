//! Bulk bytes: lanes over every transport, borrowed memory, refusals, copies between servers.
#![allow(missing_docs)]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::client::Client;
use common::executor::FakeServer;
use common::proxy::Proxy;
use common::socket_path;
use skytorch_wire::abi::*;
use skytorch_wire::client::ConnectOptions;
use skytorch_wire::net::{Recorder, TlsOptions};
use skytorch_wire::server::ServerOptions;

const MIB: usize = 1 << 20;

fn unix_address() -> String {
    format!("unix://{}", socket_path().display())
}

/// A server's options and a client's, for a transport.
fn pair(transport: &str) -> (ServerOptions, ConnectOptions) {
    let mut server = ServerOptions::default();
    let mut client = ConnectOptions::default();
    match transport {
        "unix" => server.listen = vec![unix_address()],
        "tcp" => server.listen = vec!["tcp://127.0.0.1:0".to_owned()],
        _ => {
            let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let cert = signed.cert.pem().into_bytes();
            server.listen = vec!["tls://127.0.0.1:0".to_owned()];
            server.token = Some("secret".into());
            let key = signed.signing_key.serialize_pem().into_bytes();
            server.tls = Some(TlsOptions {
                cert_pem: Some(cert.clone().into()),
                key_pem: Some(key.into()),
                ..Default::default()
            });
            client.token = Some("secret".into());
            let name = Some("localhost".to_owned());
            client.tls = Some(TlsOptions { ca_pem: Some(cert.into()), server_name: name, ..Default::default() });
        }
    }
    (server, client)
}

fn start(transport: &str) -> (FakeServer, Client) {
    let (server, client) = pair(transport);
    let server = FakeServer::start(server);
    let client = Client::connect(&ConnectOptions { address: server.address(), ..client }).unwrap();
    (server, client)
}

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

fn both_ways(transport: &str) {
    let (_server, client) = start(transport);
    for bytes in [1, 256 << 10, (256 << 10) + 1, MIB, 4 * MIB, 4 * MIB + 1, 40 * MIB + 77] {
        let data = pattern(bytes, bytes as u8);
        assert!(client.round(&data).unwrap() == data, "{bytes} bytes over {transport}");
    }
    client.session.close().unwrap();
}

#[test]
fn both_ways_over_unix() {
    both_ways("unix");
}

#[test]
fn both_ways_over_tcp() {
    both_ways("tcp");
}

#[test]
fn both_ways_over_tls() {
    both_ways("tls");
}

/// A client is welcome before the executor has taken its session, and its bytes may come before that, too.
#[test]
fn what_comes_before_the_executor_waits_for_it() {
    let options = || ServerOptions { listen: vec![unix_address()], ..ServerOptions::default() };
    let source = FakeServer::start(options());
    let mut late = FakeServer::without_executor(options(), u64::MAX);
    let proxy = Proxy::start(&late.address());
    let (left, right) = (Client::to(&source.address()), Client::to(&proxy.address("tcp")));
    let n = 300 << 10;
    let data = pattern(n as usize, 7);
    let (write, read) =
        (right.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), right.define_bytes(SKY_TEMPLATE_READ, n).unwrap());
    let uploaded = right.alloc(n).unwrap();
    right.write(write, uploaded, &data).unwrap();
    let there = left.alloc(n).unwrap();
    left.write(left.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), there, &data).unwrap();
    let out = left.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
    let copied = right.alloc(n).unwrap();
    left.send_between((out, there), &right, (write, copied), n).unwrap();
    left.flush();
    proxy.wait_for_connections(3); // the session's, the client's lane and the other server's
    late.start_executor();
    let mut back = vec![0; n as usize];
    for storage in [uploaded, copied] {
        right.read(read, storage, &mut back).unwrap();
        assert!(back == data);
    }
}

#[test]
fn uploads_keep_their_place_in_the_order() {
    let (_server, client) = start("unix");
    let n = 300 << 10;
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
    let read = client.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
    let storage = client.alloc(n).unwrap();
    let mut back = vec![0; n as usize];
    for round in 0..50u8 {
        client.write(write, storage, &pattern(n as usize, round)).unwrap();
        client.write(write, storage, &pattern(n as usize, round ^ 0x80)).unwrap();
        client.read(read, storage, &mut back).unwrap();
        assert!(back == pattern(n as usize, round ^ 0x80), "round {round}");
    }
}

#[test]
fn large_payloads_are_written_from_the_callers_memory() {
    type Ranges = Vec<(usize, usize)>;
    let seen: Arc<Mutex<Ranges>> = Arc::default();
    let recorded = seen.clone();
    let recorder = Recorder::new(move |buffers| {
        recorded.lock().unwrap().extend(buffers.iter().map(|buffer| (buffer.as_ptr() as usize, buffer.len())));
    });
    let server = FakeServer::start(ServerOptions { listen: vec![unix_address()], ..Default::default() });
    let options = ConnectOptions { address: server.address(), recorder: Some(recorder), ..Default::default() };
    let client = Client::connect(&options).unwrap();
    let data = pattern(24 * MIB, 3);
    let n = data.len() as u64;
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
    let storage = client.alloc(n).unwrap();
    client.write(write, storage, &data).unwrap();

    let (start, end) = (data.as_ptr() as usize, data.as_ptr() as usize + data.len());
    let (mut inside, mut outside) = (0, 0);
    for &(address, bytes) in seen.lock().unwrap().iter() {
        match address >= start && address + bytes <= end {
            true => inside += bytes,
            false => outside += bytes,
        }
    }
    // A buffer that was only partly taken is seen again, so there may be more than the tensor, never less.
    assert!(inside >= data.len(), "{inside} of {} bytes were written from the tensor's memory", data.len());
    assert!(outside < 64 << 10, "{outside} bytes were written from elsewhere");
}

#[test]
fn a_held_source_is_released_once() {
    let (_server, client) = start("unix");
    for bytes in [100, 300 << 10, 9 * MIB] {
        let data = pattern(bytes, 9);
        let n = bytes as u64;
        let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
        let read = client.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
        let storage = client.alloc(n).unwrap();
        let released = AtomicU64::new(0);
        client.write_held(write, storage, &data, &released).unwrap();
        let mut back = vec![0; bytes];
        client.read(read, storage, &mut back).unwrap();
        assert!(back == data);
        let start = Instant::now();
        while released.load(Ordering::SeqCst) == 0 {
            assert!(start.elapsed() < Duration::from_secs(5));
            std::thread::yield_now();
        }
        // Also when the call fails.
        client.write_held(write, storage, &data[..bytes - 1], &released).unwrap_err();
        assert_eq!(released.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn an_upload_without_memory_for_it_fails_alone() {
    let (options, client) = pair("unix");
    let server = FakeServer::start_with(options, 16 << 20);
    let client = Client::connect(&ConnectOptions { address: server.address(), ..client }).unwrap();
    let n = 17 << 20;
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
    let read = client.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
    let storage = client.alloc(n).unwrap();
    let failure = client.write(write, storage, &vec![1; n as usize]).unwrap_err();
    assert_eq!(failure.0, SKY_ERR_OP_OUT_OF_MEMORY, "{}", failure.1);
    assert_eq!(client.read(read, storage, &mut vec![0; n as usize]).unwrap_err().0, SKY_ERR_OP_RUNTIME);
    let data = pattern(8 * MIB, 1);
    assert!(client.round(&data).unwrap() == data);
}

#[test]
fn an_upload_to_a_server_that_stops_ends() {
    let (server, client) = start("unix");
    let n = 256 << 20;
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
    let storage = client.alloc(n).unwrap();
    let data = vec![7; n as usize];
    let stopper = std::thread::spawn(move || drop(server));
    let start = Instant::now();
    // It may have been quick enough.
    let _ = client.write(write, storage, &data);
    assert!(start.elapsed() < Duration::from_secs(4));
    stopper.join().unwrap();
}

fn between(from: &str, to: &str) {
    let ((_from_server, a), (_to_server, b)) = (start(from), start(to));
    assert!(a.can_send(&b));
    for bytes in [10, 5 * MIB] {
        copy(&a, &b, bytes);
    }
}

/// Copy from one server to the other and see that it arrives.
fn copy(a: &Client, b: &Client, bytes: usize) {
    let data = pattern(bytes, 5);
    let n = bytes as u64;
    let (write, read_a) =
        (a.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), a.define_bytes(SKY_TEMPLATE_READ, n).unwrap());
    let (write_b, read_b) =
        (b.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), b.define_bytes(SKY_TEMPLATE_READ, n).unwrap());
    let (source, destination) = (a.alloc(n).unwrap(), b.alloc(n).unwrap());
    a.write(write, source, &data).unwrap();
    a.send_between((read_a, source), b, (write_b, destination), n).unwrap();
    let mut back = vec![0; bytes];
    b.read(read_b, destination, &mut back).unwrap();
    assert!(back == data, "{bytes} bytes");
}

#[test]
fn copies_go_from_server_to_server() {
    between("unix", "unix");
    between("unix", "tcp");
    between("tcp", "tls");
}

#[test]
fn servers_meet_at_the_peer_address_and_not_where_the_client_dialled() {
    let (_a_server, a) = start("tls");
    let (options, client) = pair("tls");
    let b_server = FakeServer::start(options);
    let tunnel = Proxy::start(&b_server.address());
    let peer_address = Some(b_server.address());
    let b = Client::connect(&ConnectOptions { address: tunnel.address("tls"), peer_address, ..client }).unwrap();
    assert!(a.can_send(&b));
    copy(&a, &b, 5 * MIB);
    assert_eq!(tunnel.connections(), 1, "the session's own");
    // A tunnel that ends is no matter between servers, an address that leads nowhere is.
    let (options, client) = pair("tls");
    let c_server = FakeServer::start(options);
    let peer_address = Some("tls://127.0.0.1:1".to_owned());
    let c = Client::connect(&ConnectOptions { address: c_server.address(), peer_address, ..client }).unwrap();
    assert!(!a.can_send(&c));
}

#[test]
fn an_address_that_cannot_be_reached_is_reported() {
    let ((_a_server, a), (b_server, b)) = (start("unix"), start("unix"));
    b.round(b"there").unwrap();
    drop(b_server);
    assert!(!a.can_send(&b));
}

#[test]
fn threads_read_write_and_upload_at_once() {
    let (_server, client) = start("tcp");
    let client = Arc::new(client);
    let threads: Vec<_> = (0..4u8)
        .map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..12u8 {
                    let bytes = [9, 40_000, 300 << 10, 5 * MIB][usize::from((thread + round) % 4)];
                    let data = pattern(bytes, thread.wrapping_mul(31) ^ round);
                    assert!(client.round(&data).unwrap() == data, "thread {thread}, round {round}");
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
fn opposite_copies_do_not_wait_for_each_other() {
    let ((_a_server, a), (_b_server, b)) = (start("unix"), start("unix"));
    let n = 6 * MIB as u64;
    let slots = |client: &Client| {
        (
            client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(),
            client.define_bytes(SKY_TEMPLATE_READ, n).unwrap(),
            client.alloc(n).unwrap(),
        )
    };
    let ((write_a, read_a, at_a), (write_b, read_b, at_b)) = (slots(&a), slots(&b));
    let data = pattern(n as usize, 77);
    a.write(write_a, at_a, &data).unwrap();
    for _ in 0..10 {
        a.send_between((read_a, at_a), &b, (write_b, at_b), n).unwrap();
        b.send_between((read_b, at_b), &a, (write_a, at_a), n).unwrap();
    }
    let mut back = vec![0; n as usize];
    a.read(read_a, at_a, &mut back).unwrap();
    assert!(back == data);
}

#[test]
fn a_copy_whose_source_is_lost_poisons_its_destination_only() {
    let ((_a_server, a), (_b_server, b)) = (start("unix"), start("unix"));
    let n = 5 * MIB as u64;
    let read_a = a.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
    let (write_b, read_b) =
        (b.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), b.define_bytes(SKY_TEMPLATE_READ, n).unwrap());
    let at_b = b.alloc(n).unwrap();
    a.send_between((read_a, a.new_storage()), &b, (write_b, at_b), n).unwrap();
    a.flush();
    assert_eq!(b.read(read_b, at_b, &mut vec![0; n as usize]).unwrap_err().0, SKY_ERR_OP_RUNTIME);
    b.round(b"alive").unwrap();
    a.round(b"alive").unwrap();
}

#[test]
fn a_copy_from_a_server_that_dies_does_not_hold_the_other_up() {
    let ((a_server, a), (_b_server, b)) = (start("unix"), start("unix"));
    let n = 5 * MIB as u64;
    let read_a = a.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
    let (write_b, read_b) =
        (b.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), b.define_bytes(SKY_TEMPLATE_READ, n).unwrap());
    let (at_a, at_b) = (a.alloc(n).unwrap(), b.alloc(n).unwrap());
    a.ask(SKY_CALL_MEMORY_STATS, &[0], b"").unwrap();
    // The record is appended and, with luck, never sent.
    a.send_between((read_a, at_a), &b, (write_b, at_b), n).unwrap();
    drop(a_server);
    let start = Instant::now();
    let _ = b.read(read_b, at_b, &mut vec![0; n as usize]);
    assert!(start.elapsed() < Duration::from_secs(5));
    b.round(b"alive").unwrap();
}
