//! What the codec costs: nanoseconds and bytes of `x = x + y` with its free, encoded and decoded in one thread.
//!
//! `cargo run --release -p skytorch-wire --example codec_bench`. Medians of seven rounds of a million ops; no I/O.

use std::hint::black_box;
use std::time::Instant;

use skytorch_wire::abi::{SKY_SCALAR_INT, SkyScalar};
use skytorch_wire::codec::{Arg, Decoder, Geometry, OpEncoder, Template};
use skytorch_wire::limits;

const OPS: u64 = 1_000_000;
const ROUNDS: usize = 7;
/// A message is cut here, as a session that is behind would.
const MESSAGE_BYTES: usize = 32 << 10;

fn add() -> Template {
    let geometry = Geometry::contiguous(6, &[16]);
    Template {
        name: "aten::add.Tensor".into(),
        args: vec![
            Arg::Tensor { storage: 0, geometry: geometry.clone() },
            Arg::Tensor { storage: 1, geometry: geometry.clone() },
            Arg::ScalarSlot(SKY_SCALAR_INT),
        ],
        outputs: vec![geometry],
        n_storages: 2,
        ..Template::default()
    }
}

struct Round {
    encode_ns: f64,
    decode_ns: f64,
    bytes: f64,
}

/// `x = x + y` with `y` as storage 1, after `before` other storages were made.
fn round(before: u64) -> Round {
    let one = [SkyScalar { kind: SKY_SCALAR_INT, integer: 1, ..SkyScalar::default() }];
    let (mut encoder, mut decoder) = (OpEncoder::new(limits::SLOTS, 0), Decoder::new(limits::SLOTS, 0));
    let mut message = Vec::with_capacity(limits::MESSAGE_BYTES);
    encoder.define(&mut message, 0, &add()).expect("a sound template");
    encoder.alloc(&mut message, 1, 64, 0).expect("alloc");
    encoder.alloc(&mut message, before + 2, 64, 0).expect("alloc");
    decoder.decode(1, &message).expect("sound bytes");
    let (mut encode_ns, mut decode_ns, mut bytes) = (0, 0, 0);
    let mut x = before + 2;
    let end = x + OPS;
    while x < end {
        message.clear();
        encoder.begin_message();
        let first = encoder.position() + 1;
        let start = Instant::now();
        while x < end && message.len() < MESSAGE_BYTES {
            encoder.op(&mut message, 0, black_box(&[x, 1, x + 1]), black_box(&one)).expect("op");
            encoder.free(&mut message, black_box(&[x])).expect("free");
            x += 1;
        }
        encode_ns += start.elapsed().as_nanos();
        bytes += message.len();
        let start = Instant::now();
        black_box(decoder.decode(first, black_box(&message)).expect("sound bytes").records());
        decode_ns += start.elapsed().as_nanos();
    }
    let per_op = |total: f64| total / OPS as f64;
    Round { encode_ns: per_op(encode_ns as f64), decode_ns: per_op(decode_ns as f64), bytes: per_op(bytes as f64) }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!("x = x + y (alpha = 1) and the free of the old x: two records, per op");
    for before in [0, 10_000_000] {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| round(before)).collect();
        println!(
            "  after {before:>8} storages: encode {:5.1} ns, decode {:5.1} ns, {:.2} bytes",
            median(rounds.iter().map(|r| r.encode_ns)),
            median(rounds.iter().map(|r| r.decode_ns)),
            median(rounds.iter().map(|r| r.bytes)),
        );
    }
}
