//! The control calls, the client's half: blocking iterators that drive their own connection on the calling thread.
//!
//! An iterator owns its [`ControlLink`]; dropping it hangs up. The subtle thing is ending one that another thread
//! waits in: a [`Hangup`] is awaited beside the next message, so that raising it wakes the waiter at once. An
//! interrupted wait loses nothing: a message that has arrived in part stays in the tonic stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::health::proto::HealthCheckRequest;
use super::health::proto::health_check_response::ServingStatus;
use super::health::proto::health_client::HealthClient;
use crate::client::{ConnectOptions, ControlLink};
use crate::error::{Code, Result, WireError};
use crate::proto::metrics_client::MetricsClient;
use crate::proto::{LogLines, LogsRequest, Snapshot, WatchRequest};

/// Ends an iterator of this module from any thread; raised once, for good.
#[derive(Clone, Default)]
pub struct Hangup(Arc<watch::Sender<bool>>);

impl Hangup {
    /// End the iterators that were opened with it, also while they wait.
    pub fn raise(&self) {
        self.0.send_replace(true);
    }

    async fn raised(&self) {
        // Fails only when the sender is gone, which `self` keeps.
        let _ = self.0.subscribe().wait_for(|raised| *raised).await;
    }
}

/// True when the server at the address can take a session; false when it answers that it cannot.
pub fn check_health(options: &ConnectOptions) -> Result<bool> {
    let deadline = Instant::now() + options.timeout;
    let link = ControlLink::connect(options)?;
    let mut client = HealthClient::new(link.service());
    let left = deadline.saturating_duration_since(Instant::now());
    let answer = link.block_on(client.check(HealthCheckRequest::default()), Some(left))?;
    Ok(answer.map_err(|status| wire_error(&status))?.into_inner().status() == ServingStatus::Serving)
}

/// A server's snapshots, one every interval, until the server stops or the hangup.
pub struct Snapshots(Messages<Snapshot>);

impl Snapshots {
    /// Connects and asks for a snapshot every `interval`.
    pub fn open(options: &ConnectOptions, interval: Duration, hangup: Hangup) -> Result<Snapshots> {
        let interval_ms = u32::try_from(interval.as_millis())
            .map_err(|_| WireError::argument("the interval between snapshots is too long: give less than 49 days"))?;
        let link = ControlLink::connect(options)?;
        let mut client = MetricsClient::new(link.service());
        let request = WatchRequest { interval_ms: interval_ms.max(1) };
        let answer = link.block_on(client.watch(request), Some(options.timeout))?;
        Ok(Snapshots(Messages::new(link, answer, hangup)?))
    }
}

impl Iterator for Snapshots {
    type Item = Result<Snapshot>;

    fn next(&mut self) -> Option<Result<Snapshot>> {
        self.0.next()
    }
}

/// A server's log lines, first those that it keeps, then, when following, those to come.
pub struct Logs {
    messages: Messages<LogLines>,
    lines: VecDeque<String>,
}

impl Logs {
    /// Connects and asks for the lines from the first one kept.
    pub fn open(options: &ConnectOptions, follow: bool, hangup: Hangup) -> Result<Logs> {
        let link = ControlLink::connect(options)?;
        let mut client = MetricsClient::new(link.service());
        let answer = link.block_on(client.logs(LogsRequest { from_index: 0, follow }), Some(options.timeout))?;
        Ok(Logs { messages: Messages::new(link, answer, hangup)?, lines: VecDeque::new() })
    }
}

impl Iterator for Logs {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        while self.lines.is_empty() {
            match self.messages.next()? {
                Ok(message) => self.lines = message.lines.into(),
                Err(error) => return Some(Err(error)),
            }
        }
        self.lines.pop_front().map(Ok)
    }
}

/// The messages of one server stream. Ends for good after the stream's end, an error, or the hangup.
struct Messages<T> {
    link: ControlLink,
    /// `None` once it has ended.
    stream: Option<Streaming<T>>,
    hangup: Hangup,
}

impl<T> Messages<T> {
    fn new(
        link: ControlLink,
        answer: std::result::Result<tonic::Response<Streaming<T>>, Status>,
        hangup: Hangup,
    ) -> Result<Messages<T>> {
        let stream = answer.map_err(|status| wire_error(&status))?.into_inner();
        Ok(Messages { link, stream: Some(stream), hangup })
    }

    fn next(&mut self) -> Option<Result<T>> {
        let stream = self.stream.as_mut()?;
        let waited = {
            let (mut raised, mut message) = (pin!(self.hangup.raised()), pin!(stream.message()));
            let either = poll_fn(|context| match raised.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Ok(None)),
                Poll::Pending => message.as_mut().poll(context),
            });
            self.link.block_on(either, None)
        };
        let item = match waited {
            Ok(Ok(message)) => message.map(Ok),
            Ok(Err(status)) => Some(Err(wire_error(&status))),
            Err(error) if error.code == Code::Interrupted => return Some(Err(error)),
            Err(error) => Some(Err(error)),
        };
        if !matches!(item, Some(Ok(_))) {
            self.stream = None;
        }
        item
    }
}

/// What a failed control call means to the caller.
fn wire_error(status: &Status) -> WireError {
    use tonic::Code as Grpc;
    let code = match status.code() {
        Grpc::Unauthenticated | Grpc::PermissionDenied => Code::Unauthenticated,
        Grpc::DeadlineExceeded => Code::Timeout,
        Grpc::Unimplemented | Grpc::NotFound => Code::NotSupported,
        Grpc::ResourceExhausted | Grpc::OutOfRange => Code::LimitExceeded,
        Grpc::InvalidArgument => Code::InvalidArgument,
        // What tonic makes of a broken connection.
        Grpc::Unavailable | Grpc::Unknown | Grpc::Cancelled | Grpc::Aborted => Code::ConnectionLost,
        _ => Code::Internal,
    };
    WireError::new(code, format!("the server did not finish a control call: {}", status.message()))
}
