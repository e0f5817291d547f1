//! The door for probes: a plaintext listener that answers `grpc.health.v1` and nothing else, without a token.
//!
//! A kubelet's gRPC probe knows neither TLS nor tokens, so this door may stand open on any address although the
//! others may not (`Server::bind`): behind it there is nothing but SERVING and NOT_SERVING, which is why that rule does
//! not apply here. Its connections have a room of their own and are no part of the server's counters. The subtle thing
//! is the end: it goes on to say NOT_SERVING after `Server::stop`, while the session ends, until the server is dropped.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::ControlService;
use super::doors::{Doors, Guest};
use super::listen::accept_all;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::limits;
use crate::net::address::Address;
use crate::net::body::OutBody;
use crate::net::connection::Stream;
use crate::net::http::{HEALTH_PREFIX, refusal, server_builder};
use crate::net::listener::{Incomer, Listener};
use crate::net::socket::{Socket, Traffic};

/// What the threads of the door share.
struct Inner {
    control: Arc<OnceLock<ControlService>>,
    doors: Doors,
    traffic: Arc<Traffic>,
    /// Readable once the door is closed.
    stop_event: OwnedFd,
    closed: AtomicBool,
}

/// See the module.
pub(super) struct ProbeDoor {
    inner: Arc<Inner>,
    address: Address,
    listener: Mutex<Option<Listener>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ProbeDoor {
    /// Take the address; probes are answered by `control`, from `open` on.
    pub(super) fn bind(address: &str, control: Arc<OnceLock<ControlService>>) -> Result<ProbeDoor> {
        let address: Address = address.parse()?;
        if !matches!(address, Address::Tcp(..)) {
            return Err(WireError::argument(format!(
                "{address} is no address for probes, which know neither TLS nor Unix sockets: write tcp://host:port"
            )));
        }
        let listener = Listener::bind(&address)?;
        let stop_event = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|e| WireError::new(Code::Internal, format!("cannot make an eventfd: {e}")))?;
        let inner = Inner {
            control,
            // Nobody shows a token here, so nobody is ever more than a guest.
            doors: Doors::new(limits::PROBE_CONNECTIONS, 0),
            traffic: Arc::default(),
            stop_event,
            closed: AtomicBool::new(false),
        };
        Ok(ProbeDoor {
            inner: Arc::new(inner),
            address: listener.address().clone(),
            listener: Mutex::new(Some(listener)),
            thread: Mutex::default(),
        })
    }

    /// Where it is, with the real port.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Begin to answer. A second call does nothing.
    pub(super) fn open(&self) -> Result<()> {
        let Some(listener) = self.listener.lock().take() else { return Ok(()) };
        let inner = self.inner.clone();
        let thread = std::thread::Builder::new()
            .name("sky-probe-listen".into())
            .spawn(move || accept_all(&listener, &inner.stop_event, |incomer| begin(&inner, incomer)))
            .map_err(|e| WireError::new(Code::Internal, format!("cannot start a listener: {e}")))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }
}

impl Drop for ProbeDoor {
    fn drop(&mut self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.inner.stop_event, &1u64.to_ne_bytes());
        for driver in self.inner.doors.drivers() {
            driver.poke();
        }
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// Give a connection a thread of its own.
fn begin(inner: &Arc<Inner>, incomer: Incomer) -> Result<()> {
    let driver = Arc::new(Driver::new()?);
    let socket = Socket::new(incomer.fd, inner.traffic.clone(), None);
    driver.attach(socket.readiness());
    inner.doors.enter(Guest::new(&driver, &socket.readiness()));
    let inner = inner.clone();
    let thread = std::thread::Builder::new().name("sky-probe".into());
    thread
        .spawn(move || serve(&inner, &driver, socket))
        .map_err(|e| WireError::limit(format!("no thread for it: {e}")))?;
    Ok(())
}

fn serve(inner: &Arc<Inner>, driver: &Arc<Driver>, socket: Socket) {
    let router = hyper::service::service_fn({
        let inner = inner.clone();
        move |request| {
            let inner = inner.clone();
            async move { Ok::<_, Infallible>(route(&inner, request).await) }
        }
    });
    let http = server_builder(driver, limits::PROBE_WINDOW_BYTES).serve_connection(Stream::Plain(socket), router);
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    driver.spawner().spawn(async move {
        // Whatever a stranger sends: it ends their connection, and is worth no line in the log.
        let _ = http.await;
        end.store(true, Ordering::SeqCst);
    });
    let over = || ended.load(Ordering::SeqCst) || inner.closed.load(Ordering::SeqCst);
    let _ = driver.serve(None, over);
    driver.clear();
}

async fn route(inner: &Inner, request: Request<Incoming>) -> Response<OutBody> {
    let path = request.uri().path();
    if !path.starts_with(HEALTH_PREFIX) {
        let text = format!("there is no {path} here: this address answers health only");
        return refusal(&WireError::new(Code::NotSupported, text));
    }
    let Some(control) = inner.control.get() else {
        return refusal(&WireError::new(Code::NotSupported, "this server has no control services"));
    };
    control(request.map(tonic::body::Body::new)).await.map(OutBody::control)
}
