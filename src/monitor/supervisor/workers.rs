//! Crashes in the hands of workers: giving one out, what its worker says, and what follows when that dies, hangs or is
//! stopped.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::super::job::{self, Progress};
use super::super::outcome::{Effort, Next, Outcome, after_death, time_to_read};
use super::super::worker::Handle;
use super::case::{Busy, Case};
use super::client::Client;
use super::{BARRED, Supervisor};
use crate::blackbox::Count;
use crate::generation;
use crate::protocol::{self, Answer, AnswerKind, ClientMessage};
use crate::report::ReportId;
use crate::sys::process;
use crate::sys::socket::Socket;

/// How long a worker may take from the memory read to the commit.
const COMPLETE_TIME: Duration = Duration::from_secs(120);

/// How often a worker is looked at: one that is stopped does nothing, and as long as it traces threads of the application,
/// which can be until the last of them has ended, the application cannot end either.
const LOOK: Duration = Duration::from_millis(50);

/// How a worker ends that somebody killed.
const KILLED: process::Ended = process::Ended::Signal(libc::SIGKILL);

impl Supervisor {
    /// Hands a crash to the idle worker, or to a new one.
    pub(super) fn give(&mut self, case: Case, effort: Effort) {
        let left = case.waits_until.saturating_duration_since(Instant::now());
        let time = if case.bundle.is_some() { Some(COMPLETE_TIME) } else { time_to_read(case.deaths, left) };
        let Some(time) = time else { return self.give_up(case, "the application does not wait any longer") };
        let start = || Handle::start(&self.config, &self.pmodules, &self.blackbox, None);
        let worker = match self.idle.take().map_or_else(start, Ok) {
            Ok(worker) => worker,
            Err(error) => return self.give_up(case, &error.to_string()),
        };
        let sent = match &case.bundle {
            None => job::send_capture(
                &worker.socket,
                case.pid,
                case.faults,
                &case.request,
                case.client.as_fd(),
                case.blackbox.as_fd(),
                case.memory.as_ref().map(AsFd::as_fd),
            ),
            Some(bundle) => job::send_resume(
                &worker.socket,
                effort,
                bundle.as_fd(),
                case.blackbox.as_fd(),
                Some(case.client.as_fd()),
            ),
        };
        // A worker that could not be told will be found dead, and replaced, by the next poll.
        if let Err(error) = sent {
            self.log.event("supervisor", "worker-lost", error);
        }
        // The next idle worker is made when this one is done: forking now would take the processor from it while the
        // application waits.
        let now = Instant::now();
        let next_look = now + LOOK;
        self.busy.push(Busy { worker, case, deadline: now + time, next_look, since: now, stood_at: None });
    }

    pub(super) fn handle_worker(&mut self, index: usize) {
        let Some(busy) = self.busy.get_mut(index) else { return };
        match job::progress(&busy.worker.socket) {
            Progress::Read(bundle) => {
                busy.case.bundle = Some(bundle);
            }
            // Only now: as long as it holds the application, it has no more time than for the memory.
            Progress::LetGo => busy.deadline = Instant::now() + COMPLETE_TIME,
            Progress::Done(outcome) => {
                let Busy { case, .. } = self.busy.swap_remove(index);
                self.let_go(&case);
                if self.idle.is_none() && self.is_anybody_there() {
                    let first = self.clients.iter().find(|client| client.is_there());
                    let first = first.map(|client| client.application.pid());
                    let application = first.filter(|_| !self.barred);
                    self.idle = Handle::start(&self.config, &self.pmodules, &self.blackbox, application).ok();
                }
                outcome.count(&case.blackbox);
                if matches!(outcome, Outcome::Spooled { .. }) {
                    self.delivery.start(&self.blackbox);
                }
                self.look_for_record_of(case.pid);
            }
            Progress::Died => self.replace(index, false),
        }
    }

    fn replace(&mut self, index: usize, overdue: bool) {
        let Busy { worker, mut case, .. } = self.busy.swap_remove(index);
        // Ends it if it only hangs: nothing else frees a target that it is attached to.
        let was_stopped = worker.is_stopped();
        let ended = worker.end();
        if case.bundle.is_none() && case.memory.is_none() && case.pid > 0 {
            // It may have died between the dump writer's SIGSTOP and SIGCONT.
            process::continue_stopped(case.pid);
        }
        case.deaths += 1;
        // Somebody else stopped or killed it: the next one may do the same as it did.
        let by_others = if overdue { was_stopped } else { ended == KILLED };
        case.faults += u32::from(!by_others);
        let deaths = case.deaths;
        let waits = self.client(case.owner).is_some_and(Client::is_there);
        let barred = ended == BARRED && case.memory.is_none();
        self.barred |= barred && case.bundle.is_none();
        match after_death(deaths, case.bundle.is_some(), barred, waits) {
            Next::Retry(effort) => {
                self.log.event(
                    "supervisor",
                    "worker-replaced",
                    format!("death {deaths}, next effort {effort:?}"),
                );
                self.give(case, effort);
            }
            Next::AskForCopy => {
                self.log.event("supervisor", "barred", "a filter ends whoever traces the application");
                self.answer(case, AnswerKind::OutOfReach);
            }
            Next::GiveUp => self.give_up(case, &format!("{deaths} workers died over one crash")),
        }
    }

    /// The application is told: it has a record to write.
    fn give_up(&mut self, case: Case, why: &str) {
        case.blackbox.count(Count::Failed, 1);
        self.log.event("supervisor", "failed", why);
        let pid = case.pid;
        self.answer(case, AnswerKind::Failed);
        self.look_for_record_of(pid);
    }

    /// The end of a case that no worker answers.
    pub(super) fn answer(&self, case: Case, kind: AnswerKind) {
        self.let_go(&case);
        if let (Ok(ClientMessage::Capture(request)), Ok(client)) =
            (protocol::parse(&case.request), Socket::from_fd(case.client))
        {
            let answer = Answer { kind, sequence: request.sequence, report: ReportId([0; 16]) };
            let _ = client.send(&protocol::answer(answer), &[]);
        }
    }

    /// Nothing is in hand any more of a case that the application asked for.
    fn let_go(&self, case: &Case) {
        if let Some(monitor) = case.monitor {
            generation::done(case.blackbox.generation(), monitor);
        }
    }

    pub(super) fn kill_overdue(&mut self) {
        let now = Instant::now();
        if self.leftovers.kill_overdue() {
            self.log.event("supervisor", "worker-overdue", "ended at its deadline over a minimal record");
        }
        for index in (0..self.busy.len()).rev() {
            let Some(busy) = self.busy.get_mut(index) else { continue };
            if busy.deadline <= now {
                self.log.event("supervisor", "worker-overdue", "ended at its deadline");
                self.replace(index, true);
            } else if busy.next_look <= now {
                // The longer it has worked, the rarer: what a crash costs does not grow with the machine's load.
                busy.next_look = now + LOOK.max((now - busy.since) / 2);
                let before = std::mem::replace(&mut busy.stood_at, busy.worker.stood_at());
                if before.is_some() && busy.stood_at == before {
                    self.log.event("supervisor", "worker-stopped", "ended, since somebody has stopped it");
                    self.replace(index, true);
                }
            }
        }
    }
}
