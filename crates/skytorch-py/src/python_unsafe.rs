//! All unsafe code of this crate: the GIL around waits that C++ starts, and the capsules.
//!
//! A wait begins on whatever thread called into C++, with the GIL (straight from Python) or without it (torch has
//! released it; an autograd thread). So the hooks use CPython's own functions and not pyo3's, whose count of
//! attachments does not know of calls that reach Rust through C++. The subtle thing: `PyGILState_Check` is not in
//! the stable ABI, though every CPython exports it, and is therefore looked up by name.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use skytorch_wire::hooks::{WaitHooks, set_hooks};

/// What the hooks need to know about this process's Python. Hooks are plain functions, so it has no other owner.
struct Interpreter {
    holds_gil: unsafe extern "C" fn() -> c_int,
    is_finalizing: unsafe extern "C" fn() -> c_int,
    /// `threading.main_thread().ident`: the only thread on which Python runs signal handlers.
    main_thread: libc::pthread_t,
}

static INTERPRETER: OnceLock<Interpreter> = OnceLock::new();

thread_local! {
    /// What a signal handler raised in this thread's last wait, until whoever waited takes it.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Look CPython's functions up and give `skytorch-wire` its hooks. Once per process; later calls change nothing.
pub(crate) fn install_hooks(py: Python<'_>) -> PyResult<()> {
    let main_thread = py.import("threading")?.call_method0("main_thread")?.getattr("ident")?.extract()?;
    let interpreter = Interpreter {
        holds_gil: status_function(&[c"PyGILState_Check"])?,
        is_finalizing: status_function(&[c"Py_IsFinalizing", c"_Py_IsFinalizing"])?,
        main_thread,
    };
    if INTERPRETER.set(interpreter).is_ok() {
        set_hooks(WaitHooks { enter_wait, leave_wait, interrupted });
    }
    Ok(())
}

/// The first of `names` that this process exports: a CPython function without arguments that answers an int.
fn status_function(names: &[&CStr]) -> PyResult<unsafe extern "C" fn() -> c_int> {
    for name in names {
        // SAFETY: `name` is zero-terminated, and RTLD_DEFAULT may be searched at any time.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        if !found.is_null() {
            // SAFETY: CPython declares each function asked for here as `int name(void)`, in all versions from 3.11.
            return Ok(unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(found) });
        }
    }
    let name = names[0].to_string_lossy();
    Err(PyImportError::new_err(format!("this interpreter does not export {name}: use CPython 3.11 or newer")))
}

/// True once the interpreter is shutting down, when no thread but its own may attach any more.
pub(crate) fn finalizing() -> bool {
    // SAFETY: the function only reads a flag and may be called at any time on any thread.
    INTERPRETER.get().is_some_and(|python| unsafe { (python.is_finalizing)() } != 0)
}

/// Hook: give the GIL up if this thread has it.
fn enter_wait() -> usize {
    let Some(python) = INTERPRETER.get() else { return 0 };
    // SAFETY: PyGILState_Check may be called on any thread. PyEval_SaveThread is called only where it says that this
    // thread holds the GIL, and its thread state goes back exactly once, through `leave_wait` on the same thread.
    unsafe { if (python.holds_gil)() == 1 { ffi::PyEval_SaveThread() as usize } else { 0 } }
}

/// Hook: take it back.
fn leave_wait(state: usize) {
    if state != 0 {
        // SAFETY: `state` is what PyEval_SaveThread answered to `enter_wait` on this thread, and is used once.
        unsafe { ffi::PyEval_RestoreThread(state as *mut ffi::PyThreadState) }
    }
}

/// Hook: run the signal handlers that are due. True when one of them raised.
fn interrupted() -> bool {
    // SAFETY: pthread_self has no preconditions.
    let this_thread = unsafe { libc::pthread_self() };
    if INTERPRETER.get().is_none_or(|python| python.main_thread != this_thread) {
        return false;
    }
    // SAFETY: the main thread may attach for as long as the interpreter lives, also while it shuts down. Ensure and
    // Release pair up on this thread, and in between the token is valid.
    unsafe {
        let state = ffi::PyGILState_Ensure();
        let raised = Python::assume_attached().check_signals().err();
        let interrupted = raised.is_some();
        if interrupted {
            RAISED.set(raised);
        }
        ffi::PyGILState_Release(state);
        interrupted
    }
}

/// What a signal handler raised during this thread's last wait; the next call has nothing.
pub(crate) fn take_raised() -> Option<PyErr> {
    RAISED.take()
}

/// A capsule that holds the address of a table.
pub(crate) fn capsule<'py, T>(
    py: Python<'py>,
    table: &'static T,
    name: &'static CStr,
) -> PyResult<Bound<'py, PyCapsule>> {
    let pointer = NonNull::from(table).cast::<c_void>();
    // SAFETY: the table lives as long as the process and is never written to.
    unsafe { PyCapsule::new_with_pointer(py, pointer, name) }
}
