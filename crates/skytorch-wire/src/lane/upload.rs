//! The sending end of one upload.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderValue;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;

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
    /// Dropped with the body: everything was handed to HTTP/2, or nothing more will be.
    _sending: Box<dyn Send>,
}

impl Parts for Outgoing {
    fn next(&mut self) -> Option<std::result::Result<Bytes, BodyError>> {
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
        self.rest.is_empty() && self.data.is_none()
    }
}

/// Whether bulk bytes need a checksum of their own on the way there.
pub(crate) fn needs_checksum(address: &Address) -> bool {
    matches!(address, Address::Tcp(..))
}

/// A way to end an upload before its time, from another thread.
#[derive(Default)]
pub(crate) struct Cancel {
    cancelled: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Ready once cancelled.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        *self.task.lock() = Some(cx.waker().clone());
        if self.cancelled.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Send `data` and wait for the acknowledgement. `sending` is dropped when the last of it has been handed over.
pub(crate) async fn upload(
    sender: &mut SendRequest<OutBody>,
    target: &Target,
    ticket: &str,
    data: Bytes,
    checksum: bool,
    cancel: &Cancel,
    sending: Box<dyn Send>,
) -> Result<()> {
    let body = OutBody::made(Outgoing { rest: data, data: None, checksum, _sending: sending });
    let mut request = request(target, UPLOAD_PATH, None, body)?;
    let ticket = HeaderValue::try_from(ticket).map_err(|_| WireError::argument("a ticket is not hexadecimal"))?;
    request.headers_mut().insert(TICKET_HEADER, ticket);
    let mut sent = pin!(sender.send_request(request));
    // Dropping what was sent resets its stream.
    let answer = poll_fn(|cx| match cancel.poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => sent.as_mut().poll(cx).map(Some),
    });
    let cancelled = || WireError::new(Code::Interrupted, "the upload was cancelled");
    let lost =
        |e: hyper::Error| WireError::new(Code::ConnectionLost, format!("the lane to {} broke: {e}", target.address));
    let response = answer.await.ok_or_else(cancelled)?.map_err(lost)?;
    let missing = || Err(WireError::protocol("the acknowledgement of an upload carries no status"));
    status_of(response.headers()).unwrap_or_else(missing)
}
