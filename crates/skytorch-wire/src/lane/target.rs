//! Where a server is to send a tensor: the payload of a SEND record, opaque to the executor.

use bytes::Bytes;
use prost::Message as _;

use crate::error::{Result, WireError};

/// See the module. It never carries the client's token.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SendTarget {
    /// Where the other server listens.
    #[prost(string, tag = "1")]
    pub(crate) address: String,
    /// The other session's ticket for this transfer.
    #[prost(string, tag = "2")]
    pub(crate) ticket: String,
    /// CA certificate of a `tls://` address, in PEM.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) ca_pem: Bytes,
    /// Name in its certificate, if it is not the host.
    #[prost(string, tag = "4")]
    pub(crate) server_name: String,
    /// Check-sum the bytes where the transport does not.
    #[prost(bool, tag = "5")]
    pub(crate) checksum: bool,
    /// Request number of the sending session: the sender answers it with how the copy went.
    #[prost(uint64, tag = "6")]
    pub(crate) request: u64,
}

impl SendTarget {
    pub(crate) fn parse(payload: &[u8]) -> Result<SendTarget> {
        SendTarget::decode(payload)
            .map_err(|e| WireError::protocol(format!("the target of a send is malformed: {e}")))
    }
}
