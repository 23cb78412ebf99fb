//! In which state the monitor is when the victim dies.
//!
//! The victim brings that about itself, just before its death, so that one command line shows one case. It finds its
//! monitor as the process that has all of its arguments: give each victim a spool of its own.

use std::fs;
use std::str::FromStr;
use std::time::{Duration, Instant};

use cenotaph::Monitor;

use crate::processes::{self, Handle, POLL, Process};
use crate::sdk::Session;
use crate::{control, lockdown, sentinel};

/// Nothing here takes this long on a machine that works.
const LIMIT: Duration = Duration::from_secs(10);

/// The monitor's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It waits for a crash.
    Alive,
    /// It was killed, with all of its processes.
    Killed,
    /// Its main process is stopped (SIGSTOP).
    Stopped,
    /// The first worker to attach is stopped while it is attached; the supervisor runs.
    StoppedAttached,
    /// The first worker to attach is killed while it is attached; the supervisor runs.
    KilledAttached,
    /// It was killed, and no program can be started any more: execve(2) is refused.
    None,
}

impl State {
    /// All, in the order of the usage text.
    pub(crate) const ALL: [Self; 6] =
        [Self::Alive, Self::Killed, Self::Stopped, Self::StoppedAttached, Self::KilledAttached, Self::None];

    /// The word on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::StoppedAttached => "stopped-attached",
            Self::KilledAttached => "killed-attached",
            Self::None => "none",
        }
    }

    /// Whether it begins only once a worker is attached.
    pub(crate) fn is_attached(self) -> bool {
        matches!(self, Self::StoppedAttached | Self::KilledAttached)
    }
}

impl FromStr for State {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or(())
    }
}

/// Brings the state about, and says `state reached`. (For the attached states the sentinel says so, or `state missed`.)
///
/// # Errors
/// If it could not be.
pub(crate) fn reach(state: State, session: &Session) -> Result<(), String> {
    wait_until_ready()?;
    // It has heard what was said before, consent too, when it answers this.
    session.flush(LIMIT)?;
    match state {
        State::Alive => {}
        State::Killed => kill_all()?,
        State::None => {
            kill_all()?;
            lockdown::refuse_programs()?;
        }
        State::Stopped => {
            let monitor = monitor()?;
            signal(&monitor, libc::SIGSTOP)?;
            wait("the monitor to stop", || processes::look(monitor.pid).filter(Process::is_stopped))?;
        }
        // The sentinel is the one to say when it is so.
        State::StoppedAttached => return sentinel::start(sentinel::Deed::Stop),
        State::KilledAttached => return sentinel::start(sentinel::Deed::Kill),
    }
    control::say(format_args!("{}", sentinel::REACHED));
    Ok(())
}

fn wait_until_ready() -> Result<(), String> {
    wait("the monitor to be ready", || {
        cenotaph::status().ok().filter(|status| status.monitor == Monitor::Ready).map(drop)
    })
}

fn kill_all() -> Result<(), String> {
    // A worker may be on its way; so until none is left.
    wait("the end of the monitor", || {
        let left = all().ok()?;
        left.iter().for_each(|process| drop(signal(process, libc::SIGKILL)));
        left.is_empty().then_some(())
    })
}

/// The monitor's main process: the one whose parent is none of them.
fn monitor() -> Result<Process, String> {
    let all = all()?;
    let is_child = |process: &&Process| all.iter().any(|other| other.pid == process.parent);
    all.iter().find(|process| !is_child(process)).cloned().ok_or_else(|| "there is no monitor".to_owned())
}

/// Cenotaph's processes that this program started.
fn all() -> Result<Vec<Process>, String> {
    let own = fs::read("/proc/self/cmdline").map_err(|e| format!("/proc/self/cmdline: {e}"))?;
    let mut all = processes::with_arguments(&own);
    all.retain(Process::is_cenotaphs);
    Ok(all)
}

fn signal(process: &Process, signal: libc::c_int) -> Result<(), String> {
    let sent = Handle::open(process.pid).and_then(|handle| handle.signal(signal));
    sent.map_err(|e| format!("cannot signal the monitor ({}): {e}", process.pid))
}

fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T, String> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(format!("--monitor-state: waited in vain for {what}"));
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse() {
        for state in State::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert!("".parse::<State>().is_err());
    }
}
