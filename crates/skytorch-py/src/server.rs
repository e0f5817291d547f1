//! `Server`: the listening side as Python sees it. Sessions go to the executor, which takes the server's address
//! and the C table; only metrics, logs and health come back into Python.
//!
//! The subtle thing is `stop`: it waits for control threads, which may be asking Python, so it leaves the GIL. It
//! also lets go of the two callables, which may well hold this object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use skytorch_wire::control::Control;
use skytorch_wire::net::{Credential, DeviceInfo};
use skytorch_wire::server::{self, ServerOptions};

use crate::leave::{exception, leave};
use crate::session::{Given, Tls, tls_options};
use crate::source::PythonSource;

/// A server that listens from `start` to `stop`. The addresses are bound when it is made.
#[pyclass(frozen, module = "skytorch._wire")]
pub(crate) struct Server {
    inner: Arc<server::Server>,
    source: Arc<PythonSource>,
    control: Control,
}

#[pymethods]
impl Server {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "they are keywords of a Python constructor")]
    #[pyo3(signature = (
        listen, *, devices, token=None, tls=None, torch_version="", version="", limits=None, bulk_checksum=true,
        health=None
    ))]
    fn new(
        py: Python<'_>,
        listen: Vec<String>,
        devices: Vec<(String, String)>,
        token: Option<Given>,
        tls: Option<&Bound<'_, Tls>>,
        torch_version: &str,
        version: &str,
        limits: Option<BTreeMap<String, u32>>,
        bulk_checksum: bool,
        health: Option<String>,
    ) -> PyResult<Server> {
        let mut options = ServerOptions {
            listen,
            token: token.map(Credential::from),
            tls: tls_options(tls),
            devices: devices.iter().map(|(name, label)| device(name, label)).collect::<PyResult<_>>()?,
            torch_version: torch_version.to_owned(),
            version: version.to_owned(),
            bulk_checksum,
            health,
            ..ServerOptions::default()
        };
        for (name, value) in limits.unwrap_or_default() {
            set_limit(&mut options, &name, value)?;
        }
        let inner = server::Server::bind(options).map_err(|error| exception(py, error))?;
        let source = Arc::new(PythonSource::default());
        let control = Control::new(source.clone());
        inner.set_control_service(control.service());
        Ok(Server { inner, source, control })
    }

    /// Listen. Sessions wait until the executor accepts them.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        leave(py, || self.inner.start())?;
        self.control.set_serving(true);
        Ok(())
    }

    /// Say NOT_SERVING, then end the session, hang up on everybody and stop listening; `health_address` goes on to
    /// answer until the end of this object. A second call does nothing.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.control.set_serving(false);
        leave(py, || {
            self.inner.stop();
            Ok(())
        })?;
        self.source.set_metrics(None);
        self.source.set_logs(None);
        Ok(())
    }

    /// Where it listens, with the ports that were found for port 0.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.inner.addresses()
    }

    /// Where probes of health are answered without TLS and token.
    #[getter]
    fn health_address(&self) -> Option<String> {
        self.inner.health_address()
    }

    /// Address of the server for the executor's `serve`.
    #[getter]
    fn pointer(&self) -> usize {
        self.inner.as_raw() as usize
    }

    /// The callable that answers the present measurements as (name, value, unit, labels).
    fn set_metrics_source(&self, source: Option<Py<PyAny>>) {
        self.source.set_metrics(source);
    }

    /// The callable that answers the log lines from an index on, with the index of the first.
    fn set_log_source(&self, source: Option<Py<PyAny>>) {
        self.source.set_logs(source);
    }

    /// Counters and the state of the session.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.inner.counters();
        let dict = PyDict::new(py);
        dict.set_item("session_active", counters.session_age.is_some())?;
        dict.set_item("session_age_s", counters.session_age.map(|age| age.as_secs_f64()))?;
        dict.set_item("idle_s", counters.idle.as_secs_f64())?;
        dict.set_item("connected", counters.connected)?;
        dict.set_item("unused_s", counters.unused.as_secs_f64())?;
        dict.set_item("sessions_served", counters.sessions_served)?;
        dict.set_item("connections", counters.connections)?;
        dict.set_item("bytes_received", counters.bytes_received)?;
        dict.set_item("bytes_sent", counters.bytes_sent)?;
        dict.set_item("messages", counters.messages)?;
        dict.set_item("records", counters.records)?;
        Ok(dict)
    }
}

/// "cuda:1", or "cpu" for its only one.
fn device(name: &str, label: &str) -> PyResult<DeviceInfo> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index = index.parse().map_err(|_| {
        PyValueError::new_err(format!("device \"{name}\" must be a type and a number, such as cuda:0"))
    })?;
    Ok(DeviceInfo { kind: kind.to_owned(), index, label: label.to_owned(), ..DeviceInfo::default() })
}

/// Limits that a server's owner may change.
fn set_limit(options: &mut ServerOptions, name: &str, value: u32) -> PyResult<()> {
    match name {
        "max_connections" => options.max_connections = value as usize,
        "max_pending" => options.max_pending = value as usize,
        "slots" => options.slots = value,
        "queue_bytes" => options.queue_bytes = value,
        "auth_timeout_ms" => options.auth_timeout = Duration::from_millis(value.into()),
        "resume_timeout_ms" => options.resume_timeout = Duration::from_millis(value.into()),
        _ => {
            let text = format!(
                "unknown limit \"{name}\": there are max_connections, max_pending, slots, queue_bytes, auth_timeout_ms and \
                 resume_timeout_ms"
            );
            return Err(PyValueError::new_err(text));
        }
    }
    Ok(())
}
