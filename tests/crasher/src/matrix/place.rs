//! A victim's place: its folder, its name, its processes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::Case;
use super::victim::Grounds;
use crate::lockdown::{self, Lockdown};
use crate::processes::{self, Handle, Process};

/// What Cenotaph's processes may take after the victim's end. (Its own limit for a worker is 120 s.)
const SETTLE: Duration = Duration::from_secs(60);

/// The library's feature `raw-tap`.
const TAP: &str = "CENOTAPH_RAW_TAP_FD";

/// A victim's folder, and the name by which its processes are known. Dropping it ends them.
pub(super) struct Place {
    folder: tempfile::TempDir,
    /// `argv[0]`, and so the first argument of all processes of Cenotaph's.
    name: String,
}

impl Place {
    pub(super) fn new(grounds: &Grounds, case: &Case) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("victim-{}-{number}", std::process::id());
        let folder = tempfile::Builder::new().prefix("crasher-").tempdir_in(&grounds.folder)?;
        for part in ["tmp", "home"] {
            fs::create_dir(folder.path().join(part))?;
        }
        let place = Self { folder, name };
        if case.lockdown == Some(Lockdown::Uid) {
            // It makes its spool as the first user, and writes its core file as the second.
            for folder in [place.folder.path(), &place.path("tmp"), &place.path("home")] {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
            }
        }
        Ok(place)
    }

    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.path("spool")
    }

    fn command(&self, grounds: &Grounds) -> Command {
        let mut command = Command::new(&grounds.program);
        command.arg0(&self.name).arg("--spool").arg(self.spool());
        command.env_clear().env("TMPDIR", self.path("tmp")).env("HOME", self.path("home"));
        // Of the tests, which see the dumps before scrubbing.
        command.envs(std::env::var_os(TAP).map(|descriptor| (TAP, descriptor)));
        // A group of its own: an interrupt from the keyboard is not for the victims.
        command.current_dir(self.folder.path()).process_group(0);
        command
    }

    /// The victim: its output goes into the files `said` and `errors`.
    pub(super) fn victim(&self, grounds: &Grounds, arguments: &[String], core: bool) -> io::Result<Command> {
        let mut command = self.command(grounds);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(File::create(self.path("said"))?).stderr(File::create(self.path("errors"))?);
        let core = if core { libc::RLIM_INFINITY } else { 0 };
        // Core files without memory (core(5)): what counts is their notes.
        // SAFETY: open, write, close and setrlimit are async-signal-safe, and nothing here allocates.
        unsafe {
            command.pre_exec(move || {
                let filter = libc::open(c"/proc/self/coredump_filter".as_ptr(), libc::O_WRONLY);
                libc::write(filter, c"0".as_ptr().cast(), 1);
                libc::close(filter);
                let limit = libc::rlimit { rlim_cur: core, rlim_max: core };
                if libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        Ok(command)
    }

    /// The next start of the application: what it finds in its spool becomes a report. Returns what did not end.
    pub(super) fn start_again(&self, grounds: &Grounds, case: &Case) -> io::Result<usize> {
        let mut command = self.command(grounds);
        if case.lockdown == Some(Lockdown::Uid) {
            command.uid(lockdown::FIRST_USER);
        }
        command.arg("none").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // It may have ended by itself.
            let _ = input.write_all(b"flush 20000\nexit\n");
        }
        if !Handle::open(child.id().cast_signed())?.wait_end(SETTLE) {
            child.kill()?;
        }
        child.wait()?;
        let left = self.settle();
        if case.lockdown == Some(Lockdown::Uid) {
            // The key opens for its owner alone. (Without a report there is none.)
            let _ = std::os::unix::fs::chown(self.spool().join("key"), Some(0), None);
        }
        Ok(left)
    }

    fn running(&self) -> Vec<Process> {
        processes::with_arguments(format!("{}\0", self.name).as_bytes())
    }

    /// Waits until nothing runs but what is stopped and what waits for it, and ends that. Returns how many others
    /// there were in the end.
    pub(super) fn settle(&self) -> usize {
        let end = Instant::now() + SETTLE;
        loop {
            let running = self.running();
            let is_held = |process: &Process| {
                process.is_stopped()
                    || running.iter().any(|other| other.is_stopped() && other.pid == process.parent)
            };
            let Some(active) = running.iter().find(|process| !is_held(process)) else {
                return self.end(0);
            };
            if Instant::now() >= end {
                return self.end(running.iter().filter(|process| !is_held(process)).count());
            }
            if let Ok(handle) = Handle::open(active.pid) {
                handle.wait_end(Duration::from_millis(50));
            }
        }
    }

    /// Kills what still runs under this name.
    fn end(&self, count: usize) -> usize {
        for _ in 0..1000 {
            let running = self.running();
            for process in &running {
                if let Ok(handle) = Handle::open(process.pid) {
                    let _ = handle.signal(libc::SIGKILL);
                }
            }
            match running.first().map(|process| Handle::open(process.pid)) {
                None => break,
                Some(Ok(handle)) => drop(handle.wait_end(Duration::from_millis(100))),
                Some(Err(_)) => {}
            }
        }
        count
    }

    /// The core file, if the kernel wrote one.
    pub(super) fn core(&self) -> Option<Vec<u8>> {
        let entries = fs::read_dir(self.folder.path()).ok()?;
        let mut names = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let core = names
            .find(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"core")));
        fs::read(core?).ok()
    }

    /// Leaves the folder where it is.
    pub(super) fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end(0);
    }
}
