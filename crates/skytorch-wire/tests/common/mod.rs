//! A fake executor over the server's C ABI, and a client that speaks through its C ABI, for tests and the bench.
//!
//! The executor keeps storages as plain bytes: ALLOC, WRITE, READ, FREE, SEND and the lanes are real, an OP does
//! nothing, CALL and QUERY answer with what they were given.
#![allow(dead_code, missing_docs, unreachable_pub, unsafe_code, clippy::undocumented_unsafe_blocks)]

pub mod client;
pub mod executor;
pub mod landing;
pub mod proxy;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh path for a Unix socket.
pub fn socket_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sky-test-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

/// Run `child` in a forked process; its exit code.
pub fn in_fork(child: impl FnOnce() -> i32) -> i32 {
    match unsafe { libc::fork() } {
        0 => unsafe { libc::_exit(child()) },
        pid => {
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status), "the child died: {status}");
            libc::WEXITSTATUS(status)
        }
    }
}

/// CPU time of this thread.
pub fn thread_time() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Stop a child; returns once it has stopped.
pub fn stop_process(pid: u32) {
    let pid = pid as i32;
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    assert_eq!(unsafe { libc::waitpid(pid, &mut 0, libc::WUNTRACED) }, pid);
}
