//! Bodies of requests and responses: byte parts that go to the socket as they are, without a copy.
//!
//! A queue is filled by the threads that append and drained by hyper's task; pushing wakes nobody, so that it can be
//! done under a lock, and `wake` makes no promise but to have the task look. A body is dropped when its stream ends,
//! whatever the reason; the queue then refuses more.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

#[derive(Default)]
struct State {
    parts: VecDeque<Bytes>,
    queued_bytes: usize,
    /// Set once nothing more will come; the trailers follow the last part.
    end: Option<Option<HeaderMap>>,
    dropped: bool,
    /// Which reader is the present one.
    turn: u64,
    reader: Option<Waker>,
}

/// Parts on their way to a stream.
#[derive(Default)]
pub(crate) struct OutQueue {
    state: Mutex<State>,
}

impl OutQueue {
    pub(crate) fn new() -> Arc<OutQueue> {
        Arc::default()
    }

    /// Append. After the stream has ended the parts are dropped.
    pub(crate) fn push(&self, parts: impl IntoIterator<Item = Bytes>) {
        let mut state = self.state.lock();
        if !state.dropped {
            for part in parts {
                state.queued_bytes += part.len();
                state.parts.push_back(part);
            }
        }
    }

    /// Nothing more will come.
    pub(crate) fn finish(&self, trailers: Option<HeaderMap>) {
        self.state.lock().end.get_or_insert(trailers);
        self.wake();
    }

    /// Begin anew, for the next body: what was queued and not taken is dropped.
    pub(crate) fn reopen(&self) {
        let mut state = self.state.lock();
        let turn = state.turn + 1;
        let before = std::mem::replace(&mut *state, State { turn, ..State::default() });
        drop(state);
        drop(before);
    }

    /// Have the stream's task look at the queue.
    pub(crate) fn wake(&self) {
        let reader = self.state.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// True while at most `bytes` are queued, or once the stream has ended.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let state = self.state.lock();
        state.dropped || state.queued_bytes <= bytes
    }
}

/// The reading end, which hyper owns.
struct Reader {
    queue: Arc<OutQueue>,
    turn: u64,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let parts = {
            let mut state = self.queue.state.lock();
            if state.turn != self.turn {
                return;
            }
            state.dropped = true;
            std::mem::take(&mut state.parts)
        };
        // Outside the lock: a part may belong to somebody who is told.
        drop(parts);
    }
}

/// Error of a body that a control service made.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that makes its parts as they are wanted.
pub(crate) trait Parts: Send {
    /// The next part, `None` at the end, an error to reset the stream.
    fn next(&mut self) -> Option<Result<Bytes, BodyError>>;
    /// Nothing is left.
    fn is_end(&self) -> bool;
}

enum Inner {
    Queue(Reader),
    Made(Box<dyn Parts>),
    Control(tonic::body::Body),
}

/// Body of everything that this crate sends.
pub(crate) struct OutBody {
    inner: Inner,
}

impl OutBody {
    /// What is pushed into `queue`, until it is finished.
    pub(crate) fn queue(queue: Arc<OutQueue>) -> OutBody {
        let turn = queue.state.lock().turn;
        OutBody { inner: Inner::Queue(Reader { queue, turn }) }
    }

    /// These parts, then these trailers.
    pub(crate) fn parts(parts: impl IntoIterator<Item = Bytes>, trailers: Option<HeaderMap>) -> OutBody {
        let queue = OutQueue::new();
        queue.push(parts);
        queue.finish(trailers);
        OutBody::queue(queue)
    }

    /// Parts made on demand.
    pub(crate) fn made(parts: impl Parts + 'static) -> OutBody {
        OutBody { inner: Inner::Made(Box::new(parts)) }
    }

    /// The body of a tonic message.
    pub(crate) fn control(body: tonic::body::Body) -> OutBody {
        OutBody { inner: Inner::Control(body) }
    }
}

fn poll_queue(queue: &OutQueue, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
    let mut state = queue.state.lock();
    if let Some(part) = state.parts.pop_front() {
        state.queued_bytes -= part.len();
        return Poll::Ready(Some(Ok(Frame::data(part))));
    }
    match &mut state.end {
        None => {
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        }
        Some(trailers) => Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().inner {
            Inner::Queue(reader) => poll_queue(&reader.queue, cx).map_err(|never| match never {}),
            Inner::Made(parts) => Poll::Ready(parts.next().map(|part| part.map(Frame::data))),
            Inner::Control(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Queue(reader) => {
                let state = reader.queue.state.lock();
                state.parts.is_empty() && matches!(state.end, Some(None))
            }
            Inner::Made(parts) => parts.is_end(),
            Inner::Control(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Queue(_) | Inner::Made(_) => SizeHint::default(),
            Inner::Control(body) => body.size_hint(),
        }
    }
}

/// The next frame of an incoming body.
pub(crate) async fn next_frame(body: &mut hyper::body::Incoming) -> Option<hyper::Result<Frame<Bytes>>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}
