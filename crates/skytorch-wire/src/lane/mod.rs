//! Bulk lanes: large payloads on HTTP/2 connections of their own, so that neither a stalled executor nor a full op
//! window stops them (INV-7).
//!
//! One upload is one call of `/skytorch.v1.Transfer/Upload`: a ticket in the headers, the bytes in messages of at most
//! a megabyte, the acknowledgement as the call's status. The op stream carries the fence (WRITE_LANE) that names the
//! transfer. The same upload serves a client's lane and a server that sends to another server.

pub(crate) mod arrival;
pub(crate) mod borrowed_unsafe;
pub(crate) mod frame;
pub(crate) mod payload;
pub(crate) mod queue;
pub(crate) mod receive;
pub(crate) mod target;
pub(crate) mod ticket;
pub(crate) mod upload;
pub(crate) mod watch;

pub(crate) use self::borrowed_unsafe::{Borrowed, lend};
pub(crate) use self::payload::Payload;
pub(crate) use self::queue::{Job, Lane};
pub(crate) use self::ticket::{Admission, Ticket};
