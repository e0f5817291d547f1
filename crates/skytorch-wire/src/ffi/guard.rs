//! From Rust's results and panics to a code and a message.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{SKY_ERR_INTERNAL, SKY_MESSAGE_BYTES, SKY_OK, SkyError};
use crate::error::{Code, Result, WireError};

/// Run `body`; on failure fill `err`, which may be null, and answer the code.
#[inline]
pub(super) fn call(err: *mut SkyError, body: impl FnOnce() -> Result<()>) -> u32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SKY_OK,
        Ok(Err(error)) => fill(err, &error),
        Err(panic) => fill(err, &panicked(&*panic)),
    }
}

/// Run `body`, which has no way to report a failure; `otherwise` if it panics.
#[inline]
pub(super) fn quiet<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(panic) => {
            tracing::error!("{}", panicked(&*panic));
            otherwise
        }
    }
}

#[cold]
fn panicked(panic: &(dyn std::any::Any + Send)) -> WireError {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    WireError::new(
        Code::Internal,
        format!("a mistake in skytorch-wire: {}; please report it", text.unwrap_or("panic")),
    )
}

#[cold]
fn fill(err: *mut SkyError, error: &WireError) -> u32 {
    let code = if error.code == Code::Ok { SKY_ERR_INTERNAL } else { error.code.number() };
    // SAFETY: the ABI says that `err` is null or points to a writable SkyError.
    if let Some(err) = unsafe { err.as_mut() } {
        err.code = code;
        let mut end = error.message.len().min(SKY_MESSAGE_BYTES - 1);
        while !error.message.is_char_boundary(end) {
            end -= 1;
        }
        err.message[..end].copy_from_slice(&error.message.as_bytes()[..end]);
        err.message[end] = 0;
    }
    code
}
