//! Starting the monitor and the uploader by executing the application's program again.
//!
//! The new process learns its role from one environment variable that names an inherited descriptor and a one-shot
//! nonce; it removes the variable at once. Its first message then has to carry the same nonce, so that a variable
//! that leaked into some other program's environment makes no monitor of it.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::blackbox::Blackbox;
use crate::config::ValidConfig;
use crate::error::{Error, Result};
use crate::protocol::{self, NONCE};
use crate::sys::memory::memfd_with;
use crate::sys::socket::Socket;
use crate::sys::{process, spawn};

/// The role variable: `monitor:<nonce>` or `uploader:<nonce>`.
pub(super) const ROLE_VARIABLE: &str = "CENOTAPH_ROLE";
#[cfg(feature = "raw-tap")]
pub(super) const TAP_VARIABLE: &str = "CENOTAPH_RAW_TAP_FD";

/// What a re-executed program is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Monitor,
    Uploader,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Uploader => "uploader",
        }
    }
}

/// The application's ends.
#[derive(Debug)]
pub(crate) struct Link {
    /// For the handler alone.
    pub(crate) crash: Socket,
    /// For everything else.
    pub(crate) control: Socket,
    /// The monitor's process id.
    pub(crate) monitor: libc::pid_t,
}

/// Starts the monitor. It becomes ready on its own; messages sent before are waiting for it.
///
/// # Errors
/// [`Error::MonitorUnavailable`] with the reason where re-execution would be wrong or is impossible.
pub(crate) fn launch(config: &ValidConfig, blackbox: &Blackbox, entered: bool) -> Result<Link> {
    refuse_unsuitable(entered)?;
    let (control, their_control) = Socket::pair()?;
    let (crash, their_crash) = Socket::pair()?;
    let fds = [their_crash.as_fd(), blackbox.as_fd()];
    let monitor = start(Role::Monitor, &Settings::of(config), &control, &their_control, &fds)?;
    Ok(Link { crash, control, monitor })
}

/// What a started program is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) config: ValidConfig,
    /// For an uploader: what the one before it learnt of the servers. The supervisor keeps it without looking.
    #[serde(default)]
    pub(super) learnt: serde_json::Value,
}

impl Settings {
    fn of(config: &ValidConfig) -> Self {
        Self { config: config.clone(), learnt: serde_json::Value::Null }
    }
}

/// Starts an uploader for `config`, with the blackbox for its consent mirror and its counters.
#[cfg(feature = "upload")]
pub(super) fn launch_uploader(
    config: &ValidConfig,
    blackbox: &Blackbox,
    learnt: &serde_json::Value,
) -> Result<(libc::pid_t, Socket)> {
    let (control, theirs) = Socket::pair()?;
    let settings = Settings { learnt: learnt.clone(), ..Settings::of(config) };
    let pid = start(Role::Uploader, &settings, &control, &theirs, &[blackbox.as_fd()])?;
    Ok((pid, control))
}

/// Spawns the program and sends its first message. `theirs` may be dropped afterwards.
fn start(
    role: Role,
    settings: &Settings,
    ours: &Socket,
    theirs: &Socket,
    fds: &[BorrowedFd<'_>],
) -> Result<libc::pid_t> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce)
        .map_err(|e| Error::System { call: "getrandom", source: std::io::Error::other(e.to_string()) })?;
    let settings = serde_json::to_vec(settings)
        .map_err(|e| Error::InvalidConfig { field: "install", reason: e.to_string() })?;
    let settings = memfd_with(c"cenotaph-config", &[&settings])?;
    let all: Vec<BorrowedFd<'_>> = std::iter::once(settings.as_fd()).chain(fds.iter().copied()).collect();
    // Sent before the program exists: the message waits in the socket.
    ours.send(&protocol::hello(&nonce), &all).map_err(|source| Error::System { call: "sendmsg", source })?;
    let hex: String = nonce.iter().map(|b| format!("{b:02x}")).collect();
    let program = program()?;
    // All arguments: a program that looks at them before it installs us must come as far as the first time.
    let argv: Vec<CString> = std::env::args_os().filter_map(|argument| c_string(&argument)).collect();
    spawn::spawn_detached(&program, &argv, &environment(role, &hex), theirs.as_fd(), tap())
        .map_err(|e| Error::MonitorUnavailable(format!("{} could not be started: {e}", role.name())))
}

/// The running program's file: by its name where that can be had, because /proc may be hidden from a child.
fn program() -> Result<CString> {
    let link = Path::new("/proc/self/exe");
    let path = if link.exists() { Ok(link.to_path_buf()) } else { std::env::current_exe() };
    path.ok().and_then(|p| c_string(p.as_os_str())).ok_or_else(|| {
        Error::MonitorUnavailable("the program's own path cannot be found; is /proc mounted?".into())
    })
}

fn environment(role: Role, nonce: &str) -> Vec<CString> {
    std::env::vars_os()
        .filter(|(key, _)| key != ROLE_VARIABLE)
        .filter_map(|(key, value)| {
            c_string(OsStr::from_bytes(&[key.as_bytes(), b"=", value.as_bytes()].concat()))
        })
        .chain(c_string(OsStr::new(&format!("{ROLE_VARIABLE}={}:{nonce}", role.name()))))
        .collect()
}

fn c_string(text: &OsStr) -> Option<CString> {
    CString::new(text.as_bytes()).ok()
}

#[cfg(feature = "raw-tap")]
fn tap() -> Option<std::os::fd::RawFd> {
    std::env::var(TAP_VARIABLE).ok()?.parse().ok()
}

#[cfg(not(feature = "raw-tap"))]
fn tap() -> Option<std::os::fd::RawFd> {
    None
}

fn refuse_unsuitable(entered: bool) -> Result<()> {
    let refuse = |reason: &str| Err(Error::MonitorUnavailable(reason.to_owned()));
    if process::is_privileged() {
        return refuse("the program runs with privileges of its file (setuid); it may not be executed again");
    }
    let Ok(executable) = std::env::current_exe() else { return Ok(()) };
    match unsuitable(&executable, entered) {
        Some(reason) => refuse(reason),
        None => Ok(()),
    }
}

/// Why a program file may not be executed again, if so.
fn unsuitable(executable: &Path, entered: bool) -> Option<&'static str> {
    let name = executable.file_name()?.to_str()?;
    if name.starts_with("ld-linux") || name.starts_with("ld-musl") || name.starts_with("ld.so") {
        return Some("the executable is the dynamic loader, so the program cannot be found; run it directly");
    }
    if name.starts_with("qemu-") {
        return Some(
            "the executable is an emulator, so the program cannot be found; register it as binfmt_misc",
        );
    }
    // Cargo puts test programs into `deps` under a name with a 16-digit hash. Executed again, one would run all its
    // tests; a program that calls monitor_entry() at the top of main has shown that it is none.
    let hashed = name
        .rsplit_once('-')
        .is_some_and(|(_, hash)| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
    let in_deps = executable.parent().and_then(Path::file_name).is_some_and(|folder| folder == "deps");
    (hashed && in_deps && !entered).then_some(
        "this is a test program, whose tests would run again; call cenotaph::monitor_entry() at the top of main",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_programs_that_must_not_run_twice() {
        let cases = [
            ("/usr/bin/game", false, true),
            ("/x/target/debug/deps/game-0123456789abcdef", false, false),
            ("/x/target/debug/deps/game-0123456789abcdef", true, true),
            ("/x/target/debug/game-0123456789abcdef", false, true),
            ("/lib64/ld-linux-x86-64.so.2", true, false),
            ("/usr/bin/qemu-aarch64-static", true, false),
        ];
        for (path, entered, suitable) in cases {
            assert_eq!(unsuitable(Path::new(path), entered).is_none(), suitable, "{path} {entered}");
        }
    }

    #[test]
    fn refuses_under_the_test_harness() {
        assert!(matches!(refuse_unsuitable(false), Err(Error::MonitorUnavailable(_))));
    }
}
