//! One authenticated connection for control calls (metrics, logs, health), driven by the calling thread.
//!
//! It is separate from any session (INV-7). The generated clients of tonic take its channel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response, Uri};
use hyper::client::conn::http2::SendRequest;
use tower_service::Service;

use super::ConnectOptions;
use super::connect::target;
use crate::driver::Driver;
use crate::error::Result;
use crate::net::body::OutBody;
use crate::net::http::{connect, request, stopped};
use crate::net::{Address, Credential};

/// See the module.
pub struct ControlLink {
    address: Address,
    driver: Arc<Driver>,
    channel: ControlChannel,
}

/// What tonic's generated clients call through; use it only inside [`ControlLink::block_on`].
#[derive(Clone)]
pub struct ControlChannel {
    sender: SendRequest<OutBody>,
    base: Uri,
    authorization: Option<HeaderValue>,
}

impl ControlLink {
    /// Connect; the token is sent with every call.
    pub fn connect(options: &ConnectOptions) -> Result<ControlLink> {
        let target = target(options)?;
        let driver = Arc::new(Driver::new()?);
        let sender = connect(&driver, &target, Instant::now() + options.timeout, true, |_| {})?;
        let base = request(&target, "/", None, ())?.uri().clone();
        let authorization = options.token.as_ref().map(Credential::bearer).transpose()?;
        Ok(ControlLink { address: target.address, driver, channel: ControlChannel { sender, base, authorization } })
    }

    /// The channel to give to a generated client.
    pub fn service(&self) -> ControlChannel {
        self.channel.clone()
    }

    /// Drive the connection until `future` is ready. Fails with `Interrupted` on Ctrl-C and with `Timeout`.
    pub fn block_on<F: Future>(&self, future: F, timeout: Option<Duration>) -> Result<F::Output> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.driver
            .block_on(future, deadline)
            .map_err(|stop| stopped(stop, &format!("waiting for an answer of {}", self.address)))
    }
}

impl Drop for ControlLink {
    fn drop(&mut self) {
        self.driver.clear();
    }
}

impl Service<Request<tonic::body::Body>> for ControlChannel {
    type Response = Response<tonic::body::Body>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let mut uri = self.base.clone().into_parts();
        uri.path_and_query = head.uri.path_and_query().cloned();
        if let Ok(uri) = Uri::from_parts(uri) {
            head.uri = uri;
        }
        if let Some(value) = &self.authorization {
            head.headers.insert(http::header::AUTHORIZATION, value.clone());
        }
        let response = self.sender.send_request(Request::from_parts(head, OutBody::control(body)));
        Box::pin(async move { Ok(response.await?.map(tonic::body::Body::new)) })
    }
}
