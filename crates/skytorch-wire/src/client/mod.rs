//! The client's half of a session: the op stream that C++ appends to, the waits, the lane for bulk bytes.
//!
//! It knows no tensors. The subtle rule is that the stream lock is never held across a system call: what was appended
//! is cut into a message and queued under the lock, and sent after it was released, by whichever thread gets hold of
//! the connection.

mod connect;
mod control;
mod destination_unsafe;
mod gather;
mod greet;
mod link;
mod pending;
mod pump;
mod receive;
mod session;
mod stream;
mod uploads;
mod waits;

use std::time::Duration;

pub use self::control::{ControlChannel, ControlLink};
pub(crate) use self::destination_unsafe::Destination;
pub use self::session::ClientSession;
pub(crate) use self::stream::Stream;
pub(crate) use self::uploads::Source;

use crate::limits;
use crate::net::{Credential, DeviceInfo, Recorder, TlsOptions};

/// How to connect; `ConnectOptions { address, token, ..Default::default() }`.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `unix:///path`, `tcp://host:port` or `tls://host:port`.
    pub address: String,
    /// The server's token.
    pub token: Option<Credential>,
    /// Certificates for a `tls://` address.
    pub tls: Option<TlsOptions>,
    /// How other servers reach this one, where that differs from `address`: this side may come through a tunnel.
    pub peer_address: Option<String>,
    /// For the whole of connecting and shaking hands.
    pub timeout: Duration,
    /// Who asks, for people.
    pub client: String,
    /// Version of torch here, for messages.
    pub torch_version: String,
    /// Template slots; at most `limits::SLOTS`.
    pub slots: u32,
    /// Unacknowledged bytes before appending waits.
    pub replay_bytes: usize,
    /// Check-sum bulk bytes on a connection that is neither TLS nor a Unix socket.
    pub bulk_checksum: bool,
    /// Tests only: sees every write of the session and its lane.
    pub recorder: Option<Recorder>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            address: String::new(),
            token: None,
            tls: None,
            peer_address: None,
            timeout: Duration::from_secs(30),
            client: String::new(),
            torch_version: String::new(),
            slots: limits::SLOTS,
            replay_bytes: limits::REPLAY_LOG_BYTES,
            bulk_checksum: true,
            recorder: None,
        }
    }
}

/// What a server said about itself in the handshake.
#[derive(Clone, Debug, Default)]
pub struct ServerInfo {
    /// This session, for logs; the first half only, because the whole is a secret.
    pub session_id: String,
    /// Version of SkyTorch there.
    pub version: String,
    /// Version of torch there.
    pub torch_version: String,
    /// Wire version that is spoken.
    pub wire: (u32, u32),
    /// Process id of the server.
    pub pid: u64,
    /// Its devices.
    pub devices: Vec<DeviceInfo>,
}
