//! Starting the monitor and the uploader by executing the application's program again, or a helper in its place.
//!
//! The new process learns its role from one environment variable that names an inherited descriptor and a one-shot
//! nonce; it removes the variable at once. Its first message then has to carry the same nonce, so that a variable
//! that leaked into some other program's environment makes no monitor of it.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::program::{Program, c_string};
use crate::blackbox::Blackbox;
use crate::capture::Kit;
use crate::config::ValidConfig;
use crate::error::{Error, Result};
use crate::protocol::{self, NONCE};
use crate::sys::kept;
use crate::sys::memory::memfd_with;
use crate::sys::socket::Socket;
use crate::sys::spawn::{self, Executable, Prepared};

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
    /// Another monitor, to be started should this one be gone when it is needed.
    pub(crate) another: Kit,
}

/// Starts the monitor. It becomes ready on its own; messages sent before are waiting for it.
///
/// # Errors
/// [`Error::MonitorUnavailable`] with the reason where re-execution would be wrong or is impossible.
pub(crate) fn launch(config: &ValidConfig, blackbox: &Blackbox, entered: bool) -> Result<Link> {
    let program = Program::choose(config.helper.as_deref(), entered)?;
    let (control, their_control) = Socket::pair()?;
    let (crash, their_crash) = Socket::pair()?;
    let fds = [their_crash.as_fd(), blackbox.as_fd()];
    let monitor = start(Role::Monitor, &program, &Settings::of(config), &control, &their_control, &fds)?;
    complete(&program, config, crash, control, monitor)
}

/// To a monitor that runs already.
///
/// # Errors
/// As [`launch`], for the one that would be started in its place.
pub(super) fn link(
    config: &ValidConfig,
    crash: Socket,
    control: Socket,
    monitor: libc::pid_t,
    entered: bool,
) -> Result<Link> {
    let program = Program::choose(config.helper.as_deref(), entered)?;
    complete(&program, config, crash, control, monitor)
}

fn complete(
    program: &Program,
    config: &ValidConfig,
    crash: Socket,
    control: Socket,
    monitor: libc::pid_t,
) -> Result<Link> {
    let another = prepare(program, &Settings::of(config))?;
    let (crash, control) = (crash.out_of_the_way(), control.out_of_the_way());
    Ok(Link { crash, control, monitor, another })
}

/// Makes everything ready for a monitor that a dying process starts with system calls alone.
fn prepare(program: &Program, settings: &Settings) -> Result<Kit> {
    let nonce = nonce()?;
    let hello = protocol::hello(&nonce);
    let hello =
        hello.as_slice().try_into().map_err(|_| Error::malformed("message", "a hello of another length"))?;
    let environment = environment(Role::Monitor, &hex(&nonce));
    let settings = kept::out_of_the_way(settings.memfd()?);
    let file = program.file_out_of_the_way();
    let executable = file.as_ref().map_or(program.executable(), |file| Executable::File(file.as_fd()));
    let prepared = Prepared::new(executable, &program.argv, &environment, tap());
    Ok(Kit { prepared, hello, settings, file })
}

fn nonce() -> Result<[u8; NONCE]> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce)
        .map_err(|e| Error::System { call: "getrandom", source: std::io::Error::other(e.to_string()) })?;
    Ok(nonce)
}

fn hex(nonce: &[u8; NONCE]) -> String {
    nonce.iter().map(|b| format!("{b:02x}")).collect()
}

/// What a started program is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Settings {
    /// [`PROTOCOL`](protocol::PROTOCOL) of the launcher: the helper may be of another version than the application's library.
    protocol: u32,
    pub(super) config: ValidConfig,
    /// For an uploader: what the one before it learnt of the servers. The supervisor keeps it without looking.
    #[serde(default)]
    pub(super) learnt: serde_json::Value,
}

impl Settings {
    fn of(config: &ValidConfig) -> Self {
        Self { protocol: protocol::PROTOCOL, config: config.clone(), learnt: serde_json::Value::Null }
    }

    fn memfd(&self) -> Result<OwnedFd> {
        let json = serde_json::to_vec(self)
            .map_err(|e| Error::InvalidConfig { field: "install", reason: e.to_string() })?;
        memfd_with(c"cenotaph-config", &[&json])
    }

    /// Reads what the launcher wrote.
    ///
    /// # Errors
    /// What to do about a launcher of another version, and where it wants that logged.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, OtherVersion> {
        let any: Any = serde_json::from_slice(bytes).unwrap_or_default();
        let (ours, log) = (protocol::PROTOCOL, any.config.log);
        if any.protocol != ours {
            let theirs = any.protocol;
            let why = format!(
                "the application's library speaks protocol {theirs}, this monitor {ours}; install the helper of its version"
            );
            return Err(OtherVersion { log, why });
        }
        serde_json::from_slice(bytes).map_err(|error| {
            let why = format!(
                "the application's settings cannot be read ({error}); install the helper of its version"
            );
            OtherVersion { log, why }
        })
    }
}

/// A launcher that this program does not understand.
#[derive(Debug)]
pub(super) struct OtherVersion {
    /// Where it logs.
    pub(super) log: Option<PathBuf>,
    /// What to do.
    pub(super) why: String,
}

/// What settings of every version have.
#[derive(Default, Deserialize)]
struct Any {
    #[serde(default)]
    protocol: u32,
    #[serde(default)]
    config: AnyConfig,
}

#[derive(Default, Deserialize)]
struct AnyConfig {
    #[serde(default)]
    log: Option<PathBuf>,
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
    // Whoever starts uploaders is a monitor: the application's program, or the helper.
    let program = Program::own()?;
    let pid = start(Role::Uploader, &program, &settings, &control, &theirs, &[blackbox.as_fd()])?;
    Ok((pid, control))
}

/// Spawns the program and sends its first message. `theirs` may be dropped afterwards.
fn start(
    role: Role,
    program: &Program,
    settings: &Settings,
    ours: &Socket,
    theirs: &Socket,
    fds: &[BorrowedFd<'_>],
) -> Result<libc::pid_t> {
    let nonce = nonce()?;
    let settings = settings.memfd()?;
    let all: Vec<BorrowedFd<'_>> = std::iter::once(settings.as_fd()).chain(fds.iter().copied()).collect();
    // Sent before the program exists: the message waits in the socket.
    ours.send(&protocol::hello(&nonce), &all).map_err(|source| Error::System { call: "sendmsg", source })?;
    spawn::spawn_detached(
        program.executable(),
        &program.argv,
        &environment(role, &hex(&nonce)),
        theirs.as_fd(),
        tap(),
    )
    .map_err(|e| Error::MonitorUnavailable(format!("{} could not be started: {e}", role.name())))
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

#[cfg(feature = "raw-tap")]
fn tap() -> Option<std::os::fd::RawFd> {
    std::env::var(TAP_VARIABLE).ok()?.parse().ok()
}

#[cfg(not(feature = "raw-tap"))]
fn tap() -> Option<std::os::fd::RawFd> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_another_version_are_told_from_ours() {
        let config = crate::Config::new("game", "1").spool("/s").log("/tmp/log").validate().unwrap();
        let ours = serde_json::to_value(Settings::of(&config)).unwrap();
        let read = |value: &serde_json::Value| Settings::read(&serde_json::to_vec(value).unwrap());
        assert_eq!(read(&ours).unwrap_or_else(|other| panic!("{other:?}")).config.application, "game");
        let mut newer = ours.clone();
        newer["protocol"] = 99.into();
        newer["config"]["audience"] = "martians".into();
        let other = read(&newer).err().unwrap();
        assert_eq!(other.log.as_deref(), Some(std::path::Path::new("/tmp/log")));
        assert!(
            other.why.contains("protocol 99") && other.why.contains("install the helper"),
            "{}",
            other.why
        );
        let mut older = ours.clone();
        older.as_object_mut().unwrap().remove("protocol");
        assert!(read(&older).err().unwrap().why.contains("protocol 0"));
        let mut odd = ours;
        odd["config"].as_object_mut().unwrap().remove("linger_ms");
        assert!(read(&odd).err().unwrap().why.contains("cannot be read"));
        let other = Settings::read(b"\xff").err().unwrap();
        assert!(other.log.is_none() && other.why.contains("protocol 0"));
    }
}
