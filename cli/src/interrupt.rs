//! Ctrl-C and SIGTERM as something to wait for.

use std::io;
use std::ptr;

use crate::failure::{Failure, Result};

/// SIGINT and SIGTERM, kept from ending the process.
pub(crate) struct Interrupts(libc::sigset_t);

impl Interrupts {
    /// Blocks both signals for this thread and those it will start: call it before any thread is started.
    pub(crate) fn block() -> Result<Self> {
        // SAFETY: a sigset_t of zeroes is a valid place for sigemptyset to write its value into.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a live local for each call; the signal numbers are valid; a null pointer for the old mask
        // is allowed (pthread_sigmask(3)).
        let failed = unsafe {
            libc::sigemptyset(&mut set) != 0
                || libc::sigaddset(&mut set, libc::SIGINT) != 0
                || libc::sigaddset(&mut set, libc::SIGTERM) != 0
                || libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) != 0
        };
        if failed {
            return Err(Failure::Failed(format!(
                "signals cannot be blocked: {}",
                io::Error::last_os_error()
            )));
        }
        Ok(Self(set))
    }

    /// Waits for one of them.
    pub(crate) fn wait(&self) {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of the right types; the set's signals are blocked, as sigwait(3)
        // asks. Its only errors are about the set, so that a loop until success cannot spin.
        while unsafe { libc::sigwait(&self.0, &mut signal) } == libc::EINTR {}
    }
}
