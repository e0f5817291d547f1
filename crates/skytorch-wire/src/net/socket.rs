//! A stream socket, TCP or Unix, that never waits: the driver does.
//!
//! The subtle things: a call that came back short marks its direction as exhausted, so that the next one waits for
//! poll(2) instead of failing with EAGAIN; and a long read gives way after a megabyte, so that what was read is
//! consumed while it is still in the cache.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::process_unsafe::Lifetime;
use super::recorder::Recorder;
use super::socket_unsafe;
use crate::driver::Readiness;

/// Bytes after which a reader lets other tasks run.
const READ_BUDGET: usize = 1 << 20;

/// Bytes that crossed a socket.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// See the module. Dropping it ends the connection in both directions.
pub(crate) struct Socket {
    readiness: Arc<Readiness>,
    traffic: Arc<Traffic>,
    recorder: Option<Recorder>,
    read_since_pause: usize,
    lifetime: Lifetime,
}

impl Socket {
    pub(crate) fn new(fd: OwnedFd, traffic: Arc<Traffic>, recorder: Option<Recorder>) -> Socket {
        let readiness = Readiness::new(fd);
        Socket { readiness, traffic, recorder, read_since_pause: 0, lifetime: Lifetime::here() }
    }

    pub(crate) fn readiness(&self) -> Arc<Readiness> {
        self.readiness.clone()
    }

    /// Say that nothing more comes, and drop what still arrives until the peer has said so too.
    pub(crate) async fn linger(mut self) {
        let _ = rustix::net::shutdown(self.readiness.fd(), rustix::net::Shutdown::Write);
        let mut dropped = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut dropped);
            let read = poll_fn(|cx| Pin::new(&mut self).poll_read(cx, &mut buffer)).await;
            if read.is_err() || buffer.filled().is_empty() {
                return;
            }
        }
    }

    fn send(&self, cx: &Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let direction = &self.readiness.write;
        loop {
            if !direction.is_ready() {
                direction.register(cx);
                return Poll::Pending;
            }
            let mut control = SendAncillaryBuffer::default();
            match sendmsg(self.readiness.fd(), buffers, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    if let Some(recorder) = &self.recorder {
                        recorder.see(buffers);
                    }
                    self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => direction.exhausted(),
                Err(Errno::INTR) => {}
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let direction = &self.readiness.read;
            if !direction.is_ready() {
                direction.register(cx);
                self.read_since_pause = 0;
                return Poll::Pending;
            }
            if self.read_since_pause >= READ_BUDGET {
                self.read_since_pause = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let room = buffer.remaining();
            match socket_unsafe::recv_into(self.readiness.fd(), buffer) {
                Ok(count) => {
                    if count < room && count > 0 {
                        direction.exhausted();
                    }
                    self.traffic.received.fetch_add(count as u64, Ordering::Relaxed);
                    self.read_since_pause += count;
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => direction.exhausted(),
                Err(Errno::INTR) => {}
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.send(cx, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.send(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The peer sees the end when the socket is dropped; until then it may still be sending.
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The driver may keep the descriptor a little longer. A forked child must not end its parent's connection.
        if self.lifetime.is_here() {
            let _ = rustix::net::shutdown(self.readiness.fd(), rustix::net::Shutdown::Both);
        }
    }
}
