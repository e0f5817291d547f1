//! The control calls, both sides: measurements, log lines and health. Protobuf over tonic's generated code.
//!
//! It is not the transport: the server's half is one function from request to response that [`crate::server`] calls
//! on the driver of a control connection, the client's half drives a [`crate::client::ControlLink`] on the calling
//! thread. The subtle thing: there is no tokio runtime, so anything that waits here waits on [`crate::driver::sleep`]
//! or on a `tokio::sync` primitive, and a source is asked on the control connection's own thread (INV-7), where it
//! may take its time without holding up a session.

mod client;
pub(crate) mod health;
mod metrics;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::body::Body;
use tower_service::Service as _;

pub use client::{Hangup, Logs, Snapshots, check_health};

use crate::net::http::HEALTH_PREFIX;
use crate::proto::metrics_server::MetricsServer;
use crate::proto::{LogLines, Metric};
use crate::server::ControlService;

/// Where a server's measurements and log lines come from. Called from control threads, several at once.
pub trait ControlSource: Send + Sync + 'static {
    /// The present measurements.
    fn metrics(&self) -> Vec<Metric>;
    /// The lines kept from `from_index` on. A source that has dropped some answers with a later `first_index`.
    fn log_lines(&self, from_index: u64) -> LogLines;
}

/// The server's half of the control calls.
pub struct Control {
    source: Arc<dyn ControlSource>,
    serving: watch::Sender<bool>,
}

impl Control {
    /// Control calls that ask `source`. Health is NOT_SERVING until [`Control::set_serving`].
    pub fn new(source: Arc<dyn ControlSource>) -> Control {
        Control { source, serving: watch::Sender::new(false) }
    }

    /// What health answers from now on; those who watch it are told.
    pub fn set_serving(&self, serving: bool) {
        self.serving.send_replace(serving);
    }

    /// The function that the server mounts. `serving` goes with `self`: health watchers end when it is dropped.
    pub fn service(&self) -> ControlService {
        let metrics = MetricsServer::new(metrics::MetricsCalls::new(Arc::clone(&self.source)));
        let health = health::server(self.serving.subscribe());
        Arc::new(move |request: http::Request<Body>| {
            let (mut metrics, mut health) = (metrics.clone(), health.clone());
            Box::pin(async move {
                let path = request.uri().path();
                let answer = if path.starts_with(HEALTH_PREFIX) {
                    health.call(request).await
                } else if path.starts_with("/skytorch.v1.Metrics/") {
                    metrics.call(request).await
                } else {
                    Ok(tonic::Status::unimplemented(format!("this server has no method {path}")).into_http())
                };
                match answer {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            })
        })
    }
}
