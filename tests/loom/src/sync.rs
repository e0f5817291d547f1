//! loom's types with the functions of parking_lot's, as `wake` calls them.

use std::time::Duration;

pub(super) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) struct Mutex<T>(loom::sync::Mutex<T>);
/// Empty only inside `wait_for`.
pub(super) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);
pub(super) struct Condvar(loom::sync::Condvar);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().expect("no model panics and goes on")))
    }
}

impl Condvar {
    pub(super) fn new() -> Condvar {
        Condvar(loom::sync::Condvar::new())
    }

    pub(super) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// There is no time in a model: a sleep that only its end would end is a deadlock, which loom reports.
    pub(super) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) {
        let inner = guard.0.take().expect("a guard that waits is held");
        guard.0 = Some(self.0.wait(inner).expect("no model panics and goes on"));
    }
}

/// loom takes a sequentially consistent operation for one that acquires and releases, and a fence for what it is.
pub(super) fn between() {
    loom::sync::atomic::fence(Ordering::SeqCst);
}
