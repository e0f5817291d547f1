//! The sending end of one upload: from its first byte, or behind what its server has of it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;

use super::frame::{DATA_BYTES, head};
use super::payload::Payload;
use super::ticket::{ABORT, ATTEMPT_HEADER, OFFSET_HEADER, RECEIVED_HEADER, TICKET_HEADER};
use crate::driver::sleep;
use crate::error::{Code, Result, WireError};
use crate::net::address::Address;
use crate::net::body::{BodyError, OutBody, Parts};
use crate::net::http::{CODE_HEADER, STATUS_PATH, Target, UPLOAD_PATH, request, status_of};

/// Between questions while the server's executor has no room.
const WAITING: Duration = Duration::from_millis(100);
/// Calls of a transfer whose refusal is not believed where bytes may change on their way.
const DOUBTED: u32 = 3;

/// The messages of an upload, made as HTTP/2 wants them; the data is sliced, never copied.
struct Outgoing {
    rest: Payload,
    data: Option<Bytes>,
    checksum: bool,
    flow: Arc<AtomicU64>,
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
        let data = self.rest.take(DATA_BYTES);
        self.flow.fetch_add(data.len() as u64, Ordering::Relaxed);
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

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Ready once cancelled.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        *self.task.lock() = Some(cx.waker().clone());
        if self.cancelled.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Send `data` and wait for the acknowledgement; `sending` is dropped when the last of it has been handed over. After the
/// first `attempt`, which is 0, it goes on behind what the server has of it. `ConnectionLost`: there may be another one.
pub(crate) async fn upload(
    sender: &mut SendRequest<OutBody>,
    outgoing: &Upload<'_>,
    data: Payload,
    attempt: u32,
    sending: Box<dyn Send>,
) -> Result<()> {
    let Upload { target, ticket, checksum, cancel, flow, abort } = *outgoing;
    let goes_on = attempt > 0 && abort.is_none();
    let doubt = |error| believed(error, target, attempt);
    let offset = if goes_on { Some(offset(sender, outgoing, attempt, &data).await.map_err(doubt)?) } else { None };
    let rest = data.behind(offset.unwrap_or(0));
    let body = OutBody::made(Outgoing { rest, data: None, checksum, flow: flow.clone(), _sending: sending });
    let mut request = call(target, UPLOAD_PATH, ticket, if abort.is_some() { ABORT } else { attempt }, body)?;
    if let Some(why) = abort {
        request.headers_mut().insert(CODE_HEADER, HeaderValue::from(why.number()));
    }
    if let Some(offset) = offset {
        request.headers_mut().insert(OFFSET_HEADER, HeaderValue::from(offset));
    }
    let response = until_cancelled(cancel, sender.send_request(request)).await?.map_err(|e| lost(target, &e))?;
    let missing = || Err(WireError::new(Code::ConnectionLost, "the acknowledgement of an upload carries no status"));
    status_of(response.headers()).unwrap_or_else(missing).map_err(doubt)
}

/// A ticket is as good as its session, but nothing checks the headers that carry it: where neither TLS nor the kernel
/// does, the server may have refused, or not known, what was never sent. Then the lane counts as broken.
fn believed(error: WireError, target: &Target, attempt: u32) -> WireError {
    let of_headers = matches!(error.code, Code::Unauthenticated | Code::Protocol | Code::NotSupported);
    if of_headers && attempt < DOUBTED && needs_checksum(&target.address) {
        return WireError::new(Code::ConnectionLost, error.message);
    }
    error
}

/// What stays the same however often an upload is begun.
#[derive(Clone, Copy)]
pub(crate) struct Upload<'a> {
    pub(crate) target: &'a Target,
    pub(crate) ticket: &'a str,
    pub(crate) checksum: bool,
    pub(crate) cancel: &'a Cancel,
    /// Counts the bytes that were handed over.
    pub(crate) flow: &'a Arc<AtomicU64>,
    /// Not an upload: its transfer is given up, because of this.
    pub(crate) abort: Option<Code>,
}

/// How much of a transfer its server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The transfer waits for the server's executor.
    Waiting,
    /// Bytes; how many of the last of them are unchecked; the CRC32C of those.
    Bytes(u64, u64, u32),
}

/// Ask how much the server has of the transfer that `ticket` stands for. With an `attempt`, which is to go on from there,
/// nothing of an earlier one is taken any more.
pub(crate) async fn received(
    sender: &mut SendRequest<OutBody>,
    target: &Target,
    ticket: &str,
    attempt: u32,
) -> Result<Received> {
    let request = call(target, STATUS_PATH, ticket, attempt, OutBody::parts([], None))?;
    let response = sender.send_request(request).await.map_err(|e| lost(target, &e))?;
    let silent = || WireError::new(Code::ConnectionLost, "the server does not say how much of an upload it has");
    status_of(response.headers()).ok_or_else(silent)??;
    let text = response.headers().get(RECEIVED_HEADER).and_then(|text| text.to_str().ok()).ok_or_else(silent)?;
    if text == "waiting" {
        return Ok(Received::Waiting);
    }
    let numbers: Vec<u64> = text.split(' ').map_while(|number| number.parse().ok()).collect();
    match numbers[..] {
        [bytes, unchecked, sum] if unchecked <= bytes => {
            Ok(Received::Bytes(bytes, unchecked, u32::try_from(sum).map_err(|_| silent())?))
        }
        _ => Err(silent()),
    }
}

/// Where to go on. Bytes that were not checked before the lane broke are compared with what was sent.
async fn offset(
    sender: &mut SendRequest<OutBody>,
    outgoing: &Upload<'_>,
    attempt: u32,
    data: &Payload,
) -> Result<u64> {
    loop {
        let Upload { target, ticket, cancel, .. } = *outgoing;
        match until_cancelled(cancel, received(sender, target, ticket, attempt)).await?? {
            Received::Waiting => until_cancelled(cancel, sleep(WAITING)).await?,
            Received::Bytes(bytes, unchecked, sum) => {
                return Ok(if data.crc32c(bytes - unchecked, bytes) == Some(sum) { bytes } else { 0 });
            }
        }
    }
}

fn call(target: &Target, path: &str, ticket: &str, attempt: u32, body: OutBody) -> Result<http::Request<OutBody>> {
    let mut request = request(target, path, None, body)?;
    let ticket = HeaderValue::try_from(ticket).map_err(|_| WireError::argument("a ticket is not hexadecimal"))?;
    request.headers_mut().insert(TICKET_HEADER, ticket);
    if attempt > 0 {
        request.headers_mut().insert(ATTEMPT_HEADER, HeaderValue::from(attempt));
    }
    Ok(request)
}

fn lost(target: &Target, e: &hyper::Error) -> WireError {
    WireError::new(Code::ConnectionLost, format!("the lane to {} broke: {e}", target.address))
}

/// Dropping what was sent resets its stream.
async fn until_cancelled<F: Future>(cancel: &Cancel, future: F) -> Result<F::Output> {
    let mut future = pin!(future);
    let ready = poll_fn(|cx| match cancel.poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    });
    ready.await.ok_or_else(|| WireError::new(Code::Interrupted, "the upload was cancelled"))
}
