//! Properties of the codec: what is encoded is decoded, to the same records and back to the same bytes; an error
//! changes nothing; and no bytes whatever make a decoder panic or allocate without bound.

mod counting_alloc_unsafe;
mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use skytorch_wire::codec::frame::{self, ClientFrame, ServerFrame};
use skytorch_wire::codec::{Arg, Decoder, OpEncoder, Record, Reply, Template};
use skytorch_wire::error::{Code, WireError};
use skytorch_wire::{limits, proto};

use counting_alloc_unsafe::peak_bytes_during;
use support::{Model, SLOTS, Step, reply, step, template};

/// The messages of a session, each with its first position and its records.
fn session(steps: &[Step]) -> Vec<(u64, Vec<u8>, Vec<Record>)> {
    let mut encoder = OpEncoder::new(SLOTS, 0);
    let mut model = Model::default();
    let mut messages = Vec::new();
    let mut message = (1, Vec::new(), Vec::new());
    for step in steps {
        if matches!(step, Step::Cut) || encoder.is_full(message.1.len()) {
            encoder.begin_message();
            messages.push(std::mem::replace(&mut message, (encoder.position() + 1, Vec::new(), Vec::new())));
        }
        let Some((record, valid)) = model.record(step) else { continue };
        let (bytes, position) = (message.1.clone(), encoder.position());
        match encoder.record(&mut message.1, &record) {
            Ok(()) => {
                assert!(valid, "encoded {record:?}");
                assert_eq!(encoder.position(), position + 1);
                message.2.push(record);
            }
            Err(error) => {
                assert!(!valid, "{record:?}: {error}");
                assert_eq!(message.1, bytes, "an error leaves the message alone");
                assert_eq!(encoder.position(), position);
            }
        }
    }
    messages.push(message);
    messages
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_round_trip(steps in vec(step(), 0..60)) {
        let (mut decoder, mut again) = (Decoder::new(SLOTS, 0), OpEncoder::new(SLOTS, 0));
        for (first, bytes, records) in session(&steps) {
            let batch = decoder.decode(first, &bytes).unwrap();
            for (i, record) in batch.records().iter().enumerate() {
                prop_assert_eq!(record.sequence, first + i as u64);
            }
            let decoded = batch.to_records();
            // As text, because a NaN does not equal itself.
            prop_assert_eq!(format!("{decoded:?}"), format!("{records:?}"));
            let mut out = Vec::new();
            for record in &decoded {
                again.record(&mut out, record).unwrap();
            }
            prop_assert_eq!(out, bytes, "records have one encoding");
        }
    }

    #[test]
    fn replies_round_trip(reply in reply()) {
        let bytes = reply.encode().unwrap();
        let decoded = Reply::decode(&bytes).unwrap();
        prop_assert_eq!(format!("{decoded:?}"), format!("{reply:?}"));
        prop_assert_eq!(decoded.encode().unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(template in template(), bytes in vec(any::<u8>(), 0..2000)) {
        let mut decoder = Decoder::new(SLOTS, 0);
        let mut out = Vec::new();
        OpEncoder::new(SLOTS, 0).define(&mut out, 0, &template).unwrap();
        decoder.decode(1, &out).unwrap();
        let peak = peak_bytes_during(|| drop(decoder.decode(2, &bytes).map(|batch| batch.records().len())));
        prop_assert!(peak <= most_bytes(bytes.len()), "{peak} bytes for a message of {}", bytes.len());
        drop(Reply::decode(&bytes));
        drop(ClientFrame::parse(&bytes));
        drop(ServerFrame::parse(&bytes));
    }

    #[test]
    fn damaged_messages_are_decoded_or_refused(
        steps in vec(step(), 1..40),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut decoder = Decoder::new(SLOTS, 0);
        for (first, mut bytes, _) in session(&steps) {
            for (at, value, how) in &damage {
                damage_at(&mut bytes, at, *value, *how);
            }
            let n = bytes.len();
            let peak = peak_bytes_during(|| drop(decoder.decode(first, &bytes).map(|batch| batch.to_records().len())));
            // `to_records` makes owned copies on top.
            prop_assert!(peak <= 3 * most_bytes(n), "{peak} bytes for a message of {n}");
        }
    }

    #[test]
    fn damaged_replies_are_decoded_or_refused(
        reply in reply(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut bytes = reply.encode().unwrap();
        for (at, value, how) in &damage {
            damage_at(&mut bytes, at, *value, *how);
        }
        drop(Reply::decode(&bytes));
    }

    #[test]
    fn frames_round_trip(first: u64, replies: u64, request: u64, code in 0..Code::ALL.len(), text in ".{0,200}", data in vec(any::<u8>(), 0..500), crc: bool) {
        let code = Code::ALL[code];
        let mut ops = vec![0; frame::OPS_HEADER_BYTES];
        ops.extend_from_slice(&data);
        frame::seal_ops(&mut ops, first, replies);
        match ClientFrame::parse(&ops).unwrap() {
            ClientFrame::Ops(parsed) => prop_assert_eq!(parsed, frame::Ops { first, replies, records: &data }),
            other => prop_assert!(false, "{:?}", other),
        }
        match ServerFrame::parse(&frame::ack(first)).unwrap() {
            ServerFrame::Ack { position } => prop_assert_eq!(position, first),
            other => prop_assert!(false, "{:?}", other),
        }
        match ServerFrame::parse(&frame::error(request, code.number(), &text)).unwrap() {
            ServerFrame::Error { request: r, error } => {
                prop_assert_eq!((r, error), (request, WireError::new(code, text.clone())));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        match ServerFrame::parse(&frame::goodbye(code.number(), &text)).unwrap() {
            ServerFrame::Goodbye(error) => prop_assert_eq!(error, WireError::new(code, text)),
            other => prop_assert!(false, "{:?}", other),
        }
        let offset = first >> 1;
        let total = offset + data.len() as u64;
        let head = frame::reply_header(request, total, offset, &data, crc);
        let parsed = frame::ReplyHeader::parse(&head, head.len() + data.len()).unwrap();
        prop_assert_eq!((parsed.request, parsed.total, parsed.offset), (request, total, offset));
        prop_assert_eq!(parsed.crc.is_some(), crc);
        if let Some(sum) = parsed.crc {
            prop_assert_eq!(sum, crc32c::crc32c_append(parsed.crc_start(), &data));
        }
        let whole = [&head[..], &data].concat();
        match ServerFrame::parse(&whole).unwrap() {
            ServerFrame::Reply(header, bytes) => prop_assert_eq!((header, bytes), (parsed, &data[..])),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn one_flipped_bit_is_noticed(data in vec(any::<u8>(), 0..200), bit: prop::sample::Index) {
        let mut ops = vec![0; frame::OPS_HEADER_BYTES];
        ops.extend_from_slice(&data);
        frame::seal_ops(&mut ops, 1, 0);
        let bit = bit.index(ops.len() * 8);
        ops[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(ClientFrame::parse(&ops).is_err());
    }

    #[test]
    fn handshakes_round_trip(host in ".{0,20}", session_id in vec(any::<u8>(), 16), position: u64) {
        let hello = proto::Hello {
            client: Some(proto::Client { host, ..Default::default() }),
            session_id,
            resume: Some(proto::Resume { acknowledged: position, replies: 3, attempt: 1 }),
            ..Default::default()
        };
        match ClientFrame::parse(&frame::hello(&hello)).unwrap() {
            ClientFrame::Hello(parsed) => prop_assert_eq!(*parsed, hello),
            other => prop_assert!(false, "{:?}", other),
        }
        let welcome = proto::Welcome { position, devices: vec![proto::Device::default(); 3], ..Default::default() };
        match ServerFrame::parse(&frame::welcome(&welcome)).unwrap() {
            ServerFrame::Welcome(parsed) => prop_assert_eq!(*parsed, welcome),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

/// Most that a decoder may allocate for a message of `n` bytes: ids of outputs take no bytes and are bounded by
/// their own limit; everything else is bounded by a factor.
fn most_bytes(n: usize) -> usize {
    2 * limits::MESSAGE_STORAGES * size_of::<u64>() + 600 * n + (1 << 16)
}

fn damage_at(bytes: &mut Vec<u8>, at: &prop::sample::Index, value: u8, how: u8) {
    let at = at.index(bytes.len().max(1));
    match how {
        _ if at >= bytes.len() => bytes.push(value),
        0 => bytes[at] ^= value | 1,
        1 => bytes.insert(at, value),
        2 => drop(bytes.remove(at)),
        _ => bytes.truncate(at),
    }
}

/// An op with no input and many outputs takes one byte: the limit of ids holds, not that of bytes.
#[test]
fn outputs_that_take_no_bytes_are_bounded() {
    let output = skytorch_wire::codec::Geometry::contiguous(6, &[]);
    let outputs = vec![output; limits::TEMPLATE_OUTPUTS];
    let template = Template { name: "aten::unbind.int".into(), outputs, ..Template::default() };
    let mut encoder = OpEncoder::new(SLOTS, 0);
    let mut message = Vec::new();
    encoder.define(&mut message, 0, &template).unwrap();
    let mut decoder = Decoder::new(SLOTS, 0);
    decoder.decode(1, &message).unwrap();
    // OP, slot 0, as often as a message has room for.
    let hostile = vec![1u8; limits::MESSAGE_BYTES];
    let mut refused = None;
    let peak = peak_bytes_during(|| refused = decoder.decode(2, &hostile).err());
    assert_eq!(refused.map(|e| e.code), Some(Code::LimitExceeded));
    assert!(peak <= 4 * limits::MESSAGE_STORAGES * size_of::<u64>(), "{peak}");
    assert!(decoder.decode(2, &[]).is_err(), "a decoder that failed stays failed");
}

/// An owner that starts a message whenever `is_full` says so never makes one that is refused.
#[test]
fn full_messages_are_accepted() {
    let template = Template::transfer(
        skytorch_wire::codec::TemplateKind::Write,
        0,
        0,
        skytorch_wire::codec::Geometry::contiguous(0, &[limits::INLINE_WRITE_BYTES as i64]),
    );
    let payload = vec![7; limits::INLINE_WRITE_BYTES as usize];
    let ids: Vec<u64> = (1..=limits::RECORD_STORAGES as u64).collect();
    let (mut encoder, mut decoder) = (OpEncoder::new(SLOTS, 0), Decoder::new(SLOTS, 0));
    let (mut message, mut first, mut messages) = (Vec::new(), 1, 0);
    encoder.define(&mut message, 0, &template).unwrap();
    for round in 0..300u32 {
        match round % 3 {
            0 => encoder.write(&mut message, 0, 1, &payload).unwrap(),
            1 => encoder.free(&mut message, &ids).unwrap(),
            _ => (0..9000).for_each(|_| {
                if !encoder.is_full(message.len()) {
                    encoder.free(&mut message, &[1]).unwrap();
                }
            }),
        }
        if encoder.is_full(message.len()) {
            decoder.decode(first, &message).unwrap();
            message.clear();
            encoder.begin_message();
            first = encoder.position() + 1;
            messages += 1;
        }
    }
    assert!(messages > 50);
}

/// The limits of a message that are too large for a golden file.
#[test]
fn messages_over_a_limit_are_refused() {
    let refuse = |before: &[u8], bytes: &[u8], text: &str| {
        let mut decoder = Decoder::new(SLOTS, 0);
        let records = decoder.decode(1, before).unwrap().records().len() as u64;
        let error = decoder.decode(records + 1, bytes).map(|batch| batch.records().len()).unwrap_err();
        assert_eq!(error.code, Code::LimitExceeded, "{error}");
        assert!(error.message.contains(text), "{error}");
    };
    // ALLOC storage 1; then FREE_ONE of it, one byte each.
    let alloc = [0x10, 0, 0, 0];
    refuse(&alloc, &vec![2; limits::MESSAGE_RECORDS + 1], "more records than a message may have");
    refuse(&alloc, &vec![2; limits::MESSAGE_BYTES + 1], "message of 1048577 bytes");
    let define = |args: Vec<Arg>| {
        let template = Template { name: "aten::x".into(), args, ..Template::default() };
        let mut out = Vec::new();
        OpEncoder::new(SLOTS, 0).define(&mut out, 0, &template).map(|()| out)
    };
    let full = define(vec![Arg::None; limits::TEMPLATE_ARGS]).unwrap();
    refuse(&[], &full.repeat(5), "more template arguments than a message may have");
    // Nine strings of 64 KiB are within their own limits, and over that of a record: written by hand, as the encoder
    // refuses to.
    let text = || Arg::String("x".repeat(limits::STRING_BYTES));
    let refused = define((0..9).map(|_| text()).collect()).unwrap_err();
    assert_eq!(refused.code, Code::LimitExceeded);
    let one = define(vec![text()]).unwrap();
    let (head, arg) = (
        b"\x04\x00\x00\x00\x00\x07aten::x\x00",
        &one[b"\x04\x00\x00\x00\x00\x07aten::x\x00\x01".len()..one.len() - 1],
    );
    refuse(&[], &[&head[..], &[9], &arg.repeat(9), &[0]].concat(), "record of ");
}

/// What takes the most memory for its bytes: arguments, records, dimensions and elements of one byte each.
#[test]
fn the_densest_messages_are_bounded() {
    let name = &b"\x04\x00\x00\x00\x00\x07aten::x\x00"[..];
    let count = |n: usize| [n as u8 | 0x80, (n >> 7) as u8 | 0x80, (n >> 14) as u8];
    let nones = [name, &count(limits::TEMPLATE_ARGS)[..], &[0; limits::TEMPLATE_ARGS], &[0]].concat();
    let ints = [name, &[1, 10], &count(limits::LIST_ELEMENTS)[..], &[0; limits::LIST_ELEMENTS], &[0]].concat();
    let outputs = [&[6, 8, 64][..], &[1; 64]].concat().repeat(7000);
    let dims = [name, &[0, 0xd8, 0x36][..], &outputs].concat();
    let frees = [&[0x10, 0, 0, 0][..], &[2; limits::MESSAGE_RECORDS - 1]].concat();
    for message in [nones, ints, dims, frees] {
        let mut decoder = Decoder::new(SLOTS, 0);
        let mut result = Ok(());
        let peak = peak_bytes_during(|| result = decoder.decode(1, &message).map(|_| ()));
        assert_eq!(result, Ok(()));
        assert!(peak <= most_bytes(message.len()) - most_bytes(0), "{peak} bytes for a message of {}", message.len());
    }
}
