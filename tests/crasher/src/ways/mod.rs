//! The ways to die.

mod fault;
mod hang;
mod heap_lock;
mod memory;
mod native;
mod outside;
mod overflow;
mod panics;
mod prepare;

use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{hint, process, thread};

pub(crate) use fault::Registers;

use crate::chain;
use crate::payload::Payload;

/// How the victim ends. Each is a word on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Writes to address 0x10: SIGSEGV.
    Null,
    /// `std::process::abort`: SIGABRT.
    Abort,
    /// An ordinary Rust panic in main: exit code 101.
    Panic,
    /// Touches a mapping behind the end of its file: SIGBUS.
    Bus,
    /// `ud2`: SIGILL.
    Ill,
    /// Divides an integer by zero: SIGFPE.
    Fpe,
    /// `int3`: SIGTRAP.
    Trap,
    /// Makes a system call that a seccomp filter traps: SIGSYS.
    Sys,
    /// Endless recursion in main: SIGABRT by std's handler.
    StackOverflow,
    /// Endless recursion in another thread: SIGABRT by std's handler.
    StackOverflowThread,
    /// Faults inside malloc with the arena's lock held: SIGSEGV.
    HeapLock,
    /// Main and another thread write to address 0x10 at the same moment: SIGSEGV.
    TwoThreads,
    /// Writes to address 0x10 where an earlier SIGSEGV handler aborts: SIGABRT.
    AbortInHandlerChain,
    /// A panic that cannot unwind: SIGABRT.
    PanicAbort,
    /// A panic while another one unwinds: SIGABRT.
    PanicInPanic,
    /// A C++ exception that nobody catches: SIGABRT by `std::terminate`.
    CxxThrow,
    /// Rust's allocator has no memory: SIGABRT.
    OomRust,
    /// Kills itself: SIGKILL.
    Sigkill,
    /// Overflows a buffer on the stack: SIGABRT by the stack protector.
    StackSmash,
    /// Frees a block twice: SIGABRT by malloc.
    DoubleFree,
    /// A forked child writes to address 0x10 and dies, then so does this process: SIGSEGV.
    ForkChild,
    /// Stops beating as a watched thread until there is a report, and lives on: exit code 0.
    Hang,
    /// Asks for a report and lives on: exit code 0.
    Capture,
    /// Waits for commands on standard input; exit code 0.
    None,
}

impl Way {
    /// All, in the order of the usage text.
    pub(crate) const ALL: [Self; 24] = [
        Self::Null,
        Self::Abort,
        Self::Panic,
        Self::Bus,
        Self::Ill,
        Self::Fpe,
        Self::Trap,
        Self::Sys,
        Self::StackOverflow,
        Self::StackOverflowThread,
        Self::HeapLock,
        Self::TwoThreads,
        Self::AbortInHandlerChain,
        Self::PanicAbort,
        Self::PanicInPanic,
        Self::CxxThrow,
        Self::OomRust,
        Self::Sigkill,
        Self::StackSmash,
        Self::DoubleFree,
        Self::ForkChild,
        Self::Hang,
        Self::Capture,
        Self::None,
    ];

    /// The word on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Abort => "abort",
            Self::Panic => "panic",
            Self::Bus => "bus",
            Self::Ill => "ill",
            Self::Fpe => "fpe",
            Self::Trap => "trap",
            Self::Sys => "sys",
            Self::StackOverflow => "stack-overflow",
            Self::StackOverflowThread => "stack-overflow-thread",
            Self::HeapLock => "heap-lock",
            Self::TwoThreads => "two-threads",
            Self::AbortInHandlerChain => "abort-in-handler-chain",
            Self::PanicAbort => "panic-abort",
            Self::PanicInPanic => "panic-in-panic",
            Self::CxxThrow => "cxx-throw",
            Self::OomRust => "oom-rust",
            Self::Sigkill => "sigkill",
            Self::StackSmash => "stack-smash",
            Self::DoubleFree => "double-free",
            Self::ForkChild => "fork-child",
            Self::Hang => "hang",
            Self::Capture => "capture",
            Self::None => "none",
        }
    }
}

impl FromStr for Way {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|way| way.name() == name).ok_or(())
    }
}

/// What must be there before Cenotaph comes.
///
/// # Errors
/// If this machine cannot die this way.
pub(crate) fn before_install(way: Way) -> Result<(), String> {
    match way {
        Way::AbortInHandlerChain => outside::install_aborting_handler(),
        _ => Ok(()),
    }
}

/// Dies, ten frames below this call, with the payload on the live stack. `live` is what the ways that do not
/// die do instead.
///
/// # Errors
/// If this machine cannot die this way.
pub(crate) fn go(
    way: Way,
    payload: &'static Payload,
    live: &mut dyn FnMut() -> ExitCode,
) -> Result<ExitCode, String> {
    if way == Way::StackOverflowThread {
        let _ = on_a_thread("overflowing", way, payload)?.join();
        return Err("the thread's stack did not overflow".to_owned());
    }
    if way == Way::TwoThreads {
        drop(on_a_thread("second-to-die", way, payload)?);
    }
    let mut ending = Err(format!("`{}` did not end the process", way.name()));
    chain::ten_frames_deep(&mut || {
        payload.while_live(&mut || {
            ending = match way {
                Way::Capture | Way::None => Ok(live()),
                _ => die(way),
            };
        });
    });
    ending
}

/// Only returns if it failed.
fn die(way: Way) -> Result<ExitCode, String> {
    match way {
        Way::Null | Way::AbortInHandlerChain => fault::null(),
        Way::Abort => process::abort(),
        Way::Panic => {
            #[allow(clippy::panic, reason = "this is what was asked for")]
            {
                panic!("crasher: a panic was asked for")
            }
        }
        Way::Bus => {
            prepare::page_without_file()?;
            fault::bus()
        }
        Way::Ill => fault::ill(),
        Way::Fpe => fault::fpe(),
        Way::Trap => fault::trap(),
        Way::Sys => {
            prepare::trapping_filter()?;
            fault::sys()
        }
        Way::StackOverflow | Way::StackOverflowThread => {
            overflow::recurse(0);
            Err("the stack did not overflow".to_owned())
        }
        Way::HeapLock => heap_lock::die().map(|never| match never {}),
        Way::TwoThreads => {
            meet();
            fault::null()
        }
        Way::PanicAbort => survived(panics::abort),
        Way::PanicInPanic => survived(panics::in_panic),
        Way::CxxThrow => survived(native::throw),
        Way::StackSmash => survived(native::smash),
        Way::DoubleFree => survived(native::double_free),
        Way::OomRust => survived(memory::exhaust),
        Way::Sigkill => survived(outside::sigkill),
        Way::ForkChild => {
            outside::child_dies()?;
            fault::null()
        }
        Way::Hang => hang::hang(),
        Way::Capture | Way::None => Ok(ExitCode::SUCCESS),
    }
}

/// Calls what should not return.
fn survived(way: fn()) -> Result<ExitCode, String> {
    way();
    Err("it did not happen".to_owned())
}

fn on_a_thread(name: &str, way: Way, payload: &'static Payload) -> Result<thread::JoinHandle<()>, String> {
    let dying = move || {
        chain::ten_frames_deep(&mut || {
            payload.while_live(&mut || {
                let _ = die(way);
            });
        });
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(dying)
        .map_err(|e| format!("no thread for `{}`: {e}", way.name()))
}

/// Returns in both threads within nanoseconds of each other: they spin, where a lock would wake one after the other.
fn meet() {
    static ARRIVED: AtomicUsize = AtomicUsize::new(0);
    ARRIVED.fetch_add(1, Ordering::AcqRel);
    while ARRIVED.load(Ordering::Acquire) < 2 {
        hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse() {
        for way in Way::ALL {
            assert_eq!(way.name().parse(), Ok(way));
        }
        assert!("".parse::<Way>().is_err());
    }
}
