//! The server as its owner sees it: bind, start, stop.

use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::probe::ProbeDoor;
use super::serve::{Arrived, serve};
use super::session::ServerSession;
use super::shared::Shared;
use super::{ControlService, ServerCounters, ServerOptions};
use crate::abi::SkyServer;
use crate::error::{Code, Result, WireError};
use crate::net::address::Address;
use crate::net::listener::{Incomer, Listener};
use crate::net::process_unsafe::prepare;
use crate::net::tls::Identity;

/// A listening server. Dropping it stops it.
pub struct Server {
    pub(crate) shared: Arc<Shared>,
    addresses: Vec<Address>,
    tls: Option<Arc<Identity>>,
    listeners: Mutex<Vec<Listener>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    probe: Option<ProbeDoor>,
}

impl Server {
    /// Take the addresses. Refuses one that others can reach without TLS and a token.
    pub fn bind(options: ServerOptions) -> Result<Arc<Server>> {
        prepare();
        if options.listen.is_empty() {
            return Err(WireError::argument("a server needs an address to listen at"));
        }
        if let Some(token) = &options.token {
            token.bearer()?;
        }
        let addresses = options.listen.iter().map(|text| text.parse()).collect::<Result<Vec<Address>>>()?;
        for address in &addresses {
            let safe = matches!(address, Address::Tls(..)) && options.token.is_some();
            if !safe && !address.is_local()? {
                return Err(WireError::argument(format!(
                    "{address} can be reached from other machines: listen at tls://host:port and give a token"
                )));
            }
        }
        let needs_tls = addresses.iter().any(|address| matches!(address, Address::Tls(..)));
        let tls = match (&options.tls, needs_tls) {
            (_, false) => None,
            (Some(tls), true) => Some(Arc::new(Identity::new(tls.clone())?)),
            (None, true) => return Err(WireError::argument("a tls:// listener needs a certificate and its key")),
        };
        let listeners = addresses.iter().map(Listener::bind).collect::<Result<Vec<_>>>()?;
        let control = Arc::<OnceLock<ControlService>>::default();
        let probe = options.health.as_deref().map(|address| ProbeDoor::bind(address, control.clone())).transpose()?;
        let addresses = listeners.iter().map(|listener| listener.address().clone()).collect();
        Ok(Arc::new(Server {
            shared: Arc::new(Shared::new(options, control)?),
            addresses,
            tls,
            listeners: Mutex::new(listeners),
            threads: Mutex::default(),
            probe,
        }))
    }

    /// Mount the control calls; before `start`, once.
    pub fn set_control_service(&self, service: ControlService) {
        let _ = self.shared.control.set(service);
    }

    /// Begin to accept connections.
    pub fn start(&self) -> Result<()> {
        for listener in self.listeners.lock().drain(..) {
            let shared = self.shared.clone();
            let tls = self.tls.clone().filter(|_| matches!(listener.address(), Address::Tls(..)));
            let thread = std::thread::Builder::new()
                .name("sky-listen".into())
                .spawn(move || {
                    accept_all(&listener, &shared.stop_event, |incomer| begin(&shared, incomer, tls.as_ref()));
                })
                .map_err(|e| WireError::new(Code::Internal, format!("cannot start a listener: {e}")))?;
            self.threads.lock().push(thread);
        }
        self.probe.as_ref().map_or(Ok(()), ProbeDoor::open)
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }

    /// Where it answers probes of health.
    pub fn health_address(&self) -> Option<String> {
        self.probe.as_ref().map(|probe| probe.address().to_string())
    }

    /// Stop listening and end everything; the executor's next call says so. Returns when nothing listens any more but
    /// the door for probes: it says until the server is dropped that there is no more to be had.
    pub fn stop(&self) {
        self.shared.stop();
        self.listeners.lock().clear();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// Counters since the start.
    pub fn counters(&self) -> ServerCounters {
        self.shared.counters()
    }

    /// For the C ABI: borrowed, valid while the `Arc` is.
    pub fn as_raw(self: &Arc<Self>) -> *const SkyServer {
        Arc::as_ptr(self).cast()
    }

    /// Wait for the next session.
    pub(crate) fn accept(&self, timeout: Duration) -> Result<Box<ServerSession>> {
        let accepted = self.shared.accept(timeout)?;
        Ok(Box::new(ServerSession::new(self.shared.clone(), accepted)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Accept at `listener` until `stop` is readable; `begin` sees to each connection.
pub(super) fn accept_all(listener: &Listener, stop: &impl AsFd, begin: impl Fn(Incomer) -> Result<()>) {
    loop {
        match listener.accept(stop) {
            Ok(Some(incomer)) => {
                if let Err(e) = begin(incomer) {
                    tracing::warn!("a connection at {} cannot be served: {e}", listener.address());
                }
            }
            Ok(None) => return,
            Err(e) => {
                tracing::warn!("cannot accept at {}: {e}", listener.address());
                // Out of descriptors, most likely: the listener would be ready again at once.
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
    }
}

/// Give a connection a thread of its own.
fn begin(shared: &Arc<Shared>, incomer: Incomer, tls: Option<&Arc<Identity>>) -> Result<()> {
    let arrived = Arrived::enter(shared, incomer, tls.map(|identity| identity.config()))?;
    let shared = shared.clone();
    let thread = std::thread::Builder::new().name("sky-connection".into());
    thread.spawn(move || serve(&shared, arrived)).map_err(|e| WireError::limit(format!("no thread for it: {e}")))?;
    Ok(())
}
