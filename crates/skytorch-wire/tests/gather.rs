//! Copies between two sessions that travel together: how many transfers they take, that order and values are those of
//! the calls, and that one without a value fails alone.
#![allow(missing_docs)]

mod common;

use common::client::Client;
use common::executor::FakeServer;
use common::proxy::{Plan, Proxy, Way};
use skytorch_wire::abi::*;
use skytorch_wire::client::ConnectOptions;
use skytorch_wire::limits;
use skytorch_wire::net::TlsOptions;
use skytorch_wire::server::ServerOptions;

const MIB: u64 = 1 << 20;

struct Two {
    from: FakeServer,
    to: FakeServer,
    a: Client,
    b: Client,
}

fn tcp() -> ServerOptions {
    ServerOptions { listen: vec!["tcp://127.0.0.1:0".to_owned()], ..Default::default() }
}

fn two() -> Two {
    let (from, to) = (FakeServer::start(tcp()), FakeServer::start(tcp()));
    let (a, b) = (Client::to(&from.address()), Client::to(&to.address()));
    Two { from, to, a, b }
}

fn pattern(bytes: u64, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

/// Slots of a client: to write and to read so many bytes.
fn slots(client: &Client, n: u64) -> (u32, u32) {
    (client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), client.define_bytes(SKY_TEMPLATE_READ, n).unwrap())
}

fn filled(client: &Client, write: u32, data: &[u8]) -> u64 {
    let storage = client.alloc(data.len() as u64).unwrap();
    client.write(write, storage, data).unwrap();
    storage
}

fn value(client: &Client, read: u32, storage: u64, n: u64) -> Vec<u8> {
    let mut back = vec![0; n as usize];
    client.read(read, storage, &mut back).unwrap();
    back
}

fn count(server: &FakeServer, kind: u8) -> usize {
    server.journal.lock().unwrap().iter().filter(|(record, _)| *record == kind).count()
}

#[test]
fn copies_in_a_row_are_few_transfers() {
    let Two { from, to, a, b } = two();
    let sizes = [1, 1000, 64 << 10, 300 << 10];
    let slots: Vec<_> = sizes.iter().map(|&n| (slots(&a, n), slots(&b, n))).collect();
    let copies: Vec<_> = (0..100u8)
        .map(|i| {
            let at = usize::from(i) % sizes.len();
            let data = pattern(sizes[at], i);
            (at, filled(&a, slots[at].0.0, &data), b.alloc(sizes[at]).unwrap(), data)
        })
        .collect();
    value(&a, slots[0].0.1, copies[0].1, 1);
    for (at, source, destination, _) in &copies {
        let ((_, read), (write, _)) = slots[*at];
        a.send_between((read, *source), &b, (write, *destination), sizes[*at]).unwrap();
    }
    for (at, _, destination, data) in &copies {
        assert!(value(&b, slots[*at].1.1, *destination, sizes[*at]) == *data);
    }
    // The pump flushes what lies for a millisecond or two: on a machine that is busy, in the middle of the loop.
    let (sends, lands) = (count(&from, SKY_RECORD_SEND), count(&to, SKY_RECORD_WRITE_LANE));
    assert!(sends <= 20, "{sends} transfers for 100 copies");
    assert_eq!(sends, lands);
}

#[test]
fn whatever_comes_in_between_keeps_its_place() {
    let Two { from: _from, to: _to, a, b } = two();
    let n = 1000;
    let ((write_a, read_a), (write_b, read_b)) = (slots(&a, n), slots(&b, n));
    let source = filled(&a, write_a, &pattern(n, 0));
    let destinations: Vec<u64> = (0..40).map(|_| b.alloc(n).unwrap()).collect();
    for (i, &destination) in destinations.iter().enumerate() {
        a.send_between((read_a, source), &b, (write_b, destination), n).unwrap();
        match i % 4 {
            // The source changes behind the copy, and in front of the next one.
            0 => a.write(write_a, source, &pattern(n, i as u8 + 1)).unwrap(),
            // The destination does.
            1 => b.write(write_b, destination, &pattern(n, 200)).unwrap(),
            // The slot stands for another tensor.
            2 => {
                a.redefine_bytes(read_a, SKY_TEMPLATE_READ, 10).unwrap();
                a.redefine_bytes(read_a, SKY_TEMPLATE_READ, n).unwrap();
            }
            // And back.
            _ => b.send_between((read_b, destination), &a, (write_a, source), n).unwrap(),
        }
    }
    for (i, &destination) in destinations.iter().enumerate() {
        let written = pattern(n, (i.saturating_sub(1) / 4 * 4 + 1) as u8);
        let expected = match i {
            0 => pattern(n, 0),
            _ if i % 4 == 1 => pattern(n, 200),
            _ => written,
        };
        assert!(value(&b, read_b, destination, n) == expected, "copy {i}");
    }
}

#[test]
fn one_without_a_value_fails_alone() {
    let Two { from: _from, to: _to, a, b } = two();
    let n = 5000;
    let ((write_a, read_a), (write_b, read_b)) = (slots(&a, n), slots(&b, n));
    let source = filled(&a, write_a, &pattern(n, 3));
    let destinations: Vec<u64> = (0..10).map(|_| b.alloc(n).unwrap()).collect();
    for (i, &destination) in destinations.iter().enumerate() {
        let storage = if i % 3 == 1 { a.new_storage() } else { source };
        a.send_between((read_a, storage), &b, (write_b, destination), n).unwrap();
    }
    for (i, &destination) in destinations.iter().enumerate() {
        if i % 3 == 1 {
            let failure = b.read(read_b, destination, &mut vec![0; n as usize]).unwrap_err();
            assert_eq!(failure.0, SKY_ERR_OP_RUNTIME, "copy {i}");
        } else {
            assert!(value(&b, read_b, destination, n) == pattern(n, 3), "copy {i}");
        }
    }
    a.round(b"alive").unwrap();
}

#[test]
fn a_large_copy_travels_alone_and_many_do_in_parts() {
    let Two { from, to: _to, a, b } = two();
    let sizes = [70 * MIB, MIB, 30 * MIB, 30 * MIB, 30 * MIB, MIB];
    let mut copies = Vec::new();
    for (i, &n) in sizes.iter().enumerate() {
        let ((write_a, read_a), (write_b, read_b)) = (slots(&a, n), slots(&b, n));
        let data = pattern(n, i as u8);
        copies.push((read_a, filled(&a, write_a, &data), write_b, read_b, b.alloc(n).unwrap(), data));
    }
    for (read, source, write, _, destination, data) in &copies {
        a.send_between((*read, *source), &b, (*write, *destination), data.len() as u64).unwrap();
    }
    for (_, _, _, read, destination, data) in &copies {
        assert!(value(&b, *read, *destination, data.len() as u64) == *data);
    }
    assert!((3..=6).contains(&count(&from, SKY_RECORD_SEND)));
}

#[test]
fn a_transfer_of_several_goes_on_wherever_its_lane_is_cut() {
    let (from, to) = (FakeServer::start(tcp()), FakeServer::start(tcp()));
    let sizes = [300 << 10, 5, MIB, 2 * MIB];
    let total: u64 = sizes.iter().sum();
    for way in [Way::ToServer, Way::ToClient] {
        for at in [0, 30, 200, 100, 310 << 10, 320 << 10, MIB, 3 * MIB, total] {
            // The first connection through the proxy is the session's, the second the other server's lane.
            let proxy = Proxy::start(&to.address());
            proxy.plan(Plan::Pass);
            proxy.plan(Plan::Cut(way, at));
            let (a, b) = (Client::to(&from.address()), Client::to(&proxy.address("tcp")));
            let mut copies = Vec::new();
            for (i, &n) in sizes.iter().enumerate() {
                let ((write_a, read_a), (write_b, read_b)) = (slots(&a, n), slots(&b, n));
                let data = pattern(n, i as u8);
                copies.push((read_a, filled(&a, write_a, &data), write_b, read_b, b.alloc(n).unwrap(), data));
            }
            for (read, source, write, _, destination, data) in &copies {
                a.send_between((*read, *source), &b, (*write, *destination), data.len() as u64).unwrap();
            }
            a.flush();
            for (_, _, _, read, destination, data) in &copies {
                assert!(value(&b, *read, *destination, data.len() as u64) == *data, "{way:?} {at}");
            }
            a.session.close().unwrap();
            b.session.close().unwrap();
        }
    }
}

#[test]
fn a_server_that_dies_before_the_copies_went_holds_nobody_up() {
    let Two { from, to: _to, a, b } = two();
    let n = 1000;
    let ((_, read_a), (write_b, read_b)) = (slots(&a, n), slots(&b, n));
    let (source, destinations) = (a.alloc(n).unwrap(), [b.alloc(n).unwrap(), b.alloc(n).unwrap()]);
    a.ask(SKY_CALL_MEMORY_STATS, &[0], b"").unwrap();
    for &destination in &destinations {
        a.send_between((read_a, source), &b, (write_b, destination), n).unwrap();
    }
    drop(from);
    let start = std::time::Instant::now();
    for destination in destinations {
        let _ = b.read(read_b, destination, &mut vec![0; n as usize]);
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
    b.round(b"alive").unwrap();
}

#[test]
fn a_program_that_never_stops_copying_does_not_gather_for_ever() {
    let Two { from: _from, to, a, b } = two();
    let n = 16;
    let ((write_a, read_a), (write_b, read_b)) = (slots(&a, n), slots(&b, n));
    let (source, destination) = (filled(&a, write_a, &pattern(n, 1)), b.alloc(n).unwrap());
    let copies = 4 * limits::PARCEL_TENSORS;
    for _ in 0..copies {
        a.send_between((read_a, source), &b, (write_b, destination), n).unwrap();
        // The pace of a program that does a little between two copies.
        let since = std::time::Instant::now();
        while since.elapsed() < std::time::Duration::from_micros(50) {}
    }
    value(&b, read_b, destination, n);
    let transfers = count(&to, SKY_RECORD_WRITE_LANE);
    assert!(transfers > 20, "{transfers} transfers for {copies} copies in a second: only their number ended them");
}

/// A server remembers the numbers that came, and a number that never comes stays a hole in that memory.
#[test]
fn what_is_refused_uses_no_number_of_a_transfer() {
    let (from, to) = (FakeServer::start(tcp()), FakeServer::start(tcp()));
    // It would have to travel in the SEND.
    let authority = TlsOptions { ca_pem: Some(vec![b'-'; limits::PAYLOAD_BYTES].into()), ..Default::default() };
    let options = ConnectOptions { address: to.address(), tls: Some(authority), ..Default::default() };
    let (a, b) = (Client::to(&from.address()), Client::connect(&options).unwrap());
    let n = 300 << 10;
    let ((write_a, read_a), (write_b, read_b)) = (slots(&a, n), slots(&b, n));
    let data = pattern(n, 1);
    let (source, destination) = (filled(&a, write_a, &data), b.alloc(n).unwrap());
    let refused = a.send_between((read_a, source), &b, (write_b, destination), n).unwrap_err();
    assert_eq!(refused.0, SKY_ERR_LIMIT_EXCEEDED, "{}", refused.1);
    assert_eq!(b.write(write_b, 0, &data).unwrap_err().0, SKY_ERR_INVALID_ARGUMENT);
    b.write(write_b, destination, &data).unwrap();
    assert!(value(&b, read_b, destination, n) == data);
    assert_eq!(to.landings.begun(), [1]);
}
