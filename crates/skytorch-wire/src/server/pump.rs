//! The helper thread of a session: answers keepalive and takes acknowledgements off while the executor computes.
//!
//! While the executor itself waits on the connection it has nothing to do and hardly ever wakes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::driver::Driver;

/// Between looks while the executor computes, and while it waits.
const BUSY: Duration = Duration::from_millis(20);
const IDLE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct State {
    driver: Mutex<Weak<Driver>>,
    stop: AtomicBool,
    executor_waits: AtomicBool,
    gate: Mutex<()>,
    wake: Condvar,
}

/// See the module.
pub(super) struct Pump(Arc<State>);

impl Pump {
    pub(super) fn start(driver: &Arc<Driver>) -> Pump {
        let state = Arc::new(State { driver: Mutex::new(Arc::downgrade(driver)), ..State::default() });
        let pump = state.clone();
        let spawned = std::thread::Builder::new().name("sky-pump".into()).spawn(move || {
            loop {
                {
                    let mut gate = pump.gate.lock();
                    if pump.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let waits = pump.executor_waits.load(Ordering::Relaxed);
                    pump.wake.wait_for(&mut gate, if waits { IDLE } else { BUSY });
                }
                let driver = pump.driver.lock().upgrade();
                if !pump.executor_waits.load(Ordering::Relaxed)
                    && let Some(driver) = driver
                {
                    driver.turn(true);
                }
            }
        });
        if let Err(e) = spawned {
            // The session works without; only keepalive during long computations would be missing.
            tracing::warn!("cannot start the helper thread of a session: {e}");
        }
        Pump(state)
    }

    /// The executor is in `next` and drives the connection itself.
    pub(super) fn executor_waits(&self, waits: bool) {
        self.0.executor_waits.store(waits, Ordering::Relaxed);
    }

    /// The session goes on over another connection.
    pub(super) fn drive(&self, driver: &Arc<Driver>) {
        *self.0.driver.lock() = Arc::downgrade(driver);
    }

    pub(super) fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        let _gate = self.0.gate.lock();
        self.0.wake.notify_all();
    }
}
