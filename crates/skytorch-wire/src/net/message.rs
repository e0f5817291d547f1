//! gRPC messages from the chunks of an incoming body.
//!
//! A message that lies in one chunk is handed out as a slice of it; one that is spread over several is put together.
//! Nothing is allocated for a length that was only announced: a message grows as its bytes arrive.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

use crate::error::{Result, WireError};

/// Bytes before each gRPC message: compression flag and length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The prefix of a message of `bytes` bytes.
pub(crate) fn prefix(bytes: usize) -> [u8; PREFIX_BYTES] {
    let length = u32::try_from(bytes).expect("a message is far smaller than 4 GiB");
    let [a, b, c, d] = length.to_be_bytes();
    [0, a, b, c, d]
}

/// A frame with its gRPC prefix.
pub(crate) fn framed(frame: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + frame.len());
    message.put_slice(&prefix(frame.len()));
    message.put_slice(frame);
    message.freeze()
}

/// Length of a message from its prefix.
pub(crate) fn message_bytes(prefix: [u8; PREFIX_BYTES], limit: usize) -> Result<usize> {
    if prefix[0] != 0 {
        return Err(WireError::protocol("compressed gRPC message on a stream that never compresses"));
    }
    let bytes = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if bytes > limit {
        return Err(WireError::limit(format!("gRPC message of {bytes} bytes is over the limit of {limit}")));
    }
    Ok(bytes)
}

/// See the module.
pub(crate) struct Messages {
    chunks: VecDeque<Bytes>,
    available: usize,
    limit: usize,
    /// Length of the message under way.
    expected: Option<usize>,
}

impl Messages {
    /// For messages of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Messages {
        Messages { chunks: VecDeque::new(), available: 0, limit, expected: None }
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.available += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Part of a message has arrived.
    pub(crate) fn is_partial(&self) -> bool {
        self.available > 0 || self.expected.is_some()
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>> {
        let expected = match self.expected {
            Some(expected) => expected,
            None if self.available < PREFIX_BYTES => return Ok(None),
            None => {
                let mut prefix = [0; PREFIX_BYTES];
                prefix.copy_from_slice(&self.take(PREFIX_BYTES));
                *self.expected.insert(message_bytes(prefix, self.limit)?)
            }
        };
        if self.available < expected {
            return Ok(None);
        }
        self.expected = None;
        Ok(Some(self.take(expected)))
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        self.available -= bytes;
        if let Some(front) = self.chunks.front_mut() {
            if front.len() > bytes {
                return front.split_to(bytes);
            }
            if front.len() == bytes {
                return self.chunks.pop_front().unwrap_or_default();
            }
        }
        let mut whole = BytesMut::with_capacity(bytes);
        while whole.len() < bytes {
            let front = self.chunks.front_mut().expect("the chunks hold what is available");
            let count = front.len().min(bytes - whole.len());
            whole.put_slice(&front[..count]);
            front.advance(count);
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let mut wire = Vec::new();
        for size in [0usize, 1, 7, 300] {
            wire.extend_from_slice(&framed(&vec![size as u8; size]));
        }
        for step in 1..wire.len() {
            let mut messages = Messages::new(1000);
            let mut found = Vec::new();
            for chunk in wire.chunks(step) {
                messages.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = messages.next().unwrap() {
                    found.push(message.len());
                }
            }
            assert_eq!(found, [0, 1, 7, 300]);
            assert_eq!(messages.available, 0);
        }
    }

    #[test]
    fn long_and_compressed_messages_are_refused() {
        let mut messages = Messages::new(10);
        messages.push(framed(&[0; 11]));
        assert!(messages.next().is_err());
        let mut messages = Messages::new(10);
        messages.push(Bytes::from_static(&[1, 0, 0, 0, 1, 0]));
        assert!(messages.next().is_err());
    }
}
