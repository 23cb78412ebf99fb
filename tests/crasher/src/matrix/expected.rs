//! What each case must come to. Data; the only rules are which of its rows counts.

use std::fmt;

use crate::lockdown::Lockdown;
use crate::monitor_state::State;

/// How much a report shows at least, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// A report without frames.
    NoFrames,
    /// Frames, no memory.
    StackTrace,
    /// Frames and the stacks' pointers.
    Pointers,
    /// Frames and scrubbed memory.
    Minidump,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By this signal.
    Signal(i32),
    /// With this exit code.
    Code(i32),
    /// It did what was asked for, and ends when it likes: exit code 0.
    LivesOn,
}

/// `si_addr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// This one.
    Is(u64),
    /// One that differs from run to run.
    Some,
    /// None: the kernel fills in something else there.
    None,
}

/// The cause that the kernel must see for the last signal: `si_signo`, `si_code`, `si_addr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) signal: i32,
    pub(crate) code: i32,
    pub(crate) address: Address,
}

/// What a case must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// So many reports of at least this level, this ending, and for an ending by a signal this cause.
    Report { reports: usize, level: Level, ending: Ending, cause: Option<Cause> },
    /// The case does not exist, or nothing can be asked of it.
    NotApplicable(&'static str),
}

/// A way to die: its name, its ending, its cause, and the most that a report of it can show.
struct Fact {
    way: &'static str,
    ending: Ending,
    cause: Option<Cause>,
    level: Level,
    reports: usize,
}

const fn fault(way: &'static str, signal: i32, code: i32, address: Address) -> Fact {
    let cause = Some(Cause { signal, code, address });
    Fact { way, ending: Ending::Signal(signal), cause, level: Level::Minidump, reports: 1 }
}

/// By abort(3): the cause is tgkill(2), SI_TKILL.
const fn abort(way: &'static str) -> Fact {
    fault(way, libc::SIGABRT, SI_TKILL, Address::None)
}

const fn other(way: &'static str, ending: Ending, level: Level) -> Fact {
    Fact { way, ending, cause: None, level, reports: 1 }
}

// sigaction(2)
const SI_TKILL: i32 = -6;
const SI_KERNEL: i32 = 0x80;

/// Addresses are those of src/ways; codes: sigaction(2).
const FACTS: &[Fact] = &[
    fault("null", libc::SIGSEGV, 1, Address::Is(0x10)),
    abort("abort"),
    other("panic", Ending::Code(101), Level::Minidump),
    fault("bus", libc::SIGBUS, 2, Address::Is(0x1000_0000)),
    fault("ill", libc::SIGILL, 2, Address::Some),
    fault("fpe", libc::SIGFPE, 1, Address::Some),
    fault("trap", libc::SIGTRAP, SI_KERNEL, Address::None),
    fault("sys", libc::SIGSYS, 1, Address::Some),
    // std's handler, which was there first, prints its message and aborts.
    abort("stack-overflow"),
    abort("stack-overflow-thread"),
    fault("heap-lock", libc::SIGSEGV, 1, Address::Is(0x30)),
    fault("two-threads", libc::SIGSEGV, 1, Address::Is(0x10)),
    // Its own handler for the fault aborts.
    abort("abort-in-handler-chain"),
    abort("panic-abort"),
    // The report is the first one's.
    abort("panic-in-panic"),
    abort("cxx-throw"),
    abort("oom-rust"),
    abort("stack-smash"),
    abort("double-free"),
    // The child dies first, in the same way, and is no client.
    fault("fork-child", libc::SIGSEGV, 1, Address::Is(0x10)),
    other("sigkill", Ending::Signal(libc::SIGKILL), Level::NoFrames),
    other("hang", Ending::LivesOn, Level::Minidump),
    other("capture", Ending::LivesOn, Level::Minidump),
];

/// What a monitor's state leaves of the level.
const STATES: &[(State, Level)] = &[
    (State::Alive, Level::Minidump),
    // A fresh monitor is started.
    (State::Killed, Level::Minidump),
    // It does not take the request on, and is given up for a fresh one.
    (State::Stopped, Level::Minidump),
    // Another worker takes over.
    (State::StoppedAttached, Level::Minidump),
    (State::KilledAttached, Level::Minidump),
    // The minimal record, which the next start makes a report of.
    (State::None, Level::StackTrace),
];

/// What a lock-down leaves of it. Where nobody may look into the process, a copy of it hands its own memory out.
const LOCKDOWNS: &[(Lockdown, Level)] = &[
    (Lockdown::Yama1, Level::Minidump),
    (Lockdown::Yama2, Level::Minidump),
    (Lockdown::Yama3, Level::Minidump),
    (Lockdown::Nnp, Level::Minidump),
    (Lockdown::SeccompPtrace, Level::Minidump),
    (Lockdown::SeccompVmread, Level::Minidump),
    (Lockdown::SeccompKill, Level::Minidump),
    (Lockdown::Pidns, Level::Minidump),
    (Lockdown::Pid1, Level::Minidump),
    (Lockdown::CgroupKill, Level::Minidump),
    (Lockdown::Uid, Level::Minidump),
    (Lockdown::Nodump, Level::Minidump),
    (Lockdown::Traced, Level::Minidump),
];

/// Cases of which nothing is asked, and why. A way of `None` stands for each.
struct Exception {
    way: Option<&'static str>,
    state: State,
    lockdown: Option<Lockdown>,
    why: &'static str,
}

const fn exception(way: &'static str, state: State, why: &'static str) -> Exception {
    Exception { way: Some(way), state, lockdown: None, why }
}

const NOT_APPLICABLE: &[Exception] = &[
    exception("sigkill", State::StoppedAttached, "no worker attaches to a dead process"),
    exception("sigkill", State::KilledAttached, "no worker attaches to a dead process"),
    exception("hang", State::Killed, NOBODY_NOTICES),
    exception("hang", State::Stopped, NOBODY_NOTICES),
    exception("hang", State::None, NOBODY_NOTICES),
    exception("capture", State::None, TOLD),
    Exception {
        way: None,
        state: State::Killed,
        lockdown: Some(Lockdown::Uid),
        why: "whoever the victim starts has its user id, which the spool is closed to",
    },
];

const NOBODY_NOTICES: &str = "it is the monitor that notices a hang, and the process lives on";
const TOLD: &str = "nobody dies, and capture() returns the error";

/// What the case must come to. `None` for a way that no row knows.
pub(crate) fn expected(way: &str, state: State, lockdown: Option<Lockdown>) -> Option<Expected> {
    let fact = FACTS.iter().find(|fact| fact.way == way)?;
    let applies = |exception: &&Exception| {
        exception.way.is_none_or(|it| it == way) && (exception.state, exception.lockdown) == (state, lockdown)
    };
    if let Some(exception) = NOT_APPLICABLE.iter().find(applies) {
        return Some(Expected::NotApplicable(exception.why));
    }
    let (_, by_state) = STATES.iter().find(|(it, _)| *it == state)?;
    let by_lockdown = match lockdown {
        None => Level::Minidump,
        Some(lockdown) => LOCKDOWNS.iter().find(|(it, _)| *it == lockdown)?.1,
    };
    let level = fact.level.min(*by_state).min(by_lockdown);
    // An init process gets no signal that it sends to itself and does not handle (pid_namespaces(7)): abort(3) then
    // ends it by an instruction that only the kernel may use.
    if lockdown == Some(Lockdown::Pid1) && fact.ending == Ending::Signal(libc::SIGABRT) {
        let cause = Cause { signal: libc::SIGSEGV, code: SI_KERNEL, address: Address::None };
        let ending = Ending::Signal(libc::SIGSEGV);
        return Some(Expected::Report { reports: fact.reports, level, ending, cause: Some(cause) });
    }
    Some(Expected::Report { reports: fact.reports, level, ending: fact.ending, cause: fact.cause })
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoFrames => "no frames",
            Self::StackTrace => "stack-trace",
            Self::Pointers => "pointers",
            Self::Minidump => "minidump",
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(libc::SIGKILL) => f.write_str("SIGKILL"),
            Self::Signal(number) => match cenotaph::report::signal_name(*number) {
                "signal" => write!(f, "signal {number}"),
                name => f.write_str(name),
            },
            Self::Code(code) => write!(f, "exit {code}"),
            Self::LivesOn => f.write_str("lives on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ways::Way;

    #[test]
    fn every_case_has_an_expectation() {
        for way in Way::ALL.iter().filter(|way| **way != Way::None) {
            for state in State::ALL {
                assert!(expected(way.name(), state, None).is_some(), "{} {state:?}", way.name());
                for lockdown in Lockdown::ALL {
                    assert!(expected(way.name(), state, Some(lockdown)).is_some(), "{lockdown:?}");
                }
            }
        }
        assert_eq!(expected("drown", State::Alive, None), None);
    }

    #[test]
    fn rows_count_as_they_say() {
        let report = |level, ending, cause| Some(Expected::Report { reports: 1, level, ending, cause });
        let null = Some(Cause { signal: libc::SIGSEGV, code: 1, address: Address::Is(0x10) });
        let segv = Ending::Signal(libc::SIGSEGV);
        let cases = [
            (expected("null", State::Alive, None), report(Level::Minidump, segv, null)),
            (expected("null", State::None, None), report(Level::StackTrace, segv, null)),
            (expected("null", State::Killed, Some(Lockdown::Pid1)), report(Level::Minidump, segv, null)),
            (
                expected("capture", State::KilledAttached, None),
                report(Level::Minidump, Ending::LivesOn, None),
            ),
            (
                expected("abort", State::Alive, Some(Lockdown::Pid1)),
                report(
                    Level::Minidump,
                    segv,
                    Some(Cause { signal: libc::SIGSEGV, code: SI_KERNEL, address: Address::None }),
                ),
            ),
        ];
        for (found, wanted) in cases {
            assert_eq!(found, wanted);
        }
        for (way, state, lockdown) in
            [("capture", State::None, None), ("null", State::Killed, Some(Lockdown::Uid))]
        {
            assert!(matches!(expected(way, state, lockdown), Some(Expected::NotApplicable(_))));
        }
    }
}
