//! Why a process aborted, as far as it says itself: the C library's message, the C++ exception, the memory that Rust's
//! allocator could not have.
//!
//! Everything is read from outside, from a target that stands still ([`read`]); what stands on the stack is known later,
//! when its frames are ([`Found::settle`]).
#![forbid(unsafe_code)]

mod c_library;
mod cxx;
mod rust;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub(crate) use cxx::Exception;

use crate::report::{Origin, Reason, StackTrace};
use crate::target::Target;

/// What the application told about itself in advance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hints {
    /// Where `__cxa_get_globals` of a thread lies, from its control block on.
    pub(crate) exception_globals: Option<i64>,
    /// Where the application notes memory that it was refused: a thread's id, then bytes.
    pub(crate) refused_memory: Option<u64>,
}

/// What was found in a process that aborts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The C library's last words.
    message: Option<String>,
    /// The exception that is being handled.
    exception: Option<Exception>,
    /// Bytes that this thread asked for in vain, just before.
    refused: Option<u64>,
    /// The code of `abort`.
    abort: Vec<Range<u64>>,
    /// The code that stands on the stack when C++ terminates.
    terminate: Vec<Range<u64>>,
    /// The program, whose own symbols are in its file.
    program: Option<rust::Program>,
}

/// One of these is on the stack when C++ terminates: it stops where the exception was thrown, or where it may not go on.
/// An application's own terminate handler stands above them.
const TERMINATE: [&str; 7] = [
    "_ZSt9terminatev",
    "_ZN9__gnu_cxx27__verbose_terminate_handlerEv",
    "__cxa_call_terminate",
    "__gxx_personality_v0",
    "__cxa_throw",
    "__cxa_rethrow",
    "_ZSt17rethrow_exceptionNSt15__exception_ptr13exception_ptrE",
];

/// Looks for what an aborting process says. Only worth the time for SIGABRT.
pub(crate) fn read(target: &Target, hints: Hints) -> Found {
    let code = |name: &str| {
        let symbol = target.symbol(name).filter(|symbol| symbol.size > 0)?;
        Some(symbol.address..symbol.address.saturating_add(symbol.size))
    };
    Found {
        message: c_library::message(target),
        exception: cxx::exception(target, hints.exception_globals),
        refused: rust::refused(target, hints.refused_memory),
        abort: code("abort").into_iter().collect(),
        terminate: TERMINATE.into_iter().filter_map(code).collect(),
        program: rust::Program::of(target),
    }
}

impl Found {
    /// What it may come to while no frames are known: for the scrubber, which learns from its text.
    pub(crate) fn presumed(&self) -> Option<Origin> {
        let exception = self.exception.clone();
        let presumed =
            exception.map(|Exception { type_name, what }| Origin::CxxException { type_name, what });
        self.message.as_deref().map(c_library::classify).or(presumed)
    }

    /// What it comes to, with the frames of the thread that aborted.
    pub(crate) fn settle(&self, reason: &Reason, trace: &StackTrace) -> Option<Origin> {
        let Reason::Signal { number: libc::SIGABRT, .. } = reason else { return None };
        let frames = trace.threads.iter().find(|thread| thread.crashed).map_or(&[][..], |t| &t.frames);
        let on_stack = |codes: &[Range<u64>]| {
            frames.iter().any(|frame| codes.iter().any(|code| code.contains(&frame.instruction)))
        };
        if let Some(message) = &self.message {
            return Some(c_library::classify(message));
        }
        if on_stack(&self.terminate) {
            return Some(match self.exception.clone() {
                Some(Exception { type_name, what }) => Origin::CxxException { type_name, what },
                None => Origin::CxxTerminate,
            });
        }
        let failed = || self.program.as_ref().is_some_and(|program| program.allocation_failed(trace, frames));
        if self.refused.is_some() || failed() {
            return Some(Origin::OutOfMemory { bytes: self.refused });
        }
        on_stack(&self.abort).then_some(Origin::Abort)
    }
}

/// The id that the process itself knows the crashing thread by: gettid(2) in its pid namespace.
fn own_id(target: &Target) -> Option<u64> {
    let status = String::from_utf8_lossy(&target.status);
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Frame, Thread, Trust};

    #[test]
    fn decides_by_what_is_certain_first() {
        let frame = |instruction| Frame { instruction, module: None, offset: 0, trust: Trust::Unwound };
        let trace = |at: &[u64]| StackTrace {
            modules: Vec::new(),
            threads: vec![Thread {
                id: 1,
                name: None,
                crashed: true,
                frames: at.iter().map(|&at| frame(at)).collect(),
            }],
        };
        let abort = Reason::Signal { number: libc::SIGABRT, code: -6, address: None };
        let exception = Exception { type_name: "game::Refused".into(), what: Some("no".into()) };
        let all = Found {
            message: Some("free(): invalid pointer\n".into()),
            exception: Some(exception),
            refused: Some(7),
            abort: vec![10..20],
            terminate: vec![20..30],
            program: None,
        };
        let name = |found: &Found, at: &[u64]| found.settle(&abort, &trace(at)).map(|origin| origin.name());
        assert_eq!(name(&all, &[15]), Some("heap-corruption"));
        let silent = Found { message: None, ..all.clone() };
        assert_eq!(name(&silent, &[15, 25]), Some("cxx-exception"));
        assert_eq!(name(&silent, &[15, 35]), Some("out-of-memory"), "caught, and not what ended it");
        let plain = Found { refused: None, ..silent.clone() };
        assert_eq!(name(&plain, &[15]), Some("abort"));
        assert_eq!(name(&plain, &[40]), None, "sent from elsewhere");
        assert_eq!(name(&Found { exception: None, ..silent }, &[25]), Some("cxx-terminate"));
        let fault = Reason::Signal { number: libc::SIGSEGV, code: 1, address: None };
        assert_eq!(all.presumed().unwrap().text(), Some("free(): invalid pointer\n"));
        assert_eq!(plain.presumed().unwrap().text(), Some("no"));
        assert_eq!(all.settle(&fault, &trace(&[15])), None);
    }
}
