//! The task that reads a session's frames: acknowledgements, replies, the goodbye.
//!
//! The data of a reply is never put together: each chunk that HTTP/2 hands over is copied straight to where the
//! answer belongs.

use std::future::Future;
use std::sync::Arc;

use http::Response;
use hyper::body::Incoming;

use super::link::Link;
use crate::codec::frame::{self, REPLY_HEADER_BYTES, ReplyHeader, ServerFrame};
use crate::error::{Code, Result, WireError};
use crate::limits;
use crate::net::body::next_frame;
use crate::net::deframe::{Deframer, Sink};
use crate::net::http::status_of;
use crate::net::tls::refuses_certificate;

/// Longest frame from a server.
const FRAME_LIMIT: usize = REPLY_HEADER_BYTES + limits::REPLY_FRAME_BYTES;

/// See the module.
pub(super) struct Receiver {
    link: Arc<Link>,
    /// Number of the connection.
    attempt: u64,
    /// Bytes may change on their way: what makes no sense is the connection's fault.
    exposed: bool,
    /// The reply frame under way, and the CRC of what has come of it.
    reply: Option<(ReplyHeader, u32)>,
    /// Somebody's wait may be over.
    settled: bool,
    /// Bytes of answers since the server was last told what has come.
    unreported: u64,
    /// Messages that were complete.
    messages: u64,
    /// The server's last word.
    last_word: Option<WireError>,
}

impl Receiver {
    pub(super) fn new(link: Arc<Link>, attempt: u64, exposed: bool) -> Receiver {
        Receiver { link, attempt, exposed, reply: None, settled: false, unreported: 0, messages: 0, last_word: None }
    }

    /// Read the session's response to its end: the session's, if the server says so, or the connection's. In the second
    /// case the stream stays as it is until the next connection takes its place: to cancel it would end the session.
    pub(super) async fn run(mut self, response: impl Future<Output = hyper::Result<Response<Incoming>>>) {
        let response = match response.await {
            Ok(response) => response,
            Err(e) => return self.link.broke(self.attempt, lost(&e)),
        };
        if let Some(status) = status_of(response.headers()) {
            let silent = || WireError::protocol("the server refused the session without saying why");
            return self.link.refused(self.attempt, status.err().unwrap_or_else(silent));
        }
        if response.status() != http::StatusCode::OK {
            let text = format!("the server answered {}: is it SkyTorch?", response.status());
            return self.link.broke(self.attempt, WireError::protocol(text));
        }
        let mut body = response.into_body();
        let error = match self.read(&mut body).await {
            Err(error) => error,
            Ok(()) => WireError::new(Code::ConnectionLost, "the server ended the session without saying why"),
        };
        match self.last_word.take() {
            Some(error) => self.link.fail(error),
            None if self.exposed || error.code == Code::ConnectionLost => {
                self.link.broke(self.attempt, error);
                std::future::pending::<()>().await;
            }
            None => self.link.fail(error),
        }
    }

    async fn read(&mut self, body: &mut Incoming) -> Result<()> {
        let mut deframer = Deframer::new(FRAME_LIMIT);
        let mut partial = (false, 0);
        while let Some(frame) = next_frame(body).await {
            match frame.map_err(|e| lost(&e))?.into_data() {
                Ok(chunk) => deframer.feed(chunk, self)?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return status_of(&trailers).unwrap_or(Ok(()));
                    }
                }
            }
            let now = (!deframer.is_between(), self.messages);
            if self.exposed && now != partial && (now.0 || partial.0) {
                self.link.set_partial(self.attempt, now.0);
            }
            partial = now;
            if std::mem::take(&mut self.settled) {
                self.link.notify();
            }
            if self.unreported > limits::KEPT_REPLY_BYTES as u64 {
                self.unreported = 0;
                self.link.send_receipt();
            }
        }
        Ok(())
    }
}

impl Sink for Receiver {
    fn head_bytes(&self, first: Option<u8>, _: usize) -> Option<usize> {
        (first == Some(frame::kind::REPLY)).then_some(REPLY_HEADER_BYTES)
    }

    fn begin(&mut self, head: &[u8], data_bytes: usize) -> Result<()> {
        let head = head.try_into().map_err(|_| WireError::protocol("reply frame shorter than its header"))?;
        let header = ReplyHeader::parse(head, REPLY_HEADER_BYTES + data_bytes)?;
        self.link.pending.begin(&header)?;
        self.reply = Some((header, header.crc_start()));
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<()> {
        if let Some((header, crc)) = &mut self.reply {
            self.link.pending.data(header.request, data);
            if header.crc.is_some() {
                *crc = crc32c::crc32c_append(*crc, data);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.messages += 1;
        let Some((header, crc)) = self.reply.take() else { return Ok(()) };
        if header.crc.is_some_and(|sum| sum != crc) {
            return Err(WireError::new(Code::ConnectionLost, "reply was corrupted on the way (crc32c differs)"));
        }
        if self.link.pending.end(&header) {
            self.settled = true;
            self.unreported += header.total;
        }
        Ok(())
    }

    fn whole(&mut self, message: &[u8]) -> Result<()> {
        self.messages += 1;
        match ServerFrame::parse(message)? {
            ServerFrame::Welcome(welcome) => self.link.welcome(self.attempt, *welcome)?,
            ServerFrame::Ack { position } => {
                if self.link.pending.is_overdue(position) {
                    return Err(WireError::new(Code::ConnectionLost, "an answer was lost on the way"));
                }
                self.link.acknowledge(position);
            }
            ServerFrame::Error { request, error } => self.link.pending.error(request, self.link.explained(error))?,
            // Only a reply too short for its header is collected, and that does not parse.
            ServerFrame::Reply(..) => return Err(WireError::protocol("reply frame shorter than its header")),
            ServerFrame::Goodbye(error) => {
                let closed = || WireError::new(Code::SessionClosed, "the session was closed");
                let error = if error.code == Code::Ok { closed() } else { error };
                return Err(self.last_word.insert(error).clone());
            }
        }
        self.settled = true;
        Ok(())
    }
}

/// A broken connection, in words.
pub(super) fn lost(e: &hyper::Error) -> WireError {
    use std::error::Error as _;
    let cause = e.source().map_or_else(|| e.to_string(), |source| format!("{e}: {source}"));
    if refuses_certificate(&cause) {
        let text =
            format!("the server refused this client's TLS certificate ({cause}); give another with cert= and key=");
        return WireError::new(Code::Unauthenticated, text);
    }
    WireError::new(Code::ConnectionLost, format!("the connection to the server broke ({cause}); did the server die?"))
}
