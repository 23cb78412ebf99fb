//! Finding Cenotaph's processes. They belong to nobody, but they keep the victim's `argv[0]`, and anybody may read
//! that, even where the processes are not dumpable (proc_pid_cmdline(5)).
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::time::{Duration, Instant};

/// Far more than any wait here takes.
const BOUND: Duration = Duration::from_secs(60);

/// A process as /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// The process that leads its session (setsid(2)).
    pub(crate) session: i32,
    /// Its short name: "crasher" for victims, "cenotaph" for Cenotaph's once they have begun.
    pub(crate) comm: String,
    /// When it started, in clock ticks since boot.
    pub(crate) started: u64,
}

/// The processes whose `argv[0]` is `name`, oldest first. Zombies have no arguments any more, and are not in it.
pub(crate) fn named(name: &str) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut found: Vec<Process> = pids.filter_map(|pid| look(pid, name)).collect();
    found.sort_by_key(|process| (process.started, process.pid));
    found
}

/// What the system says of a thread that somebody may trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traced {
    /// Who traces it; 0 if nobody does.
    pub(crate) tracer: i32,
    /// It has ended and waits for the process's other threads, or for being reaped.
    pub(crate) zombie: bool,
}

/// What the system says of `thread`; `None` if it is no more.
pub(crate) fn traced(process: i32, thread: i32) -> Option<Traced> {
    let is_thread_of =
        |thread, process| fs::exists(format!("/proc/{process}/task/{thread}")).unwrap_or(false);
    traced_as(&fs::read_to_string(format!("/proc/{process}/task/{thread}/status")).ok()?, is_thread_of)
}

/// The same as `status` says it (proc_pid_status(5)). `is_thread_of` tells whether a thread is one of a process.
///
/// While a tracer comes or goes, Linux may name the process's own parent in its place (`ptrace_link` and `__ptrace_unlink` change
/// `ptrace` and `parent` one after the other, and a reader takes no lock). What it names then is the very thread that forked, whose
/// number is not the parent's if it is not its first. The parent is this test, which traces nobody; whoever believed it and stopped
/// the tracer would stop himself, for good.
pub(crate) fn traced_as(status: &str, is_thread_of: impl Fn(i32, i32) -> bool) -> Option<Traced> {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let (tracer, parent): (i32, i32) = (field("TracerPid:")?.parse().ok()?, field("PPid:")?.parse().ok()?);
    let zombie = field("State:")?.starts_with(['Z', 'X']);
    let is_parent = tracer != 0 && (tracer == parent || is_thread_of(tracer, parent));
    Some(Traced { tracer: if is_parent { 0 } else { tracer }, zombie })
}

/// Lets a process run only where nobody else wants to: whoever wakes takes its processor at once (SCHED_IDLE, sched(7)).
pub(crate) fn make_idle(pid: i32) {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads one structure that lives as long as the call.
    unsafe { libc::sched_setscheduler(pid, libc::SCHED_IDLE, &raw const priority) };
}

/// Stops a process, and waits until it stands. `false` if it ended.
pub(crate) fn stop(pid: i32) -> bool {
    signal(pid, libc::SIGSTOP);
    let began = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        match stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next()) {
            Some('T') => return true,
            None | Some('Z' | 'X') => return false,
            Some(_) => assert!(began.elapsed() < BOUND, "process {pid} does not stop"),
        }
        std::thread::yield_now();
    }
}

/// kill -9. It may have ended by itself meanwhile.
pub(crate) fn kill(pid: i32) {
    signal(pid, libc::SIGKILL);
}

/// Sends a signal to a process that was seen just before.
pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: plain values. The number comes from a look at /proc just before.
    unsafe { libc::kill(pid, signal) };
}

/// The parts that Cenotaph's processes of one victim play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Supervisor,
    Worker,
    Uploader,
}

/// The processes of `part`. `supervisor` is known from before the crash; workers are its children (or were: then
/// they are not forked copies of anybody alive), the uploader is a program of its own, which leads a session, and becomes its
/// child too, to be collected.
pub(crate) fn playing(all: &[Process], part: Part, supervisor: i32, victim: i32) -> Vec<i32> {
    let others = all.iter().filter(|process| process.pid != victim && process.comm == "cenotaph");
    others
        .filter(|process| match part {
            Part::Supervisor => process.pid == supervisor,
            Part::Worker => process.parent == supervisor && process.session != process.pid,
            Part::Uploader => process.pid != supervisor && process.session == process.pid,
        })
        .map(|process| process.pid)
        .collect()
}

fn look(pid: i32, name: &str) -> Option<Process> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if arguments.split(|&byte| byte == 0).next()? != name.as_bytes() {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, fields) = stat.rsplit_once(") ")?;
    let comm = head.split_once('(')?.1.to_owned();
    // Field 3 is the first behind the name (proc_pid_stat(5)).
    let fields: Vec<&str> = fields.split(' ').collect();
    let ended = matches!(*fields.first()?, "Z" | "X");
    let (parent, session) = (fields.get(1)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    let started = fields.get(19)?.parse().ok()?;
    (!ended).then_some(Process { pid, parent, session, comm, started })
}
