//! `metrics`, `logs` and `check_health`: a client's control calls, each over a connection of its own.
//!
//! The subtle thing is `close`, which may come from another thread while `__next__` waits: it ends that wait and
//! never waits itself.

use parking_lot::Mutex;
use pyo3::prelude::*;
use skytorch_wire::control::{self, Hangup};

use crate::leave::leave;
use crate::session::{Given, Tls, connect_options, seconds};
use crate::source::MetricTuple;

/// True when the server at `address` can take a session, false when it answers that it cannot.
#[pyfunction]
#[pyo3(signature = (address, *, token=None, tls=None, timeout_s=5.0))]
pub(crate) fn check_health(
    py: Python<'_>,
    address: String,
    token: Option<Given>,
    tls: Option<&Bound<'_, Tls>>,
    timeout_s: f64,
) -> PyResult<bool> {
    let options = connect_options(address, token, tls, timeout_s)?;
    leave(py, || control::check_health(&options))
}

/// The server's snapshots, one at once and then one every `interval_s`.
#[pyfunction]
#[pyo3(signature = (address, *, token=None, tls=None, interval_s=1.0, timeout_s=30.0))]
pub(crate) fn metrics(
    py: Python<'_>,
    address: String,
    token: Option<Given>,
    tls: Option<&Bound<'_, Tls>>,
    interval_s: f64,
    timeout_s: f64,
) -> PyResult<Snapshots> {
    let options = connect_options(address, token, tls, timeout_s)?;
    let interval = seconds("interval_s", interval_s)?;
    let hangup = Hangup::default();
    let inner = leave(py, || control::Snapshots::open(&options, interval, hangup.clone()))?;
    Ok(Snapshots { inner: Mutex::new(Some(inner)), hangup })
}

/// The server's log lines that it keeps; with `follow`, also those to come.
#[pyfunction]
#[pyo3(signature = (address, *, token=None, tls=None, follow=false, timeout_s=30.0))]
pub(crate) fn logs(
    py: Python<'_>,
    address: String,
    token: Option<Given>,
    tls: Option<&Bound<'_, Tls>>,
    follow: bool,
    timeout_s: f64,
) -> PyResult<Logs> {
    let options = connect_options(address, token, tls, timeout_s)?;
    let hangup = Hangup::default();
    let inner = leave(py, || control::Logs::open(&options, follow, hangup.clone()))?;
    Ok(Logs { inner: Mutex::new(Some(inner)), hangup })
}

/// The next item of an iterator, waited for outside Python; the iterator is dropped at its end.
fn next<I, T>(py: Python<'_>, inner: &Mutex<Option<I>>) -> PyResult<Option<T>>
where
    I: Iterator<Item = skytorch_wire::error::Result<T>> + Send,
    T: Send,
{
    leave(py, || {
        let mut inner = inner.lock();
        let item = inner.as_mut().and_then(Iterator::next).transpose();
        if matches!(item, Ok(None)) {
            *inner = None;
        }
        item
    })
}

/// Hang up; if somebody waits, it is that thread that does.
fn close<I>(inner: &Mutex<Option<I>>, hangup: &Hangup) {
    hangup.raise();
    if let Some(mut inner) = inner.try_lock() {
        *inner = None;
    }
}

/// Iterator of (unix time in seconds, [(name, value, unit, labels), ...]).
#[pyclass(frozen, module = "skytorch._wire")]
pub(crate) struct Snapshots {
    inner: Mutex<Option<control::Snapshots>>,
    hangup: Hangup,
}

#[pymethods]
impl Snapshots {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<(f64, Vec<MetricTuple>)>> {
        let Some(snapshot) = next(py, &self.inner)? else { return Ok(None) };
        let metrics =
            snapshot.metrics.into_iter().map(|metric| (metric.name, metric.value, metric.unit, metric.labels));
        Ok(Some((snapshot.unix_ms as f64 / 1000.0, metrics.collect())))
    }

    /// Hang up; a `next` that waits in another thread ends.
    fn close(&self) {
        close(&self.inner, &self.hangup);
    }
}

/// Iterator of log lines.
#[pyclass(frozen, module = "skytorch._wire")]
pub(crate) struct Logs {
    inner: Mutex<Option<control::Logs>>,
    hangup: Hangup,
}

#[pymethods]
impl Logs {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        next(py, &self.inner)
    }

    /// Hang up; a `next` that waits in another thread ends.
    fn close(&self) {
        close(&self.inner, &self.hangup);
    }
}
