//! A server's measurements and log lines, from two Python callables.
//!
//! Called on control threads that hold nothing; the GIL is taken for the call. The subtle thing: a callable that
//! raises is logged the first time (through `logging`, as "skytorch.server") and counts as having said nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use skytorch_wire::control::ControlSource;
use skytorch_wire::proto::{LogLines, Metric};

use crate::python_unsafe;

/// (name, value, unit, labels)
pub(crate) type MetricTuple = (String, f64, String, BTreeMap<String, String>);

/// One callable that may be absent, and whether it has been complained about.
#[derive(Default)]
struct Callable {
    /// Locked only for the moment of a copy, with the GIL held.
    function: Mutex<Option<Py<PyAny>>>,
    complained: AtomicBool,
}

impl Callable {
    fn set(&self, function: Option<Py<PyAny>>) {
        // The old one is dropped after the lock: that may run Python code.
        let old = std::mem::replace(&mut *self.function.lock(), function);
        drop(old);
        self.complained.store(false, Ordering::Relaxed);
    }

    /// Its answer to the arguments; `None` if there is no callable, no Python any more, or an exception.
    fn ask<T>(&self, what: &str, ask: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> Option<T> {
        if python_unsafe::finalizing() {
            return None;
        }
        Python::try_attach(|py| {
            let function = self.function.lock().as_ref().map(|function| function.clone_ref(py))?;
            match ask(function.bind(py)) {
                Ok(answer) => Some(answer),
                Err(error) => {
                    if !self.complained.swap(true, Ordering::Relaxed) {
                        complain(py, what, error);
                    }
                    None
                }
            }
        })?
    }
}

/// One line with its traceback in the program's log.
fn complain(py: Python<'_>, what: &str, error: PyErr) {
    let log = || -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", ("skytorch.server",))?;
        let options = PyDict::new(py);
        options.set_item("exc_info", error.clone_ref(py))?;
        let text = format!("the {what} source raised; this is said once and it goes on being asked");
        logger.call_method("error", (text,), Some(&options))?;
        Ok(())
    };
    if let Err(failed) = log() {
        failed.write_unraisable(py, None);
    }
}

/// The source that a `Server` hands to its control calls.
#[derive(Default)]
pub(crate) struct PythonSource {
    metrics: Callable,
    logs: Callable,
}

impl PythonSource {
    pub(crate) fn set_metrics(&self, function: Option<Py<PyAny>>) {
        self.metrics.set(function);
    }

    pub(crate) fn set_logs(&self, function: Option<Py<PyAny>>) {
        self.logs.set(function);
    }
}

impl ControlSource for PythonSource {
    fn metrics(&self) -> Vec<Metric> {
        let found = self.metrics.ask("metrics", |function| function.call0()?.extract::<Vec<MetricTuple>>());
        let metric = |(name, value, unit, labels)| Metric { name, value, unit, labels };
        found.unwrap_or_default().into_iter().map(metric).collect()
    }

    fn log_lines(&self, from_index: u64) -> LogLines {
        let found = self.logs.ask("log", |function| function.call1((from_index,))?.extract::<(u64, Vec<String>)>());
        let (first_index, lines) = found.unwrap_or((from_index, Vec::new()));
        LogLines { first_index, lines }
    }
}
