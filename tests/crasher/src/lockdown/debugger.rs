//! A debugger that is attached to the victim when it dies: a process of its own that traces all of its threads and
//! passes every signal on, as a debugger does for a user who continues.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, io, ptr};

use crate::control;

/// The first argument of a debugger: no way to die has this name.
pub(crate) const COMMAND: &str = "debugger";
const ATTACHED: &str = "attached";

/// Starts one for this process; it is attached to every thread when this returns, and ends with this process.
///
/// # Errors
/// If it could not.
pub(super) fn attach() -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot start the debugger: {error}");
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    if let Some(name) = env::args_os().next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    command.arg(COMMAND).arg(std::process::id().to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // Where Yama is real, only this makes it one.
    // SAFETY: plain values; without Yama it fails and changes nothing.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(child.id()), 0, 0, 0) };
    let Some(output) = child.stdout.take() else { return Err("the debugger has no output".to_owned()) };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).map_err(failed)?;
    if line.trim_end() == ATTACHED { Ok(()) } else { Err("the debugger could not attach".to_owned()) }
}

/// The debugger.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let Some(target) = arguments.first().and_then(|text| text.to_str()?.parse().ok()) else {
        return ExitCode::from(2);
    };
    if !seize_all(target) {
        return ExitCode::FAILURE;
    }
    control::say(format_args!("{ATTACHED}"));
    loop {
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if thread < 0 {
            return ExitCode::SUCCESS;
        }
        if libc::WIFSTOPPED(status) {
            go_on(target, thread, status);
        }
    }
}

/// Attaches to all threads; `false` if one refused. (The target waits, and starts none meanwhile.)
fn seize_all(target: libc::pid_t) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{target}/task")) else { return false };
    let threads = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
    // SAFETY: takes integers only.
    let seize = |thread| unsafe { ptrace(libc::PTRACE_SEIZE, thread, options as usize) };
    // A thread that ended meanwhile is no refusal.
    threads.fold(true, |all: bool, thread: libc::pid_t| {
        let seized = seize(thread) == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
        all && seized
    })
}

fn go_on(target: libc::pid_t, thread: libc::pid_t, status: libc::c_int) {
    let is_ours = fs::exists(format!("/proc/{target}/task/{thread}")).unwrap_or(false);
    let (event, signal) = (status >> 16, libc::WSTOPSIG(status));
    // SAFETY: all of these take integers only. The thread may have been killed meanwhile; then they fail.
    unsafe {
        if !is_ours {
            // A new process: debuggers let it go.
            ptrace(libc::PTRACE_DETACH, thread, 0);
        } else if event == libc::PTRACE_EVENT_STOP && signal != libc::SIGTRAP {
            ptrace(libc::PTRACE_LISTEN, thread, 0);
        } else {
            ptrace(libc::PTRACE_CONT, thread, if event == 0 { signal as usize } else { 0 });
        }
    }
}

/// # Safety
/// `request` must be one that takes `data` as an integer.
unsafe fn ptrace(request: libc::c_uint, thread: libc::pid_t, data: usize) -> libc::c_long {
    // SAFETY: the caller's promise.
    unsafe { libc::ptrace(request, thread, ptr::null_mut::<libc::c_void>(), data) }
}
