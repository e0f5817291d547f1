//! The tensors of one transfer: what a SEND reads and a WRITE_LANE writes ("Records" in docs/wire.md).
//!
//! One tensor is its bytes. Several are the bytes of one after those of another, in the order of the record, and then
//! a byte for each that says whether its bytes are good: one that has no value must not take the others with it.

use crate::error::{Result, WireError};
use crate::limits;

/// One tensor of a transfer: the slot of its READ or WRITE template, and its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    #[allow(missing_docs)]
    pub slot: u32,
    #[allow(missing_docs)]
    pub storage: u64,
}

impl Part {
    /// See the type.
    pub fn new(slot: u32, storage: u64) -> Part {
        Part { slot, storage }
    }
}

/// Bytes of a transfer of so many tensors that have `bytes` together.
pub(crate) fn transfer_bytes(tensors: usize, bytes: u64) -> Result<u64> {
    match tensors {
        0 => Err(WireError::protocol("transfer of no tensor")),
        1 => Ok(bytes),
        n if n > limits::PARCEL_TENSORS || bytes > limits::PARCEL_BYTES => {
            let (most, limit) = (limits::PARCEL_TENSORS, limits::PARCEL_BYTES);
            Err(WireError::limit(format!(
                "transfer of {n} tensors, {bytes} bytes: the limits are {most} and {limit}"
            )))
        }
        n => Ok(bytes + n as u64),
    }
}
