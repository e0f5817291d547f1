//! The C ABI's two tables of functions, and the landing that C++ offers. Unsafe code: every pointer that crosses.
//!
//! Each function catches panics and turns every failure into a code and a message; nothing unwinds into C++.
#![allow(unsafe_code)]

mod client;
mod guard;
mod landing;
mod server;

pub use self::client::client_api;
pub(crate) use self::landing::{Landing, LandingApi};
pub use self::server::server_api;
