//! A victim watched by ptrace(2) from its start to its end: every signal that it meets, with its cause.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::scene::Ending;

/// The signals that end a process because of what it did.
const FATAL: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

/// A signal and its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) signal: i32,
    /// `si_code`.
    pub(crate) code: i32,
    /// `si_addr`, where the kernel raised it for an instruction; else 0.
    pub(crate) address: u64,
}

/// Runs `command` to its end. Returns the fatal signals that its threads met, in order, and its ending.
///
/// While it is traced nobody else can trace it: Cenotaph makes no report then, but ends the process in the same way.
#[allow(clippy::zombie_processes, reason = "waited for by `wait`")]
pub(crate) fn run(mut command: Command) -> (Vec<Met>, Ending) {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: ptrace(2) with TRACEME takes no pointers and is a plain system call.
    unsafe {
        command.pre_exec(|| checked(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)));
    }
    #[allow(clippy::zombie_processes, reason = "`wait` below waits for every child")]
    let child = command.spawn().unwrap();
    let main = libc::pid_t::try_from(child.id()).unwrap();
    let (first, status) = wait();
    assert!(first == main && libc::WIFSTOPPED(status), "the stop at exec");
    let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACECLONE;
    ptrace(libc::PTRACE_SETOPTIONS, main, options as usize);
    ptrace(libc::PTRACE_CONT, main, 0);
    let mut met = Vec::new();
    loop {
        let (thread, status) = wait();
        if !libc::WIFSTOPPED(status) {
            if thread == main {
                let ending = if libc::WIFSIGNALED(status) {
                    Ending::Signal(libc::WTERMSIG(status))
                } else {
                    Ending::Code(libc::WEXITSTATUS(status))
                };
                return (met, ending);
            }
            continue;
        }
        // Events (exec, clone) are reported above the low byte and are no signals; a new thread starts with a stop
        // that is none either.
        let signal = status >> 8;
        let is_signal = signal <= 0xff && signal != libc::SIGSTOP;
        if is_signal && FATAL.contains(&signal) {
            met.extend(cause(thread, signal));
        }
        let pass_on = if is_signal { usize::try_from(signal).unwrap() } else { 0 };
        // The thread may have been killed meanwhile, with the others.
        // SAFETY: takes integers only.
        unsafe { libc::ptrace(libc::PTRACE_CONT, thread, 0, pass_on) };
    }
}

/// Why the thread stopped; `None` if it has been killed meanwhile, with the others (ptrace(2), "Death under ptrace").
fn cause(thread: libc::pid_t, signal: i32) -> Option<Met> {
    // SAFETY: all bytes zero is a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the thread is ours, and `info` is of the type that the request fills.
    let asked =
        checked(unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, thread, 0, (&raw mut info) as usize) });
    if asked.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)) {
        return None;
    }
    asked.unwrap();
    // SAFETY: with a positive code the signal is the kernel's, for an instruction, and the address is there.
    let address = if info.si_code > 0 { unsafe { info.si_addr() as u64 } } else { 0 };
    Some(Met { signal, code: info.si_code, address })
}

/// The next change of any thread that this test's thread traces.
fn wait() -> (libc::pid_t, i32) {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(thread > 0, "{}", io::Error::last_os_error());
    (thread, status)
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t, data: usize) {
    // SAFETY: the thread is stopped and ours; `data` is an integer or the address of a live value of the type that
    // the request fills.
    checked(unsafe { libc::ptrace(request, thread, 0, data) }).unwrap();
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
