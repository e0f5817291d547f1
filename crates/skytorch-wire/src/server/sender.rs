//! Copies to other servers: the lanes that the executor's thread opens and drives itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::client::conn::http2::SendRequest;

use super::session::ServerSession;
use crate::codec::frame;
use crate::driver::{Driver, Stop};
use crate::error::{Code, Result, WireError};
use crate::lane::lend;
use crate::lane::target::SendTarget;
use crate::lane::upload::{Cancel, needs_checksum, upload};
use crate::net::TlsOptions;
use crate::net::address::Address;
use crate::net::body::OutBody;
use crate::net::http::{Target, connect};
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

fn dial(target: &SendTarget, traffic: Arc<Traffic>) -> Result<Open> {
    let tls = TlsOptions {
        ca_pem: (!target.ca_pem.is_empty()).then(|| target.ca_pem.to_vec()),
        server_name: (!target.server_name.is_empty()).then(|| target.server_name.clone()),
        ..TlsOptions::default()
    };
    let target = Target { address: target.address.parse()?, tls: Some(tls), recorder: None, traffic };
    let driver = Driver::new()?;
    let sender = connect(&driver, &target, Instant::now() + CONNECT_TIMEOUT, false, |_| {})?;
    Ok(Open { driver, target, sender })
}

impl ServerSession {
    /// Send `data` where a SEND record's payload says, and wait until it is acknowledged. Less data than the ticket
    /// says tells the other server that it will never come.
    pub(crate) fn send(&mut self, payload: &[u8], data: &[u8]) -> Result<()> {
        let target = SendTarget::parse(payload)?;
        if self.senders.answered == target.request && target.request != 0 {
            return Err(WireError::argument("this send has failed already"));
        }
        self.senders.answered = target.request;
        let result = self.send_to(&target, data);
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

    fn send_to(&mut self, target: &SendTarget, data: &[u8]) -> Result<()> {
        let key = (target.address.clone(), target.ca_pem.to_vec(), target.server_name.clone());
        let mut open = match self.senders.open.remove(&key) {
            Some(open) if !open.sender.is_closed() => open,
            _ => dial(target, self.traffic())?,
        };
        let mut result = Err(WireError::new(Code::SessionClosed, "the session ended during a send"));
        let checksum = target.checksum && needs_checksum(&open.target.address);
        let cancel = Cancel::default();
        let mut open_slot = Some(&mut open);
        let mut failed = false;
        lend(
            data,
            |bytes| {
                let Some(open) = open_slot.take() else { return };
                let Open { driver, target: to, sender } = open;
                let mut sending =
                    Box::pin(upload(sender, to, &target.ticket, bytes, checksum, &cancel, Box::new(())));
                loop {
                    match driver.block_on(sending.as_mut(), Some(Instant::now() + TICK)) {
                        Ok(sent) => {
                            result = sent;
                            break;
                        }
                        Err(Stop::TimedOut | Stop::Interrupted) if !self.is_dead() => {}
                        Err(_) => break,
                    }
                }
                drop(sending);
                failed = result.is_err();
                if failed {
                    driver.clear();
                }
            },
            |loan| loan.wait(TICK),
        );
        if !failed {
            self.senders.open.insert(key, open);
        }
        result
    }

    /// Whether a lane can be opened to `address`.
    pub(crate) fn probe(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<Address>() else { return false };
        let traffic = self.traffic();
        crate::net::connection::dial(&address, Instant::now() + PROBE_TIMEOUT, traffic, None).is_ok()
    }
}
