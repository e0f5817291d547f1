//! `skytorch.v1.Metrics`, the server's half: snapshots on a timer, log lines as they come.
//!
//! The subtle thing: a stream asks its source only when it is polled, and is polled only while the client takes what
//! it gets (HTTP/2 flow control), so a slow or absent reader costs nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::ControlSource;
use crate::limits;
use crate::proto::metrics_server::Metrics;
use crate::proto::{LogLines, LogsRequest, Snapshot, WatchRequest};

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

fn sleep(duration: Duration) -> Sleep {
    Box::pin(crate::driver::sleep(duration))
}

pub(super) struct MetricsCalls {
    source: Arc<dyn ControlSource>,
}

impl MetricsCalls {
    pub(super) fn new(source: Arc<dyn ControlSource>) -> MetricsCalls {
        MetricsCalls { source }
    }
}

#[tonic::async_trait]
impl Metrics for MetricsCalls {
    type WatchStream = SnapshotStream;
    type LogsStream = LogStream;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<SnapshotStream>, Status> {
        let interval = match request.into_inner().interval_ms {
            0 => limits::METRICS_INTERVAL,
            ms => Duration::from_millis(ms.into()).max(limits::METRICS_INTERVAL_MIN),
        };
        Ok(Response::new(SnapshotStream { source: Arc::clone(&self.source), interval, pause: None }))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<LogStream>, Status> {
        let LogsRequest { from_index, follow } = request.into_inner();
        Ok(Response::new(LogStream {
            source: Arc::clone(&self.source),
            follow,
            next_index: from_index,
            pending: VecDeque::new(),
            pause: None,
        }))
    }
}

/// One snapshot at once, then one after each pause.
pub(super) struct SnapshotStream {
    source: Arc<dyn ControlSource>,
    interval: Duration,
    pause: Option<Sleep>,
}

impl Stream for SnapshotStream {
    type Item = Result<Snapshot, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
        }
        self.pause = Some(sleep(self.interval));
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Poll::Ready(Some(Ok(Snapshot { unix_ms, metrics: self.source.metrics() })))
    }
}

/// The lines that are there, in messages of bounded size; then, when following, those that come.
pub(super) struct LogStream {
    source: Arc<dyn ControlSource>,
    follow: bool,
    /// Index of the first line of `pending`, or of the next line to ask for when it is empty.
    next_index: u64,
    pending: VecDeque<String>,
    pause: Option<Sleep>,
}

impl LogStream {
    /// The longest run of pending lines that fits in one message, and at least one line.
    fn take_message(&mut self) -> LogLines {
        let mut message = LogLines { first_index: self.next_index, lines: Vec::new() };
        let mut bytes = 0;
        while let Some(mut line) = self.pending.pop_front() {
            if line.len() > limits::LOG_LINE_BYTES {
                let end = (0..=limits::LOG_LINE_BYTES).rev().find(|&end| line.is_char_boundary(end));
                line.truncate(end.unwrap_or(0));
            }
            bytes += line.len();
            if bytes > limits::LOG_MESSAGE_BYTES && !message.lines.is_empty() {
                self.pending.push_front(line);
                break;
            }
            message.lines.push(line);
        }
        self.next_index += message.lines.len() as u64;
        message
    }
}

impl Stream for LogStream {
    type Item = Result<LogLines, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if !self.pending.is_empty() {
                return Poll::Ready(Some(Ok(self.take_message())));
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let found = self.source.log_lines(self.next_index);
            if found.lines.is_empty() {
                if !self.follow {
                    return Poll::Ready(None);
                }
                self.pause = Some(sleep(limits::LOG_POLL));
            } else {
                self.next_index = found.first_index;
                self.pending = found.lines.into();
            }
        }
    }
}
