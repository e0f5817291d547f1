//! How the threads of a driver find each other: the mark that keeps the owner of the core from sleeping through work,
//! and the hand-over that gives a core that was let go to whoever waits for it.
//!
//! It knows no task and no socket, so that `tests/loom` can run this very file through every order of its threads.
//! The subtle thing in both is the same: one side writes A and reads B, the other writes B and reads A. All of these
//! are sequentially consistent, so at least one of them sees the other. loom knows no such order of operations, only
//! of fences: `between` stands where the order matters, and is a fence there and nothing here.

use std::time::Duration;

use super::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, between};

/// What the owner must look at before it sleeps.
pub(super) struct Bell {
    /// Set while there may be something to do.
    work: AtomicBool,
    /// The owner sleeps, or is about to.
    sleeping: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> Bell {
        Bell { work: AtomicBool::new(false), sleeping: AtomicBool::new(false) }
    }

    /// There is something to do. True: the owner sleeps and this thread, no other, must wake it.
    pub(super) fn ring(&self) -> bool {
        self.work.store(true, Ordering::SeqCst);
        between();
        self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst)
    }

    pub(super) fn has_work(&self) -> bool {
        self.work.load(Ordering::SeqCst)
    }

    /// The owner locks the queues now and takes what is in them. Before it does, so that what is put in later comes
    /// with a mark of its own; the locks order the two. (Queues without locks would need more: loom says so.)
    pub(super) fn clear(&self) {
        self.work.store(false, Ordering::SeqCst);
    }

    /// The owner is about to sleep. False if it must not.
    pub(super) fn fall_asleep(&self) -> bool {
        // A swap, so that the mark of a late waker, who found us awake after all, comes before ours, for loom too.
        self.sleeping.swap(true, Ordering::SeqCst);
        between();
        let may = !self.has_work();
        if !may {
            self.wake_up();
        }
        may
    }

    /// The owner is awake: nobody need wake it.
    pub(super) fn wake_up(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }
}

/// See the module.
pub(super) struct HandOver {
    waiters: AtomicUsize,
    /// Counts hand-overs, so that a waiter can tell whether it missed one.
    generation: AtomicUsize,
    gate: Mutex<()>,
    happened: Condvar,
}

impl HandOver {
    pub(super) fn new() -> HandOver {
        HandOver {
            waiters: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            gate: Mutex::new(()),
            happened: Condvar::new(),
        }
    }

    /// The core is free, or somebody's wait may be over: let the waiters look.
    pub(super) fn announce(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        between();
        if self.waiters.load(Ordering::SeqCst) > 0 {
            let _gate = self.gate.lock();
            self.happened.notify_all();
        }
    }

    /// How many there were.
    pub(super) fn generation(&self) -> usize {
        self.generation.load(Ordering::SeqCst)
    }

    /// Sleep until one after generation `seen`. `core_is_free` is asked once this thread counts as waiting.
    pub(super) fn wait(&self, seen: usize, timeout: Duration, core_is_free: impl FnOnce() -> bool) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        between();
        {
            let mut gate = self.gate.lock();
            if self.generation() == seen && !core_is_free() {
                self.happened.wait_for(&mut gate, timeout);
            }
        }
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}
