//! Numbers of variable length (LEB128, seven bits a byte, low bits first) and the reader that every decoder of the
//! codec uses.
//!
//! A number has exactly one encoding: one that is longer than needed is refused. The subtle thing is that a reader
//! never trusts a count: [`Reader::count`] compares it with the bytes that are left before anybody allocates.

use crate::error::{Result, WireError};

/// Appends `value`.
#[inline(always)]
pub(super) fn put(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        put_long(out, value);
    }
}

#[inline]
fn put_long(out: &mut Vec<u8>, mut value: u64) {
    // On the stack first: one growth check and one copy instead of one for each byte.
    let mut bytes = [0u8; 10];
    let mut n = 0;
    while value >= 0x80 {
        bytes[n] = value as u8 | 0x80;
        value >>= 7;
        n += 1;
    }
    bytes[n] = value as u8;
    out.extend_from_slice(&bytes[..=n]);
}

/// Appends a signed number: small magnitudes of either sign are short.
#[inline(always)]
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

#[inline(always)]
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline(always)]
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// What is left of the bytes being decoded.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline(always)]
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8> {
        let Some((&byte, rest)) = self.rest.split_first() else { return Err(ends()) };
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(n) else { return Err(ends()) };
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else { return Err(ends()) };
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    #[inline]
    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for (i, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if byte == 0 && i > 0 {
                    return Err(WireError::protocol("varint is longer than it need be"));
                }
                if i == 9 && byte > 1 {
                    break;
                }
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        match self.rest.len() < 10 {
            true => Err(ends()),
            false => Err(WireError::protocol("varint does not fit 64 bits")),
        }
    }

    #[inline(always)]
    pub(super) fn signed(&mut self) -> Result<i64> {
        self.varint().map(unzigzag)
    }

    /// A number that must fit 63 bits: a size, a stride, a count of bytes.
    pub(super) fn size(&mut self) -> Result<i64> {
        i64::try_from(self.varint()?).map_err(|_| WireError::protocol("size does not fit 63 bits"))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| WireError::protocol("number does not fit 32 bits"))
    }

    /// A count of things that take at least `min_bytes` each. Refused when it is over `limit`, or when that many
    /// cannot be in the bytes that are left.
    pub(super) fn count(&mut self, limit: usize, min_bytes: usize, what: &'static str) -> Result<usize> {
        let count = self.varint()?;
        if count > limit as u64 {
            return Err(WireError::limit(format!("{count} {what}: the limit is {limit}")));
        }
        let count = count as usize;
        if count * min_bytes > self.rest.len() {
            return Err(ends());
        }
        Ok(count)
    }

    /// A byte that is 0 or 1.
    pub(super) fn bool(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::protocol("bool is neither 0 nor 1")),
        }
    }

    pub(super) fn f64(&mut self) -> Result<f64> {
        self.array().map(f64::from_le_bytes)
    }

    /// A counted string of UTF-8.
    pub(super) fn str(&mut self, limit: usize, what: &'static str) -> Result<&'a str> {
        let n = self.count(limit, 1, what)?;
        std::str::from_utf8(self.bytes(n)?).map_err(|_| WireError::protocol("string is not UTF-8"))
    }

    /// Refuses bytes that belong to nothing.
    pub(super) fn end(&self) -> Result<()> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(WireError::protocol(format!("{} bytes after the end", self.rest.len()))),
        }
    }
}

#[cold]
fn ends() -> WireError {
    WireError::protocol("bytes end in the middle of a value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put(&mut out, value);
                let mut reader = Reader::new(&out);
                assert_eq!(reader.varint().unwrap(), value);
                reader.end().unwrap();
                assert_eq!(zigzag(unzigzag(value)), value);
            }
        }
    }

    #[test]
    fn one_encoding_only() {
        let refused: [&[u8]; 5] =
            [&[], &[0x80], &[0x80, 0], &[0xff; 11], &[255, 255, 255, 255, 255, 255, 255, 255, 255, 2]];
        for bytes in refused {
            assert!(Reader::new(bytes).varint().is_err(), "{bytes:?}");
        }
    }
}
