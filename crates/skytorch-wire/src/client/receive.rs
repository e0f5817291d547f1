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

/// Longest frame from a server.
const FRAME_LIMIT: usize = REPLY_HEADER_BYTES + limits::REPLY_FRAME_BYTES;

/// See the module.
pub(super) struct Receiver {
    link: Arc<Link>,
    /// The reply frame under way, and the CRC of what has come of it.
    reply: Option<(ReplyHeader, u32)>,
    /// Somebody's wait may be over.
    settled: bool,
}

impl Receiver {
    pub(super) fn new(link: Arc<Link>) -> Receiver {
        Receiver { link, reply: None, settled: false }
    }

    /// Read the session's response to its end.
    pub(super) async fn run(mut self, response: impl Future<Output = hyper::Result<Response<Incoming>>>) {
        let end = match response.await {
            Ok(response) => self.read(response).await,
            Err(e) => Err(lost(&e)),
        };
        let error = match end {
            Err(error) => error,
            Ok(()) => WireError::new(Code::ConnectionLost, "the server ended the session without saying why"),
        };
        self.link.fail(error);
    }

    async fn read(&mut self, response: Response<Incoming>) -> Result<()> {
        if let Some(status) = status_of(response.headers()) {
            return status;
        }
        if response.status() != http::StatusCode::OK {
            return Err(WireError::protocol(format!("the server answered {}: is it SkyTorch?", response.status())));
        }
        let mut deframer = Deframer::new(FRAME_LIMIT);
        let mut body = response.into_body();
        while let Some(frame) = next_frame(&mut body).await {
            match frame.map_err(|e| lost(&e))?.into_data() {
                Ok(chunk) => deframer.feed(chunk, self)?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return status_of(&trailers).unwrap_or(Ok(()));
                    }
                }
            }
            if std::mem::take(&mut self.settled) {
                self.link.notify();
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
        let Some((header, crc)) = self.reply.take() else { return Ok(()) };
        if header.crc.is_some_and(|sum| sum != crc) {
            return Err(WireError::new(Code::ConnectionLost, "reply was corrupted on the way (crc32c differs)"));
        }
        self.settled |= self.link.pending.end(&header);
        Ok(())
    }

    fn whole(&mut self, message: &[u8]) -> Result<()> {
        match ServerFrame::parse(message)? {
            ServerFrame::Welcome(welcome) => self.link.set_welcome(*welcome)?,
            ServerFrame::Ack { position } => self.link.acknowledge(position),
            ServerFrame::Error { request, error } => self.link.pending.error(request, error)?,
            // Only a reply too short for its header is collected, and that does not parse.
            ServerFrame::Reply(..) => return Err(WireError::protocol("reply frame shorter than its header")),
            ServerFrame::Goodbye(error) if error.code == Code::Ok => {
                return Err(WireError::new(Code::SessionClosed, "the session was closed"));
            }
            ServerFrame::Goodbye(error) => return Err(error),
        }
        self.settled = true;
        Ok(())
    }
}

/// A broken connection, in words.
pub(super) fn lost(e: &hyper::Error) -> WireError {
    use std::error::Error as _;
    let cause = e.source().map_or_else(|| e.to_string(), |source| format!("{e}: {source}"));
    WireError::new(Code::ConnectionLost, format!("the connection to the server broke ({cause}); did the server die?"))
}
