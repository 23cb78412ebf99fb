//! Why there is a report.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// Why there is a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// A fatal signal; see sigaction(2) for `code`.
    Signal {
        /// `si_signo`.
        number: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`, for the signals that the kernel raises for an instruction.
        address: Option<u64>,
    },
    /// A Rust panic.
    Panic {
        /// The payload, when it was text. Scrubbed.
        message: String,
        /// `file:line:column`.
        location: String,
        /// The thread's name.
        thread: String,
    },
    /// The application asked for it; the process lives on.
    Requested {
        /// The caller's words. Scrubbed.
        reason: String,
    },
    /// A watched thread did not beat for longer than it may; the process lives on.
    Hang {
        /// The limit that was set for it, in milliseconds.
        limit_ms: u64,
    },
    /// The process is gone and nobody saw it crash: a signal that cannot be caught, or a death before any handler could
    /// run. No frames.
    UncleanExit {
        /// The signal that ended it, if that could be found out.
        signal: Option<i32>,
        /// Where this is known from.
        evidence: Evidence,
        /// Processes of its control group that the kernel killed for want of memory while it ran (`oom_kill` of
        /// `memory.events`, cgroups(7)). 0 where the kernel does not tell.
        oom_kills: u64,
    },
}

/// Where the end of a process is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Evidence {
    /// The kernel told (`PIDFD_GET_INFO`, Linux 6.15).
    Pidfd,
    /// The dead process's entry in `/proc`, before its parent collected it.
    Zombie,
    /// It is gone, and its end could not be read.
    Gone,
    /// It left the record of a session that has no end, on this boot of the machine: process and monitor were both killed.
    Record,
    /// The same, but the machine was started anew since: a power cut, a crash of the system.
    RecordBeforeBoot,
}

impl Reason {
    /// "SIGSEGV", "panic", "requested": never holds user text.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Signal { number, .. } => signal_name(*number),
            Self::Panic { .. } => "panic",
            Self::Requested { .. } => "requested",
            Self::Hang { .. } => "hang",
            Self::UncleanExit { .. } => "unclean-exit",
        }
    }
}

/// The signal's name as in signal(7), or "signal".
pub fn signal_name(number: i32) -> &'static str {
    match number {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGABRT => "SIGABRT",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGSYS => "SIGSYS",
        libc::SIGKILL => "SIGKILL",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        _ => "signal",
    }
}
