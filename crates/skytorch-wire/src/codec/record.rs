//! One decoded record as a safe enum: for tests, tools and servers written in Rust. The executor reads the plain
//! structs of the C ABI instead.

use super::template::Template;
use crate::abi::SkyScalar;

/// A record; see SKY_RECORD_* and "Records" in docs/wire.md for the fields.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Record {
    Define { slot: u32, template: Template },
    Op { slot: u32, storages: Vec<u64>, scalars: Vec<SkyScalar> },
    Query { slot: u32, storages: Vec<u64>, n_outputs: u32, scalars: Vec<SkyScalar>, request: u64 },
    Free { storages: Vec<u64> },
    Alloc { storage: u64, n_bytes: u64, device: u32 },
    Resize { storage: u64, n_bytes: u64 },
    Write { slot: u32, storage: u64, payload: Vec<u8> },
    WriteLane { slot: u32, storage: u64, transfer: u64, n_bytes: u64 },
    Read { slot: u32, storage: u64, request: u64 },
    Call { method: u32, args: Vec<i64>, payload: Vec<u8>, request: u64 },
    Send { slot: u32, storage: u64, payload: Vec<u8>, n_bytes: u64 },
}
