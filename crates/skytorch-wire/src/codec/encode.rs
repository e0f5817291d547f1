//! The client's end: records to bytes, appended to the message under construction ("Records" in docs/wire.md).
//!
//! Every function is all or nothing: on an error neither the message nor the encoder has changed. The encoder counts
//! what the limits of a message count, but does not own the message: its owner starts a new one when
//! [`OpEncoder::is_full`] says so, and calls [`OpEncoder::begin_message`].

use super::call::Method;
use super::parcel::{self, Part};
use super::scalar;
use super::slots::Slots;
use super::template::{self, Template, TemplateKind};
use super::varint;
use crate::abi::*;
use crate::error::{Result, WireError};
use crate::limits;

/// Low two bits of the number that begins a record.
pub(super) mod form {
    /// The rest is SKY_RECORD_*.
    pub(in super::super) const OTHER: u64 = 0;
    /// An OP whose fresh ids follow the newest one without gaps; the rest is the slot.
    pub(in super::super) const OP: u64 = 1;
    /// A FREE of one storage; the rest is its distance below the newest id.
    pub(in super::super) const FREE_ONE: u64 = 2;
    /// An OP that names its fresh ids; the rest is the slot.
    pub(in super::super) const OP_NAMED: u64 = 3;
    pub(in super::super) const BITS: u32 = 2;
}

/// No record takes more than half of what a message may hold: see the limits.
const HALF_MESSAGE_STORAGES: usize = limits::MESSAGE_STORAGES / 2;
const HALF_MESSAGE_ITEMS: usize = limits::MESSAGE_TEMPLATE_ITEMS / 2;

/// Encodes the records of one session.
#[derive(Debug)]
pub struct OpEncoder {
    slots: Slots,
    position: u64,
    /// Highest id that a record named as fresh.
    newest: u64,
    message: Counts,
}

/// What a message holds so far, besides bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    records: usize,
    storages: usize,
    template_items: usize,
}

impl OpEncoder {
    /// An encoder at the start of a stream, for a session with this many template slots, whose first record comes after
    /// `position`.
    pub fn new(slots: u32, position: u64) -> OpEncoder {
        OpEncoder { slots: Slots::new(slots), position, newest: 0, message: Counts::default() }
    }

    /// Position of the last record encoded; what it began with before the first.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The records that follow go into a new message.
    pub fn begin_message(&mut self) {
        self.message = Counts::default();
    }

    /// Whether another record might not fit into a message that has `record_bytes` of records.
    #[inline]
    pub fn is_full(&self, record_bytes: usize) -> bool {
        record_bytes > limits::MESSAGE_BYTES - limits::RECORD_BYTES
            || self.message.records >= limits::MESSAGE_RECORDS
            || self.message.storages > limits::MESSAGE_STORAGES - HALF_MESSAGE_STORAGES
            || self.message.template_items > limits::MESSAGE_TEMPLATE_ITEMS - HALF_MESSAGE_ITEMS
    }

    /// Bytes that a READ or WRITE with the template in this slot moves.
    pub fn transfer_bytes(&self, slot: u32, kind: TemplateKind) -> Result<u64> {
        self.slots.get(slot, kind).map(|found| found.bytes)
    }

    /// DEFINE: puts a template into a slot.
    pub fn define(&mut self, out: &mut Vec<u8>, slot: u32, template: &Template) -> Result<()> {
        self.slots.check_number(slot)?;
        template.check()?;
        let start = out.len();
        put_kind(out, SKY_RECORD_DEFINE);
        varint::put(out, slot.into());
        template::put(out, template);
        check_bytes(out, start)?;
        self.slots.define(slot, template);
        self.message.template_items += template.flat_args() + template.outputs.len();
        self.done(0);
        Ok(())
    }

    /// OP: `storages` are the distinct inputs, then one fresh id for each output.
    #[inline]
    pub fn op(&mut self, out: &mut Vec<u8>, slot: u32, storages: &[u64], scalars: &[SkyScalar]) -> Result<()> {
        let found = self.slots.get(slot, TemplateKind::Op)?;
        let n_inputs = found.n_inputs as usize;
        if storages.len() != n_inputs + found.n_outputs as usize {
            return Err(wrong_arity(slot, n_inputs, found.n_outputs, storages.len()));
        }
        found.check_scalars(slot, scalars)?;
        let (inputs, outputs) = storages.split_at(n_inputs);
        let start = out.len();
        let mut newest = self.newest;
        let consecutive = outputs.iter().enumerate().all(|(i, &id)| id == newest.wrapping_add(1 + i as u64));
        let form = if consecutive { form::OP } else { form::OP_NAMED };
        varint::put(out, u64::from(slot) << form::BITS | form);
        let mut zero = false;
        for &id in inputs {
            zero |= id == 0;
            put_id(out, newest, id);
        }
        if consecutive {
            newest = newest.wrapping_add(outputs.len() as u64);
            zero |= newest < self.newest;
        } else {
            for &id in outputs {
                zero |= id == 0;
                put_fresh(out, &mut newest, id);
            }
        }
        scalars.iter().for_each(|value| scalar::put(out, value));
        if zero {
            return Err(undo_zero(out, start));
        }
        check_bytes(out, start)?;
        self.newest = newest;
        self.done(storages.len());
        Ok(())
    }

    /// QUERY: an op whose outputs only the server knows. The last `n_outputs` of `storages` are fresh ids.
    pub fn query(
        &mut self,
        out: &mut Vec<u8>,
        slot: u32,
        storages: &[u64],
        n_outputs: u32,
        scalars: &[SkyScalar],
        request: u64,
    ) -> Result<()> {
        let found = self.slots.get(slot, TemplateKind::Op)?;
        let n_inputs = found.n_inputs as usize;
        if n_outputs as usize > limits::TEMPLATE_OUTPUTS {
            let limit = limits::TEMPLATE_OUTPUTS;
            return Err(WireError::limit(format!("query for {n_outputs} outputs: the limit is {limit}")));
        }
        if storages.len() != n_inputs + n_outputs as usize {
            return Err(wrong_arity(slot, n_inputs, n_outputs, storages.len()));
        }
        found.check_scalars(slot, scalars)?;
        check_request(request)?;
        check_ids(storages)?;
        let start = out.len();
        let mut newest = self.newest;
        put_kind(out, SKY_RECORD_QUERY);
        varint::put(out, slot.into());
        varint::put(out, request);
        varint::put(out, n_outputs.into());
        storages[..n_inputs].iter().for_each(|&id| put_id(out, newest, id));
        storages[n_inputs..].iter().for_each(|&id| put_fresh(out, &mut newest, id));
        scalars.iter().for_each(|value| scalar::put(out, value));
        check_bytes(out, start)?;
        self.newest = newest;
        self.done(storages.len());
        Ok(())
    }

    /// FREE: nothing names these storages any more.
    #[inline]
    pub fn free(&mut self, out: &mut Vec<u8>, storages: &[u64]) -> Result<()> {
        check_ids(storages)?;
        let start = out.len();
        match *storages {
            [] => return Err(WireError::argument("free of no storage")),
            [id] if self.newest.wrapping_sub(id) <= u64::MAX >> form::BITS => {
                varint::put(out, self.newest.wrapping_sub(id) << form::BITS | form::FREE_ONE);
            }
            _ => {
                if storages.len() > limits::RECORD_STORAGES {
                    let (n, limit) = (storages.len(), limits::RECORD_STORAGES);
                    return Err(WireError::limit(format!("free of {n} storages: the limit is {limit}")));
                }
                put_kind(out, SKY_RECORD_FREE);
                varint::put(out, storages.len() as u64);
                storages.iter().for_each(|&id| put_id(out, self.newest, id));
                check_bytes(out, start)?;
            }
        }
        self.done(storages.len());
        Ok(())
    }

    /// ALLOC: a fresh storage of `n_bytes` on a device.
    pub fn alloc(&mut self, out: &mut Vec<u8>, storage: u64, n_bytes: u64, device: u32) -> Result<()> {
        check_ids(&[storage])?;
        check_size(n_bytes)?;
        put_kind(out, SKY_RECORD_ALLOC);
        put_fresh(out, &mut self.newest, storage);
        varint::put(out, n_bytes);
        varint::put(out, device.into());
        self.done(1);
        Ok(())
    }

    /// RESIZE: the storage has `n_bytes` from here on.
    pub fn resize(&mut self, out: &mut Vec<u8>, storage: u64, n_bytes: u64) -> Result<()> {
        check_ids(&[storage])?;
        check_size(n_bytes)?;
        put_kind(out, SKY_RECORD_RESIZE);
        put_id(out, self.newest, storage);
        varint::put(out, n_bytes);
        self.done(1);
        Ok(())
    }

    /// WRITE: `payload` into a tensor; exactly as many bytes as the template says.
    pub fn write(&mut self, out: &mut Vec<u8>, slot: u32, storage: u64, payload: &[u8]) -> Result<()> {
        let bytes = self.slots.get(slot, TemplateKind::Write)?.bytes;
        check_ids(&[storage])?;
        if bytes > limits::INLINE_WRITE_BYTES {
            let limit = limits::INLINE_WRITE_BYTES;
            return Err(WireError::limit(format!("write of {bytes} bytes in the op stream: the limit is {limit}")));
        }
        if payload.len() as u64 != bytes {
            let n = payload.len();
            return Err(WireError::argument(format!("write of slot {slot} takes {bytes} bytes, it has {n}")));
        }
        out.reserve(payload.len() + 32);
        put_kind(out, SKY_RECORD_WRITE);
        varint::put(out, slot.into());
        put_id(out, self.newest, storage);
        out.extend_from_slice(payload);
        self.done(1);
        Ok(())
    }

    /// WRITE_LANE: the bytes of a transfer into tensors, once they are there.
    pub fn write_lane(&mut self, out: &mut Vec<u8>, parts: &[Part], transfer: u64) -> Result<()> {
        self.check_parts(parts, TemplateKind::Write)?;
        put_kind(out, SKY_RECORD_WRITE_LANE);
        self.put_parts(out, parts);
        varint::put(out, transfer);
        self.done(parts.len());
        Ok(())
    }

    /// READ: answer `request` with the bytes of a tensor.
    pub fn read(&mut self, out: &mut Vec<u8>, slot: u32, storage: u64, request: u64) -> Result<()> {
        self.slots.get(slot, TemplateKind::Read)?;
        check_ids(&[storage])?;
        check_request(request)?;
        put_kind(out, SKY_RECORD_READ);
        varint::put(out, slot.into());
        put_id(out, self.newest, storage);
        varint::put(out, request);
        self.done(1);
        Ok(())
    }

    /// CALL: a control method; `request` is 0 for one that does not answer.
    pub fn call(&mut self, out: &mut Vec<u8>, method: u32, args: &[i64], payload: &[u8], request: u64) -> Result<()> {
        Method::find(method)?.check(args.len(), payload.len(), request)?;
        put_kind(out, SKY_RECORD_CALL);
        varint::put(out, method.into());
        varint::put(out, request);
        args.iter().for_each(|&arg| varint::put_signed(out, arg));
        varint::put(out, payload.len() as u64);
        out.extend_from_slice(payload);
        self.done(0);
        Ok(())
    }

    /// SEND: tensors to another server; `payload` is the transport's.
    pub fn send(&mut self, out: &mut Vec<u8>, parts: &[Part], payload: &[u8]) -> Result<()> {
        self.check_parts(parts, TemplateKind::Read)?;
        if payload.len() > limits::PAYLOAD_BYTES {
            let (n, limit) = (payload.len(), limits::PAYLOAD_BYTES);
            return Err(WireError::limit(format!("send with a payload of {n} bytes: the limit is {limit}")));
        }
        put_kind(out, SKY_RECORD_SEND);
        self.put_parts(out, parts);
        varint::put(out, payload.len() as u64);
        out.extend_from_slice(payload);
        self.done(parts.len());
        Ok(())
    }

    fn check_parts(&self, parts: &[Part], kind: TemplateKind) -> Result<()> {
        let mut bytes = 0u64;
        for part in parts {
            bytes = bytes.saturating_add(self.slots.get(part.slot, kind)?.bytes);
            check_ids(&[part.storage])?;
        }
        parcel::transfer_bytes(parts.len(), bytes).map(drop)
    }

    fn put_parts(&self, out: &mut Vec<u8>, parts: &[Part]) {
        varint::put(out, parts.len() as u64);
        for part in parts {
            varint::put(out, part.slot.into());
            put_id(out, self.newest, part.storage);
        }
    }

    #[inline(always)]
    fn done(&mut self, storages: usize) {
        self.position += 1;
        self.message.records += 1;
        self.message.storages += storages;
    }
}

fn put_kind(out: &mut Vec<u8>, kind: u8) {
    varint::put(out, u64::from(kind) << form::BITS | form::OTHER);
}

/// An id that exists: its distance below the newest one. Wrapping, so that any id can be said.
#[inline(always)]
fn put_id(out: &mut Vec<u8>, newest: u64, id: u64) {
    varint::put(out, newest.wrapping_sub(id));
}

/// A fresh id: its difference from the one after the newest. Ids may come out of order when threads race.
#[inline(always)]
fn put_fresh(out: &mut Vec<u8>, newest: &mut u64, id: u64) {
    varint::put_signed(out, id.wrapping_sub(newest.wrapping_add(1)) as i64);
    *newest = id.max(*newest);
}

#[inline(always)]
fn check_ids(storages: &[u64]) -> Result<()> {
    match storages.contains(&0) {
        false => Ok(()),
        true => Err(zero_id()),
    }
}

fn check_request(request: u64) -> Result<()> {
    match request {
        0 => Err(WireError::argument("a record that is answered has no request number")),
        _ => Ok(()),
    }
}

fn check_size(n_bytes: u64) -> Result<()> {
    match i64::try_from(n_bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(WireError::argument(format!("storage of {n_bytes} bytes does not fit 63 bits"))),
    }
}

/// Takes the record back if it is too long.
#[inline(always)]
fn check_bytes(out: &mut Vec<u8>, start: usize) -> Result<()> {
    match out.len() - start <= limits::RECORD_BYTES {
        true => Ok(()),
        false => Err(undo_long(out, start)),
    }
}

#[cold]
fn undo_long(out: &mut Vec<u8>, start: usize) -> WireError {
    let (n, limit) = (out.len() - start, limits::RECORD_BYTES);
    out.truncate(start);
    WireError::limit(format!("record of {n} bytes: the limit is {limit}"))
}

#[cold]
fn undo_zero(out: &mut Vec<u8>, start: usize) -> WireError {
    out.truncate(start);
    zero_id()
}

#[cold]
fn zero_id() -> WireError {
    WireError::argument("storage id 0: ids begin at 1")
}

#[cold]
fn wrong_arity(slot: u32, inputs: usize, outputs: u32, storages: usize) -> WireError {
    WireError::argument(format!(
        "op of slot {slot} takes {inputs} inputs and {outputs} outputs, it has {storages} ids"
    ))
}
