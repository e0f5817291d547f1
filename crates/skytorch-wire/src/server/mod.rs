//! The server's half: listeners, one session at a time, lanes and control calls on connections of their own.
//!
//! It decodes and checks records but runs none: the executor takes them through [`Server`]'s C ABI. A thread per
//! connection drives it; the one exception is the connection of a session, whose driver is handed to the executor's
//! thread so that a round trip has no thread hop.

mod auth;
mod doors;
mod holder;
mod link;
mod listen;
mod open;
mod probe;
mod pump;
mod replies;
mod sender;
mod serve;
mod session;
mod shared;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::holder::Holder;
pub use self::listen::Server;
pub(crate) use self::session::ServerSession;
pub(crate) use self::shared::Shared;

use crate::limits;
use crate::net::{Credential, DeviceInfo, TlsOptions};

/// Answers every call that is neither a session nor an upload. The token has been checked, unless it is a call of
/// health, which needs none. The future runs on the
/// connection's driver, where there is no tokio runtime: use [`crate::driver::sleep`] for time.
pub type ControlService = Arc<dyn Fn(http::Request<tonic::body::Body>) -> ControlFuture + Send + Sync>;
/// See [`ControlService`].
pub type ControlFuture = Pin<Box<dyn Future<Output = http::Response<tonic::body::Body>> + Send>>;

/// What a server offers and where; `ServerOptions { listen, token, ..Default::default() }`.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Addresses to listen at.
    pub listen: Vec<String>,
    /// The token that clients must send; needed unless every address is on this machine.
    pub token: Option<Credential>,
    /// Certificate and key for `tls://` addresses.
    pub tls: Option<TlsOptions>,
    /// `tcp://host:port` that answers probes of health and nothing else, without TLS and token; any host will do.
    pub health: Option<String>,
    /// Devices, in the order of their numbers.
    pub devices: Vec<DeviceInfo>,
    /// Version of torch here, for messages.
    pub torch_version: String,
    /// Version of SkyTorch here.
    pub version: String,
    /// Authenticated connections open at once, lanes and control included.
    pub max_connections: usize,
    /// Connections that have shown no token yet; one more ends the oldest of them.
    pub max_pending: usize,
    /// Template slots of a session.
    pub slots: u32,
    /// Bytes of one connection that have arrived and wait for the executor.
    pub queue_bytes: u32,
    /// From accept to a valid token.
    pub auth_timeout: Duration,
    /// How long a session whose connection broke is kept for its client to come back.
    pub resume_timeout: Duration,
    /// Check-sum the bytes of replies on a connection that is neither TLS nor a Unix socket.
    pub bulk_checksum: bool,
    /// Records, requests and transfers of a session are numbered behind this; for tests of large numbers.
    pub numbered_from: u64,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            listen: Vec::new(),
            token: None,
            tls: None,
            health: None,
            devices: Vec::new(),
            torch_version: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            max_connections: limits::CONNECTIONS,
            max_pending: limits::PENDING_CONNECTIONS,
            slots: limits::SLOTS,
            queue_bytes: limits::WINDOW_BYTES,
            auth_timeout: limits::AUTH_TIMEOUT,
            resume_timeout: limits::RESUME_TIMEOUT,
            bulk_checksum: true,
            numbered_from: 0,
        }
    }
}

/// Counters of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerCounters {
    /// Sessions that were taken.
    pub sessions_served: u64,
    /// Connections open now.
    pub connections: u64,
    /// Bytes in and out, over all connections.
    pub bytes_received: u64,
    /// See `bytes_received`.
    pub bytes_sent: u64,
    /// Op messages and records decoded.
    pub messages: u64,
    /// See `messages`.
    pub records: u64,
    /// Age of the session that is open now.
    pub session_age: Option<Duration>,
    /// Since a session last did something, or since the start.
    pub idle: Duration,
    /// A session has a connection now; one whose client is away has none, although it may be resumed.
    pub connected: bool,
    /// Since a session last had a connection, or since the start; zero while it has one.
    pub unused: Duration,
}
