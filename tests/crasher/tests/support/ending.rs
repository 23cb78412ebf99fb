//! How processes end, and how each way to die ends without Cenotaph, which is how it must end with it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// How a victim ended. Core files are none of the victim's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By this signal.
    Signal(i32),
    /// With this exit code.
    Code(i32),
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        status.signal().map_or_else(|| Self::Code(status.code().unwrap()), Self::Signal)
    }
}

/// The ways that a handler or the panic hook meets, and on which nothing else is special.
pub(crate) const PLAIN: [(&str, Ending); 12] = [
    ("null", Ending::Signal(libc::SIGSEGV)),
    ("abort", Ending::Signal(libc::SIGABRT)),
    ("panic", Ending::Code(101)),
    ("bus", Ending::Signal(libc::SIGBUS)),
    ("ill", Ending::Signal(libc::SIGILL)),
    ("fpe", Ending::Signal(libc::SIGFPE)),
    ("trap", Ending::Signal(libc::SIGTRAP)),
    ("sys", Ending::Signal(libc::SIGSYS)),
    ("stack-overflow", Ending::Signal(libc::SIGABRT)),
    ("stack-overflow-thread", Ending::Signal(libc::SIGABRT)),
    ("heap-lock", Ending::Signal(libc::SIGSEGV)),
    ("two-threads", Ending::Signal(libc::SIGSEGV)),
];

/// The other ones, and the way to end well.
pub(crate) const SPECIAL: [(&str, Ending); 12] = [
    ("abort-in-handler-chain", Ending::Signal(libc::SIGABRT)),
    ("panic-abort", Ending::Signal(libc::SIGABRT)),
    ("panic-in-panic", Ending::Signal(libc::SIGABRT)),
    ("cxx-throw", Ending::Signal(libc::SIGABRT)),
    ("oom-rust", Ending::Signal(libc::SIGABRT)),
    ("sigkill", Ending::Signal(libc::SIGKILL)),
    ("stack-smash", Ending::Signal(libc::SIGABRT)),
    ("double-free", Ending::Signal(libc::SIGABRT)),
    ("fork-child", Ending::Signal(libc::SIGSEGV)),
    ("hang", Ending::Code(0)),
    ("capture", Ending::Code(0)),
    ("none", Ending::Code(0)),
];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Ending)> {
    PLAIN.into_iter().chain(SPECIAL)
}
