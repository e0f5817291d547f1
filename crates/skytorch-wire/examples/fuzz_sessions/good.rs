//! A session that any client might have: it uploads four floats, adds them to themselves and reads the sum.

use std::time::{Duration, Instant};

use skytorch_wire::client::ConnectOptions;
use skytorch_wire::codec::frame;
use skytorch_wire::codec::{Arg, Geometry, OpEncoder, Record, Template, TemplateKind};
use skytorch_wire::error::Code;
use skytorch_wire::limits;

use crate::raw::{self, Answer, End, Outgoing, framed, hello};

const FLOAT: u8 = 6;

fn records() -> Vec<u8> {
    let four = Geometry::contiguous(FLOAT, &[4]);
    let x = Arg::Tensor { storage: 0, geometry: four.clone() };
    let one = skytorch_wire::abi::SkyScalar { integer: 1, ..Default::default() };
    let add = Template {
        name: "aten::add.Tensor".into(),
        args: vec![x.clone(), x, Arg::Scalar(one)],
        outputs: vec![four.clone()],
        n_storages: 1,
        ..Template::default()
    };
    let transfer = |kind| Template::transfer(kind, 0, 0, four.clone());
    let payload = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let all = [
        Record::Alloc { storage: 1, n_bytes: 16, device: 0 },
        Record::Define { slot: 0, template: transfer(TemplateKind::Write) },
        Record::Define { slot: 1, template: transfer(TemplateKind::Read) },
        Record::Define { slot: 2, template: add },
        Record::Write { slot: 0, storage: 1, payload },
        Record::Op { slot: 2, storages: vec![1, 2], scalars: vec![] },
        Record::Read { slot: 1, storage: 2, request: 1 },
    ];
    let (mut encoder, mut out) = (OpEncoder::new(limits::SLOTS, 0), Vec::new());
    for record in &all {
        encoder.record(&mut out, record).expect("a sound record");
    }
    out
}

fn once(options: &ConnectOptions) -> Result<Answer, String> {
    let frames = [frame::hello(&hello(raw::fresh_id())), raw::ops(1, &records()), frame::close()];
    let body = Outgoing::new(frames.iter().map(|frame| framed(frame)), End::Finish);
    raw::call(options, raw::OPEN, None, body, raw::PATIENCE).map_err(|e| format!("a well-behaved session: {e}"))
}

/// An error unless it works. The server may take a moment to notice that the one before has hung up.
pub(crate) fn session(options: &ConnectOptions) -> Result<(), String> {
    let deadline = Instant::now() + raw::PATIENCE;
    let answer = loop {
        let answer = once(options)?;
        if !answer.is_busy() {
            break answer;
        }
        if Instant::now() > deadline {
            return Err("the server is still busy with a session that was hung up on".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let expected: Vec<u8> = [2f32, 4.0, 6.0, 8.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    match answer.goodbye() {
        Some(error) if error.code == Code::Ok && answer.replies() == expected => Ok(()),
        goodbye => Err(format!(
            "a well-behaved session got {:?}, was refused with {:?} and ended with {goodbye:?}",
            answer.replies(),
            answer.refused
        )),
    }
}
