//! One decoded record as a safe enum: for tests, tools and servers written in Rust. The executor reads the plain
//! structs of the C ABI instead.

use super::encode::OpEncoder;
use super::parcel::Part;
use super::template::Template;
use crate::abi::SkyScalar;
use crate::error::Result;

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
    WriteLane { parts: Vec<Part>, transfer: u64, n_bytes: u64 },
    Read { slot: u32, storage: u64, request: u64 },
    Call { method: u32, args: Vec<i64>, payload: Vec<u8>, request: u64 },
    Send { parts: Vec<Part>, payload: Vec<u8>, n_bytes: u64 },
}

impl OpEncoder {
    /// Appends a record given in its safe form.
    pub fn record(&mut self, out: &mut Vec<u8>, record: &Record) -> Result<()> {
        match record {
            Record::Define { slot, template } => self.define(out, *slot, template),
            Record::Op { slot, storages, scalars } => self.op(out, *slot, storages, scalars),
            Record::Query { slot, storages, n_outputs, scalars, request } => {
                self.query(out, *slot, storages, *n_outputs, scalars, *request)
            }
            Record::Free { storages } => self.free(out, storages),
            Record::Alloc { storage, n_bytes, device } => self.alloc(out, *storage, *n_bytes, *device),
            Record::Resize { storage, n_bytes } => self.resize(out, *storage, *n_bytes),
            Record::Write { slot, storage, payload } => self.write(out, *slot, *storage, payload),
            Record::WriteLane { parts, transfer, .. } => self.write_lane(out, parts, *transfer),
            Record::Read { slot, storage, request } => self.read(out, *slot, *storage, *request),
            Record::Call { method, args, payload, request } => self.call(out, *method, args, payload, *request),
            Record::Send { parts, payload, .. } => self.send(out, parts, payload),
        }
    }
}
