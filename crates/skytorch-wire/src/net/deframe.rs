//! Messages whose data is consumed while it arrives: each chunk goes to the sink as HTTP/2 hands it over.
//!
//! It is the counterpart of `message`, which puts messages together. A message is either streamed (a head of known
//! size, then data that is never collected) or small and collected whole; the sink decides by the first byte.

use bytes::{Buf, Bytes};

use super::message::{PREFIX_BYTES, message_bytes};
use crate::error::Result;

/// Where messages go.
pub(crate) trait Sink {
    /// Bytes of the head of a streamed message that begins with `first` and has `message_bytes`; `None`: collect it.
    fn head_bytes(&self, first: Option<u8>, message_bytes: usize) -> Option<usize>;
    /// A streamed message begins; `data_bytes` follow.
    fn begin(&mut self, head: &[u8], data_bytes: usize) -> Result<()>;
    /// Some of its data.
    fn data(&mut self, data: &[u8]) -> Result<()>;
    /// It is complete.
    fn end(&mut self) -> Result<()>;
    /// A collected message.
    fn whole(&mut self, message: &[u8]) -> Result<()>;
}

enum State {
    Prefix,
    /// Collecting a whole message of this size, or the head of a streamed one.
    Head(usize),
    /// This much data is still to come.
    Data(usize),
}

/// See the module.
pub(crate) struct Deframer {
    state: State,
    head: Vec<u8>,
    limit: usize,
}

impl Deframer {
    /// For messages of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Deframer {
        Deframer { state: State::Prefix, head: Vec::new(), limit }
    }

    /// True between messages.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Prefix) && self.head.is_empty()
    }

    /// Take a chunk of the body.
    pub(crate) fn feed(&mut self, mut chunk: Bytes, sink: &mut impl Sink) -> Result<()> {
        loop {
            match &mut self.state {
                State::Prefix => {
                    if !collect(&mut self.head, &mut chunk, PREFIX_BYTES) {
                        return Ok(());
                    }
                    let mut prefix = [0; PREFIX_BYTES];
                    prefix.copy_from_slice(&self.head);
                    self.head.clear();
                    self.state = State::Head(message_bytes(prefix, self.limit)?);
                }
                State::Head(bytes) => {
                    let bytes = *bytes;
                    let first = self.head.first().or(chunk.first()).copied();
                    if first.is_none() && bytes > 0 {
                        return Ok(());
                    }
                    let streamed = sink.head_bytes(first, bytes).filter(|head| *head <= bytes);
                    if !collect(&mut self.head, &mut chunk, streamed.unwrap_or(bytes)) {
                        return Ok(());
                    }
                    match streamed {
                        Some(head) => {
                            sink.begin(&self.head, bytes - head)?;
                            self.state = State::Data(bytes - head);
                        }
                        None => {
                            sink.whole(&self.head)?;
                            self.state = State::Prefix;
                        }
                    }
                    self.head.clear();
                }
                State::Data(left) => {
                    let count = chunk.len().min(*left);
                    if count > 0 {
                        sink.data(&chunk[..count])?;
                        chunk.advance(count);
                        *left -= count;
                    }
                    if *left > 0 {
                        return Ok(());
                    }
                    sink.end()?;
                    self.state = State::Prefix;
                }
            }
        }
    }
}

/// Move bytes from `chunk` until `head` has `bytes`; false if there were not enough.
fn collect(head: &mut Vec<u8>, chunk: &mut Bytes, bytes: usize) -> bool {
    let count = chunk.len().min(bytes.saturating_sub(head.len()));
    head.extend_from_slice(&chunk[..count]);
    chunk.advance(count);
    head.len() >= bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::message::framed;

    #[derive(Default)]
    struct Seen {
        streamed: Vec<(Vec<u8>, usize, Vec<u8>)>,
        whole: Vec<Vec<u8>>,
        ends: usize,
    }

    impl Sink for Seen {
        fn head_bytes(&self, first: Option<u8>, _: usize) -> Option<usize> {
            (first == Some(1)).then_some(3)
        }
        fn begin(&mut self, head: &[u8], data_bytes: usize) -> Result<()> {
            self.streamed.push((head.to_vec(), data_bytes, Vec::new()));
            Ok(())
        }
        fn data(&mut self, data: &[u8]) -> Result<()> {
            self.streamed.last_mut().expect("begun").2.extend_from_slice(data);
            Ok(())
        }
        fn end(&mut self) -> Result<()> {
            self.ends += 1;
            Ok(())
        }
        fn whole(&mut self, message: &[u8]) -> Result<()> {
            self.whole.push(message.to_vec());
            Ok(())
        }
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let messages: [&[u8]; 6] = [&[1, 2, 3, 4, 5], &[], &[9, 9], &[1, 7, 7], &[1, 2], &[0; 40]];
        let wire: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
        for step in 1..wire.len() {
            let (mut deframer, mut seen) = (Deframer::new(100), Seen::default());
            for chunk in wire.chunks(step) {
                deframer.feed(Bytes::copy_from_slice(chunk), &mut seen).unwrap();
            }
            assert!(deframer.is_between());
            assert_eq!(seen.streamed, [(vec![1, 2, 3], 2, vec![4, 5]), (vec![1, 7, 7], 0, vec![])]);
            assert_eq!(seen.whole, [vec![], vec![9, 9], vec![1, 2], vec![0; 40]]);
            assert_eq!(seen.ends, 2);
        }
    }
}
