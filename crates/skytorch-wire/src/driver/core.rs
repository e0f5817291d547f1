//! The part of a driver that one thread owns at a time: the tasks, and the sleep in poll(2).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::readiness::Readiness;
use super::tasks::{Arrived, Shared, Task, TaskWaker};
use super::timers::Driving;

/// How long a wait keeps looking before it sleeps. Waking a sleeping core costs about as much (`make bench`, roundtrip).
const LOOKING: Duration = Duration::from_micros(50);
/// Waits in a row that may look in vain; after them every wait sleeps at once, until a sleep turns out to be short.
const VAIN_LOOKS: u32 = 3;
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

struct Slot {
    task: Option<Task>,
    waker: Waker,
    flag: Arc<TaskWaker>,
}

/// See the module.
pub(super) struct Core {
    shared: Arc<Shared>,
    readiness: Option<Arc<Readiness>>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    // Reused between turns.
    ready: VecDeque<usize>,
    arrived: Arrived,
    vain_looks: u32,
}

impl Core {
    pub(super) fn new(shared: Arc<Shared>) -> Core {
        Core {
            shared,
            readiness: None,
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            arrived: Arrived::default(),
            vain_looks: 0,
        }
    }

    pub(super) fn take_tasks(&mut self) -> Vec<Task> {
        self.shared.take_work(&mut self.ready, &mut self.arrived);
        self.ready.clear();
        self.readiness = None;
        let mut tasks = std::mem::take(&mut self.arrived).tasks;
        self.take_slots(&mut tasks);
        tasks
    }

    fn take_slots(&mut self, tasks: &mut Vec<Task>) {
        for (id, slot) in self.slots.iter_mut().enumerate() {
            if let Some(task) = slot.task.take() {
                tasks.push(task);
                self.free.push(id);
            }
        }
    }

    /// Let the old socket and its tasks go.
    #[cold]
    fn attach(&mut self, socket: Arc<Readiness>) {
        let mut old = Vec::new();
        self.take_slots(&mut old);
        drop(old);
        self.ready.clear();
        self.readiness = Some(socket);
        self.shared.set_attached();
    }

    /// Give every task up without dropping it.
    pub(super) fn leak(&mut self) {
        std::mem::forget((std::mem::take(&mut self.slots), self.shared.clone()));
    }

    /// Poll tasks until none is ready.
    pub(super) fn run_ready(&mut self) {
        while self.shared.has_work() || !self.ready.is_empty() {
            if self.ready.is_empty() {
                self.shared.take_work(&mut self.ready, &mut self.arrived);
                if let Some(socket) = self.arrived.socket.take() {
                    self.attach(socket);
                }
                while let Some(task) = self.arrived.tasks.pop() {
                    self.add(task);
                }
            }
            while let Some(id) = self.ready.pop_front() {
                self.poll_task(id);
            }
        }
    }

    fn add(&mut self, task: Task) {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = self.slots.len();
                let flag = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), shared: self.shared.clone() });
                self.slots.push(Slot { task: None, waker: Waker::from(flag.clone()), flag });
                id
            }
        };
        self.slots[id].task = Some(task);
        self.slots[id].flag.queued.store(true, Ordering::SeqCst);
        self.ready.push_back(id);
    }

    fn poll_task(&mut self, id: usize) {
        let slot = &mut self.slots[id];
        slot.flag.queued.store(false, Ordering::SeqCst);
        let Some(task) = &mut slot.task else { return };
        if task.as_mut().poll(&mut Context::from_waker(&slot.waker)).is_ready() {
            slot.task = None;
            self.free.push(id);
        }
    }

    /// Run what is ready; with `look`, after asking the socket.
    pub(super) fn turn(&mut self, look: bool) {
        let _driving = Driving::enter(&self.shared);
        self.run_ready();
        if look && self.wait_io(Some(Instant::now())) {
            self.run_ready();
        }
    }

    /// Sleep until the socket, the eventfd or a timer has something, or `until`. Answers false if only `until` came.
    pub(super) fn wait_io(&mut self, until: Option<Instant>) -> bool {
        let deadline = match (until, self.shared.timers.next()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let now = Instant::now();
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(now);
            Timespec { tv_sec: left.as_secs().min(1 << 30) as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let sleeps = timeout.is_none_or(|t| t.tv_sec != 0 || t.tv_nsec != 0);
        if sleeps && self.vain_looks < VAIN_LOOKS {
            let end = deadline.map_or(now + LOOKING, |deadline| deadline.min(now + LOOKING));
            if self.look_until(end) {
                self.vain_looks = 0;
                self.shared.timers.fire(Instant::now());
                return true;
            }
            self.vain_looks += 1;
        }
        let asleep = Instant::now();
        if sleeps && !self.shared.fall_asleep() {
            return true;
        }
        let progress = self.poll_fds(timeout.as_ref());
        if sleeps && progress && asleep.elapsed() < LOOKING {
            self.vain_looks = 0;
        }
        if deadline.is_some() {
            self.shared.timers.fire(Instant::now());
        }
        progress || self.shared.has_work()
    }

    /// Look at the socket again and again, giving the processor away in between: whoever shares this core, the other
    /// side perhaps, goes first.
    fn look_until(&mut self, end: Instant) -> bool {
        loop {
            if self.shared.has_work() || self.poll_fds(Some(&NO_TIME)) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::thread::yield_now();
        }
    }

    fn poll_fds(&mut self, timeout: Option<&Timespec>) -> bool {
        let event = self.shared.event();
        let Some(readiness) = &self.readiness else {
            let mut fds = [PollFd::from_borrowed_fd(event, PollFlags::IN)];
            let polled = poll(&mut fds, timeout);
            self.shared.wake_up();
            if polled.is_ok() && !fds[0].revents().is_empty() {
                self.shared.drain_event();
                return true;
            }
            return false;
        };
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, readiness.read.wanted());
        interest.set(PollFlags::OUT, readiness.write.wanted());
        let mut fds =
            [PollFd::from_borrowed_fd(event, PollFlags::IN), PollFd::from_borrowed_fd(readiness.fd(), interest)];
        // A hung-up socket that nobody reads would be reported for ever.
        let count = if interest.is_empty() { 1 } else { 2 };
        let polled = poll(&mut fds[..count], timeout);
        // Before anything is woken: this thread is up already.
        self.shared.wake_up();
        if polled.is_err() {
            // EINTR comes back as "nothing happened": the caller looks at its interrupts and sleeps again.
            return false;
        }
        let mut progress = false;
        if !fds[0].revents().is_empty() {
            self.shared.drain_event();
            progress = true;
        }
        let seen = if count == 2 { fds[1].revents() } else { PollFlags::empty() };
        let broken = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        if seen.intersects(PollFlags::IN | broken) {
            readiness.read.set_ready();
            progress = true;
        }
        if seen.intersects(PollFlags::OUT | broken) {
            readiness.write.set_ready();
            progress = true;
        }
        progress
    }
}
