//! What must hold for any bytes whatever, one function for each decoder. It generates nothing: `examples/fuzz` does.
//!
//! A check panics when its property does not hold: the decoder panics, answers with a code that it has no business
//! with, or what it accepts is not stable (decoded, encoded and decoded again it must be the same). Frames carry a
//! CRC that random bytes never get right, so those checks also look at the frame with its CRC put right.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::codec::frame::{self, ClientFrame, HEADER_BYTES, REPLY_HEADER_BYTES, ServerFrame};
use crate::codec::{Decoder, OpEncoder, Record, Reply};
use crate::control::health::proto::{HealthCheckRequest, HealthCheckResponse};
use crate::error::{Code, Result};
use crate::lane::frame::{HEAD_BYTES, parse_head};
use crate::lane::target::SendTarget;
use crate::lane::ticket::{TICKET_BYTES, Ticket};
use crate::net::Address;
use crate::net::deframe::{Deframer, Sink};
use crate::net::message::Messages;
use crate::{limits, proto};

/// A decoder and what holds for it.
pub struct Target {
    /// "records", "client-frame", ...: as in `tests/vectors`.
    pub name: &'static str,
    /// Panics if a property does not hold. True if the decoder took the bytes.
    pub check: fn(&[u8]) -> bool,
}

/// Every decoder that bytes from the network reach.
pub const TARGETS: [Target; 11] = [
    Target { name: "records", check: records },
    Target { name: "client-frame", check: client_frame },
    Target { name: "server-frame", check: server_frame },
    Target { name: "reply", check: reply },
    Target { name: "grpc", check: grpc },
    Target { name: "lane-head", check: lane_head },
    Target { name: "ticket", check: ticket },
    Target { name: "send-target", check: send_target },
    Target { name: "handshake", check: handshake },
    Target { name: "control", check: control },
    Target { name: "address", check: address },
];

/// The ticket that a client of this session would make for a transfer.
pub fn signed_ticket(transfer: u64, bytes: u64, session_id: [u8; 16]) -> String {
    Ticket::new(transfer, bytes, Duration::ZERO).sign(&session_id)
}

/// Most bytes that a check of `n` bytes may have allocated at a time. The decoders' own bound is in docs/wire.md; a
/// check holds what it decoded, encoded and decoded again, and compares some of it as text.
pub fn most_bytes(n: usize) -> usize {
    (64 << 20) + 4000 * n
}

/// What was accepted; panics if it was refused with a code that is none of `codes`.
fn accepted<T>(result: Result<T>, codes: &[Code]) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(codes.contains(&error.code), "refused with {:?}: {error}", error.code);
            assert!(!error.message.is_empty(), "refused without a word");
            None
        }
    }
}

/// As text only when it must be: a NaN does not equal itself.
fn assert_same<T: PartialEq + Debug>(a: &T, b: &T) {
    if a != b {
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }
}

/// Records of one message, DEFINEs included: templates, geometries, scalars, varints.
fn records(bytes: &[u8]) -> bool {
    let codes = [Code::Protocol, Code::LimitExceeded, Code::NotSupported];
    let mut decoder = Decoder::new(limits::SLOTS, 0);
    let Some(batch) = accepted(decoder.decode(1, bytes), &codes) else {
        assert!(decoder.decode(decoder.position() + 1, &[]).is_err(), "a stream that broke goes on");
        return false;
    };
    for (i, record) in batch.records().iter().enumerate() {
        assert_eq!(record.sequence, 1 + i as u64);
    }
    let records = batch.to_records();
    let once = encode(&records);
    assert!(once.len() <= bytes.len(), "the encoder's form of {records:?} is not the shortest");
    let mut decoder = Decoder::new(limits::SLOTS, 0);
    let again = decoder.decode(1, &once).expect("what the encoder made").to_records();
    assert_same(&records, &again);
    assert_eq!(encode(&again), once);
    true
}

fn encode(records: &[Record]) -> Vec<u8> {
    let (mut encoder, mut out) = (OpEncoder::new(limits::SLOTS, 0), Vec::new());
    for record in records {
        encoder.record(&mut out, record).expect("what the decoder let in");
    }
    out
}

/// With the bits that do not matter and the CRC put right; `None` if it has no header.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = bytes.to_vec();
    let body = frame.get(HEADER_BYTES..)?;
    let crc = crc32c::crc32c(body).to_le_bytes();
    frame[1..HEADER_BYTES].copy_from_slice(&[frame::FLAG_CRC, 0, 0, crc[0], crc[1], crc[2], crc[3]]);
    Some(frame)
}

const FRAME_CODES: [Code; 4] = [Code::Protocol, Code::LimitExceeded, Code::ConnectionLost, Code::VersionMismatch];

/// A frame from a client, and the records in it.
fn client_frame(bytes: &[u8]) -> bool {
    let mut any = false;
    for bytes in [Some(bytes.to_vec()), sealed(bytes)].into_iter().flatten() {
        let Some(parsed) = accepted(ClientFrame::parse(&bytes), &FRAME_CODES) else { continue };
        any = true;
        if let ClientFrame::Ops(ops) = &parsed {
            records(ops.records);
        }
        let again = parsed.encode();
        let parsed_again = ClientFrame::parse(&again).expect("what we wrote");
        assert_eq!(format!("{parsed:?}"), format!("{parsed_again:?}"));
    }
    any
}

/// A frame from a server.
fn server_frame(bytes: &[u8]) -> bool {
    let mut any = false;
    for bytes in [Some(bytes.to_vec()), sealed(bytes)].into_iter().flatten() {
        let Some(parsed) = accepted(ServerFrame::parse(&bytes), &FRAME_CODES) else { continue };
        any = true;
        let again = parsed.encode();
        let parsed_again = ServerFrame::parse(&again).expect("what we wrote");
        assert_eq!(format!("{parsed:?}"), format!("{parsed_again:?}"));
    }
    any
}

/// The answer of a QUERY or CALL.
fn reply(bytes: &[u8]) -> bool {
    let codes = [Code::Protocol, Code::LimitExceeded, Code::NotSupported];
    let Some(reply) = accepted(Reply::decode(bytes), &codes) else { return false };
    let once = reply.encode().expect("what the decoder let in");
    assert!(once.len() <= bytes.len(), "the encoder's form of {reply:?} is not the shortest");
    let again = Reply::decode(&once).expect("what the encoder made");
    assert_same(&reply, &again);
    assert_eq!(again.encode().expect("what the decoder let in"), once);
    true
}

/// What a deframer handed out, put together again.
#[derive(Default)]
struct Collected {
    whole: Vec<Vec<u8>>,
    under_way: Vec<u8>,
    left: usize,
}

impl Sink for Collected {
    fn head_bytes(&self, first: Option<u8>, _: usize) -> Option<usize> {
        (first == Some(frame::kind::REPLY)).then_some(REPLY_HEADER_BYTES)
    }
    fn begin(&mut self, head: &[u8], data_bytes: usize) -> Result<()> {
        assert_eq!((head.len(), self.left), (REPLY_HEADER_BYTES, 0));
        (self.under_way, self.left) = (head.to_vec(), data_bytes);
        Ok(())
    }
    fn data(&mut self, data: &[u8]) -> Result<()> {
        self.left = self.left.checked_sub(data.len()).expect("no more data than was announced");
        self.under_way.extend_from_slice(data);
        Ok(())
    }
    fn end(&mut self) -> Result<()> {
        assert_eq!(self.left, 0);
        self.whole.push(std::mem::take(&mut self.under_way));
        Ok(())
    }
    fn whole(&mut self, message: &[u8]) -> Result<()> {
        self.whole.push(message.to_vec());
        Ok(())
    }
}

/// gRPC messages, by both readers that we have: however a body is cut, they must find the same.
fn grpc(bytes: &[u8]) -> bool {
    const LIMIT: usize = 4096;
    let codes = [Code::Protocol, Code::LimitExceeded];
    let (mut deframer, mut streamed) = (Deframer::new(LIMIT), Collected::default());
    let (mut messages, mut found) = (Messages::new(LIMIT), Vec::new());
    let one = Bytes::copy_from_slice(bytes);
    // One reader gets everything at once, the other pieces of 1 to 16 bytes that the bytes themselves choose.
    let whole = accepted(deframer.feed(one.clone(), &mut streamed), &codes).is_some();
    let mut rest = one;
    let pieces = loop {
        match messages.next() {
            Ok(Some(message)) => found.push(message.to_vec()),
            Err(error) => break accepted(Err::<(), _>(error), &codes).is_some(),
            Ok(None) if rest.is_empty() => break true,
            Ok(None) => {
                let piece = usize::from(rest[0] % 16 + 1).min(rest.len());
                messages.push(rest.split_to(piece));
            }
        }
    };
    assert_eq!(streamed.whole, found);
    assert_eq!(whole, pieces, "one reader refuses what the other takes");
    whole
}

/// The head of a message on a lane.
fn lane_head(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return false };
    let Some(crc) = accepted(parse_head(head), &[Code::Protocol]) else { return false };
    let crc_bytes = crc.unwrap_or(0).to_le_bytes();
    assert_eq!(head[..4], [crc.map_or(0, |_| frame::FLAG_CRC), 0, 0, 0]);
    assert_eq!(head[4..], crc_bytes);
    true
}

/// The ticket of an upload: any text, and fields that were signed for another session.
fn ticket(bytes: &[u8]) -> bool {
    const AGE: Duration = Duration::from_secs(60);
    let id = [7; 16];
    let text = String::from_utf8_lossy(bytes);
    assert!(accepted(Ticket::verify(&text, &id, AGE), &[Code::Unauthenticated]).is_none(), "forged: {text}");
    let Some(fields) = bytes.first_chunk::<24>() else { return false };
    let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
    let ticket = Ticket { transfer: number(0), bytes: number(8), expires_ms: number(16) };
    let text = ticket.sign(&id);
    assert_eq!(text.len(), 2 * TICKET_BYTES);
    assert!(Ticket::verify(&text, &[8; 16], AGE).is_err());
    match accepted(Ticket::verify(&text, &id, AGE), &[Code::Unauthenticated]) {
        Some(verified) => assert_eq!(verified, ticket),
        None => assert!(u128::from(ticket.expires_ms) < AGE.as_millis()),
    }
    true
}

/// Accepted protobuf is stable: encoded and decoded again it is encoded to the same bytes.
fn protobuf<M: Message + Default>(bytes: &[u8]) -> bool {
    let Ok(message) = M::decode(bytes) else { return false };
    let once = message.encode_to_vec();
    assert_eq!(message.encoded_len(), once.len());
    assert_eq!(M::decode(&*once).expect("what we wrote").encode_to_vec(), once);
    true
}

/// The payload of a SEND.
fn send_target(bytes: &[u8]) -> bool {
    let parsed = accepted(SendTarget::parse(bytes), &[Code::Protocol]).is_some();
    assert_eq!(protobuf::<SendTarget>(bytes), parsed);
    parsed
}

/// What HELLO and WELCOME carry.
fn handshake(bytes: &[u8]) -> bool {
    protobuf::<proto::Hello>(bytes) | protobuf::<proto::Welcome>(bytes)
}

/// Messages of the control calls, of both sides.
fn control(bytes: &[u8]) -> bool {
    protobuf::<proto::WatchRequest>(bytes)
        | protobuf::<proto::Snapshot>(bytes)
        | protobuf::<proto::LogsRequest>(bytes)
        | protobuf::<proto::LogLines>(bytes)
        | protobuf::<HealthCheckRequest>(bytes)
        | protobuf::<HealthCheckResponse>(bytes)
}

/// An address: a SEND carries one, and so does a PROBE.
fn address(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(address) = accepted(text.parse::<Address>(), &[Code::InvalidArgument]) else { return false };
    let written = address.to_string();
    assert_eq!(written.parse::<Address>().expect("what we wrote"), address, "{written}");
    true
}
