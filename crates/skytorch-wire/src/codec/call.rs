//! The control methods of CALL records: how many integers each takes, whether it takes a payload, whether it answers.
//! The same table is in docs/wire.md ("CALL methods").
//!
//! What a method means is the executor's business. Both ends look here, so that a call with the wrong shape fails
//! where it is made.

use crate::abi::*;
use crate::error::{Result, WireError};
use crate::limits;

/// The shape of one control method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// SKY_CALL_*.
    pub number: u32,
    /// For messages.
    pub name: &'static str,
    /// How many integers it takes.
    pub n_args: usize,
    /// Whether it takes bytes.
    pub payload: bool,
    /// Whether it answers.
    pub answers: bool,
}

const fn method(number: u32, name: &'static str, n_args: usize, payload: bool, answers: bool) -> Method {
    Method { number, name, n_args, payload, answers }
}

/// Every method, at the index of its number less one.
const METHODS: [Method; 16] = [
    method(SKY_CALL_CONTEXT, "context", 2, false, false),
    method(SKY_CALL_GENERATOR_SEED, "generator seed", 3, false, false),
    method(SKY_CALL_GENERATOR_GET_STATE, "generator get state", 2, false, true),
    method(SKY_CALL_GENERATOR_SET_STATE, "generator set state", 2, true, false),
    method(SKY_CALL_GENERATOR_FREE, "generator free", 1, false, false),
    method(SKY_CALL_SYNCHRONIZE, "synchronize", 1, false, true),
    method(SKY_CALL_EVENT_RECORD, "event record", 2, false, false),
    method(SKY_CALL_EVENT_SYNCHRONIZE, "event synchronize", 1, false, true),
    method(SKY_CALL_EVENT_ELAPSED, "event elapsed", 2, false, true),
    method(SKY_CALL_EVENT_FREE, "event free", 1, false, false),
    method(SKY_CALL_MEMORY_STATS, "memory stats", 1, false, true),
    method(SKY_CALL_MEMORY_RESET_PEAK, "memory reset peak", 1, false, false),
    method(SKY_CALL_EMPTY_CACHE, "empty cache", 1, false, false),
    method(SKY_CALL_TAKE_POISON, "take poison", 0, false, true),
    method(SKY_CALL_PROBE, "probe", 0, true, true),
    method(SKY_CALL_ORIGIN, "origin", 0, true, false),
];

impl Method {
    /// Every method in the order of its number.
    pub const ALL: &'static [Method] = &METHODS;

    /// The method of this number.
    pub fn find(number: u32) -> Result<&'static Method> {
        (number as usize)
            .checked_sub(1)
            .and_then(|i| METHODS.get(i))
            .ok_or_else(|| WireError::protocol(format!("call method {number} means nothing")))
    }

    /// Refuses a call that does not have the method's shape.
    pub(super) fn check(&self, n_args: usize, payload_bytes: usize, request: u64) -> Result<()> {
        let name = self.name;
        if n_args != self.n_args {
            let n = self.n_args;
            return Err(WireError::protocol(format!("call {name:?} takes {n} integers, it has {n_args}")));
        }
        if payload_bytes != 0 && !self.payload {
            return Err(WireError::protocol(format!("call {name:?} takes no payload, it has {payload_bytes} bytes")));
        }
        if payload_bytes > limits::PAYLOAD_BYTES {
            let limit = limits::PAYLOAD_BYTES;
            return Err(WireError::limit(format!("call {name:?} has {payload_bytes} bytes: the limit is {limit}")));
        }
        match (self.answers, request != 0) {
            (true, false) => Err(WireError::protocol(format!("call {name:?} answers and has no request number"))),
            (false, true) => Err(WireError::protocol(format!("call {name:?} does not answer a request"))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (i, method) in Method::ALL.iter().enumerate() {
            assert_eq!(method.number as usize, i + 1, "{}", method.name);
            assert_eq!(Method::find(method.number).unwrap(), method);
        }
        assert!(Method::find(0).is_err());
        assert!(Method::find(17).is_err());
    }
}
