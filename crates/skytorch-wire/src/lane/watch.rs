//! Finding out that a lane fell silent, which nothing else does: a server may keep a lane waiting for as long as its
//! executor has no room, so a lane has no keepalive.
//!
//! A lane that brings nothing on is asked about over another connection. It is given up when the server is neither
//! waiting itself nor has received anything since it was asked before.

use std::time::{Duration, Instant};

use super::upload::{Received, received};
use crate::driver::Driver;
use crate::net::http::{Target, connect};

/// How long nothing may be handed over before the server is asked, and how often it is asked then.
const QUIET: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Watch {
    flow: u64,
    since: Instant,
    before: Option<Received>,
}

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch { flow: 0, since: Instant::now(), before: None }
    }

    /// When to look again.
    pub(crate) fn next(&self) -> Instant {
        self.since + QUIET
    }

    /// Whether the connection that carries the transfer of `ticket` has fallen silent; `flow` counts what was handed to
    /// it. Call it from time to time, and with no ticket while nothing is under way.
    pub(crate) fn is_silent(&mut self, target: &Target, ticket: Option<&str>, flow: u64) -> bool {
        let Some(ticket) = ticket.filter(|_| flow == self.flow) else {
            *self = Watch { flow, ..Watch::new() };
            return false;
        };
        if self.since.elapsed() < QUIET {
            return false;
        }
        let now = ask(target, ticket);
        self.since = Instant::now();
        let before = std::mem::replace(&mut self.before, now);
        matches!((before, now), (Some(before), Some(now)) if before == now && now != Received::Waiting)
    }
}

/// `None` if there is no answer either: then it is the session's own keepalive that decides.
fn ask(target: &Target, ticket: &str) -> Option<Received> {
    let deadline = Some(Instant::now() + ANSWER_TIMEOUT);
    let driver = Driver::new().ok()?;
    let mut sender = connect(&driver, target, deadline?, false, |_| {}).ok()?;
    let answer = driver.block_on(received(&mut sender, target, ticket, 0), deadline);
    driver.clear();
    answer.ok()?.ok()
}
