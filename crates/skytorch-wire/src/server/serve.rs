//! One accepted connection: TLS, HTTP/2, and where each call goes.
//!
//! The thread drives the connection until it ends or turns out to be a session's; then the driver is the executor's
//! and the thread is done.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::auth::check_token;
use super::doors::Guest;
use super::link::Wire;
use super::open::{Opened, Who, open};
use super::session::Accepted;
use super::shared::Shared;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::lane::receive::{receive, status};
use crate::net::body::OutBody;
use crate::net::connection::Stream;
use crate::net::http::{HEALTH_PREFIX, OPEN_PATH, STATUS_PATH, UPLOAD_PATH, refusal, server_builder};
use crate::net::listener::Incomer;
use crate::net::socket::Socket;
use crate::net::tls::BUFFER_BYTES;

/// How long a client whose TLS handshake failed has to take notice.
const LINGER: Duration = Duration::from_secs(1);

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
    guest: Guest,
    /// Why nothing is served on it.
    refused: Option<WireError>,
    authenticated: AtomicBool,
    ended: OnceLock<Instant>,
}

impl Connection {
    /// The client has shown a token or a ticket. Refused if the server has too many clients.
    pub(super) fn authenticate(&self) -> Result<()> {
        if !self.authenticated.load(Ordering::SeqCst) {
            self.shared.doors.admit(&self.guest)?;
            self.authenticated.store(true, Ordering::SeqCst);
        }
        Ok(())
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

/// A connection that was accepted, on its way to its thread.
pub(super) struct Arrived {
    driver: Arc<Driver>,
    socket: Socket,
    guest: Guest,
    tls: Option<Arc<ServerConfig>>,
    exposed: bool,
    refused: Option<WireError>,
    deadline: Instant,
}

impl Arrived {
    /// Count it among the guests.
    pub(super) fn enter(shared: &Shared, accepted: Incomer, tls: Option<Arc<ServerConfig>>) -> Result<Arrived> {
        let deadline = Instant::now() + shared.options.auth_timeout;
        let driver = Arc::new(Driver::new()?);
        let socket = Socket::new(accepted.fd, shared.traffic.clone(), None);
        driver.attach(socket.readiness());
        let guest = Guest::new(&driver, &socket.readiness());
        shared.doors.enter(guest.clone());
        let exposed = !accepted.local && tls.is_none();
        Ok(Arrived { driver, socket, guest, tls, exposed, refused: accepted.refused, deadline })
    }
}

/// Drive a connection on this thread.
pub(super) fn serve(shared: &Arc<Shared>, arrived: Arrived) {
    if let Err(error) = try_serve(shared, arrived) {
        tracing::debug!("a connection ended early: {error}");
    }
}

fn try_serve(shared: &Arc<Shared>, arrived: Arrived) -> Result<()> {
    let Arrived { driver, socket, guest, tls, exposed, refused, deadline } = arrived;
    let stream = match tls {
        None => Stream::Plain(socket),
        Some(config) => {
            let shaken = driver
                .block_on(TlsAcceptor::from(config).accept(socket).into_fallible(), Some(deadline))
                .map_err(|_| WireError::new(Code::Timeout, "no TLS handshake in time"))?;
            let mut accepted = match shaken {
                Ok(accepted) => accepted,
                Err((e, socket)) => {
                    // Closed with unread bytes, the connection would be reset, and our alert lost with it.
                    let _ = driver.block_on(socket.linger(), Some(deadline.min(Instant::now() + LINGER)));
                    return Err(WireError::new(Code::Unauthenticated, format!("TLS handshake failed: {e}")));
                }
            };
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
        guest,
        refused,
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
    if let Some(error) = &connection.refused {
        return refusal(error);
    }
    // An upload shows a ticket instead of the token, which another server must never see.
    if request.uri().path() == UPLOAD_PATH {
        let _turn = connection.uploads.lock().await;
        return receive(&shared, request, connection.exposed, || connection.authenticate()).await;
    }
    if request.uri().path() == STATUS_PATH {
        return status(&shared, request.headers(), || connection.authenticate());
    }
    // Nor does a probe need one, if it shows none: health says only whether the server serves.
    let probe = request.uri().path().starts_with(HEALTH_PREFIX) && !request.headers().contains_key(AUTHORIZATION);
    if !probe && let Err(error) = check_token(shared.options.token.as_ref(), request.headers()) {
        return refusal(&error);
    }
    if request.uri().path() == OPEN_PATH {
        return open(connection, request).await;
    }
    if !probe && let Err(error) = connection.authenticate() {
        return refusal(&error);
    }
    let Some(control) = shared.control.get() else {
        return refusal(&WireError::new(Code::NotSupported, "this server has no control services"));
    };
    control(request.map(tonic::body::Body::new)).await.map(OutBody::control)
}
