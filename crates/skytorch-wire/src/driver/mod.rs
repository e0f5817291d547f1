//! A small blocking executor that drives one connection on whichever thread is waiting for it.
//!
//! It is not a general runtime: one socket, a handful of tasks, no threads of its own. The thread that waits takes
//! the core by `try_lock`, polls the tasks that are ready and sleeps in poll(2) on the socket and an eventfd; every
//! other thread that wants something wakes it. The subtle thing is the hand-over: a thread that finds the core taken
//! sleeps on a condition variable, and whoever lets the core go wakes it, so that no wait is ever without a driver.

mod core;
mod readiness;
mod spawn;
mod sync;
mod tasks;
mod timers;
mod wait;
mod wake;

pub(crate) use self::readiness::Readiness;
pub(crate) use self::spawn::{DriverTimer, Spawner};
pub use self::timers::{Sleep, sleep};
pub(crate) use self::wait::Stop;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use parking_lot::{Mutex, MutexGuard};

use self::core::Core;
use self::tasks::Shared;
use crate::error::Result;
use crate::net::process_unsafe::Lifetime;

/// The executor of one connection; see the module.
pub(crate) struct Driver {
    core: Mutex<Core>,
    shared: Arc<Shared>,
    lifetime: Lifetime,
}

impl Driver {
    /// A driver without a socket: give it one with [`Driver::attach`].
    pub(crate) fn new() -> Result<Driver> {
        let shared = Arc::new(Shared::new()?);
        Ok(Driver { core: Mutex::new(Core::new(shared.clone())), shared, lifetime: Lifetime::here() })
    }

    /// Poll this socket from now on; what drove the one before is dropped when this returns.
    pub(crate) fn attach(&self, readiness: Arc<Readiness>) {
        self.shared.attach(readiness);
        // Cannot time out without a deadline.
        let _ = self.serve(None, || self.shared.is_attached());
    }

    /// Where tasks are handed in; also what hyper spawns with.
    pub(crate) fn spawner(&self) -> Spawner {
        Spawner::new(self.shared.clone())
    }

    /// The clock for hyper's keepalive.
    pub(crate) fn timer(&self) -> DriverTimer {
        DriverTimer
    }

    /// Run what is ready, without sleeping, if nobody else owns the core; with `look`, ask the socket for news too.
    /// An owner needs no telling: whatever made a task ready has woken it.
    pub(crate) fn turn(&self, look: bool) {
        // Against the fence in `release`: either this thread gets the core, or its owner sees what was made ready.
        fence(Ordering::SeqCst);
        if let Some(mut core) = self.core.try_lock() {
            core.turn(look);
            self.release(core);
        }
    }

    /// Let the core go. What became ready after this thread last looked, and whose waker found the core taken, is run
    /// before: nobody else might.
    fn release<'a>(&'a self, mut core: MutexGuard<'a, Core>) {
        loop {
            drop(core);
            self.shared.hand_over();
            fence(Ordering::SeqCst);
            if !self.shared.has_work() {
                return;
            }
            match self.core.try_lock() {
                Some(free) => core = free,
                None => return,
            }
            core.turn(false);
        }
    }

    /// Have whoever sleeps here look at its condition.
    pub(crate) fn poke(&self) {
        self.shared.signal();
        self.shared.hand_over();
    }

    /// Drop every task, which closes the connection. Waits for the present owner to let go.
    pub(crate) fn clear(&self) {
        if !self.lifetime.is_here() {
            return;
        }
        self.shared.signal();
        let tasks = self.core.lock().take_tasks();
        drop(tasks);
        self.shared.hand_over();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.lifetime.is_here() {
            // A thread of the parent may have been inside one of them when it forked: they cannot be torn down.
            self.core.get_mut().leak();
        }
    }
}
