//! Copies from one session to another that were issued one after the other and are not appended yet: they travel
//! together, as one transfer, also when the program wrote a loop.
//!
//! The sending and the receiving stream hold one half each, which is appended before anything else is. So each stream
//! keeps the order of the calls (INV-1), and to append a half never takes the lock of the other. The subtle thing is
//! who may join: a copy that finds both halves of the same gather still open, since then nothing came in between on
//! either stream, and none of the tensors before it can have changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::codec::{Part, parcel};
use crate::error::Result;
use crate::lane::Admission;
use crate::lane::target::SendTarget;
use crate::limits;

/// Half of a gather: see the module.
pub(super) struct Gather {
    /// Both halves have it.
    number: u64,
    pub(super) parts: Vec<Part>,
    bytes: u64,
    pub(super) since: Instant,
    pub(super) end: End,
}

/// Which half.
pub(super) enum End {
    /// Its ticket is made when its size is known.
    Send(Box<SendTarget>, Admission),
    Write {
        transfer: u64,
    },
}

/// A number for the two halves of a gather.
pub(super) fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

impl Gather {
    pub(super) fn new(number: u64, end: End, first: Part, bytes: u64) -> Gather {
        Gather { number, parts: vec![first], bytes, since: Instant::now(), end }
    }

    /// Whether a copy of so many bytes, from the stream of this half to that of the `other`, may join them.
    pub(super) fn takes(&self, other: &Gather, bytes: u64) -> bool {
        let is_theirs = self.number == other.number && matches!(self.end, End::Send(..));
        let together = self.bytes.saturating_add(bytes);
        is_theirs && self.parts.len() < limits::PARCEL_TENSORS && together <= limits::PARCEL_BYTES
    }

    pub(super) fn push(&mut self, part: Part, bytes: u64) {
        self.parts.push(part);
        self.bytes += bytes;
    }

    /// Whether a template in this slot is still to be named.
    pub(super) fn names(&self, slot: u32) -> bool {
        self.parts.iter().any(|part| part.slot == slot)
    }

    /// Bytes of the transfer.
    pub(super) fn transfer_bytes(&self) -> Result<u64> {
        parcel::transfer_bytes(self.parts.len(), self.bytes)
    }
}
