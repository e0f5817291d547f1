//! What the fuzzer starts from, for each decoder: the golden bytes, accepted and refused, and for what has none a few
//! valid messages.

use prost::Message as _;
use skytorch_wire::codec::frame::{HEADER_BYTES, OPS_HEADER_BYTES};
use skytorch_wire::proto;

use crate::vector_files::{Vector, examples, vectors};

/// Bytes of the vectors that are `what`; records together with those that come before them.
fn golden(what: &str) -> Vec<Vec<u8>> {
    let all = [vectors("accept"), vectors("reject"), examples()].into_iter().flatten();
    all.filter(|vector: &Vector| vector.what == what).map(|vector| [vector.before, vector.bytes].concat()).collect()
}

fn bodies(frames: Vec<Vec<u8>>, header: usize) -> impl Iterator<Item = Vec<u8>> {
    frames.into_iter().filter_map(move |frame| frame.get(header..).map(<[u8]>::to_vec))
}

/// With the prefix of a gRPC message.
fn framed(frame: &[u8]) -> Vec<u8> {
    [&[0][..], &(frame.len() as u32).to_be_bytes(), frame].concat()
}

fn control() -> Vec<Vec<u8>> {
    let metric = proto::Metric { name: "memory".into(), value: 0.5, unit: "bytes".into(), ..Default::default() };
    vec![
        proto::WatchRequest { interval_ms: 100 }.encode_to_vec(),
        proto::Snapshot { metrics: vec![metric.clone(), metric], ..Default::default() }.encode_to_vec(),
        proto::LogsRequest::default().encode_to_vec(),
        proto::LogLines { lines: vec!["one".into(), "two".into()], ..Default::default() }.encode_to_vec(),
    ]
}

/// Seeds of a target of `skytorch_wire::fuzz`.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    let text = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "records" => golden("records").into_iter().chain(bodies(golden("ops"), OPS_HEADER_BYTES)).collect(),
        "client-frame" => [golden("client-frame"), golden("ops")].concat(),
        "server-frame" => golden("server-frame"),
        "reply" => golden("reply"),
        "grpc" => golden("server-frame").iter().map(|frame| framed(frame)).collect(),
        "lane-head" => vec![vec![1, 0, 0, 0, 1, 2, 3, 4], vec![0; 8]],
        "ticket" => vec![vec![0; 24], vec![b'0'; 112], vec![b'f'; 112]],
        // Fields 1 to 6: address, ticket, CA, server name, whether to check-sum, request.
        "send-target" => vec![b"\x0a\x12tcp://127.0.0.1:80\x12\x02ab\x1a\x01-\x22\x01h\x28\x01\x30\x05".to_vec()],
        "handshake" => bodies(golden("client-frame"), HEADER_BYTES + 8)
            .chain(bodies(golden("server-frame"), HEADER_BYTES))
            .collect(),
        "control" => control(),
        "address" => {
            text(&["unix:///tmp/x", "tcp://127.0.0.1:80", "tls://[::1]:7", "tls://gpu.example:7443", "tcp://[[a]]:1"])
        }
        other => panic!("the decoder {other} has no seeds"),
    }
}
