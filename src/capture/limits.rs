//! Limits of a dying process that its last words need not keep, or must not stumble over.
//!
//! Reached by handlers: nothing here allocates, locks or calls user code.

use super::signal_safe;

/// Soft limits that the application set for itself, and that its last words need not keep.
const LIMITS: [libc::__rlimit_resource_t; 2] = [libc::RLIMIT_NOFILE, libc::RLIMIT_FSIZE];

/// What [`lift_limits`] found.
pub(super) struct Lifted([libc::rlimit; LIMITS.len()]);

/// Lets this process open as many descriptors and write as long files as it may allow itself (setrlimit(2)); undone when dropped.
pub(super) fn lift_limits() -> Lifted {
    let mut before = [libc::rlimit { rlim_cur: 0, rlim_max: 0 }; LIMITS.len()];
    for (resource, before) in LIMITS.into_iter().zip(&mut before) {
        // SAFETY: places for limits. A limit that cannot be asked for stays at 0 of 0, which is not put back.
        unsafe {
            if libc::getrlimit(resource, before) == 0 && before.rlim_cur < before.rlim_max {
                let lifted = libc::rlimit { rlim_cur: before.rlim_max, ..*before };
                libc::setrlimit(resource, &raw const lifted);
            }
        }
    }
    Lifted(before)
}

impl Drop for Lifted {
    fn drop(&mut self) {
        for (resource, before) in LIMITS.into_iter().zip(&self.0) {
            if before.rlim_cur < before.rlim_max {
                // SAFETY: what it was before.
                unsafe { libc::setrlimit(resource, before) };
            }
        }
    }
}

/// Calls `write`, which may meet the limit for file sizes: that is an error of the call then, and no signal
/// (`RLIMIT_FSIZE`, setrlimit(2)). The signal is this thread's own, so it can be collected before anybody meets it.
pub(super) fn without_file_size_signal<T>(write: impl FnOnce() -> T) -> T {
    let (set, mut before) = (1_u64 << (libc::SIGXFSZ - 1), 0_u64);
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: sets of the size that the kernel asks for.
    unsafe {
        let (blocked, old) = (&raw const set, &raw mut before);
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, blocked, old, size_of::<u64>());
    }
    let result = write();
    // SAFETY: a set, nowhere for the information, a time of zero.
    unsafe {
        let nowhere = std::ptr::null_mut::<libc::siginfo_t>();
        let (which, now) = (&raw const set, &raw const none);
        libc::syscall(libc::SYS_rt_sigtimedwait, which, nowhere, now, size_of::<u64>());
    }
    signal_safe::set_signals(before);
    result
}
