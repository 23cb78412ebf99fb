//! One victim: in a folder of its own, watched from its start until nothing of it runs any more.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::expected::Ending;
use super::plan::Case;
use super::verdict::{Observed, Seen};
use super::{core_file, report};
use crate::lockdown::{self, Lockdown};
use crate::processes::{self, Handle, Process, now_ns};
use crate::{chained, sentinel};

/// Beyond the deadline: until then a victim that does not end might still do so.
const PATIENCE: Duration = Duration::from_secs(20);
/// What Cenotaph's processes may take after the victim's end. (Its own limit for a worker is 120 s.)
const SETTLE: Duration = Duration::from_secs(60);
/// How often a state that was missed is tried for again.
const TRIES: usize = 10;

/// How the last signal's cause is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The kernel writes core files into the working directory.
    Core,
    /// A handler that was there before Cenotaph prints it.
    ChainedHandler,
}

/// What became of one run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) observed: Observed,
    /// To do the same by hand.
    pub(crate) command: String,
    /// What it said on standard error.
    pub(crate) said: String,
    /// Its folder, where that is to be kept.
    pub(crate) kept: Option<PathBuf>,
}

/// What all victims of a matrix share.
#[derive(Debug)]
pub(crate) struct Grounds {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) evidence: Evidence,
}

/// Runs one victim.
///
/// # Errors
/// If it never came to the state that was asked for, or this machine failed.
pub(crate) fn run(grounds: &Grounds, case: &Case, keep: impl Fn(&Observed) -> bool) -> Result<Run, String> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match attempt(grounds, case, &keep) {
            Ok(run) => return Ok(run),
            Err(Failed::Missed) => "the worker was gone before it could be caught".clone_into(&mut last),
            Err(Failed::Machine(why)) => return Err(why),
        }
    }
    Err(format!("the state was not reached in {TRIES} tries: {last}"))
}

enum Failed {
    Missed,
    Machine(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Machine(error.to_string())
    }
}

fn attempt(grounds: &Grounds, case: &Case, keep: &impl Fn(&Observed) -> bool) -> Result<Run, Failed> {
    let place = Place::new(grounds, case)?;
    let evidence = if case.lockdown.is_some_and(Lockdown::forbids_core) {
        Evidence::ChainedHandler
    } else {
        grounds.evidence
    };
    let mut command = place.victim(grounds, case, evidence)?;
    let line = command_line(case, evidence);
    let mut child = command.spawn()?;
    let limit = Duration::from_millis(case.deadline_ms) + PATIENCE;
    let handle = Handle::open(child.id().cast_signed())?;
    let ended = handle.wait_end(limit);
    let end_ns = now_ns();
    if !ended {
        child.kill()?;
    }
    let ending = ending(&mut child)?;
    let left_running = place.settle();
    let said = fs::read_to_string(place.path("said")).unwrap_or_default();
    let word = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    if case.state.is_attached() && !said.lines().any(|line| line == sentinel::REACHED) {
        // With a victim that nobody attached to there is nothing to try again; that is what was seen.
        if said.lines().any(|line| line == sentinel::MISSED) && !report::files(&place.spool()).is_empty() {
            return Err(Failed::Missed);
        }
    }
    let errors = fs::read_to_string(place.path("errors")).unwrap_or_default();
    let Some(dying) = word("dying").and_then(|number| number.parse::<u64>().ok()) else {
        return Err(Failed::Machine(format!("the victim did not get to its death: {line}: {errors}")));
    };
    let left_running = left_running + place.start_again(grounds, case)?;
    let observed = Observed {
        ending: ended.then_some(ending),
        elapsed_ms: Some(end_ns.saturating_sub(dying) as f64 / 1e6),
        cause: match evidence {
            Evidence::Core => place.core().and_then(|core| core_file::siginfo(&core)),
            // The last one that it saw.
            Evidence::ChainedHandler => said.lines().filter_map(announced).next_back(),
        },
        reports: report::all(&place.spool()),
        left_running,
    };
    let kept = keep(&observed).then(|| place.keep());
    Ok(Run { observed, command: line, said: errors, kept })
}

/// The victim's command line, as it can be typed.
fn command_line(case: &Case, evidence: Evidence) -> String {
    format!("crasher --spool $(mktemp -d)/spool {}", arguments(case, evidence).join(" "))
}

fn arguments(case: &Case, evidence: Evidence) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--consent",
        "granted",
        "--announce",
        "--heap-mib",
        "16",
        "--threads",
        &case.threads.to_string(),
        "--deadline-ms",
        &case.deadline_ms.to_string(),
        "--monitor-state",
        case.state.name(),
    ]
    .map(str::to_owned)
    .into();
    if let Some(lockdown) = case.lockdown {
        arguments.extend(["--lockdown".to_owned(), lockdown.name().to_owned()]);
    }
    if evidence == Evidence::ChainedHandler {
        arguments.push("--chained-handler".to_owned());
    }
    arguments.push(case.way.name().to_owned());
    arguments
}

/// `siginfo SIGNAL CODE ADDRESS`.
fn announced(line: &str) -> Option<Seen> {
    let mut numbers = line.strip_prefix(chained::ANNOUNCEMENT)?.split_whitespace();
    let seen = Seen {
        signal: numbers.next()?.parse().ok()?,
        code: numbers.next()?.parse().ok()?,
        address: numbers.next()?.parse().ok()?,
    };
    numbers.next().is_none().then_some(seen)
}

fn ending(child: &mut Child) -> io::Result<Ending> {
    let status = child.wait()?;
    Ok(status.signal().map_or_else(|| Ending::Code(status.code().unwrap_or(-1)), Ending::Signal))
}

/// A victim's folder, and the name by which its processes are known. Dropping it ends them.
struct Place {
    folder: tempfile::TempDir,
    /// `argv[0]`, and so the first argument of all processes of Cenotaph's.
    name: String,
}

impl Place {
    fn new(grounds: &Grounds, case: &Case) -> io::Result<Self> {
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

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spool(&self) -> PathBuf {
        self.path("spool")
    }

    fn command(&self, grounds: &Grounds) -> Command {
        let mut command = Command::new(&grounds.program);
        command.arg0(&self.name).arg("--spool").arg(self.spool());
        command.env_clear().env("TMPDIR", self.path("tmp")).env("HOME", self.path("home"));
        // A group of its own: an interrupt from the keyboard is not for the victims.
        command.current_dir(self.folder.path()).process_group(0);
        command
    }

    fn victim(&self, grounds: &Grounds, case: &Case, evidence: Evidence) -> io::Result<Command> {
        let mut command = self.command(grounds);
        command.args(arguments(case, evidence)).stdin(Stdio::null());
        command.stdout(File::create(self.path("said"))?).stderr(File::create(self.path("errors"))?);
        let core = match evidence {
            Evidence::Core => libc::RLIM_INFINITY,
            Evidence::ChainedHandler => 0,
        };
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
    fn start_again(&self, grounds: &Grounds, case: &Case) -> io::Result<usize> {
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
    fn settle(&self) -> usize {
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

    fn core(&self) -> Option<Vec<u8>> {
        let entries = fs::read_dir(self.folder.path()).ok()?;
        let mut names = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let core = names
            .find(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"core")));
        fs::read(core?).ok()
    }

    fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end(0);
    }
}

/// How causes can be learnt on this machine, and a word about it.
pub(crate) fn evidence() -> (Evidence, String) {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let pattern = pattern.trim_end();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the local.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) };
    if !pattern.starts_with("core") || pattern.contains('/') {
        let why = format!("core files go to `{pattern}`");
        return (Evidence::ChainedHandler, format!("by a chained handler ({why})"));
    }
    if asked != 0 || limit.rlim_max != libc::RLIM_INFINITY {
        return (Evidence::ChainedHandler, "by a chained handler (core files are limited)".to_owned());
    }
    (Evidence::Core, "from the kernel's core file (NT_SIGINFO)".to_owned())
}

/// Whether files in `folder` can be made durable, as Cenotaph does with reports.
///
/// # Errors
/// What failed there.
pub(crate) fn check_folder(folder: &Path) -> Result<(), String> {
    let check = || {
        let place = tempfile::Builder::new().prefix("crasher-").tempdir_in(folder)?;
        let file = File::create(place.path().join("synced"))?;
        file.sync_all()?;
        let opened = File::open(place.path())?;
        // SAFETY: a live descriptor.
        if unsafe { libc::fsync(opened.as_raw_fd()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    check().map_err(|e| format!("{}: {e}; give another one with --folder", folder.display()))
}
