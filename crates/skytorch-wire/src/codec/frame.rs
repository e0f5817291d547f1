//! The frames of a session's stream: how records, replies and the handshake are wrapped. One frame is one gRPC
//! message; the layout is "Stream framing" in docs/wire.md.
//!
//! It does no I/O and knows no records. The subtle frame is REPLY: its header is of fixed size and comes first, so
//! that a receiver can put the data that follows straight where it belongs.

use crate::error::{Code, Result, WireError};
use crate::limits;
use crate::proto;
use prost::Message as _;

/// First bytes of HELLO's body.
pub const MAGIC: [u8; 4] = *b"SKYT";
/// Bytes before the body of every frame: kind, flags, two zero bytes, CRC32C.
pub const HEADER_BYTES: usize = 8;
/// Bytes before the records of an OPS frame.
pub const OPS_HEADER_BYTES: usize = HEADER_BYTES + 16;
/// Bytes before the data of a REPLY frame.
pub const REPLY_HEADER_BYTES: usize = HEADER_BYTES + 24;

/// Kind byte of a frame. Those from the server have the top bit set.
pub mod kind {
    /// Client: magic, wire version, [`crate::proto::Hello`].
    pub const HELLO: u8 = 0x01;
    /// Client: records.
    pub const OPS: u8 = 0x02;
    /// Client: nothing comes after this.
    pub const CLOSE: u8 = 0x03;
    /// Server: [`crate::proto::Welcome`].
    pub const WELCOME: u8 = 0x81;
    /// Server: every record up to a position is done with.
    pub const ACK: u8 = 0x82;
    /// Server: data that answers a request.
    pub const REPLY: u8 = 0x83;
    /// Server: an error that answers a request.
    pub const ERROR: u8 = 0x84;
    /// Server: the session is over.
    pub const GOODBYE: u8 = 0x85;
}

/// Flag: the CRC32C field is set. Clear only in REPLY, and there only over TLS or a Unix socket.
pub const FLAG_CRC: u8 = 1;

/// A frame from a client.
#[derive(Debug)]
pub enum ClientFrame<'a> {
    /// The first frame on a stream.
    Hello(Box<proto::Hello>),
    /// Records.
    Ops(Ops<'a>),
    /// The client is done: everything before it is to be run, then the session ends.
    Close,
}

/// The records of one OPS frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ops<'a> {
    /// Position of the first record.
    pub first: u64,
    /// Every reply up to this request number has arrived at the client: the server may forget them.
    pub replies: u64,
    /// For [`crate::codec::Decoder`].
    pub records: &'a [u8],
}

/// A frame from a server.
#[derive(Debug)]
pub enum ServerFrame<'a> {
    /// The session is taken.
    Welcome(Box<proto::Welcome>),
    /// Every record up to this position is done with: the client forgets it.
    Ack {
        /// Position of a record.
        position: u64,
    },
    /// Part of an answer.
    Reply(ReplyHeader, &'a [u8]),
    /// A request failed.
    Error {
        /// Request number.
        request: u64,
        /// Why.
        error: WireError,
    },
    /// The session is over; code `Ok` after a clean close.
    Goodbye(WireError),
}

/// What stands before the data of a REPLY frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// Request number.
    pub request: u64,
    /// Bytes of the whole answer.
    pub total: u64,
    /// Where this frame's data lies in the answer.
    pub offset: u64,
    /// CRC32C of the fields above and the data, if it was sent.
    pub crc: Option<u32>,
}

/// Kind of a frame from its first byte; `None` for an empty one.
pub fn kind_of(frame: &[u8]) -> Option<u8> {
    frame.first().copied()
}

// --- Writing ----------------------------------------------------------------------------------------------------

fn begin(kind: u8, body_bytes: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + body_bytes);
    frame.extend_from_slice(&[kind, FLAG_CRC, 0, 0, 0, 0, 0, 0]);
    frame
}

fn seal(frame: &mut [u8]) {
    let crc = crc32c::crc32c(&frame[HEADER_BYTES..]);
    frame[4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    seal(&mut frame);
    frame
}

/// A HELLO frame.
pub fn hello(hello: &proto::Hello) -> Vec<u8> {
    let mut frame = begin(kind::HELLO, 8 + hello.encoded_len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&limits::WIRE_MAJOR.to_le_bytes());
    frame.extend_from_slice(&limits::WIRE_MINOR.to_le_bytes());
    frame.extend_from_slice(&hello.encode_to_vec());
    sealed(frame)
}

/// Fills the first [`OPS_HEADER_BYTES`] of `frame`, which its owner left free before the records.
pub fn seal_ops(frame: &mut [u8], first: u64, replies: u64) {
    frame[..HEADER_BYTES].copy_from_slice(&[kind::OPS, FLAG_CRC, 0, 0, 0, 0, 0, 0]);
    frame[HEADER_BYTES..HEADER_BYTES + 8].copy_from_slice(&first.to_le_bytes());
    frame[HEADER_BYTES + 8..OPS_HEADER_BYTES].copy_from_slice(&replies.to_le_bytes());
    seal(frame);
}

/// A CLOSE frame.
pub fn close() -> Vec<u8> {
    sealed(begin(kind::CLOSE, 0))
}

/// A WELCOME frame.
pub fn welcome(welcome: &proto::Welcome) -> Vec<u8> {
    let mut frame = begin(kind::WELCOME, welcome.encoded_len());
    frame.extend_from_slice(&welcome.encode_to_vec());
    sealed(frame)
}

/// An ACK frame.
pub fn ack(position: u64) -> Vec<u8> {
    let mut frame = begin(kind::ACK, 8);
    frame.extend_from_slice(&position.to_le_bytes());
    sealed(frame)
}

/// An ERROR frame. A message that is too long is cut.
pub fn error(request: u64, code: u32, message: &str) -> Vec<u8> {
    let message = cut(message, limits::ERROR_BYTES);
    let mut frame = begin(kind::ERROR, 12 + message.len());
    frame.extend_from_slice(&request.to_le_bytes());
    frame.extend_from_slice(&code.to_le_bytes());
    frame.extend_from_slice(message.as_bytes());
    sealed(frame)
}

/// A GOODBYE frame. A message that is too long is cut.
pub fn goodbye(code: u32, message: &str) -> Vec<u8> {
    let message = cut(message, limits::ERROR_BYTES);
    let mut frame = begin(kind::GOODBYE, 4 + message.len());
    frame.extend_from_slice(&code.to_le_bytes());
    frame.extend_from_slice(message.as_bytes());
    sealed(frame)
}

/// The header of a REPLY frame whose data is `data`; `crc` says whether to check-sum it. The data itself is sent
/// after the header, from where it lies.
pub fn reply_header(request: u64, total: u64, offset: u64, data: &[u8], crc: bool) -> [u8; REPLY_HEADER_BYTES] {
    let mut header = [0; REPLY_HEADER_BYTES];
    header[0] = kind::REPLY;
    header[8..16].copy_from_slice(&request.to_le_bytes());
    header[16..24].copy_from_slice(&total.to_le_bytes());
    header[24..32].copy_from_slice(&offset.to_le_bytes());
    if crc {
        header[1] = FLAG_CRC;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&header[HEADER_BYTES..]), data);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
    }
    header
}

/// The longest prefix of `text` of at most `bytes` bytes that does not end inside a character.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

// --- Reading ----------------------------------------------------------------------------------------------------

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Checks the header and the CRC of a whole frame and returns its kind, its CRC if it has one, and its body.
fn open(frame: &[u8]) -> Result<(u8, Option<u32>, &[u8])> {
    if frame.len() < HEADER_BYTES {
        return Err(WireError::protocol("frame shorter than its header"));
    }
    let crc = header_crc(frame)?;
    let body = &frame[HEADER_BYTES..];
    match crc {
        Some(sum) if crc32c::crc32c(body) != sum => {
            // Not a protocol error: bytes changed on the way, and a new connection brings them again.
            Err(WireError::new(Code::ConnectionLost, "frame was corrupted on the way (crc32c differs)"))
        }
        _ => Ok((frame[0], crc, body)),
    }
}

fn header_crc(frame: &[u8]) -> Result<Option<u32>> {
    let (kind, flags) = (frame[0], frame[1]);
    if flags & !FLAG_CRC != 0 || frame[2] != 0 || frame[3] != 0 {
        return Err(WireError::protocol("frame header has bits set that mean nothing"));
    }
    match flags & FLAG_CRC != 0 {
        true => Ok(Some(u32_at(frame, 4))),
        false if kind != kind::REPLY => Err(WireError::protocol("frame without a crc32c")),
        false if u32_at(frame, 4) != 0 => Err(WireError::protocol("frame has a crc32c and says that it has none")),
        false => Ok(None),
    }
}

fn exactly(body: &[u8], bytes: usize) -> Result<&[u8]> {
    match body.len() == bytes {
        true => Ok(body),
        false => Err(WireError::protocol(format!("frame body of {} bytes where {bytes} belong", body.len()))),
    }
}

fn at_least(body: &[u8], bytes: usize) -> Result<&[u8]> {
    match body.len() >= bytes {
        true => Ok(body),
        false => {
            Err(WireError::protocol(format!("frame body of {} bytes where at least {bytes} belong", body.len())))
        }
    }
}

fn at_most(bytes: usize, limit: usize, what: &'static str) -> Result<()> {
    match bytes <= limit {
        true => Ok(()),
        false => Err(WireError::limit(format!("{what} of {bytes} bytes is over the limit of {limit}"))),
    }
}

impl<'a> ClientFrame<'a> {
    /// The bytes that [`ClientFrame::parse`] reads.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ClientFrame::Hello(message) => hello(message),
            ClientFrame::Ops(ops) => {
                let mut frame = vec![0; OPS_HEADER_BYTES];
                frame.extend_from_slice(ops.records);
                seal_ops(&mut frame, ops.first, ops.replies);
                frame
            }
            ClientFrame::Close => close(),
        }
    }

    /// Reads one whole frame.
    pub fn parse(frame: &'a [u8]) -> Result<ClientFrame<'a>> {
        let (kind, _, body) = open(frame)?;
        match kind {
            kind::HELLO => parse_hello(body),
            kind::OPS => {
                let body = at_least(body, 16)?;
                let records = &body[16..];
                at_most(records.len(), limits::MESSAGE_BYTES, "op message")?;
                Ok(ClientFrame::Ops(Ops { first: u64_at(body, 0), replies: u64_at(body, 8), records }))
            }
            kind::CLOSE => exactly(body, 0).map(|_| ClientFrame::Close),
            other => Err(WireError::protocol(format!("frame kind {other:#04x} does not come from a client"))),
        }
    }
}

fn parse_hello<'a>(body: &[u8]) -> Result<ClientFrame<'a>> {
    let body = at_least(body, 8)?;
    if body[..4] != MAGIC {
        return Err(WireError::protocol("hello does not begin with the magic: is the client SkyTorch?"));
    }
    let major = u16::from_le_bytes([body[4], body[5]]);
    let minor = u16::from_le_bytes([body[6], body[7]]);
    if major != limits::WIRE_MAJOR {
        // Before the protobuf is looked at: another major may have another one.
        return Err(WireError::new(
            Code::VersionMismatch,
            format!(
                "client speaks wire {major}.{minor}, this server speaks {}.{}: install the same skytorch on both",
                limits::WIRE_MAJOR,
                limits::WIRE_MINOR
            ),
        ));
    }
    let body = &body[8..];
    at_most(body.len(), limits::HANDSHAKE_BYTES, "hello")?;
    let hello = proto::Hello::decode(body).map_err(|e| WireError::protocol(format!("hello is no protobuf: {e}")))?;
    Ok(ClientFrame::Hello(Box::new(hello)))
}

impl<'a> ServerFrame<'a> {
    /// The bytes that [`ServerFrame::parse`] reads.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ServerFrame::Welcome(message) => welcome(message),
            ServerFrame::Ack { position } => ack(*position),
            ServerFrame::Reply(h, data) => {
                [&reply_header(h.request, h.total, h.offset, data, h.crc.is_some())[..], data].concat()
            }
            ServerFrame::Error { request, error: why } => error(*request, why.code.number(), &why.message),
            ServerFrame::Goodbye(why) => goodbye(why.code.number(), &why.message),
        }
    }

    /// Reads one whole frame. For a REPLY whose data is to go elsewhere use [`ReplyHeader::parse`].
    pub fn parse(frame: &'a [u8]) -> Result<ServerFrame<'a>> {
        let (kind, crc, body) = open(frame)?;
        match kind {
            kind::WELCOME => {
                at_most(body.len(), limits::HANDSHAKE_BYTES, "welcome")?;
                let welcome = proto::Welcome::decode(body)
                    .map_err(|e| WireError::protocol(format!("welcome is no protobuf: {e}")))?;
                Ok(ServerFrame::Welcome(Box::new(welcome)))
            }
            kind::ACK => exactly(body, 8).map(|body| ServerFrame::Ack { position: u64_at(body, 0) }),
            kind::REPLY => {
                let body = at_least(body, 24)?;
                let (fields, data) = body.split_at(24);
                let header = ReplyHeader::of(fields, crc);
                header.check(data.len())?;
                Ok(ServerFrame::Reply(header, data))
            }
            kind::ERROR => {
                let body = at_least(body, 12)?;
                Ok(ServerFrame::Error { request: u64_at(body, 0), error: parse_error(u32_at(body, 8), &body[12..])? })
            }
            kind::GOODBYE => {
                let body = at_least(body, 4)?;
                Ok(ServerFrame::Goodbye(parse_error(u32_at(body, 0), &body[4..])?))
            }
            other => Err(WireError::protocol(format!("frame kind {other:#04x} does not come from a server"))),
        }
    }
}

fn parse_error(code: u32, message: &[u8]) -> Result<WireError> {
    at_most(message.len(), limits::ERROR_BYTES, "error message")?;
    let message = std::str::from_utf8(message).map_err(|_| WireError::protocol("error message is not UTF-8"))?;
    let Some(code) = Code::from_number(code) else {
        return Err(WireError::protocol(format!("error code {code} is not in the catalogue")));
    };
    Ok(WireError::new(code, message.to_owned()))
}

impl ReplyHeader {
    fn of(fields: &[u8], crc: Option<u32>) -> ReplyHeader {
        ReplyHeader { request: u64_at(fields, 0), total: u64_at(fields, 8), offset: u64_at(fields, 16), crc }
    }

    /// Reads the header of a REPLY frame that has `frame_bytes` in all, before its data is there. The CRC is then the
    /// caller's to check: start with [`ReplyHeader::crc_start`], append the data, compare with `crc`.
    pub fn parse(header: &[u8; REPLY_HEADER_BYTES], frame_bytes: usize) -> Result<ReplyHeader> {
        if header[0] != kind::REPLY {
            return Err(WireError::protocol(format!("frame kind {:#04x} is not a reply", header[0])));
        }
        if frame_bytes < REPLY_HEADER_BYTES {
            return Err(WireError::protocol("reply frame shorter than its header"));
        }
        let parsed = ReplyHeader::of(&header[HEADER_BYTES..], header_crc(header)?);
        parsed.check(frame_bytes - REPLY_HEADER_BYTES)?;
        Ok(parsed)
    }

    /// CRC32C of the header's fields, to be continued over the data.
    pub fn crc_start(&self) -> u32 {
        let mut fields = [0; 24];
        fields[..8].copy_from_slice(&self.request.to_le_bytes());
        fields[8..16].copy_from_slice(&self.total.to_le_bytes());
        fields[16..].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c(&fields)
    }

    fn check(&self, data_bytes: usize) -> Result<()> {
        at_most(data_bytes, limits::REPLY_FRAME_BYTES, "reply frame")?;
        match self.offset.checked_add(data_bytes as u64) {
            Some(end) if end <= self.total => Ok(()),
            _ => Err(WireError::protocol("reply frame goes past the end of its answer")),
        }
    }
}
