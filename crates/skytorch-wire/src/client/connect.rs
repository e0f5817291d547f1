//! Opening a session: connect, authenticate, HELLO, WELCOME.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::link::Link;
use super::receive::Receiver;
use super::session::{ClientSession, Parts};
use super::{ConnectOptions, ServerInfo};
use crate::codec::frame;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::lane::Lane;
use crate::net::DeviceInfo;
use crate::net::address::Address;
use crate::net::body::OutBody;
use crate::net::http::{self, Target, stopped};
use crate::net::message::framed;
use crate::net::process_unsafe::prepare;
use crate::net::socket::Traffic;
use crate::{limits, proto};

/// Where the options point.
pub(super) fn target(options: &ConnectOptions) -> Result<Target> {
    Ok(Target {
        address: options.address.parse::<Address>()?,
        tls: options.tls.clone(),
        recorder: options.recorder.clone(),
        traffic: Arc::new(Traffic::default()),
    })
}

pub(super) fn connect(options: &ConnectOptions) -> Result<Arc<ClientSession>> {
    prepare();
    let deadline = Instant::now() + options.timeout;
    let target = target(options)?;
    let mut session_id = [0; 16];
    aws_lc_rs::rand::fill(&mut session_id)
        .map_err(|_| WireError::new(Code::Internal, "the system gives no random numbers"))?;

    let driver = Arc::new(Driver::new()?);
    let lane = Lane::new(target.clone(), options.bulk_checksum)?;
    let link = Arc::new(Link::new(driver.spawner(), lane));
    let ended = link.clone();
    let mut sender = http::connect(&driver, &target, deadline, true, move |error| {
        ended.fail(match error {
            Some(e) => super::receive::lost(&e),
            None => WireError::new(Code::ConnectionLost, "the server closed the connection; did it stop?"),
        });
    })?;

    link.out.push([framed(&frame::hello(&hello(options, &session_id)))]);
    let body = OutBody::queue(link.out.clone());
    let request = http::request(&target, http::OPEN_PATH, options.token.as_deref(), body)?;
    let response = sender.send_request(request);
    let receiver = Receiver::new(link.clone());
    driver.spawner().spawn(async move {
        receiver.run(response).await;
        // hyper takes a connection without a sender for one that is no longer wanted.
        drop(sender);
    });
    driver
        .wait(Some(deadline), || link.is_failed() || link.welcome().is_some())
        .map_err(|stop| stopped(stop, "waiting for the server to take the session"))?;
    let Some(welcome) = link.welcome() else { return Err(link.failure()) };
    let info = server_info(welcome, &session_id)?;
    let mut options = options.clone();
    if let Some(limits) = &welcome.limits {
        options.slots = options.slots.min(u32::try_from(limits.slots).unwrap_or(u32::MAX));
    }
    Ok(ClientSession::new(Parts { link, driver, target, session_id, options, info }))
}

fn hello(options: &ConnectOptions, session_id: &[u8; 16]) -> proto::Hello {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let client = proto::Client {
        host: std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .unwrap_or_default(),
        user: std::env::var("USER").unwrap_or_default(),
        pid: u64::from(std::process::id()),
        start_unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or_default(),
        description: options.client.clone(),
    };
    proto::Hello {
        wire_major: u32::from(limits::WIRE_MAJOR),
        wire_minor: u32::from(limits::WIRE_MINOR),
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        torch_version: options.torch_version.clone(),
        byte_order: if cfg!(target_endian = "little") { proto::ByteOrder::Little } else { proto::ByteOrder::Big }
            .into(),
        pointer_bits: usize::BITS,
        client: Some(client),
        session_id: session_id.to_vec(),
        resume: None,
        limits: Some(proto::Limits { slots: u64::from(options.slots), ..Default::default() }),
    }
}

fn server_info(welcome: &proto::Welcome, session_id: &[u8; 16]) -> Result<ServerInfo> {
    if welcome.wire_major != u32::from(limits::WIRE_MAJOR) {
        return Err(WireError::new(
            Code::VersionMismatch,
            format!(
                "the server speaks wire {}, this client {}: install the same skytorch on both",
                welcome.wire_major,
                limits::WIRE_MAJOR
            ),
        ));
    }
    let devices = welcome.devices.iter().map(|device| DeviceInfo {
        kind: device.r#type.clone(),
        index: device.index,
        label: device.label.clone(),
        total_memory_bytes: device.total_memory_bytes,
    });
    Ok(ServerInfo {
        session_id: session_id[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
        version: welcome.server_version.clone(),
        torch_version: welcome.torch_version.clone(),
        wire: (welcome.wire_major, welcome.wire_minor),
        pid: welcome.server_pid,
        devices: devices.collect(),
    })
}
