//! What the transport costs: round trips, records and bulk bytes, against raw sockets in the same run.
//!
//! `cargo run --release --example wire_bench [rounds] [ops] [bulk] [unix] [tcp] [tls]`; everything if nothing is named. The server is a process of its own with a fake executor, so that no
//! tensor is involved. Rounds of the two sides are interleaved; figures are medians.
#![allow(missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::client::Client;
use common::executor::FakeServer;
use common::socket_path;
use skytorch_wire::abi::*;
use skytorch_wire::client::ConnectOptions;
use skytorch_wire::net::TlsOptions;
use skytorch_wire::server::ServerOptions;

const ROUNDS: usize = 5;
const PINGS: usize = 4000;
const MIB: usize = 1 << 20;

/// Echoes 64-byte pings; for longer requests sinks or sources that many bytes.
fn raw_server(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        std::thread::spawn(move || {
            let mut ping = [0; 64];
            let mut block = vec![1u8; MIB];
            while stream.read_exact(&mut ping).is_ok() {
                let sink = u64::from_le_bytes(ping[..8].try_into().unwrap()) as usize;
                let source = u64::from_le_bytes(ping[8..16].try_into().unwrap()) as usize;
                // A fresh destination, as an upload has.
                let mut destination = vec![0u8; sink];
                stream.read_exact(&mut destination).unwrap();
                for _ in 0..source.div_ceil(MIB) {
                    stream.write_all(&block).unwrap();
                }
                block[0] = destination.first().copied().unwrap_or(1);
                stream.write_all(&ping).unwrap();
            }
        });
    }
}

fn serve() {
    let raw = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", raw.local_addr().unwrap());
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = signed.cert.pem();
    let key = signed.signing_key.serialize_pem().into_bytes();
    let tls = TlsOptions { cert_pem: Some(cert.clone().into()), key_pem: Some(key.into()), ..Default::default() };
    let server = FakeServer::start(ServerOptions {
        listen: vec![
            format!("unix://{}", socket_path().display()),
            "tcp://127.0.0.1:0".into(),
            "tls://127.0.0.1:0".into(),
        ],
        token: Some("bench".into()),
        tls: Some(tls),
        ..Default::default()
    });
    for address in server.server.addresses() {
        println!("{address}");
    }
    println!("{}", cert.replace('\n', "|"));
    std::thread::spawn(move || raw_server(&raw));
    // Until the parent goes.
    let _ = std::io::stdin().read(&mut [0]);
}

fn ms(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn raw_pings(stream: &mut TcpStream) -> f64 {
    let mut ping = [0; 64];
    let mut samples: Vec<f64> = (0..PINGS)
        .map(|_| {
            let start = Instant::now();
            stream.write_all(&ping).unwrap();
            stream.read_exact(&mut ping).unwrap();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    ms(&mut samples)
}

struct Bench {
    name: &'static str,
    client: Option<Client>,
    options: ConnectOptions,
    read: u32,
    op: u32,
    scalar: u64,
}

impl Bench {
    fn open(&mut self) {
        let client = loop {
            match Client::connect(&self.options) {
                Ok(client) => break client,
                Err(error) if error.code == skytorch_wire::error::Code::ServerBusy => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        self.read = client.define_bytes(SKY_TEMPLATE_READ, 4).unwrap();
        self.op = client.define_op().unwrap();
        self.scalar = client.alloc(64).unwrap();
        self.client = Some(client);
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("opened")
    }

    fn items(&self, ops: usize) -> f64 {
        let client = self.client();
        let mut samples: Vec<f64> = (0..PINGS)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..ops {
                    client.op(self.op, &[self.scalar, client.new_storage()]).unwrap();
                }
                client.read(self.read, self.scalar, &mut [0; 4]).unwrap();
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        ms(&mut samples)
    }

    fn ops(&self) -> (f64, f64) {
        const OPS: usize = 500_000;
        let client = self.client();
        let (start, cpu) = (Instant::now(), common::thread_time());
        for _ in 0..OPS {
            client.op(self.op, &[self.scalar, client.new_storage()]).unwrap();
        }
        let issued = common::thread_time() - cpu;
        client.ask(SKY_CALL_MEMORY_STATS, &[0], b"").unwrap();
        (issued.as_secs_f64() * 1e9 / OPS as f64, OPS as f64 / start.elapsed().as_secs_f64() / 1e6)
    }

    fn bulk(&self, data: &[u8], back: &mut [u8]) -> (f64, f64) {
        let client = self.client();
        let n = data.len() as u64;
        let write = client.define_bytes(SKY_TEMPLATE_WRITE, n).unwrap();
        let read = client.define_bytes(SKY_TEMPLATE_READ, n).unwrap();
        let storage = client.alloc(n).unwrap();
        client.ask(SKY_CALL_MEMORY_STATS, &[0], b"").unwrap();
        let start = Instant::now();
        client.write(write, storage, data).unwrap();
        client.ask(SKY_CALL_MEMORY_STATS, &[0], b"").unwrap();
        let up = start.elapsed();
        let start = Instant::now();
        client.read(read, storage, back).unwrap();
        let down = start.elapsed();
        assert!(back == data);
        client.free(storage).unwrap();
        (rate(n, up), rate(n, down))
    }
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

fn raw_bulk(stream: &mut TcpStream, data: &[u8], back: &mut [u8]) -> (f64, f64) {
    let n = data.len() as u64;
    let mut ping = [0; 64];
    let mut run = |sink: u64, source: u64| {
        ping[..8].copy_from_slice(&sink.to_le_bytes());
        ping[8..16].copy_from_slice(&source.to_le_bytes());
        let start = Instant::now();
        stream.write_all(&ping).unwrap();
        if sink > 0 {
            stream.write_all(data).unwrap();
        }
        if source > 0 {
            stream.read_exact(back).unwrap();
        }
        stream.read_exact(&mut ping).unwrap();
        rate(n, start.elapsed())
    };
    (run(n, 0), run(0, n))
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    measure(&mut child);
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn measure(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut raw = TcpStream::connect(lines.next().unwrap()).unwrap();
    raw.set_nodelay(true).unwrap();
    let addresses: Vec<String> = lines.by_ref().take(3).collect();
    let ca = lines.next().unwrap().replace('|', "\n").into_bytes();
    let tls = TlsOptions { ca_pem: Some(ca.into()), server_name: Some("localhost".into()), ..Default::default() };
    let mut benches: Vec<Bench> = ["unix", "tcp", "tls"]
        .into_iter()
        .zip(addresses)
        .map(|(name, address)| {
            let token = Some("bench".into());
            let options = ConnectOptions { address, token, tls: Some(tls.clone()), ..Default::default() };
            Bench { name, client: None, options, read: 0, op: 0, scalar: 0 }
        })
        .collect();

    let named: Vec<String> = std::env::args().skip(1).collect();
    // Of each group of names: those named, or all if none is.
    let wants_of = |part: &str, group: &[&str]| {
        named.iter().any(|name| name == part) || !named.iter().any(|name| group.contains(&name.as_str()))
    };
    let wants = |part: &str| wants_of(part, &["rounds", "ops", "bulk"]);
    benches.retain(|bench| wants_of(bench.name, &["unix", "tcp", "tls"]));
    println!("round trips, us, medians of {ROUNDS} rounds of {PINGS}; raw TCP ping-pong of 64 bytes beside each");
    for bench in &mut benches {
        bench.open();
        let (mut raws, mut items, mut after) = (vec![], vec![], vec![]);
        if wants("rounds") {
            for _ in 0..ROUNDS {
                raws.push(raw_pings(&mut raw));
                items.push(bench.items(0));
                after.push(bench.items(1));
            }
            let (raw, item, after) = (ms(&mut raws), ms(&mut items), ms(&mut after));
            println!(
                "  {:5} item {item:6.1} = {:.2}x raw {raw:5.1}   op+item {after:6.1} = {:.2}x",
                bench.name,
                item / raw,
                after / raw
            );
        }
        if wants("ops") {
            let (mut issue, mut rates): (Vec<f64>, Vec<f64>) = (0..ROUNDS).map(|_| bench.ops()).unzip();
            let (issue, rate) = (ms(&mut issue), ms(&mut rates));
            println!("  {:5} issue {issue:6.1} ns of CPU per op, executed {rate:5.2} M ops/s", bench.name);
        }
        bench.client.take().unwrap().session.close().unwrap();
    }
    println!("bulk, GB/s, medians of {ROUNDS}; raw TCP into a fresh destination beside each");
    for megabytes in [1, 16, 64, 256].into_iter().filter(|_| wants("bulk")) {
        let data = vec![3u8; megabytes * MIB];
        let mut back = vec![0u8; megabytes * MIB];
        for bench in &mut benches {
            bench.open();
            bench.bulk(&data, &mut back);
            let (mut up, mut down, mut raw_up, mut raw_down) = (vec![], vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                let (u, d) = raw_bulk(&mut raw, &data, &mut back);
                raw_up.push(u);
                raw_down.push(d);
                let (u, d) = bench.bulk(&data, &mut back);
                up.push(u);
                down.push(d);
            }
            let (up, down, raw_up, raw_down) = (ms(&mut up), ms(&mut down), ms(&mut raw_up), ms(&mut raw_down));
            println!(
                "  {megabytes:4} MiB {:5} up {up:5.2} = {:.2}x of {raw_up:5.2}   down {down:5.2} = {:.2}x of {raw_down:5.2}",
                bench.name,
                up / raw_up,
                down / raw_down
            );
            bench.client.take().unwrap().session.close().unwrap();
        }
    }
}
