//! The application as a process: its end, and whether somebody has told of it.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::blackbox::{Blackbox, End};
use crate::report::Evidence;
use crate::sys::{cgroup, exit, process, socket};

/// What the supervisor knows of the application's process.
pub(super) struct Application {
    pid: libc::pid_t,
    /// Readable when it has ended. `None`: it is not watched (any more).
    pidfd: Option<OwnedFd>,
    /// Kills for want of memory in its control group before it began.
    oom_kills: Option<u64>,
    /// Its handler asked for a report: the end is told.
    pub(super) crashed: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, by somebody's wish, or with a report.
    Cleanly,
    /// With a report that the handler or the panic hook asked for.
    Reported,
    /// Nobody saw it coming.
    Uncleanly { signal: Option<i32>, evidence: Evidence, oom_kills: u64 },
}

impl Application {
    pub(super) fn new(pid: libc::pid_t) -> Self {
        let pidfd = if pid > 0 { process::pidfd(pid).ok() } else { None };
        let oom_kills = cgroup::oom_kills();
        Self { pid, pidfd, oom_kills, crashed: false }
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// For poll(2).
    pub(super) fn as_raw(&self) -> Option<RawFd> {
        self.pidfd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Whether its end is still waited for.
    pub(super) fn is_awaited(&self) -> bool {
        self.pidfd.is_some()
    }

    /// Its end is no concern of ours any more.
    pub(super) fn forget(&mut self) {
        self.pidfd = None;
    }

    /// Both its sockets are closed. It may have said good-bye or become another program; or it is about to end, or has
    /// closed every descriptor that it found: then its end is waited for. `true` if that is known: a panic, which has its report, took
    /// Cenotaph along, and the rest of the process is no concern of ours.
    pub(super) fn disconnected(&mut self, blackbox: &Blackbox) -> bool {
        let became_another = || {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap_or_default();
            !maps.is_empty() && !maps.contains(Blackbox::MAPPED_NAME)
        };
        let has_ended =
            |pidfd: &OwnedFd| socket::poll_readable(pidfd.as_fd(), Duration::ZERO).unwrap_or(true);
        match blackbox.end() {
            End::Clean => self.pidfd = None,
            End::Running if became_another() => self.pidfd = None,
            End::Running => {}
            End::Reported => return self.pidfd.take_if(|pidfd| !has_ended(pidfd)).is_some(),
        }
        false
    }

    /// Its pidfd is readable: how it ended. Asked once. `is_wanted`: whether the application wants to hear of such a signal.
    pub(super) fn ended(&mut self, blackbox: &Blackbox, is_wanted: impl Fn(i32) -> bool) -> Ended {
        let Some(pidfd) = self.pidfd.take() else { return Ended::Cleanly };
        let collected = || exit::collected(pidfd.as_fd()).map(|status| (status, Evidence::Pidfd));
        let zombie = || exit::zombie(self.pid, pidfd.as_fd()).map(|status| (status, Evidence::Zombie));
        // Its parent may collect it between the two.
        let found = collected().or_else(zombie).or_else(collected);
        let oom_kills = cgroup::oom_kills().unwrap_or(0).saturating_sub(self.oom_kills.unwrap_or(u64::MAX));
        match judge(found, blackbox.end(), self.crashed, oom_kills) {
            Ended::Uncleanly { signal: Some(signal), .. } if !is_wanted(signal) => Ended::Cleanly,
            ended => ended,
        }
    }
}

/// Decides from the wait status and where it is from, from what the application said, and from whether its handler
/// asked for a report.
fn judge(found: Option<(i32, Evidence)>, said: End, crashed: bool, oom_kills: u64) -> Ended {
    /// The exit code of a Rust program whose main thread panicked.
    const PANICKED: i32 = 101;
    if crashed || said == End::Reported {
        return Ended::Reported;
    }
    let status = found.map(|(status, _)| status);
    if said == End::Clean {
        let panicked = status.and_then(exit::code) == Some(PANICKED);
        return if panicked { Ended::Reported } else { Ended::Cleanly };
    }
    let Some((status, evidence)) = found else {
        return Ended::Uncleanly { signal: None, evidence: Evidence::Gone, oom_kills };
    };
    match exit::signal(status) {
        // Nobody can catch the first; the others are faults that no handler of ours saw, or limits that were reached.
        Some(
            signal @ (libc::SIGKILL
            | libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGILL
            | libc::SIGFPE
            | libc::SIGABRT
            | libc::SIGTRAP
            | libc::SIGSYS
            | libc::SIGXCPU
            | libc::SIGXFSZ),
        ) => Ended::Uncleanly { signal: Some(signal), evidence, oom_kills },
        // SIGTERM, SIGINT, SIGHUP, ...: somebody wanted it to end. Without a signal: `_exit`.
        _ => Ended::Cleanly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_told_of_is_unclean() {
        let at = |status: i32| Some((status, Evidence::Zombie));
        let unclean = |signal| Ended::Uncleanly { signal, evidence: Evidence::Zombie, oom_kills: 2 };
        for (found, said, crashed, expected) in [
            (at(libc::SIGKILL), End::Running, false, unclean(Some(libc::SIGKILL))),
            (at(libc::SIGSEGV | 0x80), End::Running, false, unclean(Some(libc::SIGSEGV))),
            (at(libc::SIGTERM), End::Running, false, Ended::Cleanly),
            (at(libc::SIGINT), End::Running, false, Ended::Cleanly),
            (at(0), End::Running, false, Ended::Cleanly),
            (at(7 << 8), End::Running, false, Ended::Cleanly),
            (at(libc::SIGKILL), End::Clean, false, Ended::Cleanly),
            (at(101 << 8), End::Clean, false, Ended::Reported),
            (at(libc::SIGSEGV), End::Running, true, Ended::Reported),
            (at(libc::SIGABRT), End::Reported, false, Ended::Reported),
            (None, End::Clean, false, Ended::Cleanly),
            (
                None,
                End::Running,
                false,
                Ended::Uncleanly { signal: None, evidence: Evidence::Gone, oom_kills: 2 },
            ),
        ] {
            assert_eq!(judge(found, said, crashed, 2), expected, "{found:?} {said:?} {crashed}");
        }
    }
}
