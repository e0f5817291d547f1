//! The bytes of a transfer, in the pieces in which they lie in memory: sliced, never copied and never put together.

use std::collections::VecDeque;

use bytes::Bytes;

/// See the module. No piece is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload {
    pieces: VecDeque<Bytes>,
    bytes: u64,
}

impl Payload {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What comes behind the first `n` bytes.
    pub(crate) fn behind(mut self, n: u64) -> Payload {
        let mut left = n.min(self.bytes);
        while left > 0 {
            left -= self.take(usize::try_from(left).unwrap_or(usize::MAX)).len() as u64;
        }
        self
    }

    /// The next bytes, at most `n` of them: as many as lie together.
    pub(crate) fn take(&mut self, n: usize) -> Bytes {
        let Some(first) = self.pieces.front_mut() else { return Bytes::new() };
        let taken = first.split_to(first.len().min(n));
        if first.is_empty() {
            self.pieces.pop_front();
        }
        self.bytes -= taken.len() as u64;
        taken
    }

    /// CRC32C of the bytes from `from` up to `to`; `None` if there are not as many.
    pub(crate) fn crc32c(&self, from: u64, to: u64) -> Option<u32> {
        if from > to || to > self.bytes {
            return None;
        }
        let (mut rest, mut left, mut sum) = (self.clone().behind(from), to - from, 0);
        while left > 0 {
            let piece = rest.take(usize::try_from(left).unwrap_or(usize::MAX));
            sum = crc32c::crc32c_append(sum, &piece);
            left -= piece.len() as u64;
        }
        Some(sum)
    }
}

impl From<Bytes> for Payload {
    fn from(piece: Bytes) -> Payload {
        [piece].into_iter().collect()
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Payload {
        let pieces: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Payload { pieces, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_one_run_of_bytes() {
        let whole: Vec<u8> = (0..=99).collect();
        let payload: Payload = [0..0, 0..1, 1..40, 40..40, 40..100]
            .map(|range| Bytes::copy_from_slice(&whole[range]))
            .into_iter()
            .collect();
        assert_eq!(payload.bytes(), 100);
        for from in 0..=100 {
            let (mut rest, mut got) = (payload.clone().behind(from as u64), Vec::new());
            while !rest.is_empty() {
                let piece = rest.take(7);
                assert!(!piece.is_empty() && piece.len() <= 7);
                got.extend_from_slice(&piece);
            }
            assert_eq!(got, whole[from..]);
            for to in from..=100 {
                assert_eq!(payload.crc32c(from as u64, to as u64), Some(crc32c::crc32c(&whole[from..to])));
            }
        }
        assert_eq!(payload.crc32c(0, 101), None);
        assert_eq!(payload.crc32c(5, 4), None);
        assert!(payload.behind(101).is_empty());
    }
}
