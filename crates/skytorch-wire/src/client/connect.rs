//! Connections of a session: the first, and those that replace one that broke.
//!
//! All of them go the same way: dial, TLS, HELLO, WELCOME. The subtle thing is when HELLO is written: only once nothing
//! of the old connection can be heard any more, because it says what has arrived (INV-6).

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ConnectOptions;
use super::greet::{hello, server_info, torches};
use super::link::{Link, Stuck};
use super::receive::{Receiver, lost};
use super::session::{ClientSession, Parts};
use crate::codec::frame;
use crate::driver::Driver;
use crate::error::{Code, Result, WireError};
use crate::lane::Lane;
use crate::net::address::Address;
use crate::net::body::OutBody;
use crate::net::http::{self, Target, Unconnected, stopped};
use crate::net::message::framed;
use crate::net::process_unsafe::prepare;
use crate::net::socket::Traffic;
use crate::{limits, proto};

/// How long one connection may take to come about once the session has begun.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

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
    let peer = options.peer_address.as_deref().map_or_else(|| Ok(target.address.clone()), str::parse)?;
    let mut session_id = [0; 16];
    aws_lc_rs::rand::fill(&mut session_id)
        .map_err(|_| WireError::new(Code::Internal, "the system gives no random numbers"))?;

    let driver = Arc::new(Driver::new()?);
    let lane = Lane::new(target.clone(), options.bulk_checksum)?;
    let link = Arc::new(Link::new(driver.spawner(), lane));
    let options = options.clone();
    let mut connector = Connector {
        link,
        driver,
        target,
        session_id,
        options,
        resume_timeout: Duration::ZERO,
        seen: Cell::default(),
    };
    let welcome = connector.attempt(0, deadline).map_err(|stuck| {
        let (Stuck::Gone(error) | Stuck::Broke(error) | Stuck::Refused(error)) = stuck;
        connector.give_up(error)
    })?;
    if welcome.position > u64::MAX / 2 {
        let text =
            format!("the server numbers a new session from {}, which leaves too few numbers", welcome.position);
        return Err(connector.give_up(WireError::protocol(text)));
    }
    let info = server_info(&welcome, &session_id).map_err(|error| connector.give_up(error))?;
    if let Some(note) = torches(&connector.options.torch_version, &info.torch_version) {
        connector.link.set_torches(note);
    }
    if let Some(limits) = &welcome.limits {
        connector.options.slots = connector.options.slots.min(u32::try_from(limits.slots).unwrap_or(u32::MAX));
        connector.resume_timeout = Duration::from_millis(limits.resume_timeout_ms);
    }
    let parts = Parts {
        link: connector.link.clone(),
        driver: connector.driver.clone(),
        target: connector.target.clone(),
        peer,
        session_id,
        options: connector.options.clone(),
        info,
        position: welcome.position,
    };
    ClientSession::new(parts, connector)
}

/// Makes the connections of one session: the first, and those that replace one that broke.
pub(super) struct Connector {
    link: Arc<Link>,
    driver: Arc<Driver>,
    target: Target,
    session_id: [u8; 16],
    options: ConnectOptions,
    /// How long the server keeps the session for us.
    resume_timeout: Duration,
    /// What had come about when a connection last broke, and how often in a row it was the same.
    seen: Cell<((u64, u64), u32)>,
}

impl Connector {
    /// Try connection number `attempt`. 0 begins the session, every later one goes on with it.
    fn attempt(&self, attempt: u64, deadline: Instant) -> std::result::Result<proto::Welcome, Stuck> {
        let (link, target) = (&self.link, &self.target);
        link.begin_attempt(attempt);
        let ended = link.clone();
        let closed = || WireError::new(Code::ConnectionLost, "the server closed the connection; did it stop?");
        let ended = move |error: Option<hyper::Error>| ended.broke(attempt, error.map_or_else(closed, |e| lost(&e)));
        let mut sender = http::connect(&self.driver, target, deadline, true, ended).map_err(|none| match none {
            Unconnected::Gone(error) => Stuck::Gone(error),
            Unconnected::Failed(error) => Stuck::Broke(error),
        })?;
        // From here on nothing of an older connection is heard.
        let resume = (attempt > 0).then(|| link.resume(attempt));
        link.out.reopen();
        link.out.push([framed(&frame::hello(&hello(&self.options, &self.session_id, resume)))]);
        let body = OutBody::queue(link.out.clone());
        // The token's file may just be being written.
        let request =
            http::request(target, http::OPEN_PATH, self.options.token.as_ref(), body).map_err(Stuck::Broke)?;
        let response = sender.send_request(request);
        let receiver = Receiver::new(link.clone(), attempt, matches!(target.address, Address::Tcp(..)));
        self.driver.spawner().spawn(async move {
            receiver.run(response).await;
            // hyper takes a connection without a sender for one that is no longer wanted.
            drop(sender);
        });
        let greeted = self.driver.wait(Some(deadline), || link.is_greeted());
        greeted.map_err(|stop| {
            Stuck::Broke(stopped(stop, &format!("waiting for {} to take the session", target.address)))
        })?;
        link.go_on()
    }

    /// Go on over a new connection, however many it takes, or end the session.
    pub(super) fn reconnect(&self) {
        let (link, start) = (&self.link, Instant::now());
        let Some(trouble) = link.trouble() else { return };
        tracing::info!("{trouble}; going on over a new connection");
        let (end, mut pause) = (start + self.resume_timeout, limits::FIRST_PAUSE);
        if self.resume_timeout.is_zero() {
            return link.fail(trouble);
        }
        if let Some(more) = self.fruitless() {
            if more > limits::FRUITLESS_CONNECTIONS {
                let text = format!("{trouble}, for the {more}th time in a row without any progress");
                return link.fail(WireError::new(Code::ConnectionLost, text));
            }
            pause = (pause * (1 << more.min(6))).min(limits::LAST_PAUSE);
            let _ = self.driver.wait(Some(Instant::now() + pause), || link.is_failed());
        }
        let mut why: Option<WireError> = None;
        for attempt in link.attempts() + 1.. {
            if link.is_failed() {
                return;
            }
            let error = match self.attempt(attempt, end.min(Instant::now() + ATTEMPT_TIMEOUT)) {
                Ok(_) => return,
                // A token was good once. While it is replaced the two sides may have different ones: a server in a pod
                // sees its new one up to minutes after us, and until `end` it keeps the session.
                Err(Stuck::Refused(error)) if error.code == Code::Unauthenticated => error,
                Err(Stuck::Refused(error)) => return link.fail(refusal(&trouble, error)),
                Err(Stuck::Gone(error))
                    if matches!(self.target.address, Address::Unix(_)) || start.elapsed() > limits::GONE =>
                {
                    let text = format!("{trouble}, and {error}");
                    return link.fail(WireError::new(Code::ConnectionLost, text));
                }
                Err(Stuck::Gone(error) | Stuck::Broke(error)) => error,
            };
            // The last attempt has little time, and tells little.
            let why = match why.take() {
                Some(known) if error.code == Code::Timeout => why.insert(known),
                _ => why.insert(error),
            };
            if Instant::now() >= end {
                let seconds = start.elapsed().as_secs();
                let text = format!("{trouble}, and no new one came about in {seconds} s: {why}");
                return link.fail(WireError::new(Code::ConnectionLost, text));
            }
            let _ = self.driver.wait(Some(Instant::now() + pause), || link.is_failed());
            pause = (2 * pause).min(limits::LAST_PAUSE);
        }
    }

    /// How often in a row connections broke with nothing to show for it.
    fn fruitless(&self) -> Option<u32> {
        let (before, count) = self.seen.get();
        let progress = self.link.progress();
        let count = if progress == before { count + 1 } else { 0 };
        self.seen.set((progress, count));
        (count > 0).then_some(count)
    }

    /// The session never began.
    fn give_up(&self, error: WireError) -> WireError {
        self.link.fail(error.clone());
        // The end of our half of the stream tells the server so.
        self.driver.turn(false);
        self.driver.clear();
        error
    }
}

/// The server's refusal to take a session up again, in words. How a session ended is told as it is.
fn refusal(trouble: &WireError, error: WireError) -> WireError {
    match error.code {
        Code::ServerBusy | Code::VersionMismatch | Code::Protocol | Code::ConnectionLost => {
            let text = format!("{trouble}, and the server does not take the session up again: {error}");
            WireError::new(Code::ConnectionLost, text)
        }
        _ => error,
    }
}
