//! Leaving Python for something that may wait, and coming back with what went wrong.
//!
//! The one helper for all blocking calls, and the one place where a `WireError` becomes a Python exception: the
//! class comes from `skytorch.errors.from_code`, so that there is one table. The subtle thing is Ctrl-C: waits in
//! `skytorch-wire` look at signals every 100 ms through the hooks and end as INTERRUPTED; what a signal handler
//! raised meanwhile is kept for this thread and raised here, so that it need not be KeyboardInterrupt.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use skytorch_wire::error::{Code, Result, WireError};

use crate::python_unsafe;

/// Run `wait` without the GIL. A panic is an `InternalError`: no type of pyo3's reaches the user.
pub(crate) fn leave<T: Send>(py: Python<'_>, wait: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let guarded = || catch_unwind(AssertUnwindSafe(wait)).unwrap_or_else(|payload| Err(panicked(&*payload)));
    py.detach(guarded).map_err(|error| match error.code {
        Code::Interrupted => {
            python_unsafe::take_raised().unwrap_or_else(|| PyKeyboardInterrupt::new_err(error.message))
        }
        _ => exception(py, error),
    })
}

fn panicked(payload: &(dyn std::any::Any + Send)) -> WireError {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("no message");
    WireError::new(Code::Internal, format!("the wire core panicked: {text}; please report it"))
}

/// The Python exception for an error of the wire.
pub(crate) fn exception(py: Python<'_>, error: WireError) -> PyErr {
    py.import("skytorch.errors")
        .and_then(|errors| errors.call_method1("from_code", (error.code.number(), error.message)))
        .map_or_else(|failed| failed, PyErr::from_value)
}
