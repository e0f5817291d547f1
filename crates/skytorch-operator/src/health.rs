//! `/healthz`, `/readyz` and `/metrics` on one port. Healthy: the process answers. Ready: it stands by for the lead, or
//! leads and has seen all there is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What the operator waits for; `None`: for nothing.
#[derive(Clone)]
pub(crate) struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Not ready, since `missing`.
    pub(crate) fn waiting(missing: &str) -> Self {
        Self(Arc::new(Mutex::new(Some(missing.to_owned()))))
    }

    /// Says what it waits for now.
    pub(crate) fn wait_for(&self, missing: &str) {
        *self.0.lock() = Some(missing.to_owned());
    }

    /// It waits for nothing more.
    pub(crate) fn ready(&self) {
        *self.0.lock() = None;
    }
}

/// Listens, and answers in the background until the process ends.
pub(crate) async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    readiness: Readiness,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely; others will close some.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let (metrics, readiness) = (metrics.clone(), readiness.clone());
            let service = service_fn(move |request| {
                let response = answer(&request, &metrics, &readiness);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let mut server = hyper::server::conn::http1::Builder::new();
                let connection = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection for metrics or health broke");
                }
            });
        }
    });
    Ok(bound)
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, readiness: &Readiness) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match readiness.0.lock().clone() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {missing}\n")),
        },
        "/metrics" => match metrics.text() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => (StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
