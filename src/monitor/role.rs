//! The first moments of a re-executed program: finding out that it is a monitor, and becoming one.

use std::sync::OnceLock;
use std::time::Duration;

use super::launch::{OtherVersion, ROLE_VARIABLE, Role, Settings};
use super::log::Log;
use super::supervisor;
use crate::blackbox::{Blackbox, MonitorState};
use crate::config::ValidConfig;
use crate::error::{Error, Result};
use crate::pmodule::Registered;
use crate::protocol::{self, ClientMessage, MAX_MESSAGE, NONCE};
use crate::sys::memory::read_memfd;
use crate::sys::socket::{Received, Socket};
use crate::sys::{process, procfs, spawn};

/// Settings are small; a larger file is not ours.
const MAX_SETTINGS: u64 = 1 << 20;
/// The launcher sends before it starts us, so this only has to outlast a paused machine.
const HELLO_WAIT: Duration = Duration::from_secs(2);

/// The names of the pmodules that `main` began with.
static ENTERED: OnceLock<Vec<String>> = OnceLock::new();

/// Becomes a monitor if this process was started as one, and does not return then. Call it at the very top of
/// `main`, before the application opens windows, takes locks or starts threads.
///
/// `Config::install` does the same, later; with this line nothing of the application runs twice. A program with
/// [pmodules](crate::pmodule) calls [`monitor_entry_with`].
pub fn monitor_entry() {
    monitor_entry_with([]);
}

/// As [`monitor_entry`], for a program whose configuration names [pmodules](crate::Config::pmodule): the same ones.
///
/// ```no_run
/// # use cenotaph::pmodule::{Description, Event, Pmodule, Registered};
/// # #[derive(Clone)]
/// # struct GameState;
/// # impl Pmodule for GameState {
/// #     fn describe(&self) -> Description { Description::new("game-state").on(Event::Attach) }
/// # }
/// cenotaph::monitor_entry_with([Registered::of(GameState)]);
/// ```
pub fn monitor_entry_with(pmodules: impl IntoIterator<Item = Registered>) {
    let pmodules: Vec<_> = pmodules.into_iter().collect();
    let names = pmodules.iter().map(|pmodule| pmodule.description.name.clone()).collect();
    let _ = ENTERED.set(names);
    become_role(pmodules);
}

/// Whether `main` begins with [`monitor_entry`], and which pmodules a monitor of this program would have then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entered(Option<&'static [String]>);

impl Entered {
    /// Whether it does.
    pub(crate) fn is_entered(self) -> bool {
        self.0.is_some()
    }

    /// Whether the monitor will have what `config` names.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] with the way out.
    pub(crate) fn check(self, config: &ValidConfig) -> Result<()> {
        let (Some(names), None) = (self.0, &config.helper) else { return Ok(()) };
        match config.pmodules.iter().find(|pmodule| !names.contains(&pmodule.name)) {
            None => Ok(()),
            Some(missing) => Err(Error::InvalidConfig {
                field: "pmodule",
                reason: format!(
                    "the monitor would not have {}: begin main with monitor_entry_with(...) and name it there too, in the \
                     place of monitor_entry()",
                    missing.name
                ),
            }),
        }
    }
}

/// Whether `main` begins with [`monitor_entry`].
fn entered() -> Entered {
    Entered(ENTERED.get().map(Vec::as_slice))
}

/// Does not return if this process was started as a monitor or uploader. `pmodules` are those of a monitor.
pub(crate) fn become_role(pmodules: Vec<Registered>) -> Entered {
    // Whoever starts a set-user-id program chooses its environment and descriptors, and would choose our settings: files
    // written and processes read with the program's privileges. No launcher of ours starts one.
    if process::is_privileged() {
        return entered();
    }
    let Some(value) = std::env::var_os(ROLE_VARIABLE) else { return entered() };
    let Some((role, nonce)) = value.to_str().and_then(parse_role) else { return entered() };
    let threads = procfs::own_threads();
    process::remove_variable(ROLE_VARIABLE);
    let start = match greet(nonce, pmodules) {
        Ok(start) => start,
        Err(NoRole::OtherVersion) => process::exit_now(1),
        // The variable leaked into an ordinary run of the program, or the launcher died: not a role for us.
        Err(NoRole::NotOurs) => return entered(),
    };
    process::cancel_start_alarm();
    if threads > 1 {
        start.blackbox.set_monitor_state(MonitorState::RefusedThreads);
        process::exit_now(1);
    }
    process::harden();
    // A panic must not unwind into a caller that catches it: the application would go on a second time, in here.
    let run = std::panic::AssertUnwindSafe(|| match role {
        Role::Monitor => supervisor::run(start),
        #[cfg(feature = "upload")]
        Role::Uploader => super::uploader::run(&start),
        #[cfg(not(feature = "upload"))]
        Role::Uploader => 1,
    });
    process::exit_now(std::panic::catch_unwind(run).unwrap_or(101))
}

/// What a monitor or uploader starts with.
pub(super) struct Start {
    /// Towards the launcher.
    pub(super) control: Socket,
    /// The launcher's process id, 0 if it is in a pid namespace that we cannot see into.
    pub(super) launcher: libc::pid_t,
    /// From the handler; only monitors have one.
    pub(super) crash: Option<Socket>,
    pub(super) blackbox: Blackbox,
    pub(super) config: ValidConfig,
    /// In Rust.
    pub(super) pmodules: Vec<Registered>,
    /// From the uploader before this one.
    #[cfg_attr(not(feature = "upload"), expect(dead_code, reason = "only uploaders read it"))]
    pub(super) learnt: serde_json::Value,
}

/// Why a program is no monitor after all.
enum NoRole {
    /// Nobody wants it to be one.
    NotOurs,
    /// Its launcher is of another version. That was logged.
    OtherVersion,
}

impl From<Error> for NoRole {
    fn from(_: Error) -> Self {
        Self::NotOurs
    }
}

/// Receives the launcher's first message.
fn greet(nonce: [u8; NONCE], pmodules: Vec<Registered>) -> Result<Start, NoRole> {
    // Checked through a copy first: in a program that is no monitor the number belongs to someone else.
    let control = Socket::from_fd(spawn::copy_inherited()?)?;
    let Received::Message(message) = control.receive(MAX_MESSAGE, HELLO_WAIT)? else {
        return Err(NoRole::NotOurs);
    };
    match protocol::parse(&message.bytes)? {
        ClientMessage::Hello(theirs) if theirs == nonce => {}
        _ => return Err(NoRole::NotOurs),
    }
    // From here on the number is ours for certain, and its copy is enough.
    spawn::close_inherited();
    let launcher = message.pid;
    let mut fds = message.fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| Error::malformed("message", "too few descriptors"));
    let settings = read_memfd(std::os::fd::AsFd::as_fd(&next()?), MAX_SETTINGS)?;
    let (first, second) = (next()?, fds.next());
    let (crash, blackbox) = match second {
        Some(blackbox) => (Some(Socket::from_fd(first)?), blackbox),
        None => (None, first),
    };
    let blackbox = Blackbox::from_fd(blackbox);
    let Settings { config, learnt, .. } = match Settings::read(&settings) {
        Ok(settings) => settings,
        Err(other) => return Err(give_up(&other, blackbox.ok().as_ref())),
    };
    Ok(Start { control, launcher, crash, blackbox: blackbox?, config, pmodules, learnt })
}

/// Says where the application and its maker can see it that this program is of another version.
fn give_up(other: &OtherVersion, blackbox: Option<&Blackbox>) -> NoRole {
    Log::new(other.log.clone()).event("monitor", "other-version", &other.why);
    if let Some(blackbox) = blackbox {
        blackbox.set_monitor_state(MonitorState::OtherVersion);
    }
    NoRole::OtherVersion
}

fn parse_role(value: &str) -> Option<(Role, [u8; NONCE])> {
    let (role, hex) = value.split_once(':')?;
    let role = match role {
        "monitor" => Role::Monitor,
        "uploader" => Role::Uploader,
        _ => return None,
    };
    if hex.len() != 2 * NONCE || !hex.is_ascii() {
        return None;
    }
    let mut nonce = [0; NONCE];
    for (byte, pair) in nonce.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some((role, nonce))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::pmodule::{Description, Event};

    #[test]
    fn a_monitor_without_its_pmodules_is_refused_before_it_is_started() {
        let mut config = Config::new("a", "1").spool("/x").validate().unwrap();
        config.pmodules = vec![Description::new("one").on(Event::Attach)];
        let names: &'static [String] = vec!["one".to_owned()].leak();
        assert!(Entered(None).check(&config).is_ok(), "install() itself becomes the monitor");
        assert!(Entered(Some(names)).check(&config).is_ok());
        let refused = Entered(Some(&[])).check(&config).unwrap_err().to_string();
        assert!(refused.contains("one") && refused.contains("monitor_entry_with"), "{refused}");
        config.helper = Some("/usr/bin/cenotaph-monitor".into());
        assert!(Entered(Some(&[])).check(&config).is_ok());
    }

    #[test]
    fn reads_roles() {
        let hex = "00112233445566778899aabbccddeeff";
        assert!(matches!(parse_role(&format!("monitor:{hex}")), Some((Role::Monitor, n)) if n[1] == 0x11));
        assert!(matches!(parse_role(&format!("uploader:{hex}")), Some((Role::Uploader, _))));
        for bad in [
            "",
            "monitor",
            "monitor:",
            "monitor:00",
            "king:00112233445566778899aabbccddeeff",
            "monitor:zz112233445566778899aabbccddeeff",
        ] {
            assert!(parse_role(bad).is_none(), "{bad}");
        }
    }
}
