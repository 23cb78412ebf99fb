//! One victim: in a folder of its own, watched from its start until nothing of it runs any more.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use super::expected::Ending;
use super::place::Place;
use super::plan::Case;
use super::verdict::{Observed, Seen};
use super::{core_file, report};
use crate::lockdown::Lockdown;
use crate::processes::{Handle, now_ns};
use crate::{chained, sentinel};

/// Beyond the deadline: until then a victim that does not end might still do so.
const PATIENCE: Duration = Duration::from_secs(20);
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

/// The same death without Cenotaph: how it ends, with which cause, and how long it takes.
///
/// # Errors
/// If it never came to its death, or this machine failed.
pub(crate) fn control(grounds: &Grounds, case: &Case) -> Result<Observed, String> {
    let place = Place::new(grounds, case).map_err(|e| e.to_string())?;
    match die(grounds, case, &place, &arguments(case, evidence_for(grounds, case), false)) {
        Ok(Death { observed, .. }) => Ok(observed),
        Err(Failed::Machine(why)) => Err(why),
        Err(Failed::Missed) => Err("nobody was to be caught".to_owned()),
    }
}

fn attempt(grounds: &Grounds, case: &Case, keep: &impl Fn(&Observed) -> bool) -> Result<Run, Failed> {
    let place = Place::new(grounds, case)?;
    let arguments = arguments(case, evidence_for(grounds, case), true);
    let Death { mut observed, said } = die(grounds, case, &place, &arguments)?;
    observed.left_running = place.settle();
    if case.state.is_attached() && !said.lines().any(|line| line == sentinel::REACHED) {
        // With a victim that nobody attached to there is nothing to try again; that is what was seen.
        if said.lines().any(|line| line == sentinel::MISSED) && !report::files(&place.spool()).is_empty() {
            return Err(Failed::Missed);
        }
    }
    observed.left_running += place.start_again(grounds, case)?;
    observed.reports = report::all(&place.spool());
    let command = format!("crasher --spool $(mktemp -d)/spool {}", arguments.join(" "));
    let said = fs::read_to_string(place.path("errors")).unwrap_or_default();
    let kept = keep(&observed).then(|| place.keep());
    Ok(Run { observed, command, said, kept })
}

/// A death, and what the victim said on standard output.
struct Death {
    observed: Observed,
    said: String,
}

fn die(grounds: &Grounds, case: &Case, place: &Place, arguments: &[String]) -> Result<Death, Failed> {
    let evidence = evidence_for(grounds, case);
    let mut child = place.victim(grounds, arguments, evidence == Evidence::Core)?.spawn()?;
    let limit = Duration::from_millis(case.deadline_ms) + PATIENCE;
    let ended = Handle::open(child.id().cast_signed())?.wait_end(limit);
    let end_ns = now_ns();
    if !ended {
        child.kill()?;
    }
    let ending = ending(&mut child)?;
    let said = fs::read_to_string(place.path("said")).unwrap_or_default();
    let dying = said.lines().find_map(|line| line.strip_prefix("dying ")?.parse::<u64>().ok());
    let Some(dying) = dying else {
        let errors = fs::read_to_string(place.path("errors")).unwrap_or_default();
        let arguments = arguments.join(" ");
        return Err(Failed::Machine(format!("the victim did not get to its death: {arguments}: {errors}")));
    };
    let observed = Observed {
        ending: ended.then_some(ending),
        elapsed_ms: Some(end_ns.saturating_sub(dying) as f64 / 1e6),
        cause: match evidence {
            Evidence::Core => place.core().and_then(|core| core_file::siginfo(&core)),
            // The last one that it saw.
            Evidence::ChainedHandler => said.lines().filter_map(announced).next_back(),
        },
        ..Observed::default()
    };
    Ok(Death { observed, said })
}

fn evidence_for(grounds: &Grounds, case: &Case) -> Evidence {
    let forbids_core = case.lockdown.is_some_and(Lockdown::forbids_core);
    if forbids_core { Evidence::ChainedHandler } else { grounds.evidence }
}

fn arguments(case: &Case, evidence: Evidence, sdk: bool) -> Vec<String> {
    let (threads, deadline) = (case.threads.to_string(), case.deadline_ms.to_string());
    let mut words = vec!["--announce", "--heap-mib", "16", "--threads", &threads];
    if sdk {
        words.extend([
            "--consent",
            "granted",
            "--deadline-ms",
            &deadline,
            "--monitor-state",
            case.state.name(),
        ]);
    } else {
        words.push("--no-sdk");
    }
    if let Some(lockdown) = case.lockdown {
        words.extend(["--lockdown", lockdown.name()]);
    }
    if evidence == Evidence::ChainedHandler {
        words.push("--chained-handler");
    }
    words.push(case.way.name());
    words.into_iter().map(str::to_owned).collect()
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
