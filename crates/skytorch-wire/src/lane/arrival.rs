//! The transfers of a session as its server sees them: under way, cut off, ended.
//!
//! A transfer outlives the connection that brings it: what has arrived stays, and a new connection goes on behind it.
//! The subtle thing is that the sender may notice first that a connection broke. So the newest call that goes on with a
//! transfer owns it, and an older one that still writes, or only now shows up, is refused.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::ticket::{ABORT, Ticket, Used};
use crate::error::{Code, Result, WireError};
use crate::ffi::Landing;

/// Ended transfers that are remembered: more than a lane has under way.
const ENDED: usize = 256;

/// A transfer under way. Dropped before its end, it tells the landing that the rest will never come.
pub(super) struct Arrival {
    landing: Option<Landing>,
    total: u64,
    pub(super) received: u64,
    /// The last bytes that were received and not checked yet, and the CRC32C of them.
    pub(super) unchecked: u64,
    pub(super) sum: u32,
    /// Bytes changed on the way: the transfer begins anew.
    spoilt: bool,
    owner: u64,
    /// The owner's number, as the sender counts.
    attempt: u32,
}

impl Arrival {
    /// From its first byte. What had landed before is dropped afterwards: the landing goes over to the new one.
    fn begin(&mut self, landing: Landing) {
        let old = self.landing.replace(landing);
        (self.received, self.unchecked, self.sum, self.spoilt) = (0, 0, 0, false);
        if let Some(old) = old {
            old.finish(Code::ConnectionLost);
        }
    }

    pub(super) fn is_owned_by(&self, call: u64) -> bool {
        self.owner == call
    }

    pub(super) fn is_complete(&self) -> bool {
        self.received == self.total
    }

    /// Bytes that are still to come.
    pub(super) fn left(&self) -> u64 {
        self.total - self.received
    }

    pub(super) fn spoil(&mut self) {
        self.spoilt = true;
    }

    /// Land `data` behind what is there. False if the transfer is dead.
    pub(super) fn write(&mut self, data: &[u8]) -> bool {
        let landed = self.landing.as_mut().is_some_and(|landing| landing.write(self.received, data));
        if landed {
            self.received += data.len() as u64;
        }
        landed
    }

    fn finish(&mut self, code: Code) {
        if let Some(landing) = self.landing.take() {
            landing.finish(code);
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.finish(Code::ConnectionLost);
    }
}

#[derive(Default)]
struct Table {
    used: Used,
    under_way: BTreeMap<u64, Arc<Mutex<Arrival>>>,
    ended: VecDeque<(u64, Result<()>)>,
    calls: u64,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Arrivals {
    table: Mutex<Table>,
}

/// What a call finds.
pub(super) enum Found {
    /// The call with this number goes on with it.
    Open(Arc<Mutex<Arrival>>, u64),
    Ended(Result<()>),
}

/// How far a transfer has come.
pub(super) enum Progress {
    /// Received, of that unchecked, and the CRC32C of the unchecked bytes.
    Received(u64, u64, u32),
    /// Its bytes wait for the executor.
    Waiting,
}

/// Another call has taken the transfer over.
pub(super) fn elsewhere() -> WireError {
    WireError::new(Code::ConnectionLost, "the upload goes on over another connection")
}

fn used_before() -> WireError {
    WireError::new(Code::Unauthenticated, "the ticket of an upload was used before")
}

impl Arrivals {
    /// The first transfer has the number after this one.
    pub(crate) fn numbered_from(number: u64) -> Arrivals {
        let arrivals = Arrivals::default();
        arrivals.table.lock().used = Used::up_to(number);
        arrivals
    }

    /// Call number `attempt` with `ticket`. Without an offset it begins the transfer, or gives it up because of `why`.
    /// With one it goes on behind what has arrived, or begins anew.
    pub(super) fn enter(
        &self,
        ticket: &Ticket,
        attempt: u32,
        offset: Option<u64>,
        why: Code,
        land: impl FnOnce() -> Result<Landing>,
    ) -> Result<Found> {
        let transfer = ticket.transfer;
        let gives_up = attempt == ABORT && offset.is_none();
        let given_up = || {
            self.end(transfer, &Err(WireError::new(why, "the upload was given up by its sender")));
            Ok(Found::Ended(Ok(())))
        };
        let (arrival, call, fresh) = {
            let mut table = self.table.lock();
            if table.closed {
                return Err(used_before());
            }
            table.calls += 1;
            let call = table.calls;
            let fresh = table.used.claim(transfer);
            if fresh {
                let (received, total) = (0, ticket.bytes);
                let (unchecked, sum, spoilt, owner) = (0, 0, false, call);
                let arrival = Arrival { landing: None, total, received, unchecked, sum, spoilt, owner, attempt };
                table.under_way.insert(transfer, Arc::new(Mutex::new(arrival)));
            }
            match (table.under_way.get(&transfer).cloned(), offset) {
                (Some(arrival), Some(_)) => (arrival, call, fresh),
                (Some(arrival), None) if fresh => (arrival, call, fresh),
                (Some(_), None) if gives_up => {
                    drop(table);
                    return given_up();
                }
                // It ended before this arrived.
                (None, None) if gives_up => return Ok(Found::Ended(Ok(()))),
                (None, Some(_)) => {
                    let ended = table.ended.iter().find(|(ended, _)| *ended == transfer);
                    return ended.map(|(_, outcome)| Found::Ended(outcome.clone())).ok_or_else(used_before);
                }
                // A first call that comes late, or comes again.
                (_, None) => return Err(used_before()),
            }
        };
        // Not under the table's lock: landing may wait for the executor.
        let mut open = arrival.lock();
        if attempt < open.attempt {
            return Err(elsewhere());
        }
        (open.owner, open.attempt) = (call, attempt);
        let goes_on = open.landing.is_some() && !open.spoilt && offset == Some(open.received);
        if !goes_on && (offset == Some(0) || (fresh && offset.is_none())) {
            match land() {
                Ok(landing) => open.begin(landing),
                Err(error) => {
                    drop(open);
                    self.end(transfer, &Err(error.clone()));
                    return Err(error);
                }
            }
        } else if !goes_on {
            let text = format!("an upload goes on at byte {offset:?}, {} have arrived", open.received);
            return Err(WireError::new(Code::ConnectionLost, text));
        }
        (open.unchecked, open.sum) = (0, 0);
        drop(open);
        if gives_up {
            // It had not begun; the landing tells whoever waits for it.
            return given_up();
        }
        Ok(Found::Open(arrival, call))
    }

    /// How far the transfer has come. It stays there until call number `attempt` goes on with it; 0 only asks.
    pub(super) fn progress(&self, ticket: &Ticket, attempt: u32) -> Progress {
        let (arrival, call) = {
            let mut table = self.table.lock();
            table.calls += 1;
            (table.under_way.get(&ticket.transfer).cloned(), table.calls)
        };
        let Some(arrival) = arrival else { return Progress::Received(0, 0, 0) };
        let Some(mut open) = arrival.try_lock() else { return Progress::Waiting };
        if attempt > open.attempt {
            (open.owner, open.attempt) = (call, attempt);
        }
        if open.spoilt {
            Progress::Received(0, 0, 0)
        } else {
            Progress::Received(open.received, open.unchecked, open.sum)
        }
    }

    /// The transfer is over.
    pub(super) fn end(&self, transfer: u64, outcome: &Result<()>) {
        let arrival = {
            let mut table = self.table.lock();
            if table.ended.len() == ENDED {
                table.ended.pop_front();
            }
            table.ended.push_back((transfer, outcome.clone()));
            table.under_way.remove(&transfer)
        };
        if let Some(arrival) = arrival {
            arrival.lock().finish(outcome.as_ref().err().map_or(Code::Ok, |error| error.code));
        }
    }

    /// The session is over. A transfer that waits for room is told by the landing.
    pub(crate) fn close(&self) {
        let under_way = {
            let mut table = self.table.lock();
            table.closed = true;
            std::mem::take(&mut table.under_way)
        };
        for arrival in under_way.values() {
            if let Some(mut open) = arrival.try_lock() {
                open.finish(Code::SessionClosed);
            }
        }
    }
}
