//! Models of the lock-free parts of the wire, for loom: `make loom`. The code is the crate's own source, included from
//! there; only the types under it are loom's. What is around it (a core that one thread owns, an eventfd) is modelled
//! as `driver/wait.rs` and `driver/mod.rs` use it.
//!
//! A wake-up that gets lost shows as a deadlock, which loom reports with the order that led to it.
#![cfg(test)]

mod sync;
#[path = "../../../crates/skytorch-wire/src/driver/wake.rs"]
mod wake;

use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use wake::{Bell, HandOver};

const LONG: Duration = Duration::from_secs(3600);

/// An eventfd: a sleep in poll(2) ends when it was written to.
struct Event {
    written: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn new() -> Event {
        Event { written: Mutex::new(false), changed: Condvar::new() }
    }

    fn write(&self) {
        *self.written.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn poll(&self) {
        let mut written = self.written.lock().unwrap();
        while !*written {
            written = self.changed.wait(written).unwrap();
        }
        *written = false;
    }
}

/// The owner finds all that others bring, and sleeps only when there is nothing.
#[test]
fn no_ring_is_lost() {
    loom::model(|| {
        let shared = Arc::new((Bell::new(), Event::new(), Mutex::new(0)));
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (bell, event, queue) = &*shared;
                    *queue.lock().unwrap() += 1;
                    if bell.ring() {
                        event.write();
                    }
                })
            })
            .collect();
        let (bell, event, queue) = &*shared;
        let mut found = 0;
        while found < 2 {
            if bell.has_work() {
                bell.clear();
                found += std::mem::take(&mut *queue.lock().unwrap());
            } else if bell.fall_asleep() {
                event.poll();
                bell.wake_up();
            }
        }
        for waker in wakers {
            waker.join().unwrap();
        }
    });
}

/// A thread that finds the core taken gets it when it is let go, or is told that its wait is over.
#[test]
fn no_hand_over_is_lost() {
    loom::model(|| {
        let shared = Arc::new((HandOver::new(), Mutex::new(()), AtomicBool::new(false)));
        let owner = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (hand_over, core, done) = &*shared;
                if let Ok(core) = core.try_lock() {
                    done.store(true, Ordering::Release);
                    drop(core);
                    hand_over.announce();
                }
            })
        };
        let (hand_over, core, done) = &*shared;
        loop {
            let seen = hand_over.generation();
            if let Ok(core) = core.try_lock() {
                drop(core);
                hand_over.announce();
                break;
            }
            if done.load(Ordering::Acquire) {
                break;
            }
            hand_over.wait(seen, LONG, || core.try_lock().is_ok());
        }
        owner.join().unwrap();
    });
}

/// `turn` beside `release`: a thread that makes something ready and finds the core taken may leave, since the owner
/// looks once more after it has let go.
#[test]
fn what_is_made_ready_is_run() {
    loom::model(|| {
        let shared = Arc::new((Bell::new(), HandOver::new(), Mutex::new(()), Mutex::new(0)));
        let run = |queue: &Mutex<i32>, bell: &Bell| {
            bell.clear();
            std::mem::take(&mut *queue.lock().unwrap())
        };
        let owner = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (bell, hand_over, core, queue) = &*shared;
                let mut ran = 0;
                let Ok(mut held) = core.try_lock() else { return ran };
                loop {
                    drop(held);
                    hand_over.announce();
                    fence(Ordering::SeqCst);
                    if !bell.has_work() {
                        return ran;
                    }
                    match core.try_lock() {
                        Ok(free) => held = free,
                        Err(_) => return ran,
                    }
                    ran += run(queue, bell);
                }
            })
        };
        let (bell, hand_over, core, queue) = &*shared;
        *queue.lock().unwrap() += 1;
        bell.ring();
        fence(Ordering::SeqCst);
        let mut ran = 0;
        if let Ok(core) = core.try_lock() {
            ran += run(queue, bell);
            drop(core);
            hand_over.announce();
        }
        ran += owner.join().unwrap();
        assert_eq!(ran, 1, "made ready and run by nobody");
    });
}
