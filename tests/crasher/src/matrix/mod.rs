//! `crasher matrix`: every way to die, with the monitor in every state and under every lock-down, many times.

mod checkpoint;
mod core_file;
mod expected;
mod options;
mod place;
mod plan;
mod report;
mod table;
mod verdict;
mod victim;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use checkpoint::Checkpoint;
use expected::Expected;
use options::Options;
use plan::Case;
use table::Tally;
use verdict::{Observed, Problem};
use victim::{Grounds, Run};

use crate::control::say;
use crate::lockdown::Lockdown;
use crate::options::Usage;
use crate::ways::Way;

/// The first argument of this command: no way to die has this name.
pub(crate) const COMMAND: &str = "matrix";

/// How often each way dies without Cenotaph first.
const CONTROLS: usize = 2;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Runs it; `arguments` are what follows [`COMMAND`].
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let options = match options::parse(arguments) {
        Ok(options) if options.help => {
            say(format_args!("{}", options::USAGE));
            return ExitCode::SUCCESS;
        }
        Ok(options) => options,
        Err(Usage(reason)) => {
            let _ = writeln!(io::stderr(), "crasher matrix: {reason}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match measure(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "crasher matrix: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every case is complete.
fn measure(options: &Options) -> Result<bool, String> {
    let folder = options.folder.clone().unwrap_or_else(env::temp_dir);
    victim::check_folder(&folder)?;
    let program = env::current_exe().map_err(|e| format!("cannot find the own executable: {e}"))?;
    let (evidence, how) = victim::evidence();
    let mut cases = plan::cases(options);
    let seed = options.seed.unwrap_or_else(|| crate::processes::now_ns() % 1_000_000_000);
    let mut tallies = match &options.json {
        Some(file) if options.resume => checkpoint::read(file, &mut cases)?,
        _ => vec![Tally::default(); cases.len()],
    };
    let runs = plan::runs(&cases, &tallies, seed);
    say(format_args!(
        "{} cases, {} victims, {} at a time, seed {seed}; siginfo {how}",
        cases.len(),
        runs.len(),
        options.jobs
    ));
    catch_interrupts();
    let grounds = Grounds { program, folder, evidence };
    control(&grounds, &mut cases)?;
    let mut checkpoint = Checkpoint::new(options.json.as_deref(), seed);
    // A file that cannot be written is not found out in the end.
    checkpoint.write(&cases, &tallies)?;
    run_all(&grounds, &cases, &runs, options, &mut tallies, &mut checkpoint);
    if INTERRUPTED.load(Ordering::Relaxed) {
        say(format_args!("interrupted: what was measured so far"));
    }
    say(format_args!("{}", table::text(&cases, &tallies).trim_end()));
    checkpoint.write(&cases, &tallies)?;
    Ok(cases.iter().zip(&tallies).all(|(case, tally)| tally.is_complete(case)))
}

/// Lets each way die without Cenotaph first: the table of expectations must be true, and it takes its own time.
fn control(grounds: &Grounds, cases: &mut [Case]) -> Result<(), String> {
    let mut known: Vec<(Way, Option<Lockdown>, f64)> = Vec::new();
    for case in cases.iter_mut().filter(|case| case.repeat > 0) {
        let Expected::Report { ending, cause, .. } = case.expected else { continue };
        let same = |(way, lockdown, _): &&_| (*way, *lockdown) == (case.way, case.lockdown);
        if let Some((.., own_ms)) = known.iter().find(same) {
            case.own_ms = *own_ms;
            continue;
        }
        for _ in 0..CONTROLS {
            if INTERRUPTED.load(Ordering::Relaxed) {
                return Ok(());
            }
            let observed = victim::control(grounds, case)?;
            if let Some(problem) = verdict::judge_end(ending, cause, &observed).first() {
                let name = table::name(case);
                return Err(format!("{name}: without Cenotaph it {problem}: the expectations are wrong"));
            }
            case.own_ms = case.own_ms.max(observed.elapsed_ms.unwrap_or(0.0));
        }
        known.push((case.way, case.lockdown, case.own_ms));
    }
    Ok(())
}

fn run_all(
    grounds: &Grounds,
    cases: &[Case],
    runs: &[usize],
    options: &Options,
    tallies: &mut [Tally],
    checkpoint: &mut Checkpoint<'_>,
) {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..options.jobs.min(runs.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while !INTERRUPTED.load(Ordering::Relaxed) {
                    let Some(&index) = runs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    let Some(case) = cases.get(index) else { break };
                    let keep = |observed: &_| {
                        let failed = || !problems(case, observed, case.own_ms).is_empty();
                        options.keep_all || (options.keep && failed())
                    };
                    let run = victim::run(grounds, case, keep);
                    let own_ms = run.as_ref().map_or(0.0, |run| own_ms(grounds, case, &run.observed));
                    if sender.send((index, run, own_ms)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut progress = Progress::new(runs.len());
        for (index, result, own_ms) in results {
            let (Some(case), Some(tally)) = (cases.get(index), tallies.get_mut(index)) else { continue };
            progress.step(count(case, tally, result, own_ms));
            checkpoint.write_if_due(cases, tallies);
        }
        progress.end();
    });
}

/// What the death takes without Cenotaph. Asked again when a victim is late, which may be the machine's doing: one that prints
/// a backtrace has work to do that takes many times as long on a busy machine.
fn own_ms(grounds: &Grounds, case: &Case, observed: &Observed) -> f64 {
    let is_late =
        problems(case, observed, case.own_ms).iter().any(|it| matches!(it, Problem::OverDeadline(_)));
    let now = if is_late { victim::control(grounds, case).ok() } else { None };
    now.and_then(|now| now.elapsed_ms).map_or(case.own_ms, |now| now.max(case.own_ms))
}

/// Counts a run; whether something was wrong.
fn count(case: &Case, tally: &mut Tally, result: Result<Run, String>, own_ms: f64) -> bool {
    match result {
        Ok(run) => {
            let problems = problems(case, &run.observed, own_ms);
            tally.add(&run.observed, &problems);
            if !problems.is_empty() {
                let kept = run.kept.map(|folder| folder.display().to_string());
                let problems = problems.iter().map(Problem::to_string).collect();
                tally.sample(problems, &run.command, &run.said, kept);
                return true;
            }
            false
        }
        Err(why) => {
            tally.add_failed();
            tally.sample(vec![why], "", "", None);
            true
        }
    }
}

fn problems(case: &Case, observed: &Observed, own_ms: f64) -> Vec<Problem> {
    match case.expected {
        Expected::NotApplicable(_) => Vec::new(),
        Expected::Report { reports, level, ending, cause } => {
            // The deadline is each report's.
            let limit_ms = case.deadline_ms as f64 * reports as f64 + own_ms;
            verdict::judge(reports, level, ending, cause, limit_ms, observed)
        }
    }
}

/// How far it is: on a terminal always, elsewhere a line now and then.
struct Progress {
    done: usize,
    all: usize,
    wrong: usize,
    begun: Instant,
    terminal: bool,
    next: Instant,
}

impl Progress {
    /// Between two lines.
    const EVERY: Duration = Duration::from_secs(60);

    fn new(all: usize) -> Self {
        let begun = Instant::now();
        let terminal = io::stderr().is_terminal();
        Self { done: 0, all, wrong: 0, begun, terminal, next: begun + Self::EVERY }
    }

    fn step(&mut self, wrong: bool) {
        self.done += 1;
        self.wrong += usize::from(wrong);
        let (done, all, wrong) = (self.done, self.all, self.wrong);
        let mut out = io::stderr();
        if self.terminal {
            let _ = write!(out, "\r{done} of {all} victims, {wrong} with a problem ");
        } else if Instant::now() >= self.next {
            self.next += Self::EVERY;
            let minutes = self.begun.elapsed().as_secs() / 60;
            let _ = writeln!(out, "{minutes} min: {done} of {all} victims, {wrong} with a problem");
        }
    }

    fn end(&self) {
        if self.terminal {
            let _ = writeln!(io::stderr());
        }
    }
}

/// The first Ctrl-C lets the victims that run come to their end and prints what there is; the second one ends this.
fn catch_interrupts() {
    extern "C" fn on_interrupt(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    // SAFETY: an all-zero action is valid; the handler only stores into a static.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_interrupt as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}
