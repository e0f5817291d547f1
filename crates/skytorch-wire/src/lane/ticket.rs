//! What lets an upload in: a one-use ticket bound to one transfer of one session, its size and an expiry.
//!
//! It is signed with the session's id, which only the client and the server of the session know. A server that sends
//! to another one gets a ticket and never the client's token, and the receiver can check it at once, whatever its
//! executor is doing. That it is used once is the receiver's to see to: see [`Used`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::error::{Code, Result, WireError};

/// Header that carries a ticket in hexadecimal digits.
pub(crate) const TICKET_HEADER: &str = "skytorch-ticket";
/// Header of an upload that goes on: the offset of its first byte.
pub(crate) const OFFSET_HEADER: &str = "skytorch-offset";
/// Header that numbers the calls of one transfer: absent in the first, then 1 and so on. A late one gives way.
pub(crate) const ATTEMPT_HEADER: &str = "skytorch-attempt";
/// The number of a call that gives its transfer up.
pub(crate) const ABORT: u32 = u32::MAX;
/// Header that says how much has arrived: bytes, how many of them are unchecked, and the CRC32C of those; or "waiting".
pub(crate) const RECEIVED_HEADER: &str = "skytorch-received";
/// A ticket in bytes: transfer, size, expiry, signature.
pub(crate) const TICKET_BYTES: usize = 24 + 32;
/// How long after it was made a ticket is good: the upload may wait behind much work in the sender's stream.
pub(crate) const VALIDITY: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) transfer: u64,
    pub(crate) bytes: u64,
    /// Milliseconds from the session's start.
    pub(crate) expires_ms: u64,
}

impl Ticket {
    /// For a session that is `age` old.
    pub(crate) fn new(transfer: u64, bytes: u64, age: Duration) -> Ticket {
        Ticket { transfer, bytes, expires_ms: u64::try_from((age + VALIDITY).as_millis()).unwrap_or(u64::MAX) }
    }

    fn fields(&self) -> [u8; 24] {
        let mut fields = [0; 24];
        fields[..8].copy_from_slice(&self.transfer.to_le_bytes());
        fields[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        fields[16..].copy_from_slice(&self.expires_ms.to_le_bytes());
        fields
    }

    /// Signed, in hexadecimal digits.
    pub(crate) fn sign(&self, session_id: &[u8; 16]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, session_id);
        let fields = self.fields();
        let signature = hmac::sign(&key, &fields);
        fields.iter().chain(signature.as_ref()).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Read and checked against the session's id and age.
    pub(crate) fn verify(text: &str, session_id: &[u8; 16], age: Duration) -> Result<Ticket> {
        let refused =
            || WireError::new(Code::Unauthenticated, "the ticket of an upload is not good for this session");
        let bytes = unhex(text).ok_or_else(refused)?;
        let (fields, signature) = bytes.split_at(24);
        let key = hmac::Key::new(hmac::HMAC_SHA256, session_id);
        hmac::verify(&key, fields, signature).map_err(|_| refused())?;
        let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
        let ticket = Ticket { transfer: number(0), bytes: number(8), expires_ms: number(16) };
        if age.as_millis() > u128::from(ticket.expires_ms) {
            return Err(WireError::new(Code::Unauthenticated, "the ticket of an upload has expired"));
        }
        Ok(ticket)
    }
}

/// What makes the tickets of one transfer of a session: its size may become known later, and a ticket's time runs from
/// when it was made.
#[derive(Clone, Copy)]
pub(crate) struct Admission {
    pub(crate) transfer: u64,
    pub(crate) session_id: [u8; 16],
    /// When the session began.
    pub(crate) began: Instant,
}

impl Admission {
    pub(crate) fn ticket(&self, bytes: u64) -> String {
        Ticket::new(self.transfer, bytes, self.began.elapsed()).sign(&self.session_id)
    }
}

fn unhex(text: &str) -> Option<[u8; TICKET_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * TICKET_BYTES {
        return None;
    }
    let mut bytes = [0; TICKET_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

/// Transfers of a session that have begun. They are numbered in order and begin nearly so: everything up to a mark,
/// and a few beyond it.
#[derive(Debug, Default)]
pub(crate) struct Used {
    up_to: u64,
    beyond: BTreeSet<u64>,
}

impl Used {
    /// How far ahead of the oldest unused number a transfer may be; bounds what is remembered.
    const WINDOW: u64 = 1 << 20;

    /// Every number up to this one counts as used.
    pub(crate) fn up_to(number: u64) -> Used {
        Used { up_to: number, beyond: BTreeSet::new() }
    }

    /// True if `transfer` had not been used, which it has now.
    pub(crate) fn claim(&mut self, transfer: u64) -> bool {
        if transfer <= self.up_to || transfer - self.up_to > Used::WINDOW || !self.beyond.insert(transfer) {
            return false;
        }
        while self.beyond.remove(&(self.up_to + 1)) {
            self.up_to += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_session_and_time_only() {
        let ticket = Ticket::new(7, 1 << 33, Duration::from_secs(5));
        let text = ticket.sign(&[1; 16]);
        assert_eq!(Ticket::verify(&text, &[1; 16], Duration::from_secs(10)), Ok(ticket));
        assert!(Ticket::verify(&text, &[2; 16], Duration::from_secs(10)).is_err());
        assert!(Ticket::verify(&text, &[1; 16], VALIDITY + Duration::from_secs(6)).is_err());
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            assert!(Ticket::verify(std::str::from_utf8(&other).unwrap(), &[1; 16], Duration::ZERO).is_err());
        }
        assert!(Ticket::verify("", &[1; 16], Duration::ZERO).is_err());
    }

    #[test]
    fn a_transfer_begins_once() {
        let mut used = Used::default();
        assert!(used.claim(2) && used.claim(1) && used.claim(4));
        for again in [0, 1, 2, 4] {
            assert!(!used.claim(again));
        }
        assert!(used.claim(3) && used.beyond.is_empty());
        assert!(!used.claim(u64::MAX));
    }
}
