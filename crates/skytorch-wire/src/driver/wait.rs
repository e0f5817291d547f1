//! Waiting on a driver: own the core or sleep until it is free, look for Ctrl-C every 100 ms.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Driver;
use super::tasks::RootWaker;
use super::timers::Driving;
use crate::hooks;

/// How often a wait looks for Ctrl-C.
const INTERRUPT_TICK: Duration = Duration::from_millis(100);

/// Why a wait ended before its condition held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The program was interrupted (Ctrl-C).
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

impl Driver {
    /// Drive the connection, or wait while another thread does, until `done` says so. `done` is looked at after every
    /// round of tasks; what makes it true from another thread must call `Spawner::notify_waiters`.
    pub(crate) fn wait(&self, deadline: Option<Instant>, mut done: impl FnMut() -> bool) -> Result<(), Stop> {
        let _driving = Driving::enter(&self.shared);
        if done() {
            return Ok(());
        }
        let _outside = hooks::Outside::enter();
        loop {
            let tick = Instant::now() + INTERRUPT_TICK;
            let until = deadline.map_or(tick, |deadline| deadline.min(tick));
            let seen = self.shared.generation();
            // True when nothing happened until the tick, or a signal cut the sleep short.
            let quiet;
            if let Some(mut core) = self.core.try_lock() {
                let over = loop {
                    core.run_ready();
                    if done() {
                        break true;
                    }
                    if !core.wait_io(Some(until)) {
                        break false;
                    }
                };
                self.release(core);
                if over {
                    return Ok(());
                }
                quiet = true;
            } else {
                if done() {
                    return Ok(());
                }
                let left = until.saturating_duration_since(Instant::now());
                self.shared.wait_for_hand_over(seen, left, || !self.core.is_locked());
                quiet = Instant::now() >= tick;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Stop::TimedOut);
            }
            if quiet && hooks::interrupted() {
                return Err(Stop::Interrupted);
            }
        }
    }

    /// Like `wait`, on a thread that belongs to us: nobody interrupts it, and it sleeps until something happens.
    pub(crate) fn serve(&self, deadline: Option<Instant>, mut done: impl FnMut() -> bool) -> Result<(), Stop> {
        let _driving = Driving::enter(&self.shared);
        loop {
            let seen = self.shared.generation();
            if let Some(mut core) = self.core.try_lock() {
                let over = loop {
                    core.run_ready();
                    if done() {
                        break true;
                    }
                    if !core.wait_io(deadline) && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        break false;
                    }
                };
                self.release(core);
                return if over { Ok(()) } else { Err(Stop::TimedOut) };
            }
            if done() {
                return Ok(());
            }
            let left =
                deadline.map_or(INTERRUPT_TICK, |d| d.saturating_duration_since(Instant::now()).min(INTERRUPT_TICK));
            self.shared.wait_for_hand_over(seen, left, || !self.core.is_locked());
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Stop::TimedOut);
            }
        }
    }

    /// Poll `future` on this thread while driving the connection, until it is ready.
    pub(crate) fn block_on<F: Future>(&self, future: F, deadline: Option<Instant>) -> Result<F::Output, Stop> {
        let mut future = pin!(future);
        let mut root = self.root(|cx| future.as_mut().poll(cx));
        self.wait(deadline, || root.look())?;
        Ok(root.output.expect("the wait ends when there is an output"))
    }

    /// Like `block_on`, on a thread that nobody interrupts; `None` at the deadline or when `stop` says so.
    pub(crate) fn serve_on<T>(
        &self,
        deadline: Instant,
        stop: impl Fn() -> bool,
        poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        let mut root = self.root(poll);
        let _ = self.serve(Some(deadline), || root.look() || stop());
        root.output
    }

    fn root<T, P: FnMut(&mut Context<'_>) -> Poll<T>>(&self, poll: P) -> Root<P, T> {
        let flag = Arc::new(RootWaker { woken: AtomicBool::new(true), shared: self.shared.clone() });
        Root { waker: Waker::from(flag.clone()), flag, poll, output: None }
    }
}

/// Something that the waiting thread itself polls, when it was woken.
struct Root<P, T> {
    flag: Arc<RootWaker>,
    waker: Waker,
    poll: P,
    output: Option<T>,
}

impl<T, P: FnMut(&mut Context<'_>) -> Poll<T>> Root<P, T> {
    /// Whether the output is there.
    fn look(&mut self) -> bool {
        if self.output.is_none()
            && self.flag.woken.swap(false, Ordering::SeqCst)
            && let Poll::Ready(output) = (self.poll)(&mut Context::from_waker(&self.waker))
        {
            self.output = Some(output);
        }
        self.output.is_some()
    }
}
