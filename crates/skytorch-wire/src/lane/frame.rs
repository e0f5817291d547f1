//! The messages of an upload: flags, CRC32C, data. "Lanes" in docs/wire.md.

use bytes::Bytes;

use crate::codec::frame::FLAG_CRC;
use crate::error::{Code, Result, WireError};
use crate::limits;
use crate::net::message::{PREFIX_BYTES, prefix};

/// Bytes before the data of a message: flags, three zero bytes, CRC32C of the data (0 without the flag).
pub(crate) const HEAD_BYTES: usize = 8;
/// Data bytes in a message; a whole number of pages, so that parts of a page-aligned source stay aligned.
pub(crate) const DATA_BYTES: usize = limits::LANE_MESSAGE_BYTES - 4096;

/// The gRPC prefix and the head of a message with this data.
pub(crate) fn head(data: &[u8], checksum: bool) -> Bytes {
    let mut bytes = [0; PREFIX_BYTES + HEAD_BYTES];
    bytes[..PREFIX_BYTES].copy_from_slice(&prefix(HEAD_BYTES + data.len()));
    if checksum {
        bytes[PREFIX_BYTES] = FLAG_CRC;
        bytes[PREFIX_BYTES + 4..].copy_from_slice(&crc32c::crc32c(data).to_le_bytes());
    }
    Bytes::copy_from_slice(&bytes)
}

/// The CRC of a message, if it has one.
pub(crate) fn parse_head(head: &[u8; HEAD_BYTES]) -> Result<Option<u32>> {
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    match (head[0], head[1..4] == [0, 0, 0], crc) {
        (FLAG_CRC, true, crc) => Ok(Some(crc)),
        (0, true, 0) => Ok(None),
        _ => Err(WireError::protocol("head of a lane message has bits set that mean nothing")),
    }
}

/// The bytes changed on the way.
pub(crate) fn corrupted() -> WireError {
    WireError::new(Code::ConnectionLost, "bulk bytes were corrupted on the way (crc32c differs)")
}
