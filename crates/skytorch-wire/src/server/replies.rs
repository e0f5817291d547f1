//! Answers to requests: bytes of a READ, values of a QUERY or CALL, errors.
//!
//! A small answer is queued and goes out with the acknowledgement when the executor comes back for more; it is kept
//! until the client says that it has it. A large one is sent from the executor's own memory. The subtle thing is its
//! end: the call returns only when the client has all of it, so that it can be sent again over another connection
//! without having been copied.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::session::ServerSession;
use crate::codec::Reply;
use crate::codec::frame::{self, REPLY_HEADER_BYTES};
use crate::error::{Code, Result, WireError};
use crate::lane::{Payload, lend};
use crate::limits;
use crate::net::message::{PREFIX_BYTES, framed, prefix};

/// Bytes queued before a large answer waits for the connection.
const QUEUE_BYTES: usize = 2 << 20;
/// How often a wait looks whether the client is still there.
const TICK: Duration = Duration::from_millis(100);

impl ServerSession {
    /// Bytes of a READ; in one call, or in order in several. `Interrupted`: the connection broke between two calls,
    /// and the answer must be given again from its first byte.
    pub(crate) fn reply_bytes(&mut self, request: u64, total: u64, data: &[u8]) -> Result<()> {
        let (offset, attempt) = match self.partial.take() {
            Some((partial, sent, attempt)) if partial == request => (sent, Some(attempt)),
            _ => (0, None),
        };
        let end = offset + data.len() as u64;
        if end > total {
            return Err(WireError::argument(format!("an answer of {total} bytes is given {end}")));
        }
        if total <= limits::KEPT_REPLY_BYTES as u64 {
            self.partial = (end < total).then_some((request, end, 0));
            self.answer(request, total, offset, Bytes::copy_from_slice(data))?;
        } else {
            loop {
                let now = self.connected()?;
                if self.link().is_received(request) {
                    break;
                }
                // Over a new connection the client begins with the first byte again.
                if attempt.is_some_and(|attempt| attempt != now) {
                    return Err(WireError::new(Code::Interrupted, "the connection broke during an answer"));
                }
                self.send_pieces(now, request, total, offset, data);
                if end < total {
                    self.partial = Some((request, end, now));
                    return self.alive();
                }
                if self.wait_until_received(request)? {
                    break;
                }
            }
        }
        if end == total { self.answered() } else { self.alive() }
    }

    /// Values of a QUERY or CALL.
    pub(crate) fn reply(&mut self, request: u64, reply: &Reply) -> Result<()> {
        let body = reply.encode()?;
        self.answer(request, body.len() as u64, 0, Bytes::from(body))?;
        self.answered()
    }

    /// A request failed.
    pub(crate) fn reply_error(&mut self, request: u64, code: u32, message: &str) -> Result<()> {
        // The client may have part of the answer; an error in its place is still well-formed.
        self.partial = None;
        self.keep(request, vec![framed(&frame::error(request, code, message))])?;
        self.answered()
    }

    /// Queue an answer, or a part of one, that is kept.
    pub(super) fn answer(&mut self, request: u64, total: u64, offset: u64, data: Bytes) -> Result<()> {
        self.keep(request, self.piece(request, total, offset, data))
    }

    /// Queue an answer and keep it until the client has it; waits for the client while too much is kept.
    pub(super) fn keep(&mut self, request: u64, parts: Vec<Bytes>) -> Result<()> {
        self.link().answer(request, parts);
        if self.link().kept_bytes() > limits::KEPT_REPLIES_BYTES {
            while !self.wait_until_received(request)? {
                self.connected()?;
            }
        }
        Ok(())
    }

    fn piece(&self, request: u64, total: u64, offset: u64, data: Bytes) -> Vec<Bytes> {
        // Nobody knows over which connection it will go once it has been kept.
        let checksum = self.checksum;
        let header = frame::reply_header(request, total, offset, &data, checksum);
        let small = data.len() < 4096;
        let mut head = Vec::with_capacity(PREFIX_BYTES + REPLY_HEADER_BYTES + if small { data.len() } else { 0 });
        head.extend_from_slice(&prefix(REPLY_HEADER_BYTES + data.len()));
        head.extend_from_slice(&header);
        if small {
            head.extend_from_slice(&data);
            vec![Bytes::from(head)]
        } else {
            vec![Bytes::from(head), data]
        }
    }

    /// Send over the connection numbered `attempt`, as long as it is the one.
    fn send_pieces(&mut self, attempt: u64, request: u64, total: u64, offset: u64, data: &[u8]) {
        let session = &*self;
        let out = session.link().out();
        let push = |mut all: Payload| {
            let mut at = offset;
            while !all.is_empty() && session.is_current(attempt) {
                let piece = all.take(limits::REPLY_FRAME_BYTES);
                let n = piece.len() as u64;
                session.link().push(attempt, session.piece(request, total, at, piece));
                at += n;
                out.wake();
                session.drive(attempt, || out.has_room(QUEUE_BYTES));
            }
        };
        lend(&[data], push, |loan| {
            session.drive(attempt, || loan.is_over());
            if !session.is_current(attempt) {
                // Nothing will be sent any more; what the connection still holds goes with it.
                session.driver.clear();
            }
        });
    }

    /// Drive the connection until `done`, or for as long as it is the one.
    fn drive(&self, attempt: u64, done: impl Fn() -> bool) {
        while !done() && self.is_current(attempt) {
            let tick = Instant::now() + TICK;
            let _ = self.driver.serve(Some(tick), || done() || !self.is_current(attempt));
        }
    }

    /// Whether the connection numbered `attempt` is still there and the newest.
    fn is_current(&self, attempt: u64) -> bool {
        let ended = |wire: &super::link::Wire| wire.attempt != attempt || wire.connection.has_ended();
        self.link().is_newest(attempt) && !self.wire.as_ref().is_none_or(ended) && !self.is_stopping()
    }

    /// Wait for a connection; its number.
    fn connected(&mut self) -> Result<u64> {
        loop {
            self.alive()?;
            if let Some(wire) = &self.wire
                && wire.connection.has_ended()
            {
                self.leave();
            }
            if self.follow(Instant::now() + TICK)?
                && let Some(attempt) = self.attempt()
            {
                return Ok(attempt);
            }
        }
    }

    /// Wait until the client says that it has the answer to `request`, or closes the session and says no more; false if
    /// the connection breaks before.
    fn wait_until_received(&mut self, request: u64) -> Result<bool> {
        let Some(attempt) = self.attempt() else { return Ok(false) };
        self.link().out().wake();
        loop {
            if let Err(error) = self.collect() {
                return Err(self.end(error));
            }
            if self.link().is_received(request) || self.is_closing() {
                return Ok(true);
            }
            if !self.is_current(attempt) {
                self.alive()?;
                return Ok(false);
            }
            let (driver, holder) = (self.driver.clone(), self.holder());
            let over = || !holder.link.is_newest(attempt);
            if let Some(frame) = driver.serve_on(Instant::now() + TICK, over, |cx| self.poll_body(cx)) {
                self.take(frame).map_err(|error| self.end(error))?;
            }
        }
    }

    fn answered(&mut self) -> Result<()> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.reply_queued = true;
        if self.unanswered > 0 || !self.ends_with_request {
            // The executor has other work before it comes back.
            self.link().out().wake();
            self.driver.turn(false);
        }
        self.alive()
    }

    fn alive(&self) -> Result<()> {
        if self.is_dead() {
            return Err(WireError::new(Code::ConnectionLost, "the client of the session is gone"));
        }
        Ok(())
    }
}
