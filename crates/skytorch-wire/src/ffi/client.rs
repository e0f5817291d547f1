//! The client's table. A session pointer is an `Arc<ClientSession>`; the stream lock crosses as "held by this thread".

use std::ffi::c_void;
use std::mem::{ManuallyDrop, forget};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::guard::{call, quiet};
use crate::abi::*;
use crate::client::{ClientSession, Destination, Source, Stream};
use crate::codec::{Part, raw};
use crate::error::WireError;
use crate::lane::Borrowed;

static API: SkyClientApi = SkyClientApi {
    abi_version: SKY_ABI_VERSION,
    size: size_of::<SkyClientApi>() as u32,
    retain,
    release,
    lock,
    unlock,
    define,
    op,
    alloc,
    resize,
    free,
    call: call_,
    ask,
    query,
    reply_free,
    read,
    write,
    send_between,
    can_send,
    flush,
    stats,
    slots,
};

/// The client's half of the C ABI.
pub fn client_api() -> &'static SkyClientApi {
    &API
}

/// # Safety
/// `s` came from `ClientSession::as_raw` and has not been released for the last time.
unsafe fn session<'a>(s: *const SkySession) -> &'a ClientSession {
    // SAFETY: the caller's promise.
    unsafe { &*s.cast::<ClientSession>() }
}

/// The stream of a session whose lock this thread holds; the lock stays held.
///
/// # Safety
/// As [`session`], and this thread holds the lock.
unsafe fn held<'a>(session: &'a ClientSession) -> ManuallyDrop<MutexGuard<'a, Stream>> {
    // SAFETY: the caller's promise; a second guard of the same lock is never alive at the same time, because the
    // first was forgotten when the lock crossed the ABI.
    ManuallyDrop::new(unsafe { session.stream_lock().make_guard_unchecked() })
}

unsafe extern "C" fn retain(s: *const SkySession) {
    // SAFETY: `s` is a live `Arc<ClientSession>`.
    unsafe { Arc::increment_strong_count(s.cast::<ClientSession>()) };
}

unsafe extern "C" fn release(s: *const SkySession) {
    quiet((), || {
        // SAFETY: as in `session`; this gives up one reference that `retain` made.
        unsafe {
            // A forked child leaves everything as it is: what the parent's threads held locked stays so.
            if session(s).is_of_this_process() {
                Arc::decrement_strong_count(s.cast::<ClientSession>());
            }
        }
    });
}

unsafe extern "C" fn lock(s: *const SkySession, err: *mut SkyError) -> u32 {
    call(err, || {
        // SAFETY: see `session`.
        forget(unsafe { session(s) }.lock()?);
        Ok(())
    })
}

unsafe extern "C" fn unlock(s: *const SkySession) {
    quiet((), || {
        // SAFETY: see `session` and `held`; here the guard releases the lock.
        let (session, stream) = unsafe { (session(s), held(session(s))) };
        session.unlock(ManuallyDrop::into_inner(stream));
    });
}

unsafe extern "C" fn define(s: *const SkySession, slot: u32, t: *const SkyTemplate, err: *mut SkyError) -> u32 {
    call(err, || {
        // SAFETY: see `session`, `held` and `raw::template`.
        let (session, mut stream, template) = unsafe { (session(s), held(session(s)), raw::template(t)?) };
        session.append(&mut stream, |stream, link| stream.define(link, slot, &template))
    })
}

unsafe extern "C" fn op(
    s: *const SkySession,
    slot: u32,
    storages: *const u64,
    n_storages: u32,
    scalars: *const SkyScalar,
    n_scalars: u32,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`; the arrays hold as many values as they say.
        let (session, mut stream, storages, scalars) = unsafe {
            let session = session(s);
            (
                session,
                held(session),
                raw::slice(storages, n_storages as usize),
                raw::slice(scalars, n_scalars as usize),
            )
        };
        session.append(&mut stream, |stream, link| stream.op(link, slot, storages, scalars))
    })
}

unsafe extern "C" fn alloc(s: *const SkySession, storage: u64, n_bytes: u64, device: u32, err: *mut SkyError) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`.
        let (session, mut stream) = unsafe { (session(s), held(session(s))) };
        session.append(&mut stream, |stream, link| stream.alloc(link, storage, n_bytes, device))
    })
}

unsafe extern "C" fn resize(s: *const SkySession, storage: u64, n_bytes: u64, err: *mut SkyError) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`.
        let (session, mut stream) = unsafe { (session(s), held(session(s))) };
        session.append(&mut stream, |stream, link| stream.resize(link, storage, n_bytes))
    })
}

unsafe extern "C" fn free(s: *const SkySession, storages: *const u64, n: u32, err: *mut SkyError) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`; the array holds `n` values.
        let (session, mut stream, storages) =
            unsafe { (session(s), held(session(s)), raw::slice(storages, n as usize)) };
        session.append(&mut stream, |stream, link| stream.free(link, storages))
    })
}

unsafe extern "C" fn call_(
    s: *const SkySession,
    method: u32,
    args: *const i64,
    n_args: u32,
    payload: SkyBytes,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`; the arrays hold as many values as they say.
        let (session, mut stream, args, payload) =
            unsafe { (session(s), held(session(s)), raw::slice(args, n_args as usize), raw::bytes(payload)) };
        session.append(&mut stream, |stream, link| stream.call(link, method, args, payload, 0))
    })
}

unsafe extern "C" fn ask(
    s: *const SkySession,
    method: u32,
    args: *const i64,
    n_args: u32,
    payload: SkyBytes,
    reply: *mut *mut SkyReply,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`; the guard releases the lock inside.
        let (session, stream, args, payload) =
            unsafe { (session(s), held(session(s)), raw::slice(args, n_args as usize), raw::bytes(payload)) };
        let answer = session.ask(ManuallyDrop::into_inner(stream), method, args, payload)?;
        // SAFETY: the ABI says that `reply` can be written.
        unsafe { *reply = raw::reply_into_raw(answer) };
        Ok(())
    })
}

unsafe extern "C" fn query(
    s: *const SkySession,
    slot: u32,
    storages: *const u64,
    n_storages: u32,
    n_outputs: u32,
    scalars: *const SkyScalar,
    n_scalars: u32,
    reply: *mut *mut SkyReply,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`; the guard releases the lock inside.
        let (session, stream, storages, scalars) = unsafe {
            let session = session(s);
            (
                session,
                held(session),
                raw::slice(storages, n_storages as usize),
                raw::slice(scalars, n_scalars as usize),
            )
        };
        let answer = session.query(ManuallyDrop::into_inner(stream), slot, storages, n_outputs, scalars)?;
        // SAFETY: the ABI says that `reply` can be written.
        unsafe { *reply = raw::reply_into_raw(answer) };
        Ok(())
    })
}

unsafe extern "C" fn reply_free(reply: *mut SkyReply) {
    // SAFETY: `reply` came from `ask` or `query` and is given back once.
    quiet((), || unsafe { raw::reply_free(reply) });
}

unsafe extern "C" fn read(
    s: *const SkySession,
    slot: u32,
    storage: u64,
    dst: *mut u8,
    n_bytes: u64,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`; `dst` is writable for `n_bytes` until this returns, and the destination
        // does not outlive the call (see `Destination`).
        let (session, stream, destination) =
            unsafe { (session(s), held(session(s)), Destination::new(dst, n_bytes)) };
        session.read(ManuallyDrop::into_inner(stream), slot, storage, destination)
    })
}

/// The context of a `release` function, which may be called on any thread.
struct Context(*mut c_void);

// SAFETY: the ABI says that `release(ctx)` may be called from any thread.
unsafe impl Send for Context {}

unsafe extern "C" fn write(
    s: *const SkySession,
    slot: u32,
    storage: u64,
    src: *const u8,
    n_bytes: u64,
    release: SkyRelease,
    ctx: *mut c_void,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session` and `held`; the guard releases the lock inside.
        let (session, stream) = unsafe { (session(s), ManuallyDrop::into_inner(held(session(s)))) };
        let Ok(bytes) = usize::try_from(n_bytes) else {
            return Err(WireError::argument("a write larger than memory"));
        };
        let Some(release) = release else {
            // SAFETY: `src` is readable until this returns, and `write` keeps no reference longer than that.
            let data = unsafe { raw::slice(src, bytes) };
            return session.write(stream, slot, storage, Source::Blocking(data));
        };
        let context = Context(ctx);
        let on_drop = move || {
            let context = context;
            // SAFETY: called once, when nothing refers to the bytes any more, as the ABI says.
            unsafe { release(context.0) };
        };
        // SAFETY: the bytes are borrowed until `release(ctx)` is called.
        let data = unsafe { Borrowed::lent_by(src, bytes, on_drop) };
        session.write(stream, slot, storage, Source::Held(data))
    })
}

unsafe extern "C" fn send_between(
    src: *const SkySession,
    src_slot: u32,
    src_storage: u64,
    dst: *const SkySession,
    dst_slot: u32,
    dst_storage: u64,
    n_bytes: u64,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        if std::ptr::eq(src, dst) {
            return Err(WireError::argument("a copy between two sessions within one; copy on the server instead"));
        }
        // SAFETY: see `session` and `held`, for two different sessions; both locks stay held.
        let (from, mut from_stream, to, mut to_stream) =
            unsafe { (session(src), held(session(src)), session(dst), held(session(dst))) };
        from.send_between(
            &mut from_stream,
            Part::new(src_slot, src_storage),
            to,
            &mut to_stream,
            Part::new(dst_slot, dst_storage),
            n_bytes,
        )
    })
}

unsafe extern "C" fn can_send(
    src: *const SkySession,
    dst: *const SkySession,
    can: *mut u32,
    err: *mut SkyError,
) -> u32 {
    call(err, || {
        // SAFETY: see `session`.
        let reachable = unsafe { session(src).can_send(session(dst)) }?;
        // SAFETY: the ABI says that `can` can be written.
        unsafe { *can = u32::from(reachable) };
        Ok(())
    })
}

unsafe extern "C" fn flush(s: *const SkySession) {
    // SAFETY: see `session`.
    quiet((), || unsafe { session(s) }.flush());
}

unsafe extern "C" fn slots(s: *const SkySession) -> u32 {
    // SAFETY: see `session`.
    quiet(0, || unsafe { session(s) }.slots())
}

unsafe extern "C" fn stats(s: *const SkySession, out: *mut SkyStats) {
    // SAFETY: see `session`; `out` can be written.
    quiet((), || unsafe { *out = session(s).stats() });
}
