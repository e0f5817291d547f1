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
    /// Nobody waits, but this is to be told: the outcome of a copy to another server.
    Tell(Tell),
}

/// What is told an outcome. It runs outside the table's lock.
pub(super) type Tell = Box<dyn FnOnce(Result<()>) + Send>;

struct Entry {
    request: u64,
    /// Of the record that asks.
    position: u64,
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

    /// Note an outcome. `None` if nobody made the request; otherwise what is to be told, after the lock is released.
    fn settle(&mut self, request: u64, outcome: &Result<()>) -> Option<Option<Tell>> {
        let at = self.entries.iter().position(|entry| entry.request == request)?;
        match self.entries[at].sink {
            Sink::Discard => drop(self.entries.swap_remove(at)),
            Sink::Tell(_) => match self.entries.swap_remove(at).sink {
                Sink::Tell(tell) => return Some(Some(tell)),
                _ => unreachable!("it was looked at just now"),
            },
            _ => self.entries[at].outcome = Some(outcome.clone()),
        }
        Some(None)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Pending {
    table: Mutex<Table>,
}

impl Pending {
    /// Expect an answer to `request`, which the record at `position` makes.
    pub(super) fn insert(&self, request: u64, position: u64, sink: Sink) {
        let mut table = self.table.lock();
        table.newest = table.newest.max(request);
        match (table.failed.clone(), sink) {
            (Some(error), Sink::Tell(tell)) => {
                drop(table);
                tell(Err(error));
            }
            (failed, sink) => {
                table.entries.push(Entry { request, position, sink, received: 0, outcome: failed.map(Err) })
            }
        }
    }

    /// The record that makes `request` has this position; it was not known when the request was announced.
    pub(super) fn place(&self, request: u64, position: u64) {
        if let Some(entry) = self.table.lock().find(request) {
            entry.position = position;
        }
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

    /// Whether an answer is missing although the record that asked for it is done with: answers come before that is said.
    pub(super) fn is_overdue(&self, done: u64) -> bool {
        self.table.lock().entries.iter().any(|entry| entry.outcome.is_none() && entry.position <= done)
    }

    /// The connection broke: answers of which only a part has come begin anew.
    pub(super) fn rewind(&self) {
        for entry in self.table.lock().entries.iter_mut().filter(|entry| entry.outcome.is_none()) {
            entry.received = 0;
            if let Sink::Body(body) = &mut entry.sink {
                body.clear();
            }
        }
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
            Sink::Tell(_) => header.total == 0,
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
            Sink::Discard | Sink::Tell(_) => {}
        }
        entry.received += data.len() as u64;
    }

    fn settle(&self, request: u64, outcome: Result<()>) -> bool {
        let settled = self.table.lock().settle(request, &outcome);
        let found = settled.is_some();
        if let Some(tell) = settled.flatten() {
            tell(outcome);
        }
        found
    }

    /// A REPLY frame is complete; answers whether a request is.
    pub(super) fn end(&self, header: &ReplyHeader) -> bool {
        let complete = self.table.lock().find(header.request).is_some_and(|entry| entry.received == header.total);
        complete && self.settle(header.request, Ok(()))
    }

    /// A request failed.
    pub(super) fn error(&self, request: u64, error: WireError) -> Result<()> {
        if self.settle(request, Err(error)) {
            return Ok(());
        }
        Err(WireError::protocol(format!("error for request {request}, which nobody made")))
    }

    /// Nothing will be answered any more.
    pub(super) fn fail_all(&self, error: &WireError) {
        let mut told = Vec::new();
        {
            let mut table = self.table.lock();
            table.failed = Some(error.clone());
            for entry in std::mem::take(&mut table.entries) {
                match entry.sink {
                    Sink::Discard => {}
                    Sink::Tell(tell) => told.push(tell),
                    sink => {
                        let outcome = entry.outcome.or_else(|| Some(Err(error.clone())));
                        table.entries.push(Entry { sink, outcome, ..entry });
                    }
                }
            }
        }
        for tell in told {
            tell(Err(error.clone()));
        }
    }
}
