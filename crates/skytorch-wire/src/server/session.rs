//! The executor's side of a session: the next records, acknowledgements, the end. Replies are in `replies`.
//!
//! The executor's thread drives the connection while it waits; while it computes, the pump does. The subtle part is
//! what is sent when: an acknowledgement goes with the reply that is on its way, or when there is nothing left to do,
//! so that a round trip costs one write.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::pin::Pin;

use super::holder::Seat;
use super::open::Opened;
use super::pump::Pump;
use super::sender::Senders;
use super::serve::Connection;
use super::shared::Shared;
use crate::abi::SkyBatch;
use crate::codec::Decoder;
use crate::codec::frame::{self, ClientFrame};
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::hooks;
use crate::net::body::OutQueue;
use crate::net::http::trailers;
use crate::net::message::{Messages, framed};
use crate::net::socket::Traffic;

/// Acknowledge at the latest after this much.
const ACK_MESSAGES: u32 = 32;
const ACK_BYTES: usize = 64 << 10;
/// How long the goodbye may take to reach the client.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session on its way from its connection's thread to the executor's.
pub(crate) struct Accepted {
    pub(super) opened: Opened,
    pub(super) connection: Arc<Connection>,
    pub(super) driver: Arc<Driver>,
}

/// See the module.
pub(crate) struct ServerSession {
    shared: Arc<Shared>,
    pub(super) connection: Arc<Connection>,
    pub(super) driver: Arc<Driver>,
    /// Gives the server up when it is dropped, which is last.
    seat: Seat,
    body: Option<Incoming>,
    messages: Messages,
    pub(super) out: Arc<OutQueue>,
    decoder: Decoder,
    /// The message that the present batch points into.
    message: Bytes,
    /// Requests in the present batch that have no answer yet.
    pub(super) unanswered: usize,
    /// The last record of the present batch asks: the executor comes back right after its answer.
    pub(super) ends_with_request: bool,
    /// A reply was queued and not sent.
    pub(super) reply_queued: bool,
    /// Request and bytes sent of a reply that comes in pieces.
    pub(super) partial: Option<(u64, u64)>,
    unacknowledged: (u32, usize),
    pub(super) senders: Senders,
    pump: Pump,
    client_closed: bool,
    over: Option<WireError>,
}

impl ServerSession {
    pub(super) fn new(shared: Arc<Shared>, accepted: Accepted) -> ServerSession {
        let Accepted { opened, connection, driver } = accepted;
        let pump = Pump::start(&driver);
        ServerSession {
            shared,
            connection,
            seat: opened.seat,
            body: Some(opened.body),
            messages: opened.messages,
            out: opened.out,
            decoder: Decoder::new(opened.slots),
            message: Bytes::new(),
            unanswered: 0,
            ends_with_request: false,
            reply_queued: false,
            partial: None,
            unacknowledged: (0, 0),
            senders: Senders::default(),
            pump,
            client_closed: false,
            over: None,
            driver,
        }
    }

    /// Whether the client is gone or the server stopping.
    pub(crate) fn is_dead(&self) -> bool {
        self.over.is_some() || self.seat.holder.is_dead() || self.connection.has_ended() || self.shared.is_stopping()
    }

    /// Counts the bytes of the server's connections.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        self.shared.traffic.clone()
    }

    /// The records of the next message; `None` if none came in time. What was handed out before is done with.
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Option<SkyBatch>> {
        self.pump.executor_waits(true);
        let next = self.next_message(Instant::now() + timeout).and_then(|message| match message {
            Some(message) => self.decode(message).map(Some),
            None => Ok(None),
        });
        self.pump.executor_waits(false);
        if let Err(error) = &next {
            self.over = Some(error.clone());
            self.seat.holder.set_dead();
        }
        next
    }

    fn next_message(&mut self, deadline: Instant) -> Result<Option<Bytes>> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let mut looked = false;
        loop {
            if let Some(message) = self.messages.next()? {
                if self.reply_queued || self.unacknowledged.0 >= ACK_MESSAGES || self.unacknowledged.1 >= ACK_BYTES {
                    self.acknowledge();
                    self.driver.turn(false);
                }
                return Ok(Some(message));
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

    fn wait_for_body(&mut self, deadline: Instant) -> Result<bool> {
        let (driver, shared) = (self.driver.clone(), self.shared.clone());
        let _outside = hooks::Outside::enter();
        let frame = driver.serve_on(deadline, || shared.is_stopping(), |cx| self.poll_body(cx));
        match frame {
            Some(frame) => self.take(frame).map(|()| true),
            None if shared.is_stopping() => Err(WireError::new(Code::SessionClosed, "the server is stopping")),
            None => Ok(false),
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn take(&mut self, frame: Option<hyper::Result<Frame<Bytes>>>) -> Result<()> {
        match frame {
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    self.messages.push(chunk);
                }
                Ok(())
            }
            Some(Err(e)) => {
                Err(WireError::new(Code::ConnectionLost, format!("the connection to the client broke: {e}")))
            }
            None => Err(WireError::new(Code::ConnectionLost, "the client went away without a goodbye")),
        }
    }

    fn decode(&mut self, message: Bytes) -> Result<SkyBatch> {
        self.seat.holder.touch();
        self.message = message;
        let ops = match ClientFrame::parse(&self.message)? {
            ClientFrame::Ops(ops) => ops,
            ClientFrame::Close => {
                self.client_closed = true;
                return Err(WireError::new(Code::SessionClosed, "the client closed the session"));
            }
            ClientFrame::Hello(_) => return Err(WireError::protocol("a second hello on one stream")),
        };
        let batch = self.decoder.decode(ops.first, ops.records)?;
        self.unanswered = batch.records().iter().filter(|record| record.request != 0).count();
        self.ends_with_request = batch.records().last().is_some_and(|record| record.request != 0);
        let records = batch.records().len() as u64;
        let batch = batch.as_sky();
        self.unacknowledged.0 += 1;
        self.unacknowledged.1 += self.message.len();
        self.shared.messages.fetch_add(1, Ordering::Relaxed);
        self.shared.records.fetch_add(records, Ordering::Relaxed);
        Ok(batch)
    }

    /// Queue an acknowledgement of everything that was handed out: it is done with when the executor comes back.
    fn acknowledge(&mut self) {
        if std::mem::take(&mut self.unacknowledged).0 > 0 {
            self.out.push([framed(&frame::ack(self.decoder.position()))]);
        }
        self.reply_queued = false;
        self.out.wake();
    }

    /// Tell the client why and end the session.
    pub(crate) fn close(mut self: Box<Self>, code: Code, message: &str) {
        // Before the goodbye: who has read it may open the next session at once.
        self.shared.vacate(&self.seat.holder);
        let (code, message) = match code {
            // A clean end that the client did not ask for.
            Code::Ok if !self.client_closed => (Code::ConnectionLost, "the server stopped"),
            code => (code, message),
        };
        if !self.connection.has_ended() {
            self.acknowledge();
            self.out.push([framed(&frame::goodbye(code.number(), message))]);
            self.out.finish(Some(trailers(&WireError::new(Code::Ok, ""))));
            let deadline = Instant::now() + GOODBYE_TIMEOUT;
            // The client hangs up when it has read the goodbye; if it does not, it has had its time.
            let _ = self.driver.serve(Some(deadline), || self.connection.has_ended());
        }
    }
}

impl Drop for ServerSession {
    fn drop(&mut self) {
        self.pump.stop();
        self.body = None;
        self.driver.clear();
    }
}
