//! System calls of Cenotaph's processes over one crash, counted by strace(1).

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::crash::{self, Scene};
use crate::options::Sdk;
use crate::{Failure, processes};

const ATTACH_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(20);

/// Calls of one crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Calls {
    /// All, of supervisor and worker, from the crash to their ends.
    pub(crate) all: usize,
    /// Of the worker, from its first PTRACE_SEIZE to its last PTRACE_DETACH.
    pub(crate) during_stop: usize,
    /// Of those, the ones that read the victim's memory or open or read a file of its modules.
    pub(crate) reads: usize,
}

/// Whether strace can be run.
pub(crate) fn is_available() -> bool {
    Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// Crashes one victim of Cenotaph with strace on the supervisor and on the worker that waits.
pub(crate) fn count(threads: usize, scene: &Scene<'_>) -> Result<Calls, Failure> {
    let output = tempfile::Builder::new().prefix("crash-latency-strace-").tempfile_in(&scene.options.dir)?;
    crash::measure(Sdk::Cenotaph, threads, scene, Some(output.path()))?;
    let mut text = String::new();
    output.reopen()?.read_to_string(&mut text)?;
    parse(&text, &scene.modules.dir().display().to_string())
        .ok_or_else(|| "strace saw no process being stopped and let go".into())
}

/// strace. Ended when dropped; what it traces goes on.
#[derive(Debug)]
pub(crate) struct Tracer(Child);

impl Tracer {
    /// On the supervisor of Cenotaph, which is our only child besides `victim`, and on its worker.
    pub(crate) fn attach(victim: u32, output: &Path) -> Result<Self, Failure> {
        let supervisor = children(std::process::id())?.into_iter().filter(|pid| *pid != victim);
        let supervisor: Vec<u32> = supervisor.collect();
        let [supervisor] = supervisor[..] else {
            return Err(format!("not one supervisor but {} processes", supervisor.len()).into());
        };
        // strace -f follows only children that are made after it came.
        let pids: Vec<u32> = children(supervisor)?.into_iter().chain([supervisor]).collect();
        let pids_given = pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]);
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(output)
            .args(pids_given)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let tracer = Self(child);
        let limit = Instant::now() + ATTACH_LIMIT;
        while !pids.iter().all(|pid| is_traced(*pid)) {
            if Instant::now() > limit {
                return Err("strace did not attach; may this user trace (ptrace(2))?".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(tracer)
    }

    /// It ends by itself when all that it traces have.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let limit = Instant::now() + END_LIMIT;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > limit {
                return Err("strace did not end with what it traces".into());
            }
            processes::check_interrupted()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Errors: it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

/// The children of a process (of its first thread, that is).
fn children(pid: u32) -> io::Result<Vec<u32>> {
    let path: PathBuf = format!("/proc/{pid}/task/{pid}/children").into();
    Ok(std::fs::read_to_string(path)?.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Counts in what `strace -f -o` wrote: lines of a process id and a call. `modules` is the folder of the victim's modules.
fn parse(text: &str, modules: &str) -> Option<Calls> {
    let lines = text.lines().filter_map(|line| {
        let (pid, call) = line.split_once(' ')?;
        let call = call.trim_start();
        // Signals, ends, and the second halves of calls that were interrupted by another process's line.
        (!call.starts_with(['-', '+', '<'])).then_some((pid, call))
    });
    let all = lines.clone().count();
    let (tracer, _) = lines.clone().find(|(_, call)| call.starts_with("ptrace(PTRACE_SEIZE"))?;
    let own: Vec<&str> = lines.filter(|(pid, _)| *pid == tracer).map(|(_, call)| call).collect();
    let first = own.iter().position(|call| call.starts_with("ptrace(PTRACE_SEIZE"))?;
    let last = own.iter().rposition(|call| call.starts_with("ptrace(PTRACE_DETACH"))?;
    let during = own.get(first..=last)?;
    let reads = during.iter().filter(|call| {
        call.starts_with("process_vm_readv(") || call.starts_with("pread64(") || call.contains(modules)
    });
    Some(Calls { all, during_stop: during.len(), reads: reads.count() })
}
