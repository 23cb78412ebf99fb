//! Finding Cenotaph's processes. They belong to nobody, but they keep the arguments of the program that started them,
//! and anybody may read those, even where the processes are not dumpable (proc_pid_cmdline(5)).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// How often /proc is looked at by whoever waits for it to change.
pub(crate) const POLL: Duration = Duration::from_millis(1);

/// The short name of Cenotaph's processes.
const CENOTAPH: &str = "cenotaph";

/// A process as /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: libc::pid_t,
    pub(crate) parent: libc::pid_t,
    /// Its short name.
    pub(crate) comm: String,
    /// `R`, `S`, `T`, `t`, `Z` ... (proc_pid_stat(5)).
    pub(crate) state: char,
}

impl Process {
    /// Whether it is one of Cenotaph's own.
    pub(crate) fn is_cenotaphs(&self) -> bool {
        self.comm == CENOTAPH
    }

    /// Whether job control has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state == 'T'
    }
}

/// The running processes whose arguments, each ended by a zero byte, begin with `arguments`.
pub(crate) fn with_arguments(arguments: &[u8]) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| {
        let found = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if !found.starts_with(arguments) { None } else { look(pid) }
    })
    .filter(|process| !matches!(process.state, 'Z' | 'X'))
    .collect()
}

/// What /proc says about a process; `None` if there is none.
pub(crate) fn look(pid: libc::pid_t) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses too.
    let (head, fields) = stat.rsplit_once(") ")?;
    let comm = head.split_once('(')?.1.to_owned();
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    Some(Process { pid, parent: fields.next()?.parse().ok()?, comm, state })
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug)]
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// # Errors
    /// If it is gone.
    pub(crate) fn open(pid: libc::pid_t) -> io::Result<Self> {
        // SAFETY: takes integers and makes a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: new, and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it is gone, or not ours.
    pub(crate) fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a live descriptor and integers; without siginfo the kernel fills it in as for kill(2).
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for its end; `false` if that did not come within `limit`.
    pub(crate) fn wait_end(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            let mut polled = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd that lives through the call.
            match unsafe { libc::poll(&raw mut polled, 1, timeout) } {
                1 => return true,
                0 if left.is_zero() => return false,
                _ => {}
            }
        }
    }
}

/// Monotonic nanoseconds: the same clock in all processes of one machine.
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_itself() {
        let own = fs::read("/proc/self/cmdline").unwrap();
        let pid = libc::pid_t::try_from(std::process::id()).unwrap();
        assert!(with_arguments(&own).iter().any(|process| process.pid == pid));
        assert_eq!(with_arguments(b"no such program\0"), []);
        assert!(!Handle::open(pid).unwrap().wait_end(Duration::ZERO));
    }
}
