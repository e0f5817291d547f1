//! A byte stream with or without TLS, as hyper sees it, and how a client gets one.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::ReadBufCursor;
use rustix::net::sockopt;
use tokio::io::AsyncWrite;
use tokio_rustls::TlsStream;

use super::address::Address;
use super::listener::check_peer;
use super::recorder::Recorder;
use super::socket::{Socket, Traffic};
use super::socket_unsafe;
use crate::error::{Code, WireError};

/// See the module.
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

macro_rules! on_stream {
    ($self:ident, $stream:ident => $body:expr) => {
        match $self.get_mut() {
            Stream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $body
            }
            Stream::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $body
            }
        }
    };
}

impl hyper::rt::Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => socket_unsafe::poll_read(stream, cx, cursor))
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(cx, buffer))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(cx))
    }
}

/// How long a TCP connection is silent before the kernel asks, how often it asks, and how many times in vain.
const TCP_KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Send at once, and find out about a peer that vanished.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, TCP_KEEPALIVE.0)?;
    sockopt::set_tcp_keepintvl(stream, TCP_KEEPALIVE.1)?;
    sockopt::set_tcp_keepcnt(stream, TCP_KEEPALIVE.2)?;
    Ok(())
}

/// An error of ours among those of the system; `unreachable` takes it out again.
fn refused(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, error)
}

fn open(address: &Address, deadline: Instant) -> io::Result<OwnedFd> {
    if let Address::Unix(path) = address {
        let stream = UnixStream::connect(path)?;
        check_peer(&stream, "the server").map_err(refused)?;
        return Ok(stream.into());
    }
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for target in address.resolve().map_err(refused)? {
        if matches!(address, Address::Tcp(..)) && !target.ip().is_loopback() {
            let text =
                "tcp:// would show the token to the network; use tls://, or a tunnel that ends on this machine";
            return Err(refused(WireError::argument(text)));
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&target, left) {
            Ok(stream) => {
                tune(&stream)?;
                return Ok(stream.into());
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Connect to `address`; the TLS handshake, if any, is still to come.
pub(crate) fn dial(
    address: &Address,
    deadline: Instant,
    traffic: Arc<Traffic>,
    recorder: Option<Recorder>,
) -> io::Result<Socket> {
    Ok(Socket::new(open(address, deadline)?, traffic, recorder))
}

/// Why nobody could be dialled, in words.
pub(crate) fn unreachable(address: &Address, e: &io::Error) -> WireError {
    if let Some(ours) = e.get_ref().and_then(|e| e.downcast_ref::<WireError>()) {
        return WireError::new(ours.code, format!("cannot connect to {address}: {ours}"));
    }
    let hint = match e.kind() {
        _ if nobody_listens(e) => "is the server running?",
        io::ErrorKind::TimedOut => "is the address right and the port open?",
        _ => "check the address",
    };
    WireError::new(Code::Unreachable, format!("nothing answers at {address}: {e}; {hint}"))
}

/// The machine is there and the server is not.
pub(crate) fn nobody_listens(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
