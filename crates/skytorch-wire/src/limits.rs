//! Every limit of the protocol, once. Both sides hold to them: an encoder refuses what a decoder would refuse.
//!
//! Sizes of a message bound what hostile bytes can make a decoder allocate: see "Hostile input" in docs/wire.md. The
//! subtle pair is `RECORD_*` and `MESSAGE_*`: a record may be at most half a message, so an encoder that starts a new
//! message whenever the current one is half full never produces one that is too large.

use std::time::Duration;

/// Wire major: both sides must have the same.
pub const WIRE_MAJOR: u16 = 2;
/// Wire minor: the lower of the two is spoken.
pub const WIRE_MINOR: u16 = 0;

// --- Messages and records ---------------------------------------------------------------------------------------

/// Bytes of records in one OPS frame.
pub const MESSAGE_BYTES: usize = 1 << 20;
/// Records in one OPS frame.
pub const MESSAGE_RECORDS: usize = 1 << 16;
/// Storage ids that the records of one OPS frame name, outputs that take no bytes included.
pub const MESSAGE_STORAGES: usize = 1 << 20;
/// Template arguments and outputs in one OPS frame.
pub const MESSAGE_TEMPLATE_ITEMS: usize = 1 << 16;
/// Bytes of one record.
pub const RECORD_BYTES: usize = MESSAGE_BYTES / 2;
/// Storage ids of one FREE; whatever they are, they fit [`RECORD_BYTES`].
pub const RECORD_STORAGES: usize = 1 << 15;
/// Bytes that a WRITE carries itself; more goes on a lane.
pub const INLINE_WRITE_BYTES: u64 = 256 << 10;
/// Payload bytes of a CALL or SEND.
pub const PAYLOAD_BYTES: usize = 256 << 10;
/// Tensors of one SEND or WRITE_LANE.
pub const PARCEL_TENSORS: usize = 1 << 12;
/// Bytes of theirs if they are several: they land together, and a server has to have room for them.
pub const PARCEL_BYTES: u64 = 64 << 20;

// --- Templates --------------------------------------------------------------------------------------------------

/// Template slots of a session.
pub const SLOTS: u32 = 1 << 16;
/// Arguments of one template, elements of lists included.
pub const TEMPLATE_ARGS: usize = 1 << 14;
/// Outputs of one template.
pub const TEMPLATE_OUTPUTS: usize = 1 << 14;
/// LIST inside LIST.
pub const LIST_NESTING: usize = 4;
/// Elements of an INT_LIST, DOUBLE_LIST or BOOL_LIST.
pub const LIST_ELEMENTS: usize = 1 << 15;
/// Dimensions of a tensor.
pub const DIMS: usize = 64;
/// Bytes of an operator's name.
pub const NAME_BYTES: usize = 256;
/// Bytes of a STRING argument.
pub const STRING_BYTES: usize = 64 << 10;

// --- Frames and replies -----------------------------------------------------------------------------------------

/// Bytes of the protobuf in HELLO or WELCOME.
pub const HANDSHAKE_BYTES: usize = 64 << 10;
/// Bytes of an encoded QUERY or CALL reply.
pub const REPLY_BODY_BYTES: usize = 1 << 20;
/// Data bytes in one REPLY frame. Larger replies come in pieces.
pub const REPLY_FRAME_BYTES: usize = 1 << 20;
/// Bytes of an error message (the ABI's, less the terminating zero).
pub const ERROR_BYTES: usize = crate::abi::SKY_MESSAGE_BYTES - 1;

// --- Sessions ---------------------------------------------------------------------------------------------------

/// Largest blocking upload that is copied, so that the call returns at once (INV-4).
pub const LANE_COPY_BYTES: u64 = 4 << 20;
/// Unacknowledged bytes that a client keeps before it waits (INV-6).
pub const REPLAY_LOG_BYTES: usize = 64 << 20;
/// What a server sets aside of a client's records while it waits for the client to have an answer.
pub const INBOX_BYTES: usize = 2 * REPLAY_LOG_BYTES;
/// Answers up to this size are copied and kept until the client has them (INV-6); a larger one is sent from where it
/// lies, and holds the stream until the client has it. After as many bytes of answers a client says what it has.
pub const KEPT_REPLY_BYTES: usize = 64 << 10;
/// Bytes of kept answers at which a server waits for its client to say that it has them.
pub const KEPT_REPLIES_BYTES: usize = 4 << 20;
/// Largest bulk transfer.
pub const TRANSFER_BYTES: u64 = 1 << 42;
/// Bytes of one gRPC message on a lane.
pub const LANE_MESSAGE_BYTES: usize = 1 << 20;
/// HTTP/2 window of a stream and of a connection, on both sides.
pub const WINDOW_BYTES: u32 = 16 << 20;
/// Authenticated connections that a server has open, lanes and control included.
pub const CONNECTIONS: usize = 64;
/// Connections that have shown no token or ticket yet; one more ends the oldest of them.
pub const PENDING_CONNECTIONS: usize = 64;
/// Connections that the door for probes has open; one more ends the oldest of them.
pub const PROBE_CONNECTIONS: usize = 16;
/// HTTP/2 window of a probe's connection, whose requests are of a few bytes.
pub(crate) const PROBE_WINDOW_BYTES: u32 = 64 << 10;
/// Bytes of a request for health, which anybody may send.
pub(crate) const HEALTH_REQUEST_BYTES: usize = 1 << 10;
/// Time from accept to a valid token.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server keeps a session whose connection is lost.
pub const RESUME_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the rest of a message may take where bytes can change on their way, and with them a message's length.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections in a row that may break before they brought anything on.
pub const FRUITLESS_CONNECTIONS: u32 = 16;
/// Between connections that come to nothing, doubled each time, and at most.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(crate) const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How long nobody may listen at a TCP address before the server counts as gone: what forwards the port may be about to
/// do so again. Nobody stands between us and a Unix socket.
pub(crate) const GONE: Duration = Duration::from_millis(800);

// --- Control ----------------------------------------------------------------------------------------------------

/// Pause between snapshots when the client names none.
pub const METRICS_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest pause between snapshots that a server grants.
pub const METRICS_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// How often a follower's log source is asked for new lines.
pub const LOG_POLL: Duration = Duration::from_millis(200);
/// Bytes of one log line; the rest is cut off.
pub const LOG_LINE_BYTES: usize = 64 << 10;
/// Bytes of log lines in one message.
pub const LOG_MESSAGE_BYTES: usize = 256 << 10;
