//! The executor's side of a session: the next records, acknowledgements, the end. Replies are in `replies`.
//!
//! The executor's thread drives the connection while it waits; while it computes, the pump does. A connection may break
//! and another take its place at any time; what stays the same is in `link`. The subtle part is what is sent when: an
//! acknowledgement goes with the reply that is on its way, or when there is nothing left to do, so that a round trip
//! costs one write.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::holder::{Holder, Seat};
use super::link::{Link, Wire};
use super::pump::Pump;
use super::sender::Senders;
use super::shared::Shared;
use crate::abi::SkyBatch;
use crate::codec::Decoder;
use crate::codec::frame::{self, ClientFrame};
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::hooks;
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

/// What a client has sent and the executor has not taken.
enum Message {
    Ops { first: u64, records: Bytes },
    Close,
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
    /// Arrived while an answer was on its way.
    inbox: VecDeque<Message>,
    inbox_bytes: usize,
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
        let decoder = Decoder::new(seat.holder.slots, shared.options.numbered_from);
        ServerSession {
            shared,
            pump: Pump::start(&driver),
            decoder,
            seat,
            checksum: wire.connection.checksum,
            wire: Some(wire),
            driver,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
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

    // --- The connection ---------------------------------------------------------------------------------------

    /// Go over to a newer connection if there is one, and wait for one while there is none. Answers false at the
    /// deadline.
    pub(super) fn follow(&mut self, deadline: Instant) -> Result<bool> {
        while self.attempt().is_none_or(|attempt| !self.link().is_newest(attempt)) {
            self.leave();
            if let Some(wire) = self.link().claim() {
                self.driver = wire.driver.clone();
                self.pump.drive(&self.driver);
                // The connection's own thread may be driving it.
                self.driver.poke();
                self.wire = Some(wire);
                continue;
            }
            if self.shared.is_stopping() {
                return Err(stopping());
            }
            if self.has_expired() {
                let limit = self.shared.options.resume_timeout.as_secs_f64();
                let text = format!("the client was away for longer than {limit} s (--resume-timeout)");
                return Err(WireError::new(Code::ConnectionLost, text));
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            let tick = deadline.min(Instant::now() + Duration::from_millis(500));
            let _outside = hooks::Outside::enter();
            let _ = self.driver.serve(Some(tick), || self.link().has_offer() || self.shared.is_stopping());
        }
        Ok(true)
    }

    /// Let the connection go.
    pub(super) fn leave(&mut self) {
        let Some(wire) = self.wire.take() else { return };
        drop(wire.body);
        wire.driver.clear();
        wire.connection.set_ended();
        self.inbox.clear();
        self.inbox_bytes = 0;
        self.partial_since = None;
        self.unacknowledged = (0, 0);
        self.reply_queued = false;
    }

    /// The connection brings nothing more, or nothing that makes sense.
    fn break_off(&mut self, why: &str) {
        tracing::info!("the connection to the client broke: {why}");
        self.leave();
    }

    fn wait_for_body(&mut self, deadline: Instant) -> Result<bool> {
        let (driver, shared, holder) = (self.driver.clone(), self.shared.clone(), self.seat.holder.clone());
        let attempt = self.attempt();
        let over = || shared.is_stopping() || attempt.is_none_or(|attempt| !holder.link.is_newest(attempt));
        let _outside = hooks::Outside::enter();
        match driver.serve_on(deadline, over, |cx| self.poll_body(cx)) {
            Some(frame) => self.take(frame).map(|()| true),
            None if shared.is_stopping() => Err(stopping()),
            None => Ok(over()),
        }
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.wire {
            Some(wire) => Pin::new(&mut wire.body).poll_frame(cx),
            None => Poll::Pending,
        }
    }

    pub(super) fn take(&mut self, frame: Option<hyper::Result<Frame<Bytes>>>) -> Result<()> {
        match (frame, &mut self.wire) {
            (Some(Ok(frame)), Some(wire)) => {
                if let Ok(chunk) = frame.into_data() {
                    wire.messages.push(chunk);
                }
            }
            (Some(Err(e)), _) => self.break_off(&e.to_string()),
            // A client ends its half of the stream only if it gives the session up.
            (None, _) => {
                return Err(WireError::new(Code::ConnectionLost, "the client went away without a goodbye"));
            }
            (Some(Ok(_)), None) => {}
        }
        Ok(())
    }

    // --- Messages ---------------------------------------------------------------------------------------------

    fn next_message(&mut self) -> Result<Option<Message>> {
        if let Some(message) = self.inbox.pop_front() {
            if let Message::Ops { records, .. } = &message {
                self.inbox_bytes -= records.len();
            }
            return Ok(Some(message));
        }
        self.arrived()
    }

    /// The next message that has arrived in full.
    fn arrived(&mut self) -> Result<Option<Message>> {
        let Some(wire) = &mut self.wire else { return Ok(None) };
        match wire.messages.next().and_then(|message| message.map(|message| parse(&message)).transpose()) {
            Ok(None) => {
                let partial = wire.connection.exposed && wire.messages.is_partial();
                self.partial_since = partial.then(|| self.partial_since.unwrap_or_else(Instant::now));
                Ok(None)
            }
            Ok(Some((message, replies))) => {
                self.partial_since = None;
                self.link().received(replies);
                Ok(Some(message))
            }
            // Bytes that nothing protects on their way may have changed: a new connection brings them again.
            Err(error) if error.code == Code::ConnectionLost || wire.connection.exposed => {
                self.break_off(&error.message);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Put what has arrived aside, for the sake of what it says about answers.
    pub(super) fn collect(&mut self) -> Result<()> {
        while let Some(message) = self.arrived()? {
            if let Message::Ops { records, .. } = &message {
                self.inbox_bytes += records.len();
            }
            self.inbox.push_back(message);
            if self.inbox_bytes > limits::INBOX_BYTES || self.inbox.len() > limits::INBOX_BYTES / 64 {
                return Err(WireError::limit("the client sends without end while an answer is on its way"));
            }
        }
        Ok(())
    }

    /// The client has closed the session, and the executor has not come to it yet.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.inbox.back(), Some(Message::Close))
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

fn stopping() -> WireError {
    WireError::new(Code::SessionClosed, "the server is stopping")
}

/// A message, and the request up to which the client has its answers.
fn parse(message: &Bytes) -> Result<(Message, u64)> {
    match ClientFrame::parse(message)? {
        ClientFrame::Ops(ops) => {
            Ok((Message::Ops { first: ops.first, records: message.slice_ref(ops.records) }, ops.replies))
        }
        ClientFrame::Close => Ok((Message::Close, 0)),
        ClientFrame::Hello(_) => Err(WireError::protocol("a second hello on one stream")),
    }
}
