//! What the language above does around a wait: leave Python (give up the GIL), come back, look for Ctrl-C.
//!
//! Set once per process by `skytorch._wire`. Without hooks (Rust tests, benches) waiting touches nothing. The subtle
//! thing is that `interrupted` may run arbitrary Python (a signal handler): nobody may hold a driver's core or a
//! stream lock while calling it.

use std::sync::OnceLock;

/// Functions around a wait. They are called on the waiting thread.
#[derive(Clone, Copy, Debug)]
pub struct WaitHooks {
    /// Before the first sleep; the value goes to `leave_wait`. 0 must mean that there is nothing to undo.
    pub enter_wait: fn() -> usize,
    /// After the wait.
    pub leave_wait: fn(usize),
    /// True when the program wants to stop waiting. Called between `enter_wait` and `leave_wait`.
    pub interrupted: fn() -> bool,
}

static HOOKS: OnceLock<WaitHooks> = OnceLock::new();

/// Install the hooks; later calls change nothing.
pub fn set_hooks(hooks: WaitHooks) {
    let _ = HOOKS.set(hooks);
}

/// Ctrl-C, if anybody looks for it.
pub(crate) fn interrupted() -> bool {
    HOOKS.get().is_some_and(|hooks| (hooks.interrupted)())
}

/// While it lives, this thread is outside the language above.
pub(crate) struct Outside {
    state: usize,
}

impl Outside {
    pub(crate) fn enter() -> Outside {
        Outside { state: HOOKS.get().map_or(0, |hooks| (hooks.enter_wait)()) }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(hooks) = HOOKS.get() {
            (hooks.leave_wait)(self.state);
        }
    }
}
