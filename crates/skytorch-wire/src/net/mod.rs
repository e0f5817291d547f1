//! Addresses, sockets and TLS: everything below HTTP/2.
//!
//! Nothing here blocks except connecting; reading and writing answer "would block" and leave the sleep to the driver.

pub(crate) mod address;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod credential;
pub(crate) mod deframe;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod message;
pub(crate) mod process_unsafe;
pub(crate) mod recorder;
pub(crate) mod socket;
pub(crate) mod socket_unsafe;
pub(crate) mod tls;

pub use self::address::Address;
pub use self::credential::Credential;
pub use self::recorder::Recorder;
pub use self::tls::TlsOptions;

/// A device of a server; its position in a list is its number in records and templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// "cpu" or "cuda".
    pub kind: String,
    /// Index among the server's devices of that kind.
    pub index: u32,
    /// For people: "NVIDIA H100 80GB HBM3".
    pub label: String,
    /// 0 when not known.
    pub total_memory_bytes: u64,
}
