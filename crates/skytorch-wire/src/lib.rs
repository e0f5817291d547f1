//! SkyTorch's wire protocol: records, frames, sessions and transport.
//!
//! It knows neither torch nor Python. The format is specified in `docs/wire.md`; the C ABI that the C++ rooms see is
//! [`abi`]. Unsafe code lives only in modules that are named for it.
#![deny(unsafe_code)]

pub mod abi;
pub mod client;
pub mod codec;
pub mod control;
pub mod driver;
pub mod error;
pub mod ffi;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod hooks;
mod lane;
pub mod limits;
pub mod net;
pub mod proto;
pub mod server;
