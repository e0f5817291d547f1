//! What the threads of one driver share: the queue of ready tasks, what is new, the eventfd, the waiters.
//!
//! Nothing here polls a task; that is the core's. The subtle thing is the order: a waker queues first and rings then,
//! the owner takes the mark away first and looks at the queues then. Why no ring is lost is in `wake`.

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

use parking_lot::Mutex;

use super::readiness::Readiness;
use super::timers::Timers;
use super::wake::{Bell, HandOver};
use crate::error::{Code, Result, WireError};

/// A spawned task.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the core takes over when it next looks.
#[derive(Default)]
pub(super) struct Arrived {
    /// A new socket: the tasks of the one before are dropped.
    pub(super) socket: Option<Arc<Readiness>>,
    pub(super) tasks: Vec<Task>,
}

/// See the module.
pub(crate) struct Shared {
    ready: Mutex<VecDeque<usize>>,
    arrived: Mutex<Arrived>,
    /// A new socket was handed in and the old one's tasks are not all dropped yet.
    attaching: AtomicBool,
    /// Rung when the queues may hold something; lets the owner skip both locks.
    bell: Bell,
    event: OwnedFd,
    pub(super) timers: Timers,
    hand_over: HandOver,
}

impl Shared {
    pub(super) fn new() -> Result<Shared> {
        let event =
            rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK)
                .map_err(|e| {
                WireError::new(Code::Internal, format!("cannot make an eventfd: {e}; raise the limit of open files"))
            })?;
        Ok(Shared {
            ready: Mutex::new(VecDeque::new()),
            arrived: Mutex::default(),
            attaching: AtomicBool::new(false),
            bell: Bell::new(),
            event,
            timers: Timers::default(),
            hand_over: HandOver::new(),
        })
    }

    /// Hand a task in.
    pub(super) fn spawn(&self, task: Task) {
        self.arrived.lock().tasks.push(task);
        self.signal();
    }

    /// Hand a new socket in. Tasks that were handed in before belong to the old one.
    pub(super) fn attach(&self, socket: Arc<Readiness>) {
        self.attaching.store(true, Ordering::SeqCst);
        let before =
            std::mem::replace(&mut *self.arrived.lock(), Arrived { socket: Some(socket), tasks: Vec::new() });
        drop(before);
        self.signal();
    }

    /// The core has taken the new socket over.
    pub(super) fn set_attached(&self) {
        self.attaching.store(false, Ordering::SeqCst);
        self.hand_over();
    }

    pub(super) fn is_attached(&self) -> bool {
        !self.attaching.load(Ordering::SeqCst)
    }

    /// Task `id` can make progress.
    fn push_ready(&self, id: usize) {
        self.ready.lock().push_back(id);
        self.signal();
    }

    pub(super) fn has_work(&self) -> bool {
        self.bell.has_work()
    }

    /// Everything that is ready or new. Clears the mark first, so that a later push sets it again.
    pub(super) fn take_work(&self, ready: &mut VecDeque<usize>, arrived: &mut Arrived) {
        self.bell.clear();
        std::mem::swap(&mut *self.ready.lock(), ready);
        std::mem::swap(&mut *self.arrived.lock(), arrived);
    }

    /// Something changed that the owner must look at: keep it from falling asleep, or wake it if it sleeps in poll(2).
    pub(super) fn signal(&self) {
        if self.bell.ring() {
            // The counter cannot overflow in practice, and a full counter means that the owner is awake already.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// The owner is about to sleep in poll(2). False if it must not.
    pub(super) fn fall_asleep(&self) -> bool {
        self.bell.fall_asleep()
    }

    pub(super) fn wake_up(&self) {
        self.bell.wake_up();
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    pub(super) fn drain_event(&self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.event, &mut count);
    }

    /// The core is free, or somebody's wait may be over: let the waiters look.
    pub(super) fn hand_over(&self) {
        self.hand_over.announce();
    }

    /// How many hand-overs there were.
    pub(super) fn generation(&self) -> usize {
        self.hand_over.generation()
    }

    /// Sleep until a hand-over after generation `seen`. `core_is_free` is asked once this thread counts as waiting.
    pub(super) fn wait_for_hand_over(&self, seen: usize, timeout: Duration, core_is_free: impl FnOnce() -> bool) {
        self.hand_over.wait(seen, timeout, core_is_free);
    }
}

/// Wakes one task.
pub(super) struct TaskWaker {
    pub(super) id: usize,
    pub(super) queued: AtomicBool,
    pub(super) shared: Arc<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.shared.push_ready(self.id);
        }
    }
}

/// Wakes a thread that polls a future of its own while it waits.
pub(super) struct RootWaker {
    pub(super) woken: AtomicBool,
    pub(super) shared: Arc<Shared>,
}

impl Wake for RootWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.shared.signal();
        self.shared.hand_over();
    }
}
