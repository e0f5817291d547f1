//! The receiving end of an upload: ticket, bytes into the landing, acknowledgement.
//!
//! Uploads of one connection take turns. The landing may make this thread wait until the executor has taken what
//! landed before, and what landed before must then be complete: the rest of it could not arrive while the thread
//! waits.

use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};

use super::arrival::{Arrival, Found, Progress, elsewhere};
use super::frame::{HEAD_BYTES, corrupted, parse_head};
use super::ticket::{ATTEMPT_HEADER, OFFSET_HEADER, RECEIVED_HEADER, TICKET_HEADER, Ticket};
use crate::error::{Code, Result, WireError};
use crate::limits;
use crate::net::body::{OutBody, next_frame};
use crate::net::deframe::{Deframer, Sink};
use crate::net::http::{CODE_HEADER, refusal};
use crate::server::{Holder, Shared};

/// One call that brings bytes of a transfer.
struct Call {
    arrival: Arc<Mutex<Arrival>>,
    number: u64,
    crc: Option<u32>,
}

impl Call {
    fn open(&self) -> Result<MutexGuard<'_, Arrival>> {
        let arrival = self.arrival.lock();
        match arrival.is_owned_by(self.number) {
            true => Ok(arrival),
            false => Err(elsewhere()),
        }
    }
}

impl Sink for Call {
    fn head_bytes(&self, _: Option<u8>, _: usize) -> Option<usize> {
        Some(HEAD_BYTES)
    }

    fn begin(&mut self, head: &[u8], data_bytes: usize) -> Result<()> {
        let head = head.try_into().map_err(|_| WireError::protocol("lane message shorter than its head"))?;
        self.crc = parse_head(head)?;
        let mut arrival = self.open()?;
        (arrival.unchecked, arrival.sum) = (0, 0);
        if data_bytes as u64 > arrival.left() {
            return Err(WireError::protocol("an upload brings more bytes than its ticket says"));
        }
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<()> {
        let mut arrival = self.open()?;
        if self.crc.is_some() {
            arrival.sum = crc32c::crc32c_append(arrival.sum, data);
            arrival.unchecked += data.len() as u64;
        }
        if !arrival.write(data) {
            return Err(WireError::new(Code::SessionClosed, "the session ended during an upload"));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let mut arrival = self.open()?;
        if self.crc.is_some_and(|crc| crc != arrival.sum) {
            return Err(corrupted());
        }
        (arrival.unchecked, arrival.sum) = (0, 0);
        Ok(())
    }

    fn whole(&mut self, _: &[u8]) -> Result<()> {
        Err(WireError::protocol("lane message shorter than its head"))
    }
}

/// Serve one upload; `admitted` is called once its ticket was good. On an `exposed` connection bytes may have changed.
pub(crate) async fn receive(
    shared: &Shared,
    request: Request<Incoming>,
    exposed: bool,
    admitted: impl FnOnce() -> Result<()>,
) -> Response<OutBody> {
    match take(shared, request, exposed, admitted).await {
        Ok(()) => refusal(&WireError::new(Code::Ok, "")),
        Err(error) => refusal(&error),
    }
}

/// Say how much of a transfer has arrived.
pub(crate) fn status(
    shared: &Shared,
    headers: &HeaderMap,
    admitted: impl FnOnce() -> Result<()>,
) -> Response<OutBody> {
    let (holder, ticket) = match admit(shared, headers).and_then(|found| admitted().map(|()| found)) {
        Ok(found) => found,
        Err(error) => return refusal(&error),
    };
    let attempt = match number_of(headers, ATTEMPT_HEADER) {
        Ok(attempt) => attempt.unwrap_or(0),
        Err(error) => return refusal(&error),
    };
    let text = match holder.arrivals.progress(&ticket, attempt) {
        Progress::Waiting => "waiting".to_owned(),
        Progress::Received(received, unchecked, sum) => format!("{received} {unchecked} {sum}"),
    };
    let mut response = refusal(&WireError::new(Code::Ok, ""));
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(RECEIVED_HEADER, value);
    }
    response
}

/// The session and the ticket of a call, which are checked.
fn admit(shared: &Shared, headers: &HeaderMap) -> Result<(Arc<Holder>, Ticket)> {
    let refused =
        || WireError::new(Code::Unauthenticated, "an upload needs a ticket of the session that is open here");
    let holder = shared.holder().ok_or_else(refused)?;
    let text = headers.get(TICKET_HEADER).and_then(|value| value.to_str().ok()).ok_or_else(refused)?;
    let ticket = holder.verify(text)?;
    if ticket.bytes > limits::TRANSFER_BYTES {
        return Err(WireError::limit(format!("an upload of {} bytes is over the limit", ticket.bytes)));
    }
    Ok((holder, ticket))
}

fn number_of<N: FromStr>(headers: &HeaderMap, name: &str) -> Result<Option<N>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| WireError::protocol(format!("{name} of an upload is not a number")))
}

async fn take(
    shared: &Shared,
    request: Request<Incoming>,
    exposed: bool,
    admitted: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (holder, ticket) = admit(shared, request.headers())?;
    admitted()?;
    holder.until_taken(shared)?;
    let attempt = number_of(request.headers(), ATTEMPT_HEADER)?.unwrap_or(0);
    let offset = number_of(request.headers(), OFFSET_HEADER)?;
    let interrupted = number_of(request.headers(), CODE_HEADER)? == Some(Code::Interrupted.number());
    let why = if interrupted { Code::Interrupted } else { Code::ConnectionLost };
    let land = || shared.begin_landing(ticket.transfer, ticket.bytes);
    let (arrival, number) = match holder.arrivals.enter(&ticket, attempt, offset, why, land)? {
        Found::Open(arrival, number) => (arrival, number),
        Found::Ended(outcome) => return outcome,
    };
    let mut call = Call { arrival, number, crc: None };
    let outcome = match bring(&mut call, request.into_body()).await {
        // It goes on over another connection, or has done so already.
        Err(Broken::Connection(error)) => return Err(error),
        // They may have been good when they were sent.
        Err(Broken::Bytes(error)) if exposed => {
            call.open()?.spoil();
            return Err(WireError::new(Code::ConnectionLost, error.message));
        }
        Err(Broken::Bytes(error) | Broken::Transfer(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    // Only its owner may end it.
    drop(call.open()?);
    holder.arrivals.end(ticket.transfer, &outcome);
    outcome
}

/// Why a call did not bring a transfer to its end.
enum Broken {
    Connection(WireError),
    /// Bytes that make no sense, or too few of them.
    Bytes(WireError),
    /// The transfer itself cannot go on: its landing is gone.
    Transfer(WireError),
}

async fn bring(call: &mut Call, mut body: Incoming) -> std::result::Result<(), Broken> {
    let mut deframer = Deframer::new(limits::LANE_MESSAGE_BYTES);
    while let Some(frame) = next_frame(&mut body).await {
        let lost = |e| WireError::new(Code::ConnectionLost, format!("the lane broke during an upload: {e}"));
        let Ok(chunk) = frame.map_err(|e| Broken::Connection(lost(e)))?.into_data() else { continue };
        deframer.feed(chunk, call).map_err(|error| match error.code {
            Code::SessionClosed => Broken::Transfer(error),
            _ => Broken::Bytes(error),
        })?;
    }
    let arrival = call.open().map_err(Broken::Connection)?;
    if arrival.is_complete() && deframer.is_between() {
        return Ok(());
    }
    Err(Broken::Bytes(WireError::protocol("an upload ended before its last byte")))
}
