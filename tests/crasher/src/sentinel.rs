//! The process that catches a worker in the act: it watches who traces the victim, and stops or kills him.
//!
//! That takes no timing: the worker is stopped first, and only if the victim is then still traced by it (a stopped
//! tracer cannot let go) was it caught while attached. Else the sentinel says that it missed, and whoever asked for the
//! state tries again. Many threads in the victim give it time: attaching to one takes some 10 microseconds.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::{env, io};

use crate::control;
use crate::processes::{self, Handle, Process};

/// The first argument of a sentinel: no way to die has this name.
pub(crate) const COMMAND: &str = "sentinel";
/// What is said when the state was brought about.
pub(crate) const REACHED: &str = "state reached";
/// What is said when nobody was caught.
pub(crate) const MISSED: &str = "state missed";
const WATCHING: &str = "watching";

/// What is done to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SIGSTOP.
    Stop,
    /// SIGKILL.
    Kill,
}

impl Deed {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Kill => "kill",
        }
    }
}

/// Starts one for this process; it watches when this returns. It ends with this process.
///
/// # Errors
/// If it could not be started.
pub(crate) fn start(deed: Deed) -> Result<(), String> {
    let failed = |what: &str, error: io::Error| format!("cannot {what} the sentinel: {error}");
    let program = env::current_exe().map_err(|e| failed("find", e))?;
    let said = io::stdout().as_fd().try_clone_to_owned().map_err(|e| failed("connect", e))?;
    let mut command = Command::new(program);
    if let Some(name) = env::args_os().next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    // What it has to say goes where this process's announcements go.
    command.arg(COMMAND).arg(deed.name()).arg(std::process::id().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said);
    let mut child = command.spawn().map_err(|e| failed("start", e))?;
    let Some(output) = child.stdout.take() else { return Err("the sentinel has no output".to_owned()) };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).map_err(|e| failed("hear", e))?;
    if line.trim_end() == WATCHING { Ok(()) } else { Err("the sentinel did not start".to_owned()) }
}

/// The sentinel: `arguments` are what follows [`COMMAND`].
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let [deed, victim] = arguments else { return ExitCode::from(2) };
    let deed = if deed == Deed::Kill.name() { Deed::Kill } else { Deed::Stop };
    let Some(victim) = victim.to_str().and_then(|pid| pid.parse().ok()) else { return ExitCode::from(2) };
    let caught = watch(victim, deed);
    let said = if caught { REACHED } else { MISSED };
    let _ = io::Write::write_all(&mut io::stderr(), format!("{said}\n").as_bytes());
    if caught { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn watch(victim: libc::pid_t, deed: Deed) -> bool {
    let Ok(status) = File::open(format!("/proc/{victim}/status")) else { return false };
    control::say(format_args!("{WATCHING}"));
    let tracer = loop {
        match tracer(&status) {
            None => return false,
            Some(0) => {}
            Some(tracer) => break tracer,
        }
    };
    let Ok(handle) = Handle::open(tracer) else { return false };
    if handle.signal(libc::SIGSTOP).is_err() {
        return false;
    }
    // It may be in a system call that takes a moment; if it dies, somebody else was quicker.
    while !processes::look(tracer).is_none_or(|process: Process| process.is_stopped() || process.state == 'Z')
    {
        std::hint::spin_loop();
    }
    let caught = self::tracer(&status) == Some(tracer);
    let _ = match deed {
        Deed::Kill => handle.signal(libc::SIGKILL),
        Deed::Stop if caught => Ok(()),
        // Not the state that was asked for: let it do its work.
        Deed::Stop => handle.signal(libc::SIGCONT),
    };
    caught
}

/// Who traces the process: 0 if nobody does, `None` if it is dead.
fn tracer(status: &File) -> Option<libc::pid_t> {
    let mut text = [0u8; 4096];
    let length = status.read_at(&mut text, 0).ok()?;
    let is_thread_of =
        |thread, process| fs::exists(format!("/proc/{process}/task/{thread}")).unwrap_or(false);
    tracer_in(str::from_utf8(text.get(..length)?).ok()?, is_thread_of)
}

/// The same as `status` says it (proc_pid_status(5)). `is_thread_of` tells whether a thread is one of a process.
///
/// While a tracer comes or goes, Linux may name the process's parent in its place (`ptrace_link` and `__ptrace_unlink` change
/// `ptrace` and `parent` one after the other, and a reader takes no lock), by the number of the thread that forked: nobody's parent
/// traces here.
fn tracer_in(status: &str, is_thread_of: impl Fn(libc::pid_t, libc::pid_t) -> bool) -> Option<libc::pid_t> {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("State:")?.starts_with(['Z', 'X']) {
        return None;
    }
    let (tracer, parent) = (field("TracerPid:")?.parse().ok()?, field("PPid:")?.parse().ok()?);
    let is_parent = tracer != 0 && (tracer == parent || is_thread_of(tracer, parent));
    Some(if is_parent { 0 } else { tracer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_nobody_traces_this() {
        assert_eq!(tracer(&File::open("/proc/self/status").unwrap()), Some(0));
    }

    #[test]
    fn a_parent_is_not_taken_for_a_tracer() {
        for (state, tracer, expected) in [
            ("R (running)", 0, Some(0)),
            ("t (tracing stop)", 8, Some(8)),
            ("R (running)", 7, Some(0)),
            ("R (running)", 9, Some(0)),
            ("Z (zombie)", 8, None),
            ("X (dead)", 0, None),
        ] {
            let status = format!("Name:\tcrasher\nState:\t{state}\nPPid:\t7\nTracerPid:\t{tracer}\n");
            // Process 7 has the threads 7 and 9.
            let is_thread_of = |thread, process| process == 7 && [7, 9].contains(&thread);
            assert_eq!(tracer_in(&status, is_thread_of), expected, "{state} {tracer}");
        }
    }
}
