//! Sessions that go on over a new connection, exactly once (INV-6): the connection is cut at every byte of a program.
#![allow(missing_docs)]

mod common;

use common::client::{Client, Failure};
use common::executor::FakeServer;
use common::proxy::{Plan, Proxy, Way};
use skytorch_wire::abi::*;
use skytorch_wire::client::ConnectOptions;
use skytorch_wire::net::TlsOptions;
use skytorch_wire::server::ServerOptions;

fn tcp() -> ServerOptions {
    ServerOptions { listen: vec!["tcp://127.0.0.1:0".to_owned()], ..Default::default() }
}

/// Ops in many messages, values in and out, and what was read.
fn few_bytes(client: &Client) -> Result<Vec<Vec<u8>>, Failure> {
    let mut seen = Vec::new();
    let op = client.define_op()?;
    let (write, read) = (client.define_bytes(SKY_TEMPLATE_WRITE, 8)?, client.define_bytes(SKY_TEMPLATE_READ, 8)?);
    let mut x = client.alloc(8)?;
    for round in 0..6u8 {
        client.write(write, x, &[round; 8])?;
        client.flush();
        let y = client.new_storage();
        client.op(op, &[x, y])?;
        client.flush();
        let mut back = vec![0; 8];
        client.read(read, x, &mut back)?;
        seen.push(back);
        let sum = client.ask(SKY_CALL_MEMORY_STATS, &[i64::from(round)], b"")?.0;
        seen.push(sum.to_le_bytes().to_vec());
        client.free(x)?;
        x = client.alloc(8)?;
    }
    Ok(seen)
}

/// Answers that are kept, that are sent from where they lie, and that come in pieces.
fn many_bytes(client: &Client) -> Result<Vec<Vec<u8>>, Failure> {
    let mut seen = Vec::new();
    for (at, bytes) in [60_000, 200_000, 256 << 10, 3 << 20].into_iter().enumerate() {
        let n = bytes as u64;
        let (write, read) = (client.define_bytes(SKY_TEMPLATE_WRITE, 8)?, client.define_bytes(SKY_TEMPLATE_READ, n)?);
        let x = client.alloc(n)?;
        client.write(write, x, &[at as u8 + 1; 8])?;
        for _ in 0..2 {
            let mut back = vec![9; bytes];
            client.read(read, x, &mut back)?;
            seen.push(back);
        }
    }
    Ok(seen)
}

type Program = fn(&Client) -> Result<Vec<Vec<u8>>, Failure>;
type Run = (Vec<Vec<u8>>, Vec<(u8, Vec<u64>)>);

/// One run of `program` through a proxy that does `plan` to connection `at`; and how much connection `at` carried.
fn run(program: Program, at: usize, plan: Plan) -> (Run, [u64; 2]) {
    run_from(0, program, at, plan)
}

/// The same in a session whose numbers begin behind `numbered_from`.
fn run_from(numbered_from: u64, program: Program, at: usize, plan: Plan) -> (Run, [u64; 2]) {
    let server = FakeServer::start(ServerOptions { numbered_from, ..tcp() });
    let proxy = Proxy::start(&server.address());
    for _ in 0..at {
        proxy.plan(Plan::Pass);
    }
    proxy.plan(plan);
    let client = Client::to(&proxy.address("tcp"));
    let seen = program(&client).unwrap_or_else(|failure| panic!("{plan:?}: {failure:?}"));
    client.session.close().unwrap_or_else(|error| panic!("{plan:?}: {error}"));
    let journal = server.journal.lock().unwrap().clone();
    let carried = [proxy.carried(at, Way::ToServer), proxy.carried(at, Way::ToClient)];
    ((seen, journal), carried)
}

/// Bytes of the preface and the greeting: a session that is cut there has not begun.
fn greeting(way: Way) -> u64 {
    let server = FakeServer::start(tcp());
    let proxy = Proxy::start(&server.address());
    let _client = Client::to(&proxy.address("tcp"));
    proxy.carried(0, way)
}

fn cut_everywhere(program: Program, points: u64) {
    let (undisturbed, carried) = run(program, 0, Plan::Pass);
    for way in [Way::ToServer, Way::ToClient] {
        let (from, to) = (greeting(way) + 40, carried[way as usize]);
        let step = ((to - from) / points).max(1);
        let mut at = from;
        while at < to {
            let (cut, _) = run(program, 0, Plan::Cut(way, at));
            assert!(cut.0 == undisturbed.0, "other values after a cut {way:?} at {at} of {to}");
            assert!(cut.1 == undisturbed.1, "other records after a cut {way:?} at {at} of {to}");
            at += step;
        }
    }
}

#[test]
fn nothing_is_lost_or_done_twice_wherever_the_stream_is_cut() {
    cut_everywhere(few_bytes, 150);
}

#[test]
fn answers_come_whole_wherever_the_stream_is_cut() {
    cut_everywhere(many_bytes, 60);
}

/// Uploads that are copied onto the lane, and one that goes out of the caller's memory.
fn uploads(client: &Client) -> Result<Vec<Vec<u8>>, Failure> {
    let mut seen = Vec::new();
    for bytes in [300 << 10, 5 << 20, 400 << 10] {
        let data: Vec<u8> = (0..bytes).map(|at: usize| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        seen.push(client.round(&data)?);
        assert!(seen.last() == Some(&data), "{bytes} bytes came back changed");
    }
    Ok(seen)
}

#[test]
fn uploads_go_on_wherever_their_lane_is_cut() {
    let (undisturbed, carried) = run(uploads, 1, Plan::Pass);
    for (way, points) in [(Way::ToServer, 80), (Way::ToClient, 40)] {
        let to = carried[way as usize];
        for at in (0..to).step_by((to / points).max(1) as usize) {
            let (cut, _) = run(uploads, 1, Plan::Cut(way, at));
            assert!(cut == undisturbed, "another outcome after a cut of the lane {way:?} at {at} of {to}");
        }
    }
}

/// In one message on its lane.
const SMALL: usize = 300 << 10;

fn small_upload(client: &Client) -> Result<Vec<Vec<u8>>, Failure> {
    Ok(vec![client.round(&[5; SMALL])?])
}

#[test]
fn numbers_beyond_32_bits_are_numbers() {
    for program in [few_bytes as Program, uploads] {
        let (expected, _) = run(program, 0, Plan::Pass);
        for from in [(1 << 32) - 20, (1 << 63) - 20] {
            let (undisturbed, carried) = run_from(from, program, 0, Plan::Pass);
            assert!(undisturbed == expected, "another outcome behind {from}");
            for way in [Way::ToServer, Way::ToClient] {
                let (begun, to) = (greeting(way) + 100, carried[way as usize]);
                for at in (begun..to).step_by(((to - begun) / 8).max(1) as usize) {
                    let (cut, _) = run_from(from, program, 0, Plan::Cut(way, at));
                    assert!(cut == expected, "another outcome behind {from} after a cut {way:?} at {at} of {to}");
                }
            }
        }
    }
}

#[test]
fn an_upload_begins_anew_when_its_bytes_were_changed() {
    let (undisturbed, _) = run(small_upload, 1, Plan::Pass);
    // In HTTP/2's preface, in the ticket, in the heads of the frames, in that of the message and in the data. Where a
    // length has changed both sides wait until the lane counts as silent, so they do not take turns.
    let points: Vec<u64> = (0..264).step_by(2).chain([100_000]).collect();
    std::thread::scope(|scope| {
        for points in points.chunks(20) {
            let undisturbed = &undisturbed;
            scope.spawn(move || {
                for &at in points {
                    let (changed, _) = run(small_upload, 1, Plan::Flip(Way::ToServer, at));
                    assert!(changed == *undisturbed, "another outcome after a change of byte {at}");
                }
            });
        }
    });
}

#[test]
fn a_refused_upload_leaves_its_lane_whole() {
    let server = FakeServer::start_with(tcp(), 16 << 20);
    let proxy = Proxy::start(&server.address());
    let client = Client::to(&proxy.address("tcp"));
    let n = 17 << 20;
    let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
    let storage = client.alloc(n).unwrap();
    let refused = client.write(write, storage, &vec![1; n as usize]).unwrap_err();
    assert_eq!(refused.0, SKY_ERR_OP_OUT_OF_MEMORY, "{}", refused.1);
    client.round(&[5; SMALL]).unwrap();
    assert_eq!(proxy.connections(), 2, "the session's, and one lane");
    client.session.close().unwrap();
}

#[test]
fn an_upload_goes_on_at_its_offset() {
    let server = FakeServer::start(tcp());
    let proxy = Proxy::start(&server.address());
    proxy.plan(Plan::Pass);
    proxy.plan(Plan::Cut(Way::ToServer, 30 << 20));
    let client = Client::to(&proxy.address("tcp"));
    let data = vec![7; 40 << 20];
    assert!(client.round(&data).unwrap() == data);
    // What was on its way when the lane broke is lost; the bytes before that are not sent again.
    assert_eq!(proxy.connections(), 3);
    assert!(proxy.carried(2, Way::ToServer) < 30 << 20, "{} bytes again", proxy.carried(2, Way::ToServer));
    client.session.close().unwrap();
}

#[test]
fn a_copy_between_two_servers_goes_on_wherever_its_lane_is_cut() {
    let (from, to) = (FakeServer::start(tcp()), FakeServer::start(tcp()));
    let n = 5 << 20;
    let data: Vec<u8> = (0..n).map(|at: usize| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // At 100 bytes to the client the acknowledgement is lost: the second call is answered before it has sent its bytes.
    let points = [0, 30, 200, 300, 1 << 20, 3 << 20, n as u64].into_iter().chain(std::iter::repeat_n(100, 20));
    for way in [Way::ToServer, Way::ToClient] {
        for at in points.clone() {
            // The first connection through the proxy is the session's, the second the other server's lane.
            let proxy = Proxy::start(&to.address());
            proxy.plan(Plan::Pass);
            proxy.plan(Plan::Cut(way, at));
            let (a, b) = (Client::to(&from.address()), Client::to(&proxy.address("tcp")));
            let n = n as u64;
            let (write, read) =
                (a.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), a.define_bytes(SKY_TEMPLATE_READ, n).unwrap());
            let (write_b, read_b) =
                (b.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap(), b.define_bytes(SKY_TEMPLATE_READ, n).unwrap());
            let (source, destination) = (a.alloc(n).unwrap(), b.alloc(n).unwrap());
            a.write(write, source, &data).unwrap();
            a.send_between((read, source), &b, (write_b, destination), n).unwrap();
            a.flush();
            let mut back = vec![0; data.len()];
            b.read(read_b, destination, &mut back).unwrap_or_else(|failure| panic!("{way:?} {at}: {failure:?}"));
            assert!(back == data, "{way:?} {at}");
            a.session.close().unwrap();
            b.session.close().unwrap();
        }
    }
}

#[test]
fn a_session_goes_on_over_tls() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = signed.cert.pem().into_bytes();
    let key = signed.signing_key.serialize_pem().into_bytes();
    let tls = TlsOptions { cert_pem: Some(cert.clone().into()), key_pem: Some(key.into()), ..Default::default() };
    let server = FakeServer::start(ServerOptions {
        listen: vec!["tls://127.0.0.1:0".to_owned()],
        tls: Some(tls),
        ..Default::default()
    });
    let name = Some("localhost".to_owned());
    let tls = TlsOptions { ca_pem: Some(cert.into()), server_name: name, ..Default::default() };
    for at in (3000..20_000).step_by(500) {
        let proxy = Proxy::start(&server.address());
        proxy.plan(Plan::Cut(if at % 1000 == 0 { Way::ToServer } else { Way::ToClient }, at));
        let address = proxy.address("tls");
        let client =
            Client::connect(&ConnectOptions { address, tls: Some(tls.clone()), ..Default::default() }).unwrap();
        few_bytes(&client).unwrap_or_else(|failure| panic!("{at}: {failure:?}"));
        client.round(&vec![3; 300 << 10]).unwrap();
        client.session.close().unwrap();
    }
}
