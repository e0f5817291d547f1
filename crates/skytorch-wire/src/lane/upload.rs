//! The sending end of one upload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::HeaderValue;
use hyper::client::conn::http2::SendRequest;

use super::frame::{DATA_BYTES, head};
use super::ticket::TICKET_HEADER;
use crate::error::{Code, Result, WireError};
use crate::net::address::Address;
use crate::net::body::{BodyError, OutBody, Parts};
use crate::net::http::{Target, UPLOAD_PATH, request, status_of};

/// The messages of an upload, made as HTTP/2 wants them; the data is sliced, never copied.
struct Outgoing {
    rest: Bytes,
    data: Option<Bytes>,
    checksum: bool,
    cancelled: Arc<AtomicBool>,
}

impl Parts for Outgoing {
    fn next(&mut self) -> Option<std::result::Result<Bytes, BodyError>> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Some(Err("the upload was cancelled".into()));
        }
        if let Some(data) = self.data.take() {
            return Some(Ok(data));
        }
        if self.rest.is_empty() {
            return None;
        }
        let data = self.rest.split_to(self.rest.len().min(DATA_BYTES));
        let head = head(&data, self.checksum);
        self.data = Some(data);
        Some(Ok(head))
    }

    fn is_end(&self) -> bool {
        self.rest.is_empty() && self.data.is_none() && !self.cancelled.load(Ordering::Relaxed)
    }
}

/// Whether bulk bytes need a checksum of their own on the way there.
pub(crate) fn needs_checksum(address: &Address) -> bool {
    matches!(address, Address::Tcp(..))
}

/// Send `data` and wait for the acknowledgement.
pub(crate) async fn upload(
    sender: &mut SendRequest<OutBody>,
    target: &Target,
    ticket: &str,
    data: Bytes,
    checksum: bool,
    cancelled: Arc<AtomicBool>,
) -> Result<()> {
    let body = OutBody::made(Outgoing { rest: data, data: None, checksum, cancelled });
    let mut request = request(target, UPLOAD_PATH, None, body)?;
    let ticket = HeaderValue::try_from(ticket).map_err(|_| WireError::argument("a ticket is not hexadecimal"))?;
    request.headers_mut().insert(TICKET_HEADER, ticket);
    let lost =
        |e: hyper::Error| WireError::new(Code::ConnectionLost, format!("the lane to {} broke: {e}", target.address));
    let response = sender.send_request(request).await.map_err(lost)?;
    let missing = || Err(WireError::protocol("the acknowledgement of an upload carries no status"));
    status_of(response.headers()).unwrap_or_else(missing)
}
