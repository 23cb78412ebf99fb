//! Applications of a test program's own: it executes itself, once as each of them, and those become monitors. Such a program has no
//! test harness.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, io};

#[path = "sent.rs"]
mod sent;
#[path = "tap.rs"]
mod tap;

use tap::Tap;

pub(crate) type Application = fn(&Path);

/// Name and what it does.
pub(crate) type Named = (&'static str, Application);

/// Runs the application that this process is to be, if it is to be one; else gives those that the command line names, or all.
pub(crate) fn begin(all: impl IntoIterator<Item = Named>) -> Vec<&'static str> {
    cenotaph::monitor_entry();
    let mut all = all.into_iter();
    if let (Some(name), Some(folder)) = (env::var_os("APPLICATION"), env::var_os("FOLDER")) {
        let (_, run) = all.find(|(known, _)| name == *known).unwrap();
        run(Path::new(&folder));
        return Vec::new();
    }
    let only: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &&str| only.is_empty() || only.iter().any(|only| name.contains(only.as_str()));
    all.map(|(name, _)| name).filter(chosen).collect()
}

/// This program as an application, that leaves no core file.
pub(crate) fn application(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env("APPLICATION", name).env("FOLDER", folder).current_dir("/");
    // SAFETY: setrlimit(2) is async-signal-safe and reads a value on the stack.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            match libc::setrlimit(libc::RLIMIT_CORE, &raw const none) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    command
}

/// What went through a tap: see [`sent`].
pub(crate) struct Watched(Tap);

impl Watched {
    /// The dumps of this application, and of those that it starts.
    pub(crate) fn on(command: &mut Command) -> Self {
        let tap = Tap::new();
        tap.give(command);
        Self(tap)
    }

    /// Compares the dump of every report in the spool with its receipt; returns how many had one.
    pub(crate) fn check(&self, spool: &Path) -> usize {
        sent::check_spool(&self.0, spool)
    }
}

/// Calls `probe` until it has something.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
