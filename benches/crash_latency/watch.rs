//! Waiting for a file to be complete and a process to be gone, with the time of each.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::clock::now_ns;
use crate::{Failure, processes};

/// What completes a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Completion {
    /// It is closed after writing.
    Closed,
    /// It is moved to its final name.
    Moved,
}

/// Files of one directory.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

/// When it happened, as CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) complete_ns: u64,
    pub(crate) gone_ns: u64,
}

impl Watch {
    pub(crate) fn new(dir: &Path, completion: Completion) -> io::Result<Self> {
        // SAFETY: valid flags.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above returned this descriptor and nobody else knows it.
        let inotify = unsafe { OwnedFd::from_raw_fd(fd) };
        let mask = match completion {
            Completion::Closed => libc::IN_CLOSE_WRITE,
            Completion::Moved => libc::IN_MOVED_TO,
        };
        let path = CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: a NUL-terminated path and a valid mask.
        if unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), mask) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(inotify))
    }

    /// Waits until a file is complete and the process behind `pidfd` is gone.
    pub(crate) fn wait(&self, pidfd: &OwnedFd, limit: Duration) -> Result<Seen, Failure> {
        let _above = Above::the_watched();
        let limit = Instant::now() + limit;
        let (mut complete, mut gone) = (None, None);
        loop {
            if let (Some(complete_ns), Some(gone_ns)) = (complete, gone) {
                return Ok(Seen { complete_ns, gone_ns });
            }
            let entry = |fd: &OwnedFd, done: bool| libc::pollfd {
                // A negative number is passed over.
                fd: if done { -1 } else { fd.as_raw_fd() },
                events: libc::POLLIN,
                revents: 0,
            };
            let mut polled = [entry(&self.0, complete.is_some()), entry(pidfd, gone.is_some())];
            let left = limit.saturating_duration_since(Instant::now());
            let left = libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX);
            // SAFETY: two entries and a time.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, left) };
            let now = now_ns();
            processes::check_interrupted()?;
            if ready == 0 {
                let missing =
                    if complete.is_none() { "no file is complete" } else { "the victim still lives" };
                return Err(format!("{missing} after the time limit").into());
            }
            let [file, process] = polled;
            if file.revents != 0 {
                complete = Some(now);
            }
            if process.revents != 0 {
                gone = Some(now);
            }
        }
    }
}

/// While it lives this thread has a real-time priority above what it had (sched(7)): what it waits for is seen when it happens,
/// not when the processes that did it leave a processor. Who may not have one watches as anybody does.
struct Above {
    policy: libc::c_int,
    parameters: libc::sched_param,
}

impl Above {
    fn the_watched() -> Self {
        // SAFETY: an all-zero sched_param is valid (no priority); the calls are about this thread and get a place for the answer.
        let before = unsafe {
            let mut parameters: libc::sched_param = std::mem::zeroed();
            let policy = libc::sched_getscheduler(0);
            libc::sched_getparam(0, &raw mut parameters);
            Self { policy, parameters }
        };
        let mut above = before.parameters;
        above.sched_priority += 1;
        // SAFETY: a policy that every Linux has, and parameters that outlive the call.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const above) };
        before
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        // SAFETY: what sched_getscheduler and sched_getparam said before.
        unsafe { libc::sched_setscheduler(0, self.policy, &raw const self.parameters) };
    }
}
