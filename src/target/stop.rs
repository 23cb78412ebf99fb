//! Stopping all threads of a process, and letting them go whatever happens.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::registers::{FLOAT_LEN, GENERAL_LEN, Registers};
use crate::sys::process;
use crate::sys::ptrace::{self, Waited};

/// The most threads that are stopped: pid_max of 64-bit kernels is 2^22, and each takes some hundred bytes here.
const MOST: usize = 1 << 16;
/// How long threads that died or would not stop are waited for when the others are let go.
const FAREWELL: Duration = Duration::from_millis(20);

/// Threads that stand still. They go on when this is dropped, each with the signal that it was about to take.
///
/// Tracing belongs to the thread that began it, so this value stays on its thread.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) tracees: Vec<Tracee>,
    not_send: PhantomData<*const ()>,
}

/// A thread, as far as it could be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tracee {
    pub(super) tid: libc::pid_t,
    pub(super) state: State,
}

/// What became of the wish to stop a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It stands still, on its way to take `signal` (0 for none).
    Stopped { signal: i32 },
    /// It did not stop in time: it sleeps in the kernel, uninterruptibly.
    Running,
    /// It may not be traced: another tracer has it.
    Untraceable,
    /// It ended.
    Gone,
}

impl Stopped {
    /// Stops all threads of `pid`. Looks for new ones until a look finds none: what a running thread started meanwhile.
    /// What could not be stopped until `timeout` has passed is left running; `notes` says so.
    pub(super) fn all(pid: libc::pid_t, timeout: Duration, notes: &mut Vec<String>) -> Self {
        let undertaker = Undertaker::default();
        let mut stopped = Self { tracees: Vec::new(), not_send: PhantomData };
        std::thread::scope(|scope| {
            let _over = undertaker.until_dropped();
            let mut is_there = false;
            stopped.seize_all(pid, timeout, notes, |tid, count| {
                // One thread's end does not wait for another's.
                if count > 1 && !is_there {
                    is_there = true;
                    let builder = std::thread::Builder::new().name("cenotaph".to_owned());
                    // Without it things are as they are: a process that executes another program now may hang with us.
                    let _ = builder.stack_size(UNDERTAKERS_STACK).spawn_scoped(scope, || undertaker.work());
                }
                undertaker.watch(tid);
            });
        });
        stopped
    }

    /// `before` is told of each thread before it is seized, and how many there are.
    fn seize_all(
        &mut self,
        pid: libc::pid_t,
        timeout: Duration,
        notes: &mut Vec<String>,
        mut before: impl FnMut(libc::pid_t, usize),
    ) {
        let end = Instant::now() + timeout;
        let mut seen = BTreeSet::new();
        let mut refused = None;
        loop {
            let new: Vec<_> = threads(pid).into_iter().filter(|tid| seen.insert(*tid)).collect();
            if new.is_empty() {
                break;
            }
            let first = self.tracees.len();
            for tid in new {
                before(tid, seen.len());
                let state = match begin(pid, tid) {
                    Ok(true) => State::Running,
                    Ok(false) => continue,
                    Err(error) => {
                        refused = Some(error);
                        State::Untraceable
                    }
                };
                self.tracees.push(Tracee { tid, state });
            }
            self.wait(first, end);
            if seen.len() >= MOST {
                notes.push(format!("only the first {MOST} threads were looked at"));
                break;
            }
            if Instant::now() >= end {
                notes.push(format!("stopping took longer than {timeout:?}; there may be more threads"));
                break;
            }
        }
        // A thread that has executed another program goes on under the first one's id, and may be ours.
        if !self.tracees.iter().any(|tracee| tracee.tid == pid) && ptrace::interrupt(pid).is_ok() {
            self.tracees.push(Tracee { tid: pid, state: State::Running });
            self.wait(self.tracees.len() - 1, end.max(Instant::now() + FAREWELL));
        }
        if let Some(error) = refused {
            let count = self.tracees.iter().filter(|t| t.state == State::Untraceable).count();
            notes.push(format!("{count} threads could not be traced: {error}"));
        }
        let running = self.tracees.iter().filter(|t| t.state == State::Running).count();
        if running > 0 {
            notes.push(format!("{running} threads did not stop within {timeout:?}"));
        }
    }

    /// Waits for the threads from `first` on.
    fn wait(&mut self, first: usize, end: Instant) {
        let mut pause = Pause::default();
        loop {
            let mut running = false;
            for tracee in self.tracees.iter_mut().skip(first).filter(|t| t.state == State::Running) {
                match ptrace::wait(tracee.tid) {
                    Waited::Stopped { signal } => tracee.state = State::Stopped { signal },
                    Waited::Running => running = true,
                    Waited::Gone => tracee.state = State::Gone,
                }
            }
            if !running || Instant::now() >= end {
                self.tracees.retain(|tracee| tracee.state != State::Gone);
                return;
            }
            pause.next();
        }
    }

    /// The registers of a thread that stands still. `None` if it died meanwhile or is no 64-bit process's.
    pub(super) fn registers(tid: libc::pid_t) -> Option<Registers> {
        let (mut general, mut float) = ([0; GENERAL_LEN], [0; FLOAT_LEN]);
        let length = ptrace::registers(tid, ptrace::GENERAL, &mut general).ok()?;
        let float_length = ptrace::registers(tid, ptrace::FLOAT, &mut float).ok();
        Registers::from_sets(general.get(..length)?, float_length.and_then(|length| float.get(..length)))
    }

    /// Lets one thread go on, before the others.
    pub(super) fn release_one(&mut self, tid: libc::pid_t) {
        let one = |tracee: &Tracee| match tracee.state {
            State::Stopped { signal } => tracee.tid == tid && ptrace::detach(tid, signal).is_ok(),
            _ => false,
        };
        self.tracees.retain(|tracee| !one(tracee));
    }

    /// Lets all threads go on of a process that is ending meanwhile. Those that its end has overtaken must be taken notice
    /// of, or it would not end; a thread of ours waits for that, which can take as long as their ends do.
    pub(super) fn release_dying(mut self) {
        let mut killed = Vec::new();
        self.tracees.retain(|tracee| match tracee.state {
            State::Stopped { signal } => {
                // What ends one ends all: the others need not be tried.
                if !killed.is_empty() || ptrace::detach(tracee.tid, signal).is_err() {
                    killed.push(tracee.tid);
                }
                false
            }
            _ => true,
        });
        let unnoticed = killed.clone();
        let notice = move || killed.into_iter().for_each(ptrace::wait_for_end);
        if !unnoticed.is_empty()
            && std::thread::Builder::new().name("cenotaph".to_owned()).spawn(notice).is_err()
        {
            let state = State::Stopped { signal: 0 };
            self.tracees.extend(unnoticed.into_iter().map(|tid| Tracee { tid, state }));
        }
        // What did not stop is let go as usual.
    }

    /// Lets all threads go on.
    fn release(&mut self) {
        let mut left = Vec::new();
        for tracee in self.tracees.drain(..) {
            match tracee.state {
                State::Stopped { signal } if ptrace::detach(tracee.tid, signal).is_ok() => {}
                State::Untraceable | State::Gone => {}
                // Killed while it stood still: a thread that died traced stays a zombie until its tracer takes notice.
                State::Stopped { .. } | State::Running => left.push(tracee.tid),
            }
        }
        let end = Instant::now() + FAREWELL;
        let mut pause = Pause::default();
        while !left.is_empty() {
            left.retain(|&tid| match ptrace::wait(tid) {
                Waited::Gone => false,
                Waited::Running => true,
                Waited::Stopped { signal } => ptrace::detach(tid, signal).is_err(),
            });
            // What stays is let go by the kernel when this process ends.
            if Instant::now() >= end {
                return;
            }
            pause.next();
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.release();
    }
}

/// Takes notice of threads that ended while the one that traces them sleeps. A thread that executes another program waits for
/// the others' ends, of which a tracer must take notice, and meanwhile has the lock that PTRACE_SEIZE wants: without help both
/// would sleep for ever, and ptrace(2) is not interrupted by a signal.
#[derive(Default)]
struct Undertaker {
    /// The threads, and whether it is over.
    state: Mutex<(Vec<libc::pid_t>, bool)>,
    changed: Condvar,
}

/// How often ends are looked for: the first time when stopping threads has long been over, unless something is in its way.
const ROUND: Duration = Duration::from_millis(250);
/// It needs little.
const UNDERTAKERS_STACK: usize = 64 << 10;

impl Undertaker {
    fn watch(&self, tid: libc::pid_t) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.push(tid);
    }

    fn work(&self) {
        // The end or stop of each thread sends one, to whichever of our threads takes it.
        process::block_child_signals();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.1 {
            let (next, waited) =
                self.changed.wait_timeout(state, ROUND).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() && !state.1 {
                state.0.iter().for_each(|&tid| ptrace::take_notice_of_end(tid));
            }
        }
    }

    /// Ends [`work`](Self::work).
    fn until_dropped(&self) -> impl Drop + '_ {
        struct Over<'a>(&'a Undertaker);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
                self.0.changed.notify_all();
            }
        }
        Over(self)
    }
}

/// Seizes a thread and asks it to stop. `false` if it is gone or going.
fn begin(pid: libc::pid_t, tid: libc::pid_t) -> io::Result<bool> {
    match ptrace::seize(tid) {
        Ok(()) => Ok(ptrace::interrupt(tid).is_ok() || ptrace::wait(tid) != Waited::Gone),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) || is_dead(pid, tid) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A first thread that ended before the others stays as a zombie, which cannot be traced.
fn is_dead(pid: libc::pid_t, tid: libc::pid_t) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")) else { return true };
    let state = stat.rfind(')').and_then(|at| stat.get(at + 2..at + 3));
    matches!(state, None | Some("Z" | "X"))
}

/// The threads of a process, as `/proc/PID/task` lists them.
fn threads(pid: libc::pid_t) -> Vec<libc::pid_t> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries
        .map_while(io::Result::ok)
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .take(MOST)
        .collect()
}

/// Pauses between looks: first other threads get their turn, then sleep that doubles up to a millisecond.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    fn next(&mut self) {
        match self.0 {
            0..8 => std::thread::yield_now(),
            round => std::thread::sleep(Duration::from_micros(30 << (round - 8).min(5))),
        }
        self.0 += 1;
    }
}
