//! Sleeping on a driver: hyper's keepalive clock and the control services' intervals.
//!
//! A sleep belongs to the driver that polls it first; it finds that driver through the thread that is driving. Polled
//! anywhere else it panics, which is a mistake in the program and not in its input.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::tasks::Shared;

/// When, and a number that tells two sleeps of the same instant apart.
type Key = (Instant, u64);

/// The sleeps of one driver.
#[derive(Default)]
pub(super) struct Timers {
    wakers: Mutex<BTreeMap<Key, Waker>>,
    next: AtomicU64,
}

impl Timers {
    fn insert(&self, deadline: Instant, waker: Waker) -> Key {
        let key = (deadline, self.next.fetch_add(1, Ordering::Relaxed));
        self.wakers.lock().insert(key, waker);
        key
    }

    fn remove(&self, key: &Key) {
        self.wakers.lock().remove(key);
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.wakers.lock().keys().next().map(|key| key.0)
    }

    /// Wake what is due.
    pub(super) fn fire(&self, now: Instant) {
        loop {
            let waker = {
                let mut wakers = self.wakers.lock();
                match wakers.first_entry() {
                    Some(entry) if entry.key().0 <= now => entry.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }
}

thread_local! {
    /// The driver that this thread is driving.
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// Marks this thread as driving `shared` until it is dropped.
pub(super) struct Driving {
    before: Option<Arc<Shared>>,
}

impl Driving {
    pub(super) fn enter(shared: &Arc<Shared>) -> Driving {
        Driving { before: CURRENT.with(|current| current.borrow_mut().replace(shared.clone())) }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        let before = self.before.take();
        // A thread that is ending may have lost its thread-locals already; then there is nothing to restore.
        let _ = CURRENT.try_with(|current| *current.borrow_mut() = before);
    }
}

/// A future that is ready at its deadline. It runs on whichever driver polls it first.
pub struct Sleep {
    deadline: Instant,
    registered: Option<(Arc<Shared>, Key)>,
}

/// Ready after `duration`, on the driver that polls it.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep::until(Instant::now() + duration)
}

impl Sleep {
    /// Ready at `deadline`.
    pub fn until(deadline: Instant) -> Sleep {
        Sleep { deadline, registered: None }
    }

    fn forget(&mut self) {
        if let Some((shared, key)) = self.registered.take() {
            shared.timers.remove(&key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.forget();
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let shared = CURRENT.with(|current| current.borrow().clone()).expect("a sleep is polled by a driver");
        let key = shared.timers.insert(self.deadline, cx.waker().clone());
        // Another thread may be asleep in poll(2) until an older, later deadline.
        shared.signal();
        self.registered = Some((shared, key));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}

impl hyper::rt::Sleep for Sleep {}
