//! What arrives: the connection that brings it, the newer one that takes its place, and the messages in it.
//!
//! While an answer is on its way nothing is executed, but what the client says about answers it has must be heard: so
//! messages that come meanwhile are set aside, in order, and taken first afterwards.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::ServerSession;
use crate::codec::frame::ClientFrame;
use crate::error::{Code, Result, WireError};
use crate::hooks;
use crate::limits;

/// What a client has sent and the executor has not taken.
pub(super) enum Message {
    Ops { first: u64, records: Bytes },
    Close,
}

impl Message {
    fn bytes(&self) -> usize {
        match self {
            Message::Ops { records, .. } => records.len(),
            Message::Close => 0,
        }
    }
}

/// What was set aside.
#[derive(Default)]
pub(super) struct Inbox {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Inbox {
    fn push(&mut self, message: Message) -> Result<()> {
        self.bytes += message.bytes();
        self.messages.push_back(message);
        if self.bytes > limits::INBOX_BYTES || self.messages.len() > limits::INBOX_BYTES / 64 {
            return Err(WireError::limit("the client sends without end while an answer is on its way"));
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes();
        Some(message)
    }
}

impl ServerSession {
    /// Go over to a newer connection if there is one, and wait for one while there is none. Answers false at the
    /// deadline.
    pub(in crate::server) fn follow(&mut self, deadline: Instant) -> Result<bool> {
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
    pub(in crate::server) fn leave(&mut self) {
        let Some(wire) = self.wire.take() else { return };
        drop(wire.body);
        wire.driver.clear();
        wire.connection.set_ended();
        self.inbox = Inbox::default();
        self.partial_since = None;
        self.unacknowledged = (0, 0);
        self.reply_queued = false;
    }

    /// The connection brings nothing more, or nothing that makes sense.
    pub(super) fn break_off(&mut self, why: &str) {
        tracing::info!("the connection to the client broke: {why}");
        self.leave();
    }

    pub(super) fn wait_for_body(&mut self, deadline: Instant) -> Result<bool> {
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

    pub(in crate::server) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.wire {
            Some(wire) => Pin::new(&mut wire.body).poll_frame(cx),
            None => Poll::Pending,
        }
    }

    pub(in crate::server) fn take(&mut self, frame: Option<hyper::Result<Frame<Bytes>>>) -> Result<()> {
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

    pub(super) fn next_message(&mut self) -> Result<Option<Message>> {
        match self.inbox.pop() {
            Some(message) => Ok(Some(message)),
            None => self.arrived(),
        }
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
    pub(in crate::server) fn collect(&mut self) -> Result<()> {
        while let Some(message) = self.arrived()? {
            self.inbox.push(message)?;
        }
        Ok(())
    }

    /// The client has closed the session, and the executor has not come to it yet.
    pub(in crate::server) fn is_closing(&self) -> bool {
        matches!(self.inbox.messages.back(), Some(Message::Close))
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
