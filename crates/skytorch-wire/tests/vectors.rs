//! Golden bytes: every file of `tests/vectors/accept` is decoded to what it says and encoded back to the same bytes,
//! every file of `tests/vectors/reject` is refused as it says. So are the examples in `docs/wire.md`. The format is in
//! `tests/vectors/README.md`.

mod vector_files;

use std::fmt::Write as _;

use skytorch_wire::codec::frame::{self, ClientFrame, ServerFrame};
use skytorch_wire::codec::{Decoder, OpEncoder, Reply};
use skytorch_wire::error::{Result, WireError};
use skytorch_wire::limits;

use vector_files::{Vector, examples, vectors};

/// What the bytes become, as text, and what those things are encoded to.
fn decode(vector: &Vector) -> Result<(Vec<String>, Vec<u8>)> {
    match vector.what.as_str() {
        "records" => records(vector),
        "ops" => ops(vector),
        "reply" => {
            Reply::decode(&vector.bytes).map(|reply| (vec![format!("{reply:?}")], reply.encode().expect("sound")))
        }
        "client-frame" => ClientFrame::parse(&vector.bytes).map(|frame| (vec![format!("{frame:?}")], frame.encode())),
        "server-frame" => ServerFrame::parse(&vector.bytes).map(|frame| (vec![format!("{frame:?}")], frame.encode())),
        other => panic!("{}: vectors are not {other:?}", vector.name),
    }
}

fn records(vector: &Vector) -> Result<(Vec<String>, Vec<u8>)> {
    let (mut decoder, mut encoder) = (Decoder::new(limits::SLOTS, 0), OpEncoder::new(limits::SLOTS, 0));
    let mut again = Vec::new();
    if !vector.before.is_empty() {
        let batch = decoder.decode(1, &vector.before).unwrap_or_else(|e| panic!("{}: before: {e}", vector.name));
        for record in batch.to_records() {
            encoder.record(&mut again, &record).expect("sound");
        }
        again.clear();
    }
    let first = if vector.first == 0 { decoder.position() + 1 } else { vector.first };
    let records = decoder.decode(first, &vector.bytes)?.to_records();
    for record in &records {
        encoder.record(&mut again, record).expect("sound");
    }
    Ok((records.iter().map(|record| format!("{record:?}")).collect(), again))
}

/// An OPS frame together with its records.
fn ops(vector: &Vector) -> Result<(Vec<String>, Vec<u8>)> {
    let ClientFrame::Ops(ops) = ClientFrame::parse(&vector.bytes)? else { panic!("{}: no OPS frame", vector.name) };
    let inner =
        Vector { name: vector.name.clone(), first: ops.first, bytes: ops.records.to_vec(), ..Vector::default() };
    let (records, again) = records(&inner)?;
    let head = format!("Ops {{ first: {}, replies: {} }}", ops.first, ops.replies);
    let mut frame = [&[0; frame::OPS_HEADER_BYTES][..], &again].concat();
    frame::seal_ops(&mut frame, ops.first, ops.replies);
    Ok(([vec![head], records].concat(), frame))
}

/// Runs `check` over vectors and reports all failures at once.
fn check_all(vectors: &[Vector], check: impl Fn(&Vector) -> std::result::Result<(), String>) {
    assert!(!vectors.is_empty());
    let mut failures = String::new();
    for vector in vectors {
        if let Err(failure) = check(vector) {
            write!(failures, "\n{}\n{failure}\n", vector.name).expect("text");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn is_accepted(vector: &Vector) -> std::result::Result<(), String> {
    let (becomes, again) = decode(vector).map_err(|e| format!("  refused {:?}: {e}", e.code))?;
    if becomes != vector.becomes {
        return Err(becomes.iter().map(|line| format!("becomes {line}\n")).collect());
    }
    match again == vector.bytes {
        true => Ok(()),
        false => Err(format!("  encoded again: {again:02x?}")),
    }
}

#[test]
fn accepted() {
    check_all(&vectors("accept"), is_accepted);
}

#[test]
fn examples_of_the_document() {
    check_all(&examples(), is_accepted);
}

#[test]
fn refused() {
    check_all(&vectors("reject"), |vector| {
        let expected = vector.refused.as_deref().expect("a line that begins with `refused`");
        let (code, text) = expected.split_once(": ").expect("`refused Code: text`");
        match decode(vector) {
            Ok((becomes, _)) => Err(format!("  accepted: {becomes:?}")),
            Err(WireError { code: found, message }) if format!("{found:?}") == code && message.contains(text) => {
                Ok(())
            }
            Err(error) => Err(format!("refused {:?}: {error}", error.code)),
        }
    });
}
