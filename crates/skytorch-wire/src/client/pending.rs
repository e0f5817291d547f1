//! Requests that wait for an answer, and where the answer's bytes go.
//!
//! Answers come in the order of requests, mostly; a handful wait at a time, so a vector does. The subtle entry is the
//! abandoned one: its waiter was interrupted and is gone, but the reply is still to come and must be thrown away.

use parking_lot::Mutex;

use super::destination_unsafe::Destination;
use crate::codec::frame::ReplyHeader;
use crate::error::{Result, WireError};
use crate::limits;

/// Where an answer goes.
pub(super) enum Sink {
    /// A READ's bytes.
    Memory(Destination),
    /// The body of a QUERY's or CALL's reply.
    Body(Vec<u8>),
    /// Nobody wants it any more.
    Discard,
}

struct Entry {
    request: u64,
    sink: Sink,
    received: u64,
    outcome: Option<Result<()>>,
}

#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    newest: u64,
    failed: Option<WireError>,
}

impl Table {
    fn find(&mut self, request: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.request == request)
    }

    fn settle(&mut self, request: u64, outcome: Result<()>) -> bool {
        let Some(at) = self.entries.iter().position(|entry| entry.request == request) else { return false };
        if matches!(self.entries[at].sink, Sink::Discard) {
            self.entries.swap_remove(at);
        } else {
            self.entries[at].outcome = Some(outcome);
        }
        true
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Pending {
    table: Mutex<Table>,
}

impl Pending {
    /// Expect an answer to `request`.
    pub(super) fn insert(&self, request: u64, sink: Sink) {
        let mut table = self.table.lock();
        table.newest = table.newest.max(request);
        let outcome = table.failed.clone().map(Err);
        table.entries.push(Entry { request, sink, received: 0, outcome });
    }

    /// The request was never sent.
    pub(super) fn remove(&self, request: u64) {
        self.table.lock().entries.retain(|entry| entry.request != request);
    }

    pub(super) fn is_settled(&self, request: u64) -> bool {
        self.table.lock().find(request).is_none_or(|entry| entry.outcome.is_some())
    }

    /// What came of it, and its sink.
    pub(super) fn take(&self, request: u64) -> (Result<()>, Sink) {
        let mut table = self.table.lock();
        let at = table.entries.iter().position(|entry| entry.request == request);
        let entry = table.entries.swap_remove(at.expect("whoever waits takes its own entry, once"));
        (entry.outcome.expect("only settled entries are taken"), entry.sink)
    }

    /// The waiter leaves. Answers false if the outcome is there already.
    pub(super) fn abandon(&self, request: u64) -> bool {
        match self.table.lock().find(request) {
            Some(entry) if entry.outcome.is_none() => {
                entry.sink = Sink::Discard;
                true
            }
            _ => false,
        }
    }

    /// Every request up to this number has its answer.
    pub(super) fn answered(&self) -> u64 {
        let table = self.table.lock();
        let oldest = table.entries.iter().filter(|entry| entry.outcome.is_none()).map(|entry| entry.request).min();
        oldest.map_or(table.newest, |oldest| oldest - 1)
    }

    /// A REPLY frame begins: check that it is the part that is expected.
    pub(super) fn begin(&self, header: &ReplyHeader) -> Result<()> {
        let mut table = self.table.lock();
        let Some(entry) = table.find(header.request) else {
            return Err(WireError::protocol(format!("reply to request {}, which nobody made", header.request)));
        };
        if entry.outcome.is_some() || header.offset != entry.received {
            return Err(WireError::protocol(format!(
                "part of the reply to request {} is out of order",
                header.request
            )));
        }
        let fits = match &entry.sink {
            Sink::Memory(destination) => header.total == destination.bytes(),
            Sink::Body(_) => header.total <= limits::REPLY_BODY_BYTES as u64,
            Sink::Discard => true,
        };
        if fits {
            Ok(())
        } else {
            Err(WireError::protocol(format!("reply of {} bytes where others belong", header.total)))
        }
    }

    /// Data of the frame that began last.
    pub(super) fn data(&self, request: u64, data: &[u8]) {
        let mut table = self.table.lock();
        let Some(entry) = table.find(request) else { return };
        match &mut entry.sink {
            Sink::Memory(destination) => destination.write(entry.received, data),
            Sink::Body(body) => body.extend_from_slice(data),
            Sink::Discard => {}
        }
        entry.received += data.len() as u64;
    }

    /// A REPLY frame is complete; answers whether a request is.
    pub(super) fn end(&self, header: &ReplyHeader) -> bool {
        let mut table = self.table.lock();
        let complete = table.find(header.request).is_some_and(|entry| entry.received == header.total);
        complete && table.settle(header.request, Ok(()))
    }

    /// A request failed.
    pub(super) fn error(&self, request: u64, error: WireError) -> Result<()> {
        if self.table.lock().settle(request, Err(error)) {
            return Ok(());
        }
        Err(WireError::protocol(format!("error for request {request}, which nobody made")))
    }

    /// Nothing will be answered any more.
    pub(super) fn fail_all(&self, error: &WireError) {
        let mut table = self.table.lock();
        table.failed = Some(error.clone());
        for entry in &mut table.entries {
            if entry.outcome.is_none() {
                entry.outcome = Some(Err(error.clone()));
            }
        }
        table.entries.retain(|entry| !matches!(entry.sink, Sink::Discard));
    }
}
