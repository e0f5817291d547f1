//! Answers to requests: bytes of a READ, values of a QUERY or CALL, errors.
//!
//! A small answer is queued and goes out with the acknowledgement when the executor comes back for more. A large one
//! is sent from the executor's own memory, which is why the call returns only once nothing refers to it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::session::ServerSession;
use crate::codec::Reply;
use crate::codec::frame::{self, REPLY_HEADER_BYTES};
use crate::error::{Code, Result, WireError};
use crate::lane::lend;
use crate::limits;
use crate::net::message::{PREFIX_BYTES, framed, prefix};

/// Answers up to this size are copied.
const COPY_BYTES: usize = 64 << 10;
/// Bytes queued before a large answer waits for the connection.
const QUEUE_BYTES: usize = 2 << 20;
/// How often a wait looks whether the client is still there.
const TICK: Duration = Duration::from_millis(100);

impl ServerSession {
    /// Bytes of a READ; in one call, or in order in several.
    pub(crate) fn reply_bytes(&mut self, request: u64, total: u64, data: &[u8]) -> Result<()> {
        let offset = match self.partial {
            Some((partial, sent)) if partial == request => sent,
            _ => 0,
        };
        let end = offset + data.len() as u64;
        if end > total {
            return Err(WireError::argument(format!("an answer of {total} bytes is given {end}")));
        }
        self.partial = (end < total).then_some((request, end));
        if data.len() <= COPY_BYTES {
            self.push_piece(request, total, offset, Bytes::copy_from_slice(data));
        } else {
            self.send_pieces(request, total, offset, data);
        }
        if end == total { self.answered() } else { self.alive() }
    }

    /// Values of a QUERY or CALL.
    pub(crate) fn reply(&mut self, request: u64, reply: &Reply) -> Result<()> {
        let body = reply.encode()?;
        self.push_piece(request, body.len() as u64, 0, Bytes::from(body));
        self.answered()
    }

    /// A request failed.
    pub(crate) fn reply_error(&mut self, request: u64, code: u32, message: &str) -> Result<()> {
        if self.partial.is_some_and(|(partial, _)| partial == request) {
            // The client has part of the answer; an error in its place is still well-formed.
            self.partial = None;
        }
        self.out.push([framed(&frame::error(request, code, message))]);
        self.answered()
    }

    pub(super) fn push_piece(&self, request: u64, total: u64, offset: u64, data: Bytes) {
        let header = frame::reply_header(request, total, offset, &data, self.connection.checksum);
        let small = data.len() < 4096;
        let mut head = Vec::with_capacity(PREFIX_BYTES + REPLY_HEADER_BYTES + if small { data.len() } else { 0 });
        head.extend_from_slice(&prefix(REPLY_HEADER_BYTES + data.len()));
        head.extend_from_slice(&header);
        if small {
            head.extend_from_slice(&data);
            self.out.push([Bytes::from(head)]);
        } else {
            self.out.push([Bytes::from(head), data]);
        }
    }

    fn send_pieces(&mut self, request: u64, total: u64, offset: u64, data: &[u8]) {
        let session = &*self;
        let push = |all: Bytes| {
            let mut at = 0;
            while at < all.len() && !session.is_dead() {
                let piece = all.slice(at..all.len().min(at + limits::REPLY_FRAME_BYTES));
                session.push_piece(request, total, offset + at as u64, piece.clone());
                at += piece.len();
                session.out.wake();
                session.drive(|| session.out.has_room(QUEUE_BYTES));
            }
        };
        lend(data, push, |loan| {
            session.drive(|| loan.is_over());
            if session.is_dead() {
                // Nothing will be sent any more; what the connection still holds goes with it.
                session.driver.clear();
            }
        });
    }

    /// Drive the connection until `done`, or for a tick if it has ended.
    fn drive(&self, done: impl Fn() -> bool) {
        while !done() {
            let tick = Instant::now() + TICK;
            let _ = self.driver.serve(Some(tick), || done() || self.connection.has_ended());
            if self.is_dead() {
                return;
            }
        }
    }

    fn answered(&mut self) -> Result<()> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.reply_queued = true;
        if self.unanswered > 0 || !self.ends_with_request {
            // The executor has other work before it comes back.
            self.out.wake();
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
