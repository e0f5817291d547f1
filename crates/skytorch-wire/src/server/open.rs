//! `/skytorch.v1.Session/Open`: HELLO is read and checked here, before the executor hears of the session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;

use super::holder::{Holder, Seat};
use super::link::Link;
use super::serve::Connection;
use super::shared::Shared;
use crate::codec::frame::{self, ClientFrame, OPS_HEADER_BYTES};
use crate::error::{Code, Result, WireError};
use crate::net::body::{OutBody, OutQueue, next_frame};
use crate::net::http::{refusal, response};
use crate::net::message::{Messages, framed};
use crate::{limits, proto};

/// Longest frame from a client.
const FRAME_LIMIT: usize = OPS_HEADER_BYTES + limits::MESSAGE_BYTES;

/// A client that has said hello.
pub(super) struct Opened {
    pub(super) who: Who,
    pub(super) body: Incoming,
    pub(super) messages: Messages,
}

/// Whose connection it is.
pub(super) enum Who {
    /// A new session's.
    New(Seat),
    /// A session's that goes on, with the number of the connection.
    Again(Arc<Holder>, u64),
}

/// Serve the call.
pub(super) async fn open(connection: Arc<Connection>, request: Request<Incoming>) -> Response<OutBody> {
    match try_open(&connection, request.into_body()).await {
        Ok((opened, out)) => {
            *connection.opened.lock() = Some(opened);
            response(OutBody::queue(out))
        }
        Err(error) => refusal(&error),
    }
}

async fn try_open(connection: &Arc<Connection>, mut body: Incoming) -> Result<(Opened, Arc<OutQueue>)> {
    let mut messages = Messages::new(FRAME_LIMIT);
    let first = first_message(&mut body, &mut messages).await?;
    let ClientFrame::Hello(hello) = ClientFrame::parse(&first)? else {
        return Err(WireError::protocol("the first frame of a session is not a hello"));
    };
    connection.authenticate()?;
    let (who, out) = admit(connection, &hello)?;
    Ok((Opened { who, body, messages }, out))
}

async fn first_message(body: &mut Incoming, messages: &mut Messages) -> Result<Bytes> {
    loop {
        if let Some(message) = messages.next()? {
            return Ok(message);
        }
        let ended = || WireError::protocol("a session ended before its hello");
        let frame = next_frame(body).await.ok_or_else(ended)?.map_err(|_| ended())?;
        if let Ok(chunk) = frame.into_data() {
            messages.push(chunk);
        }
    }
}

fn admit(connection: &Arc<Connection>, hello: &proto::Hello) -> Result<(Who, Arc<OutQueue>)> {
    let shared = &connection.shared;
    if hello.byte_order() != proto::ByteOrder::Little || hello.pointer_bits != 64 {
        return Err(WireError::new(
            Code::VersionMismatch,
            "the client's machine is not little-endian with 64-bit pointers, which the wire needs",
        ));
    }
    let id = <[u8; 16]>::try_from(&hello.session_id[..])
        .map_err(|_| WireError::protocol("the session id of a hello is not of 16 bytes"))?;
    if let Some(resume) = &hello.resume {
        let holder = shared.find(&id)?;
        let greet = |position| framed(&frame::welcome(&welcome(shared, holder.slots, position, holder.age())));
        let out = holder.link.resume(resume, connection, greet)?;
        return Ok((Who::Again(holder, resume.attempt), out));
    }
    let wanted = hello.limits.as_ref().map_or(0, |limits| limits.slots);
    let slots = u32::try_from(wanted).unwrap_or(u32::MAX).min(shared.options.slots);
    let slots = if slots == 0 { shared.options.slots } else { slots };
    let out = OutQueue::new();
    out.push([framed(&frame::welcome(&welcome(shared, slots, shared.options.numbered_from, Duration::ZERO)))]);
    let link = Link::new(connection.clone(), out.clone(), shared.options.numbered_from);
    let holder = Holder::new(hello, id, slots, link, shared.options.numbered_from);
    Ok((Who::New(shared.occupy(&holder)?), out))
}

fn welcome(shared: &Shared, slots: u32, position: u64, age: Duration) -> proto::Welcome {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let devices = shared.options.devices.iter().map(|device| proto::Device {
        r#type: device.kind.clone(),
        index: device.index,
        label: device.label.clone(),
        total_memory_bytes: device.total_memory_bytes,
    });
    proto::Welcome {
        wire_major: u32::from(limits::WIRE_MAJOR),
        wire_minor: u32::from(limits::WIRE_MINOR),
        server_version: shared.options.version.clone(),
        torch_version: shared.options.torch_version.clone(),
        devices: devices.collect(),
        limits: Some(proto::Limits {
            message_bytes: limits::MESSAGE_BYTES as u64,
            slots: u64::from(slots),
            transfer_bytes: limits::TRANSFER_BYTES,
            resume_timeout_ms: milliseconds(shared.options.resume_timeout),
        }),
        position,
        session_age_ms: milliseconds(age),
        server_pid: u64::from(std::process::id()),
    }
}
