//! The server's table. A server pointer is an `Arc<Server>` that Python holds; a session pointer is a
//! `Box<ServerSession>` that the executor owns until it closes it.

use std::time::Duration;

use super::guard::{call, quiet};
use super::landing::LandingApi;
use crate::abi::*;
use crate::codec::raw;
use crate::error::{Code, WireError};
use crate::server::{Server, ServerSession};

static API: SkyServerApi = SkyServerApi {
    abi_version: SKY_ABI_VERSION,
    size: size_of::<SkyServerApi>() as u32,
    set_landing,
    accept,
    next,
    reply_bytes,
    reply,
    reply_error,
    send,
    probe,
    session_dead,
    session_close,
};

/// The server's half of the C ABI.
pub fn server_api() -> &'static SkyServerApi {
    &API
}

/// # Safety
/// `s` came from `accept`, was not closed, and this is the executor's thread.
unsafe fn session<'a>(s: *mut SkyServerSession) -> &'a mut ServerSession {
    // SAFETY: the caller's promise.
    unsafe { &mut *s.cast::<ServerSession>() }
}

unsafe extern "C" fn set_landing(server: *const SkyServer, landing: *const SkyLandingApi) {
    quiet((), || {
        // SAFETY: `server` is a live server; `landing` is null or lives for the call, its functions longer.
        unsafe {
            let api = landing.as_ref().map(|api| LandingApi::new(*api));
            (*server.cast::<Server>()).shared.set_landing(api);
        }
    });
}

unsafe extern "C" fn accept(
    server: *const SkyServer,
    timeout_ms: u32,
    out: *mut *mut SkyServerSession,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: `server` is a live server.
        let server = unsafe { &*server.cast::<Server>() };
        let session = server.accept(Duration::from_millis(u64::from(timeout_ms)))?;
        // SAFETY: `out` can be written.
        unsafe { *out = Box::into_raw(session).cast() };
        Ok(())
    })
}

unsafe extern "C" fn next(s: *mut SkyServerSession, timeout_ms: u32, out: *mut SkyBatch, err: *mut SkyError) -> u32 {
    call(err, || {
        // SAFETY: see `session`.
        let batch = unsafe { session(s) }.next(Duration::from_millis(u64::from(timeout_ms)))?;
        let batch = batch.ok_or_else(|| WireError::new(Code::Timeout, "no message yet"))?;
        // SAFETY: `out` can be written.
        unsafe { *out = batch };
        Ok(())
    })
}

unsafe extern "C" fn reply_bytes(
    s: *mut SkyServerSession,
    request: u64,
    total: u64,
    data: *const u8,
    n: u64,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session`; `data` is readable for `n` bytes until this returns.
        let (session, data) = unsafe { (session(s), raw::slice(data, n as usize)) };
        session.reply_bytes(request, total, data)
    })
}

unsafe extern "C" fn reply(
    s: *mut SkyServerSession,
    request: u64,
    reply: *const SkyReply,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session`; `reply` and what it points to lives for the call.
        let (session, reply) = unsafe { (session(s), raw::reply(reply)?) };
        session.reply(request, &reply)
    })
}

unsafe extern "C" fn reply_error(
    s: *mut SkyServerSession,
    request: u64,
    code: u32,
    message: SkyBytes,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session`; the message lives for the call.
        let (session, message) = unsafe { (session(s), raw::bytes(message)) };
        session.reply_error(request, code, &String::from_utf8_lossy(message))
    })
}

unsafe extern "C" fn send(
    s: *mut SkyServerSession,
    target: SkyBytes,
    pieces: *const SkyBytes,
    n_pieces: u32,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session`; the arrays and what they point to live for the call.
        let (session, target, pieces) =
            unsafe { (session(s), raw::bytes(target), raw::slice(pieces, n_pieces as usize)) };
        // SAFETY: as above.
        let pieces: Vec<&[u8]> = pieces.iter().map(|&piece| unsafe { raw::bytes(piece) }).collect();
        session.send(target, &pieces)
    })
}

unsafe extern "C" fn probe(s: *mut SkyServerSession, address: SkyBytes) -> u32 {
    quiet(0, || {
        // SAFETY: see `session`; the address lives for the call.
        let (session, address) = unsafe { (session(s), raw::bytes(address)) };
        std::str::from_utf8(address).map_or(0, |address| u32::from(session.probe(address)))
    })
}

unsafe extern "C" fn session_dead(s: *const SkyServerSession) -> u32 {
    // SAFETY: see `session`; only atomics are read.
    quiet(1, || u32::from(unsafe { &*s.cast::<ServerSession>() }.is_dead()))
}

unsafe extern "C" fn session_close(s: *mut SkyServerSession, code: u32, message: SkyBytes) {
    quiet((), || {
        // SAFETY: `s` came from `accept` and is given back here; the message lives for the call.
        let (session, message) = unsafe { (Box::from_raw(s.cast::<ServerSession>()), raw::bytes(message)) };
        session.close(Code::from_number(code).unwrap_or(Code::Internal), &String::from_utf8_lossy(message));
    });
}
