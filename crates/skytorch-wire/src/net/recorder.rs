//! A test's view of what a connection writes: the addresses of the buffers that went into each system call.

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;

/// Called with the buffers of each write before it is made. Tests use it to prove that nothing was copied.
#[derive(Clone)]
pub struct Recorder(Arc<See>);

type See = dyn Fn(&[IoSlice<'_>]) + Send + Sync;

impl Recorder {
    /// Call `see` for each write.
    pub fn new(see: impl Fn(&[IoSlice<'_>]) + Send + Sync + 'static) -> Recorder {
        Recorder(Arc::new(see))
    }

    pub(crate) fn see(&self, buffers: &[IoSlice<'_>]) {
        (self.0)(buffers);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}
