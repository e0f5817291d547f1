//! The receiving end of an upload: ticket, bytes into the landing, acknowledgement.
//!
//! Uploads of one connection take turns. The landing may make this thread wait until the executor has taken what
//! landed before, and what landed before must then be complete: the rest of it could not arrive while the thread
//! waits.

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use super::frame::{HEAD_BYTES, corrupted, parse_head};
use super::ticket::TICKET_HEADER;
use crate::error::{Code, Result, WireError};
use crate::ffi::Landing;
use crate::limits;
use crate::net::body::{OutBody, next_frame};
use crate::net::deframe::{Deframer, Sink};
use crate::net::http::refusal;
use crate::server::Shared;

/// An upload under way. Dropped before its end, it tells the landing that the rest will never come.
struct Arriving {
    landing: Option<Landing>,
    received: u64,
    total: u64,
    crc: Option<u32>,
    sum: u32,
}

impl Arriving {
    fn finish(&mut self, code: Code) {
        if let Some(landing) = self.landing.take() {
            landing.finish(code);
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.finish(Code::ConnectionLost);
    }
}

impl Sink for Arriving {
    fn head_bytes(&self, _: Option<u8>, _: usize) -> Option<usize> {
        Some(HEAD_BYTES)
    }

    fn begin(&mut self, head: &[u8], data_bytes: usize) -> Result<()> {
        let head = head.try_into().map_err(|_| WireError::protocol("lane message shorter than its head"))?;
        self.crc = parse_head(head)?;
        self.sum = 0;
        if data_bytes as u64 > self.total - self.received {
            return Err(WireError::protocol("an upload brings more bytes than its ticket says"));
        }
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<()> {
        if self.crc.is_some() {
            self.sum = crc32c::crc32c_append(self.sum, data);
        }
        let landing = self.landing.as_mut().ok_or_else(|| WireError::new(Code::Internal, "the landing is gone"))?;
        if !landing.write(self.received, data) {
            return Err(WireError::new(Code::SessionClosed, "the session ended during an upload"));
        }
        self.received += data.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.crc.is_some_and(|crc| crc != self.sum) { Err(corrupted()) } else { Ok(()) }
    }

    fn whole(&mut self, _: &[u8]) -> Result<()> {
        Err(WireError::protocol("lane message shorter than its head"))
    }
}

/// Serve one upload; `admitted` is called once its ticket was good.
pub(crate) async fn receive(
    shared: &Shared,
    request: Request<Incoming>,
    admitted: impl FnOnce(),
) -> Response<OutBody> {
    match take(shared, request, admitted).await {
        Ok(()) => refusal(&WireError::new(Code::Ok, "")),
        Err(error) => refusal(&error),
    }
}

fn admit(shared: &Shared, headers: &HeaderMap) -> Result<Arriving> {
    let refused =
        || WireError::new(Code::Unauthenticated, "an upload needs a ticket of the session that is open here");
    let session = shared.holder().ok_or_else(refused)?;
    let text = headers.get(TICKET_HEADER).and_then(|value| value.to_str().ok()).ok_or_else(refused)?;
    let ticket = session.admit(text)?;
    if ticket.bytes > limits::TRANSFER_BYTES {
        return Err(WireError::limit(format!("an upload of {} bytes is over the limit", ticket.bytes)));
    }
    let landing = shared.begin_landing(ticket.transfer, ticket.bytes)?;
    Ok(Arriving { landing: Some(landing), received: 0, total: ticket.bytes, crc: None, sum: 0 })
}

async fn take(shared: &Shared, request: Request<Incoming>, admitted: impl FnOnce()) -> Result<()> {
    let mut arriving = admit(shared, request.headers())?;
    admitted();
    let mut deframer = Deframer::new(limits::LANE_MESSAGE_BYTES);
    let mut body = request.into_body();
    while let Some(frame) = next_frame(&mut body).await {
        let broken = |e| WireError::new(Code::ConnectionLost, format!("the lane broke during an upload: {e}"));
        let Ok(chunk) = frame.map_err(broken)?.into_data() else { continue };
        if let Err(error) = deframer.feed(chunk, &mut arriving) {
            arriving.finish(error.code);
            return Err(error);
        }
    }
    if arriving.received != arriving.total || !deframer.is_between() {
        arriving.finish(Code::Protocol);
        return Err(WireError::protocol("an upload ended before its last byte"));
    }
    arriving.finish(Code::Ok);
    Ok(())
}
