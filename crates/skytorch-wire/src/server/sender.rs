//! Copies to other servers: the lanes that the executor's thread opens and drives itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::client::conn::http2::SendRequest;

use super::session::ServerSession;
use crate::codec::frame;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::lane::target::SendTarget;
use crate::lane::upload::{Cancel, Upload, needs_checksum, upload};
use crate::lane::watch::Watch;
use crate::lane::{Payload, lend};
use crate::limits;
use crate::net::TlsOptions;
use crate::net::address::Address;
use crate::net::body::OutBody;
use crate::net::http::{Target, Unconnected, connect};
use crate::net::message::framed;
use crate::net::socket::Traffic;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A probe tells the client whether it must carry the bytes itself; it should not hold the session up.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a send looks whether its own session is still there.
const TICK: Duration = Duration::from_millis(500);

struct Open {
    driver: Driver,
    target: Target,
    sender: SendRequest<OutBody>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.clear();
    }
}

/// The open lanes of a session, by address and certificate.
#[derive(Default)]
pub(super) struct Senders {
    open: HashMap<(String, Vec<u8>, String), Open>,
    /// Request number of the send that was answered last.
    answered: u64,
}

fn dial(target: &SendTarget, traffic: Arc<Traffic>) -> std::result::Result<Open, Unconnected> {
    let tls = TlsOptions {
        ca_pem: (!target.ca_pem.is_empty()).then(|| target.ca_pem.to_vec().into()),
        server_name: (!target.server_name.is_empty()).then(|| target.server_name.clone()),
        ..TlsOptions::default()
    };
    let target = Target { address: target.address.parse()?, tls: Some(tls), recorder: None, traffic };
    let driver = Driver::new()?;
    let sender = connect(&driver, &target, Instant::now() + CONNECT_TIMEOUT, false, |_| {})?;
    Ok(Open { driver, target, sender })
}

impl ServerSession {
    /// Send the `pieces` where a SEND record's payload says, and wait until they are acknowledged. None tell the other
    /// server that they will never come.
    pub(crate) fn send(&mut self, payload: &[u8], pieces: &[&[u8]]) -> Result<()> {
        let target = SendTarget::parse(payload)?;
        if self.senders.answered == target.request && target.request != 0 {
            return Err(WireError::argument("this send has failed already"));
        }
        self.senders.answered = target.request;
        let result = self.send_to(&target, pieces);
        match &result {
            Ok(()) => self.answer(target.request, 0, 0, Bytes::new())?,
            Err(error) => {
                let frame = frame::error(target.request, error.code.number(), &error.message);
                self.keep(target.request, vec![framed(&frame)])?;
            }
        }
        self.link().out().wake();
        result
    }

    fn send_to(&mut self, target: &SendTarget, pieces: &[&[u8]]) -> Result<()> {
        let key = (target.address.clone(), target.ca_pem.to_vec(), target.server_name.clone());
        let open = RefCell::new(self.senders.open.remove(&key).filter(|open| !open.sender.is_closed()));
        let mut result = Err(WireError::new(Code::SessionClosed, "the session ended during a send"));
        lend(
            pieces,
            |payload| result = self.carry(target, &payload, &mut open.borrow_mut()),
            |loan| {
                // It was answered before the last of the data went out, and nobody drives the connection that holds it.
                open.take();
                loan.wait(TICK);
            },
        );
        if let (Some(open), Ok(())) = (open.into_inner(), &result) {
            self.senders.open.insert(key, open);
        }
        result
    }

    /// Carry the bytes over, on as many connections as it takes.
    fn carry(&self, target: &SendTarget, payload: &Payload, lane: &mut Option<Open>) -> Result<()> {
        let (cancel, flow) = (Cancel::default(), Arc::default());
        let (mut attempt, mut pause) = (0, limits::FIRST_PAUSE);
        let mut broken: Option<Instant> = None;
        loop {
            if self.is_dead() {
                return Err(WireError::new(Code::SessionClosed, "the session ended during a send"));
            }
            let away = broken.map(|since| since.elapsed());
            let open = match lane.take().map_or_else(|| dial(target, self.traffic()), Ok) {
                Ok(open) => lane.insert(open),
                Err(Unconnected::Gone(_)) if away.is_some_and(|away| away < limits::GONE) => {
                    std::thread::sleep(limits::FIRST_PAUSE);
                    continue;
                }
                Err(Unconnected::Failed(_)) if away.is_some_and(|away| away < limits::RESUME_TIMEOUT) => {
                    std::thread::sleep(pause);
                    pause = (2 * pause).min(limits::LAST_PAUSE);
                    continue;
                }
                Err(unconnected) => return Err(unconnected.into()),
            };
            let outgoing = Upload {
                target: &open.target,
                ticket: &target.ticket,
                checksum: target.checksum && needs_checksum(&open.target.address),
                cancel: &cancel,
                flow: &flow,
                abort: payload.is_empty().then_some(Code::ConnectionLost),
            };
            let before = flow.load(Ordering::Relaxed);
            let mut watch = Watch::new();
            let mut sending = Box::pin(upload(&mut open.sender, &outgoing, payload.clone(), attempt, Box::new(())));
            let sent = loop {
                match open.driver.block_on(sending.as_mut(), Some(Instant::now() + TICK)) {
                    Ok(sent) => break Some(sent),
                    Err(_) if self.is_dead() => break None,
                    Err(_) => {
                        let flow = flow.load(Ordering::Relaxed);
                        if watch.is_silent(&open.target, Some(&target.ticket), flow) {
                            break None;
                        }
                    }
                }
            };
            drop(sending);
            match sent {
                Some(Err(error)) if error.code != Code::ConnectionLost => {
                    *lane = None;
                    return Err(error);
                }
                Some(Ok(())) => return Ok(()),
                // It broke or fell silent.
                _ => {}
            }
            *lane = None;
            attempt += 1;
            if broken.is_none() || flow.load(Ordering::Relaxed) != before {
                broken = Some(Instant::now());
            }
        }
    }

    /// Whether a lane can be opened to `address`.
    pub(crate) fn probe(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<Address>() else { return false };
        let traffic = self.traffic();
        crate::net::connection::dial(&address, Instant::now() + PROBE_TIMEOUT, traffic, None).is_ok()
    }
}
