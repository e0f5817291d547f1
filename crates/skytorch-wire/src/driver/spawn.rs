//! What hyper asks of a runtime: an executor and a timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tasks::Shared;
use super::timers::Sleep;

/// Hands tasks to a driver.
#[derive(Clone)]
pub(crate) struct Spawner {
    shared: Arc<Shared>,
}

impl Spawner {
    pub(super) fn new(shared: Arc<Shared>) -> Spawner {
        Spawner { shared }
    }

    /// Run this task whenever the driver is driven.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn(Box::pin(task));
    }

    /// Somebody's wait may be over: let all waiting threads look at their condition.
    pub(crate) fn notify_waiters(&self) {
        self.shared.hand_over();
    }
}

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.spawn(async move {
            future.await;
        });
    }
}

/// hyper's clock.
#[derive(Clone, Copy)]
pub(crate) struct DriverTimer;

impl hyper::rt::Timer for DriverTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep::until(deadline))
    }
}
