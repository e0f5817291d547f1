//! Unsafe: reading into memory that is not initialised, and the bridge between hyper's and tokio's read buffers.
//!
//! It exists so that a megabyte of buffer is not zeroed before each `recv`.
#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::ReadBufCursor;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, ReadBuf};

/// `recv` without waiting into the free part of `buffer`; answers how many bytes came.
pub(super) fn recv_into(fd: impl AsFd, buffer: &mut ReadBuf<'_>) -> rustix::io::Result<usize> {
    // SAFETY: nothing is de-initialised: the slice is only handed to `recv`, which writes to it.
    let free = unsafe { buffer.unfilled_mut() };
    let (filled, _) = recv(fd, free, RecvFlags::DONTWAIT)?;
    let count = filled.0.len();
    // SAFETY: `recv` initialised the first `count` bytes of the free part.
    unsafe { buffer.assume_init(count) };
    buffer.advance(count);
    Ok(count)
}

/// hyper's read on a tokio stream.
pub(super) fn poll_read<T: AsyncRead>(
    stream: Pin<&mut T>,
    cx: &mut Context<'_>,
    mut cursor: ReadBufCursor<'_>,
) -> Poll<std::io::Result<()>> {
    let count = {
        // SAFETY: `ReadBuf` only ever initialises bytes of the slice, never the reverse.
        let mut buffer = ReadBuf::uninit(unsafe { cursor.as_mut() });
        std::task::ready!(stream.poll_read(cx, &mut buffer))?;
        buffer.filled().len()
    };
    // SAFETY: the first `count` bytes of the cursor's free part were filled just now.
    unsafe { cursor.advance(count) };
    Poll::Ready(Ok(()))
}
