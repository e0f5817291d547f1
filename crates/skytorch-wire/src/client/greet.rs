//! What a client says first, and what it makes of the answer.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{ConnectOptions, ServerInfo};
use crate::error::{Code, Result, WireError};
use crate::net::DeviceInfo;
use crate::{limits, proto};

/// A client's first frame; `resume` if it goes on with a session.
pub(super) fn hello(options: &ConnectOptions, session_id: &[u8; 16], resume: Option<proto::Resume>) -> proto::Hello {
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
        resume,
        limits: Some(proto::Limits { slots: u64::from(options.slots), ..Default::default() }),
    }
}

/// What to add to an error that the two torches may explain; nothing between those of one minor version.
pub(super) fn torches(ours: &str, theirs: &str) -> Option<String> {
    let minor = |version: &str| version.splitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
    let differ = !ours.is_empty() && !theirs.is_empty() && minor(ours) != minor(theirs);
    differ.then(|| format!(" (torch is {ours} here and {theirs} on the server)"))
}

/// What the server said about itself.
pub(super) fn server_info(welcome: &proto::Welcome, session_id: &[u8; 16]) -> Result<ServerInfo> {
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

#[cfg(test)]
mod tests {
    use super::torches;

    #[test]
    fn only_another_minor_version_is_named() {
        let text = torches("2.11.0+cu130", "2.15.0").unwrap();
        assert_eq!(text, " (torch is 2.11.0+cu130 here and 2.15.0 on the server)");
        for (ours, theirs) in [("2.14.0", "2.14.1+cpu"), ("", "2.15.0"), ("2.15.0", "")] {
            assert_eq!(torches(ours, theirs), None, "{ours} {theirs}");
        }
    }
}
