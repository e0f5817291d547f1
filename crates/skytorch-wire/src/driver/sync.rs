//! What `wake` is built from. `tests/loom` has a module of this name with loom's types in their place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) use parking_lot::{Condvar, Mutex};

/// Sequentially consistent operations need nothing between them.
pub(super) fn between() {}
