//! What the stream lock guards: the encoder, the message under construction and the decision when to cut it.
//!
//! Appending makes no system call. When to cut decides whether the server works while the client still issues: early
//! while the server has nothing to do, later and later while it is behind.

use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;

use super::gather::{End, Gather};
use super::link::Link;
use crate::abi::{SkyScalar, SkyStats};
use crate::codec::frame::{self, OPS_HEADER_BYTES};
use crate::codec::{OpEncoder, Part, Template, TemplateKind};
use crate::error::Result;
use crate::net::message::{self, PREFIX_BYTES};

/// Bytes before the first record of a message.
const HEAD_BYTES: usize = PREFIX_BYTES + OPS_HEADER_BYTES;
/// Records after which a message is cut while the server is idle, and the most while it is behind.
const FIRST_CUT_RECORDS: usize = 16;
const LAST_CUT_RECORDS: usize = 4096;
/// Bytes after which a message is cut at the latest.
const CUT_BYTES: usize = 32 << 10;
/// Messages up to this size are copied out of the buffer, larger ones take it along.
const COPY_OUT_BYTES: usize = 8 << 10;

/// How far a stream has come.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Progress {
    records: u64,
    pub(super) messages: u64,
    pub(super) gathered: u64,
    /// Since when copies are gathered that are still to be appended.
    pub(super) gathering_since: Option<Instant>,
    /// Something waits to be cut.
    pub(super) is_open: bool,
}

/// See the module.
pub(crate) struct Stream {
    encoder: OpEncoder,
    buffer: Vec<u8>,
    /// Position of the last record of the previous message.
    cut_position: u64,
    cut_records: usize,
    requests: u64,
    transfers: u64,
    /// Copies to or from another session that are still to be appended, and how many there were so far.
    gather: Option<Box<Gather>>,
    gathered: u64,
    /// A message was cut that nobody was woken for.
    queued: bool,
    pub(super) stats: SkyStats,
}

impl Stream {
    /// Records, requests and transfers are numbered behind `position`.
    pub(super) fn new(slots: u32, position: u64) -> Stream {
        let mut stream = Stream {
            encoder: OpEncoder::new(slots, position),
            buffer: Vec::new(),
            cut_position: position,
            cut_records: FIRST_CUT_RECORDS,
            requests: position,
            transfers: position,
            gather: None,
            gathered: 0,
            queued: false,
            stats: SkyStats::default(),
        };
        stream.begin();
        stream
    }

    fn begin(&mut self) {
        if self.buffer.capacity() < CUT_BYTES + HEAD_BYTES {
            self.buffer.reserve_exact(CUT_BYTES + HEAD_BYTES);
        }
        self.buffer.clear();
        self.buffer.resize(HEAD_BYTES, 0);
        self.encoder.begin_message();
    }

    /// Append with `write`, behind what was gathered.
    #[inline]
    fn append(&mut self, link: &Link, write: impl FnOnce(&mut OpEncoder, &mut Vec<u8>) -> Result<()>) -> Result<()> {
        self.close_gather(link);
        self.put(link, write)
    }

    /// Append with `write`, then cut if the message is full.
    #[inline]
    fn put(&mut self, link: &Link, write: impl FnOnce(&mut OpEncoder, &mut Vec<u8>) -> Result<()>) -> Result<()> {
        write(&mut self.encoder, &mut self.buffer)?;
        self.stats.records += 1;
        if self.encoder.is_full(self.buffer.len() - HEAD_BYTES) {
            self.cut(link);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.buffer.len() == HEAD_BYTES
    }

    /// Whether the message ought to go now.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.encoder.position() - self.cut_position >= self.cut_records as u64 || self.buffer.len() >= CUT_BYTES
    }

    /// Append the copies that were gathered: nothing joins them any more.
    #[inline]
    pub(super) fn close_gather(&mut self, link: &Link) {
        if let Some(gather) = self.gather.take() {
            self.put_gather(link, *gather);
        }
    }

    #[cold]
    fn put_gather(&mut self, link: &Link, gather: Gather) {
        let put = gather.transfer_bytes().and_then(|bytes| match gather.end {
            End::Send(mut target, admission) => {
                target.ticket = admission.ticket(bytes);
                link.pending.place(target.request, self.next_position());
                self.put(link, |encoder, out| encoder.send(out, &gather.parts, &target.encode_to_vec()))
            }
            End::Write { transfer } => {
                self.put(link, |encoder, out| encoder.write_lane(out, &gather.parts, transfer))
            }
        });
        // Everything was checked when it was gathered. The other session's half is on its way or has gone.
        if let Err(error) = put {
            link.fail(error);
        }
    }

    /// The open half of a gather.
    pub(super) fn gather(&mut self) -> Option<&mut Gather> {
        self.gather.as_deref_mut()
    }

    /// Begin to gather. What was gathered before has been appended.
    pub(super) fn open_gather(&mut self, gather: Gather) {
        self.gather = Some(Box::new(gather));
    }

    /// Copies were gathered: the pump waits for more while there are.
    pub(super) fn note_gathered(&mut self) {
        self.gathered += 1;
    }

    /// What the pump compares between its ticks.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            records: self.stats.records,
            messages: self.stats.messages,
            gathered: self.gathered,
            gathering_since: self.gather.as_ref().map(|gather| gather.since),
            is_open: self.has_open_message(),
        }
    }

    /// Turn what was appended into a message and queue it; what was gathered stays. No system call.
    pub(super) fn cut(&mut self, link: &Link) {
        if self.is_empty() {
            return;
        }
        let first = self.cut_position + 1;
        let last = self.encoder.position();
        let bytes = self.buffer.len() - PREFIX_BYTES;
        self.buffer[..PREFIX_BYTES].copy_from_slice(&message::prefix(bytes));
        frame::seal_ops(&mut self.buffer[PREFIX_BYTES..], first, link.pending.answered());
        self.stats.messages += 1;
        self.stats.op_bytes_sent += self.buffer.len() as u64;
        let message = if self.buffer.len() <= COPY_OUT_BYTES {
            Bytes::copy_from_slice(&self.buffer)
        } else {
            Bytes::from(std::mem::take(&mut self.buffer))
        };
        self.cut_position = last;
        self.queued = true;
        // The server is behind while messages are unacknowledged.
        let behind = link.unacknowledged_messages() > 0;
        self.cut_records = if behind { (self.cut_records * 2).min(LAST_CUT_RECORDS) } else { FIRST_CUT_RECORDS };
        link.send(last, message);
        self.begin();
    }

    /// A wait is over: the server is idle.
    pub(super) fn caught_up(&mut self) {
        self.cut_records = FIRST_CUT_RECORDS;
    }

    /// Whether messages were cut since the last call.
    pub(super) fn take_queued(&mut self) -> bool {
        std::mem::take(&mut self.queued)
    }

    /// Something waits to be cut.
    pub(super) fn has_open_message(&self) -> bool {
        !self.is_empty() || self.gather.is_some()
    }

    /// Position of the record that is appended next.
    pub(super) fn next_position(&self) -> u64 {
        self.encoder.position() + 1
    }

    pub(super) fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Every number must come: the server remembers those that came out of turn, and not without end.
    pub(super) fn next_transfer(&mut self) -> u64 {
        self.transfers += 1;
        self.transfers
    }

    pub(super) fn transfer_bytes(&self, slot: u32, kind: TemplateKind) -> Result<u64> {
        self.encoder.transfer_bytes(slot, kind)
    }

    pub(crate) fn define(&mut self, link: &Link, slot: u32, template: &Template) -> Result<()> {
        // A template moves no data, so that gathering goes on, but what is gathered may need what the slot has held.
        if self.gather.as_ref().is_some_and(|gather| gather.names(slot)) {
            self.close_gather(link);
        }
        self.put(link, |encoder, out| encoder.define(out, slot, template))?;
        self.stats.templates += 1;
        Ok(())
    }

    #[inline]
    pub(crate) fn op(&mut self, link: &Link, slot: u32, storages: &[u64], scalars: &[SkyScalar]) -> Result<()> {
        self.append(link, |encoder, out| encoder.op(out, slot, storages, scalars))?;
        self.stats.ops += 1;
        Ok(())
    }

    pub(super) fn query(
        &mut self,
        link: &Link,
        slot: u32,
        storages: &[u64],
        n_outputs: u32,
        scalars: &[SkyScalar],
        request: u64,
    ) -> Result<()> {
        self.append(link, |encoder, out| encoder.query(out, slot, storages, n_outputs, scalars, request))?;
        self.stats.ops += 1;
        Ok(())
    }

    pub(crate) fn alloc(&mut self, link: &Link, storage: u64, n_bytes: u64, device: u32) -> Result<()> {
        self.append(link, |encoder, out| encoder.alloc(out, storage, n_bytes, device))
    }

    pub(crate) fn resize(&mut self, link: &Link, storage: u64, n_bytes: u64) -> Result<()> {
        self.append(link, |encoder, out| encoder.resize(out, storage, n_bytes))
    }

    pub(crate) fn free(&mut self, link: &Link, storages: &[u64]) -> Result<()> {
        for some in storages.chunks(crate::limits::RECORD_STORAGES) {
            self.append(link, |encoder, out| encoder.free(out, some))?;
        }
        Ok(())
    }

    pub(crate) fn call(
        &mut self,
        link: &Link,
        method: u32,
        args: &[i64],
        payload: &[u8],
        request: u64,
    ) -> Result<()> {
        self.append(link, |encoder, out| encoder.call(out, method, args, payload, request))
    }

    pub(super) fn read(&mut self, link: &Link, slot: u32, storage: u64, request: u64) -> Result<()> {
        self.append(link, |encoder, out| encoder.read(out, slot, storage, request))?;
        self.stats.reads += 1;
        Ok(())
    }

    pub(super) fn write(&mut self, link: &Link, slot: u32, storage: u64, payload: &[u8]) -> Result<()> {
        self.append(link, |encoder, out| encoder.write(out, slot, storage, payload))
    }

    /// Answers the number of the transfer.
    pub(super) fn write_lane(&mut self, link: &Link, slot: u32, storage: u64) -> Result<u64> {
        let transfer = self.transfers + 1;
        self.append(link, |encoder, out| encoder.write_lane(out, &[Part::new(slot, storage)], transfer))?;
        self.transfers = transfer;
        Ok(transfer)
    }
}
