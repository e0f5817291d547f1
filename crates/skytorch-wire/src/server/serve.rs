//! One accepted connection: TLS, HTTP/2, and where each call goes.
//!
//! The thread drives the connection until it ends or turns out to be a session's; then the driver is the executor's
//! and the thread is done.

use std::convert::Infallible;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::auth::check_token;
use super::link::Wire;
use super::open::{Opened, Who, open};
use super::session::Accepted;
use super::shared::Shared;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::lane::receive::{receive, status};
use crate::net::body::OutBody;
use crate::net::connection::Stream;
use crate::net::http::{OPEN_PATH, STATUS_PATH, UPLOAD_PATH, refusal, server_builder};
use crate::net::socket::Socket;
use crate::net::tls::BUFFER_BYTES;

/// What the calls of one connection share.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    /// Neither TLS nor a Unix socket: bytes may change on their way.
    pub(super) exposed: bool,
    /// Bulk bytes need a checksum of their own.
    pub(super) checksum: bool,
    pub(super) opened: Mutex<Option<Opened>>,
    /// One upload at a time, in the order in which they came: see `lane::receive`.
    uploads: tokio::sync::Mutex<()>,
    authenticated: AtomicBool,
    ended: OnceLock<Instant>,
}

impl Connection {
    pub(super) fn set_authenticated(&self) {
        self.authenticated.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    pub(super) fn set_ended(&self) {
        let _ = self.ended.set(Instant::now());
    }

    /// How long ago it ended.
    pub(super) fn ended_since(&self) -> Option<Duration> {
        self.ended.get().map(Instant::elapsed)
    }
}

/// Drive a connection on this thread.
pub(super) fn serve(shared: &Arc<Shared>, socket: OwnedFd, tls: Option<Arc<ServerConfig>>, local: bool) {
    if let Err(error) = try_serve(shared, socket, tls, local) {
        tracing::debug!("a connection ended early: {error}");
    }
}

fn try_serve(shared: &Arc<Shared>, socket: OwnedFd, tls: Option<Arc<ServerConfig>>, local: bool) -> Result<()> {
    let deadline = Instant::now() + shared.options.auth_timeout;
    let driver = Arc::new(Driver::new()?);
    if !shared.register(&driver) {
        return Err(WireError::limit("too many connections"));
    }
    let socket = Socket::new(socket, shared.traffic.clone(), None);
    driver.attach(socket.readiness());
    let exposed = !local && tls.is_none();
    let stream = match tls {
        None => Stream::Plain(socket),
        Some(config) => {
            let mut accepted = driver
                .block_on(TlsAcceptor::from(config).accept(socket), Some(deadline))
                .map_err(|_| WireError::new(Code::Timeout, "no TLS handshake in time"))?
                .map_err(|e| WireError::new(Code::Unauthenticated, format!("TLS handshake failed: {e}")))?;
            accepted.get_mut().1.set_buffer_limit(Some(BUFFER_BYTES));
            Stream::Tls(Box::new(TlsStream::Server(accepted)))
        }
    };
    let connection = Arc::new(Connection {
        shared: shared.clone(),
        exposed,
        checksum: exposed && shared.options.bulk_checksum,
        opened: Mutex::new(None),
        uploads: tokio::sync::Mutex::new(()),
        authenticated: AtomicBool::new(false),
        ended: OnceLock::new(),
    });
    let router = Router { connection: connection.clone() };
    let http = server_builder(&driver, shared.options.queue_bytes).serve_connection(stream, router);
    let ended = connection.clone();
    driver.spawner().spawn(async move {
        if let Err(e) = http.await {
            tracing::debug!("a connection broke: {e}");
        }
        ended.set_ended();
    });

    let mut opened = None;
    let over = |opened: &mut Option<Opened>| {
        *opened = connection.opened.lock().take();
        opened.is_some() || connection.has_ended() || shared.is_stopping()
    };
    let in_time =
        driver.serve(Some(deadline), || over(&mut opened) || connection.authenticated.load(Ordering::SeqCst));
    if in_time.is_ok() && opened.is_none() {
        // Cannot time out without a deadline.
        let _ = driver.serve(None, || over(&mut opened));
    }
    let Some(Opened { who, body, messages }) = opened else {
        driver.clear();
        return Ok(());
    };
    let wire = |attempt| Wire { attempt, connection: connection.clone(), driver: driver.clone(), body, messages };
    match who {
        Who::New(seat) => shared.deliver(Accepted { seat, wire: wire(0) }),
        Who::Again(holder, attempt) => {
            if holder.link.offer(wire(attempt)) {
                // The executor may be busy for long; until it comes by, somebody has to answer keepalive.
                let over = || connection.has_ended() || shared.is_stopping();
                let _ = driver.serve(None, || over() || !holder.link.is_offered(attempt));
            }
            if !holder.link.is_newest(attempt) {
                driver.clear();
                connection.set_ended();
            }
        }
    }
    Ok(())
}

/// hyper's service: one per connection.
struct Router {
    connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Router {
    type Response = Response<OutBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Response<OutBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = self.connection.clone();
        Box::pin(async move { Ok(route(connection, request).await) })
    }
}

async fn route(connection: Arc<Connection>, request: Request<Incoming>) -> Response<OutBody> {
    let shared = connection.shared.clone();
    // An upload shows a ticket instead of the token, which another server must never see.
    if request.uri().path() == UPLOAD_PATH {
        let _turn = connection.uploads.lock().await;
        return receive(&shared, request, connection.exposed, || connection.set_authenticated()).await;
    }
    if request.uri().path() == STATUS_PATH {
        return status(&shared, request.headers(), || connection.set_authenticated());
    }
    if let Err(error) = check_token(shared.options.token.as_deref(), request.headers()) {
        return refusal(&error);
    }
    if request.uri().path() == OPEN_PATH {
        return open(connection, request).await;
    }
    connection.set_authenticated();
    let Some(control) = shared.control.get() else {
        return refusal(&WireError::new(Code::NotSupported, "this server has no control services"));
    };
    control(request.map(tonic::body::Body::new)).await.map(OutBody::control)
}
