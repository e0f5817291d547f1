//! The one error type of the crate and the catalogue of its codes.
//!
//! The numbers are those of [`crate::abi`] and of `skytorch.v1.ErrorCode`; a test holds the three together. A code
//! from 32 on is a failure of an operator and keeps torch's own exception type.

use std::borrow::Cow;
use std::fmt;

use crate::abi;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:ident;)*) => {
        /// What went wrong, as a number that every language of the project shares.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Code { $($(#[$doc])* $name = abi::$value,)* }

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code with this number; `None` for a number that is not in the catalogue.
            pub fn from_number(number: u32) -> Option<Code> {
                match number { $(abi::$value => Some(Code::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// No error.
    Ok = SKY_OK;
    /// A mistake in SkyTorch itself.
    Internal = SKY_ERR_INTERNAL;
    /// The caller passed something that makes no sense.
    InvalidArgument = SKY_ERR_INVALID_ARGUMENT;
    /// Nothing answers at the address.
    Unreachable = SKY_ERR_UNREACHABLE;
    /// The connection broke and did not come back.
    ConnectionLost = SKY_ERR_CONNECTION_LOST;
    /// The token or the certificate was refused.
    Unauthenticated = SKY_ERR_UNAUTHENTICATED;
    /// Another session holds the server.
    ServerBusy = SKY_ERR_SERVER_BUSY;
    /// The two sides speak different wire majors.
    VersionMismatch = SKY_ERR_VERSION_MISMATCH;
    /// The server cannot do this.
    NotSupported = SKY_ERR_NOT_SUPPORTED;
    /// Bytes that break docs/wire.md.
    Protocol = SKY_ERR_PROTOCOL;
    /// One of the limits in [`crate::limits`].
    LimitExceeded = SKY_ERR_LIMIT_EXCEEDED;
    /// The session was closed.
    SessionClosed = SKY_ERR_SESSION_CLOSED;
    /// Used in a forked child.
    Forked = SKY_ERR_FORKED;
    /// Ctrl-C while waiting.
    Interrupted = SKY_ERR_INTERRUPTED;
    /// Nothing came in time.
    Timeout = SKY_ERR_TIMEOUT;
    /// The server has no such device.
    DeviceNotFound = SKY_ERR_DEVICE_NOT_FOUND;
    /// An operator raised `RuntimeError`.
    OpRuntime = SKY_ERR_OP_RUNTIME;
    /// An operator raised `IndexError`.
    OpIndex = SKY_ERR_OP_INDEX;
    /// An operator raised `ValueError`.
    OpValue = SKY_ERR_OP_VALUE;
    /// An operator raised `TypeError`.
    OpType = SKY_ERR_OP_TYPE;
    /// An operator raised `NotImplementedError`.
    OpNotImplemented = SKY_ERR_OP_NOT_IMPLEMENTED;
    /// An operator raised `torch.OutOfMemoryError`.
    OpOutOfMemory = SKY_ERR_OP_OUT_OF_MEMORY;
    /// An operator raised `torch.linalg.LinAlgError`.
    OpLinalg = SKY_ERR_OP_LINALG;
}

impl Code {
    /// The number that crosses the ABI and the wire.
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// A code and a message that names the thing and says what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The kind of failure.
    pub code: Code,
    /// Lower-case text for people.
    pub message: Cow<'static, str>,
}

/// Result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, WireError>;

impl WireError {
    /// An error of this code.
    #[cold]
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> WireError {
        WireError { code, message: message.into() }
    }

    /// Bytes that break docs/wire.md.
    #[cold]
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> WireError {
        WireError::new(Code::Protocol, message)
    }

    /// One of the limits in [`crate::limits`] is passed.
    #[cold]
    pub fn limit(message: impl Into<Cow<'static, str>>) -> WireError {
        WireError::new(Code::LimitExceeded, message)
    }

    /// The caller passed something that cannot be encoded.
    #[cold]
    pub fn argument(message: impl Into<Cow<'static, str>>) -> WireError {
        WireError::new(Code::InvalidArgument, message)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_rise() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number());
        }
        for &code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        assert_eq!(Code::from_number(16), None);
        assert_eq!(Code::from_number(u32::MAX), None);
    }
}
