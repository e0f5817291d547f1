//! A session, an upload or anything else as bytes on a connection of its own: what the client library would never send.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use skytorch_wire::client::{ConnectOptions, ControlLink};
use skytorch_wire::codec::frame::{self, OPS_HEADER_BYTES, ServerFrame};
use skytorch_wire::driver::{Sleep, sleep};
use skytorch_wire::error::{Code, WireError};
use skytorch_wire::{limits, proto};
use tower_service::Service as _;

pub(crate) const OPEN: &str = "/skytorch.v1.Session/Open";
pub(crate) const UPLOAD: &str = "/skytorch.v1.Transfer/Upload";
/// A server that does not answer in this time hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What is sent, and how it ends.
pub(crate) struct Outgoing {
    pub(crate) chunks: VecDeque<Bytes>,
    /// Between two chunks.
    pub(crate) pause: Option<Duration>,
    pub(crate) end: End,
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing more comes.
    Finish,
    /// Something more might come.
    Stay,
}

impl Outgoing {
    pub(crate) fn new(chunks: impl IntoIterator<Item = Bytes>, end: End) -> Outgoing {
        Outgoing { chunks: chunks.into_iter().collect(), pause: None, end, sleep: None }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        match self.chunks.pop_front() {
            Some(chunk) => {
                self.sleep = self.pause.map(|pause| Box::pin(sleep(pause)));
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            None if self.end == End::Finish => Poll::Ready(None),
            // The connection is dropped from outside.
            None => Poll::Pending,
        }
    }
}

/// A frame as a gRPC message.
pub(crate) fn framed(frame: &[u8]) -> Bytes {
    [&[0][..], &(frame.len() as u32).to_be_bytes(), frame].concat().into()
}

/// An OPS frame of these records.
pub(crate) fn ops(first: u64, records: &[u8]) -> Vec<u8> {
    let mut out = [&[0; OPS_HEADER_BYTES][..], records].concat();
    frame::seal_ops(&mut out, first, 0);
    out
}

/// Of a session that nobody has had: a server refuses a greeting that it has heard before.
pub(crate) fn fresh_id() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0xff; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    id
}

/// A HELLO that a server takes.
pub(crate) fn hello(id: [u8; 16]) -> proto::Hello {
    proto::Hello {
        wire_major: u32::from(limits::WIRE_MAJOR),
        byte_order: proto::ByteOrder::Little.into(),
        pointer_bits: 64,
        session_id: id.to_vec(),
        ..Default::default()
    }
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// gRPC messages.
    pub(crate) messages: Vec<Vec<u8>>,
    /// Of a call that was refused.
    pub(crate) refused: Option<u32>,
}

impl Answer {
    /// The data of all replies, in order.
    pub(crate) fn replies(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for message in &self.messages {
            if let Ok(ServerFrame::Reply(_, piece)) = ServerFrame::parse(message) {
                data.extend_from_slice(piece);
            }
        }
        data
    }

    /// How the session ended, if the server said so.
    pub(crate) fn goodbye(&self) -> Option<WireError> {
        self.messages.iter().find_map(|message| match ServerFrame::parse(message) {
            Ok(ServerFrame::Goodbye(error)) => Some(error),
            _ => None,
        })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.refused == Some(Code::ServerBusy.number())
    }
}

/// Send a call and read its answer for as long as `patience` lasts, then hang up.
pub(crate) fn call(
    options: &ConnectOptions,
    path: &str,
    ticket: Option<&str>,
    body: Outgoing,
    patience: Duration,
) -> Result<Answer, WireError> {
    let link = ControlLink::connect(options)?;
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    if let Some(ticket) = ticket {
        request = request.header("skytorch-ticket", ticket);
    }
    let request = request.body(tonic::body::Body::new(body)).map_err(|e| WireError::argument(e.to_string()))?;
    let mut answer = Answer::default();
    let mut service = link.service();
    let reading = async {
        let Ok(response) = service.call(request).await else { return };
        let code = response.headers().get("skytorch-code").and_then(|code| code.to_str().ok()?.parse().ok());
        answer.refused = code;
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(data) = frame.into_data() else { continue };
            bytes.extend_from_slice(&data);
            while let Some(length) = bytes.get(1..5) {
                let end = 5 + u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
                let Some(message) = bytes.get(5..end) else { break };
                answer.messages.push(message.to_vec());
                bytes.drain(..end);
            }
        }
    };
    match link.block_on(reading, Some(patience)) {
        Err(error) if error.code != Code::Timeout => Err(error),
        Err(error) if patience >= PATIENCE => Err(error),
        _ => Ok(answer),
    }
}
