//! `connect` and `Session`: a client's session as Python sees it. The tensors' own traffic does not come this way;
//! C++ takes the session's address and the C table.
//!
//! The subtle thing is the end: `close` flushes and waits, dropping the object does neither. A session that C++ has
//! retained outlives this object.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use skytorch_wire::client::{ClientSession, ConnectOptions};
use skytorch_wire::net::{Credential, DeviceInfo, TlsOptions};

use crate::leave::leave;

/// A token, certificate or key itself, or (not a `str`) the path of the file that holds it.
#[derive(FromPyObject)]
pub(crate) enum Given {
    Text(String),
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl From<Given> for Credential {
    fn from(given: Given) -> Credential {
        match given {
            Given::Text(text) => text.into(),
            Given::Bytes(bytes) => bytes.into(),
            Given::File(path) => Credential::File(path),
        }
    }
}

/// PEM texts or files of a TLS link: `ca` to trust, `cert` and `key` to show, `server_name` to expect.
#[pyclass(frozen, module = "skytorch._wire")]
pub(crate) struct Tls {
    options: TlsOptions,
}

#[pymethods]
impl Tls {
    #[new]
    #[pyo3(signature = (ca=None, cert=None, key=None, server_name=None))]
    fn new(ca: Option<Given>, cert: Option<Given>, key: Option<Given>, server_name: Option<String>) -> Tls {
        let [ca_pem, cert_pem, key_pem] = [ca, cert, key].map(|given| given.map(Credential::from));
        Tls { options: TlsOptions { ca_pem, cert_pem, key_pem, server_name } }
    }
}

/// The options of a `Tls` that may be absent.
pub(crate) fn tls_options(tls: Option<&Bound<'_, Tls>>) -> Option<TlsOptions> {
    tls.map(|tls| tls.get().options.clone())
}

/// Seconds as given by a caller.
pub(crate) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("{name} must be a number of seconds from 0 on, not {value}")))
}

/// Where and how a client connects.
pub(crate) fn connect_options(
    address: String,
    token: Option<Given>,
    tls: Option<&Bound<'_, Tls>>,
    timeout_s: f64,
) -> PyResult<ConnectOptions> {
    let timeout = seconds("timeout_s", timeout_s)?;
    let token = token.map(Credential::from);
    Ok(ConnectOptions { address, token, tls: tls_options(tls), timeout, ..ConnectOptions::default() })
}

/// Open a session with the server at `address`: "unix:///path", "tcp://host:port" or "tls://host:port".
#[pyfunction]
#[pyo3(signature = (
    address, *, token=None, tls=None, timeout_s=30.0, client="", torch_version="", bulk_checksum=true,
    peer_address=None
))]
#[expect(clippy::too_many_arguments, reason = "they are keywords of a Python function")]
pub(crate) fn connect(
    py: Python<'_>,
    address: String,
    token: Option<Given>,
    tls: Option<&Bound<'_, Tls>>,
    timeout_s: f64,
    client: &str,
    torch_version: &str,
    bulk_checksum: bool,
    peer_address: Option<String>,
) -> PyResult<Session> {
    let mut options = connect_options(address, token, tls, timeout_s)?;
    options.client = client.to_owned();
    options.torch_version = torch_version.to_owned();
    options.bulk_checksum = bulk_checksum;
    options.peer_address = peer_address;
    let inner = leave(py, || ClientSession::connect(&options))?;
    Ok(Session { inner })
}

/// torch's name of a device: there is only one "cpu".
fn name(device: &DeviceInfo) -> String {
    if device.kind == "cpu" { device.kind.clone() } else { format!("{}:{}", device.kind, device.index) }
}

/// A session with a server. Made by `connect`.
#[pyclass(frozen, module = "skytorch._wire")]
pub(crate) struct Session {
    inner: Arc<ClientSession>,
}

#[pymethods]
impl Session {
    /// Address of the session for `torch.ops.skytorch.open_device`, which keeps it alive.
    #[getter]
    fn pointer(&self) -> usize {
        self.inner.as_raw() as usize
    }

    /// The server's devices ("cpu", "cuda:0"), each with a label for people; the position is the device's number.
    #[getter]
    fn devices(&self) -> Vec<(String, String)> {
        self.inner.devices().iter().map(|device| (name(device), device.label.clone())).collect()
    }

    /// What the server said of itself in the handshake.
    #[getter]
    fn server_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.inner.info();
        let dict = PyDict::new(py);
        dict.set_item("version", &info.version)?;
        dict.set_item("torch_version", &info.torch_version)?;
        dict.set_item("wire_version", info.wire)?;
        dict.set_item("pid", info.pid)?;
        Ok(dict)
    }

    /// Names the session in logs; it opens nothing.
    #[getter]
    fn session_id(&self) -> String {
        self.inner.info().session_id.clone()
    }

    /// False after `close`, after the server's end, and in a forked child.
    #[getter]
    fn is_open(&self) -> bool {
        self.inner.is_open()
    }

    /// Counters since the session began.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.inner.stats();
        let dict = PyDict::new(py);
        dict.set_item("ops", stats.ops)?;
        dict.set_item("records", stats.records)?;
        dict.set_item("templates", stats.templates)?;
        dict.set_item("messages", stats.messages)?;
        dict.set_item("op_bytes_sent", stats.op_bytes_sent)?;
        dict.set_item("lane_bytes_sent", stats.lane_bytes_sent)?;
        dict.set_item("bytes_received", stats.bytes_received)?;
        dict.set_item("reads", stats.reads)?;
        Ok(dict)
    }

    /// Wait for what was issued; raises the first failure that nobody has read. `Timeout` after `timeout_s`.
    #[pyo3(signature = (timeout_s=None))]
    fn take_failure(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<()> {
        let timeout = timeout_s.map(|timeout_s| seconds("timeout_s", timeout_s)).transpose()?;
        leave(py, || self.inner.take_failure(timeout))
    }

    /// Send what is left, wait for the server's goodbye, and end the session. A second call does nothing.
    #[pyo3(signature = (timeout_s=60.0))]
    fn close(&self, py: Python<'_>, timeout_s: f64) -> PyResult<()> {
        let timeout = seconds("timeout_s", timeout_s)?;
        leave(py, || self.inner.close_within(timeout))
    }
}
