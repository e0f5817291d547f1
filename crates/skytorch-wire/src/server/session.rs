//! The executor's side of a session: the next records, acknowledgements, the end. What arrives is in `inbound`, replies are
//! in `replies`.
//!
//! The executor's thread drives the connection while it waits; while it computes, the pump does. A connection may break
//! and another take its place at any time; what stays the same is in `link`. The subtle part is what is sent when: an
//! acknowledgement goes with the reply that is on its way, or when there is nothing left to do, so that a round trip
//! costs one write.

mod inbound;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::inbound::{Inbox, Message};
use super::holder::{Holder, Seat};
use super::link::{Link, Wire};
use super::pump::Pump;
use super::sender::Senders;
use super::shared::Shared;
use crate::abi::SkyBatch;
use crate::codec::Decoder;
use crate::codec::frame;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::limits;
use crate::net::http::trailers;
use crate::net::message::framed;
use crate::net::socket::Traffic;

/// Acknowledge at the latest after this much.
const ACK_MESSAGES: u32 = 32;
const ACK_BYTES: usize = 64 << 10;
/// How long the goodbye may take to reach the client.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session on its way from its connection's thread to the executor's.
pub(crate) struct Accepted {
    pub(super) seat: Seat,
    pub(super) wire: Wire,
}

/// See the module.
pub(crate) struct ServerSession {
    shared: Arc<Shared>,
    /// The connection; `None` while the client is away.
    pub(super) wire: Option<Wire>,
    /// Of the present connection, or of the last one: what this thread waits on.
    pub(super) driver: Arc<Driver>,
    /// Gives the server up when it is dropped, which is last.
    seat: Seat,
    inbox: Inbox,
    decoder: Decoder,
    /// The records that the present batch points into.
    records: Bytes,
    /// Requests in the present batch that have no answer yet.
    pub(super) unanswered: usize,
    /// The last record of the present batch asks: the executor comes back right after its answer.
    pub(super) ends_with_request: bool,
    /// A reply was queued and not sent.
    pub(super) reply_queued: bool,
    /// Request, bytes sent and connection of a reply that comes in pieces.
    pub(super) partial: Option<(u64, u64, u64)>,
    /// Whether the data of answers is check-summed.
    pub(super) checksum: bool,
    unacknowledged: (u32, usize),
    /// Since when part of a message is there.
    partial_since: Option<Instant>,
    pub(super) senders: Senders,
    pump: Pump,
    client_closed: bool,
    over: Option<WireError>,
}

impl ServerSession {
    pub(super) fn new(shared: Arc<Shared>, accepted: Accepted) -> ServerSession {
        let Accepted { seat, wire } = accepted;
        let driver = wire.driver.clone();
        seat.holder.link.wait_on(&driver);
        seat.holder.set_taken();
        let decoder = Decoder::new(seat.holder.slots, shared.options.numbered_from);
        ServerSession {
            shared,
            pump: Pump::start(&driver),
            decoder,
            seat,
            checksum: wire.connection.checksum,
            wire: Some(wire),
            driver,
            inbox: Inbox::default(),
            records: Bytes::new(),
            unanswered: 0,
            ends_with_request: false,
            reply_queued: false,
            partial: None,
            unacknowledged: (0, 0),
            partial_since: None,
            senders: Senders::default(),
            client_closed: false,
            over: None,
        }
    }

    /// Whether the session is over, because its client stayed away for too long or the server stops.
    pub(crate) fn is_dead(&self) -> bool {
        self.over.is_some() || self.seat.holder.is_dead() || self.shared.is_stopping() || self.has_expired()
    }

    fn has_expired(&self) -> bool {
        self.link().close(Some(self.shared.options.resume_timeout))
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }

    pub(super) fn holder(&self) -> Arc<Holder> {
        self.seat.holder.clone()
    }

    pub(super) fn link(&self) -> &Link {
        &self.seat.holder.link
    }

    /// Counts the bytes of the server's connections.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        self.shared.traffic.clone()
    }

    /// Number of the connection that is used now.
    pub(super) fn attempt(&self) -> Option<u64> {
        self.wire.as_ref().map(|wire| wire.attempt)
    }

    /// The records of the next message; `None` if none came in time. What was handed out before is done with.
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Option<SkyBatch>> {
        self.pump.executor_waits(true);
        let next = self.next_batch(Instant::now() + timeout);
        self.pump.executor_waits(false);
        next.map_err(|error| self.end(error))
    }

    /// The session is over, because of this.
    pub(super) fn end(&mut self, error: WireError) -> WireError {
        self.seat.holder.set_dead();
        self.over.get_or_insert(error).clone()
    }

    fn next_batch(&mut self, deadline: Instant) -> Result<Option<SkyBatch>> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let mut looked = false;
        loop {
            if self.partial_since.is_some_and(|since| since.elapsed() > limits::MESSAGE_TIMEOUT) {
                self.break_off("a message is not complete");
            }
            if !self.follow(deadline)? {
                return Ok(None);
            }
            if let Some(message) = self.next_message()? {
                if self.reply_queued || self.unacknowledged.0 >= ACK_MESSAGES || self.unacknowledged.1 >= ACK_BYTES {
                    self.acknowledge();
                    self.driver.turn(false);
                }
                if let Some(batch) = self.decode(message)? {
                    return Ok(Some(batch));
                }
                continue;
            }
            match self.poll_body(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(frame) => self.take(frame)?,
                // Somebody who waited for an answer has sent nothing since: there is no need to look before sleeping.
                Poll::Pending if !looked && !self.reply_queued => {
                    looked = true;
                    self.driver.turn(true);
                }
                Poll::Pending => {
                    self.acknowledge();
                    if !self.wait_for_body(deadline)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// `None` if a newer connection brings the message again.
    fn decode(&mut self, message: Message) -> Result<Option<SkyBatch>> {
        self.seat.holder.touch();
        let (first, records) = match message {
            Message::Ops { first, records } => (first, records),
            Message::Close => {
                self.client_closed = true;
                return Err(WireError::new(Code::SessionClosed, "the client closed the session"));
            }
        };
        self.records = records;
        let expected = self.decoder.position() + 1;
        let exposed = self.wire.as_ref().is_some_and(|wire| wire.connection.exposed);
        if first != expected && exposed {
            // What was taken before is not taken again; what is missing comes over another connection.
            if first > expected {
                self.break_off("a message is missing");
            }
            return Ok(None);
        }
        if self.records.is_empty() && first == expected {
            // The client asks what has become of its messages.
            self.unacknowledged.0 += 1;
            return Ok(None);
        }
        let held = self.wire.as_ref().and_then(|wire| self.seat.holder.link.hold(wire.attempt));
        let Some(mut held) = held else { return Ok(None) };
        let batch = self.decoder.decode(first, &self.records)?;
        held.position += batch.records().len() as u64;
        drop(held);
        self.unanswered = batch.records().iter().filter(|record| record.request != 0).count();
        self.ends_with_request = batch.records().last().is_some_and(|record| record.request != 0);
        let records = batch.records().len() as u64;
        let batch = batch.as_sky();
        self.unacknowledged.0 += 1;
        self.unacknowledged.1 += self.records.len();
        self.shared.messages.fetch_add(1, Ordering::Relaxed);
        self.shared.records.fetch_add(records, Ordering::Relaxed);
        Ok(Some(batch))
    }

    /// Queue an acknowledgement of everything that was handed out: it is done with when the executor comes back.
    fn acknowledge(&mut self) {
        let out = self.link().out();
        if std::mem::take(&mut self.unacknowledged).0 > 0 {
            out.push([framed(&frame::ack(self.decoder.position()))]);
        }
        self.reply_queued = false;
        out.wake();
    }

    /// Tell the client why and end the session.
    pub(crate) fn close(mut self: Box<Self>, code: Code, message: &str) {
        let (code, message) = match (code, self.over.take()) {
            // An end that the client did not ask for.
            (Code::Ok, Some(error)) if error.code != Code::SessionClosed => (error.code, error.message),
            (Code::Ok, _) if !self.client_closed => (Code::ConnectionLost, "the server stopped".into()),
            (code, _) => (code, message.to_owned().into()),
        };
        let end = match code {
            Code::Ok => WireError::new(Code::SessionClosed, "the session was closed"),
            code => WireError::new(code, message.clone()),
        };
        self.link().close(None);
        self.shared.bury(&self.seat.holder, end);
        // Before the goodbye: who has read it may open the next session at once.
        self.shared.vacate(&self.seat.holder);
        self.acknowledge();
        let Some(wire) = &self.wire else { return };
        let out = self.link().out();
        out.push([framed(&frame::goodbye(code.number(), &message))]);
        out.finish(Some(trailers(&WireError::new(Code::Ok, ""))));
        let deadline = Instant::now() + GOODBYE_TIMEOUT;
        // The client hangs up when it has read the goodbye; if it does not, it has had its time.
        let _ = self.driver.serve(Some(deadline), || wire.connection.has_ended());
    }
}

impl Drop for ServerSession {
    fn drop(&mut self) {
        self.pump.stop();
        self.leave();
        self.driver.clear();
    }
}
