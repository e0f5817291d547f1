//! `skytorch._wire`: the one door from Python to `skytorch-wire`.
//!
//! Translation only: arguments and results change their types here and nothing else happens. What grows logic moves
//! down into `skytorch-wire`. The two C tables leave in capsules, for `torch.ops.skytorch*.attach`. The subtle thing
//! is the GIL: every call that may wait goes through [`leave::leave`], and a wait that C++ starts gives the GIL up
//! through the hooks of [`python_unsafe`].

mod control;
mod leave;
mod python_unsafe;
mod server;
mod session;
mod source;

/// The module itself.
#[pyo3::pymodule]
mod _wire {
    use pyo3::prelude::*;
    use pyo3::types::PyCapsule;

    #[pymodule_export]
    use crate::control::{Logs, Snapshots, check_health, logs, metrics};
    #[pymodule_export]
    use crate::server::Server;
    #[pymodule_export]
    use crate::session::{Session, Tls, connect};

    /// The client's C table, as a capsule named "skytorch.client_api".
    #[pyfunction]
    fn client_api(py: Python<'_>) -> PyResult<Bound<'_, PyCapsule>> {
        crate::python_unsafe::capsule(py, skytorch_wire::ffi::client_api(), c"skytorch.client_api")
    }

    /// The server's C table, as a capsule named "skytorch.server_api".
    #[pyfunction]
    fn server_api(py: Python<'_>) -> PyResult<Bound<'_, PyCapsule>> {
        crate::python_unsafe::capsule(py, skytorch_wire::ffi::server_api(), c"skytorch.server_api")
    }

    /// What a signal handler raised during this thread's last wait in C++, once; None if none did.
    #[pyfunction]
    fn take_raised(py: Python<'_>) -> Option<Py<PyAny>> {
        crate::python_unsafe::take_raised().map(|raised| raised.into_value(py).into_any())
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::python_unsafe::install_hooks(module.py())
    }
}
