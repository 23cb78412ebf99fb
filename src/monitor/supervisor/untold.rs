//! What the supervisor finds out by itself: how the application ended, sessions before that have no end, watched threads
//! that hang.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::application::Ended;
use super::super::captured::Captured;
use super::super::hang::Hung;
use super::super::outcome::Effort;
use super::super::{session, stages};
use super::client::{FIRST, Number};
use super::{Case, Supervisor};
use crate::blackbox::{Blackbox, Count, Snapshot};
use crate::error::{Error, Result};
use crate::privacy::{Stage, Verdict};
use crate::protocol::{self, Cause, SignalRequest};
use crate::report::Reason;
use crate::spool::records;
use crate::sys::socket::Socket;
use crate::sys::{process, procfs};

/// Messages of an application that has ended, at most: it waits for the answer to most of them.
const MOST_WAITING: u32 = 64;

impl Supervisor {
    /// The application's process has ended.
    pub(super) fn handle_end(&mut self, number: Number) {
        for crash in [true, false] {
            // What it said before, as far as it can have been waiting.
            for _ in 0..MOST_WAITING {
                let socket = self.client(number).and_then(|client| client.socket(crash));
                if socket.is_some_and(|socket| socket.is_readable(Duration::ZERO)) {
                    self.handle_client(number, crash);
                }
            }
        }
        let Some(client) = self.clients.iter_mut().find(|client| client.number == number) else { return };
        if client.has_moved_on() {
            client.application.forget();
        }
        let ended = client.application.ended(&client.blackbox, |signal| self.config.wants(signal));
        // Forked children may hold copies of its sockets, but they are no clients.
        client.close_both();
        let (pid, blackbox, recorded) = (client.application.pid(), client.blackbox.clone(), client.recorded);
        self.somebody_left();
        if number == FIRST {
            self.life.ended(&ended, self.may_note());
        }
        if records::is_one_of(&self.config.spool, pid) {
            // It got to write about its end itself, which tells more than how it looked from here.
            self.look_for_leftovers();
        } else if let Ended::Uncleanly { signal, evidence, oom_kills } = ended
            && (!recorded || signal == Some(libc::SIGKILL))
        {
            let reason = Reason::UncleanExit { signal, evidence, oom_kills };
            self.log.event("supervisor", "unclean-exit", format!("{reason:?}"));
            self.epitaph(number, &blackbox, Captured::of_the_dead(reason, blackbox.snapshot()));
        }
    }

    /// Not while a worker has a crash in its hands: the record that a process wrote because that takes long is about the
    /// same crash, and goes when the worker's report is there.
    pub(super) fn look_for_leftovers(&mut self) {
        self.leftovers.wanted = self.busy.iter().any(|busy| busy.case.monitor.is_some());
        if !self.leftovers.wanted && records::is_any(&self.config.spool) {
            // It may be that of a process that is about to end, and gone by then. Looked at in this order: the worker takes the
            // oldest, which is there now.
            for client in &mut self.clients {
                client.recorded |= records::is_one_of(&self.config.spool, client.application.pid());
            }
            self.leftovers.look(&self.config, &self.pmodules, &self.blackbox);
        }
    }

    /// A record that a process wrote while its crash was in hand, after which it may have ended; or another process, at whose
    /// end this crash was in hand.
    pub(super) fn look_for_record_of(&mut self, pid: libc::pid_t) {
        if self.leftovers.wanted || records::is_one_of(&self.config.spool, pid) {
            self.look_for_leftovers();
        }
    }

    fn may_store(&self) -> bool {
        stages::ask(Stage::Spool, &self.config, &self.blackbox) == Verdict::Proceed
    }

    /// Whether something about the application's life may be written down: only where reports may also leave, since it is
    /// written before there is anything to tell.
    pub(super) fn may_note(&self) -> bool {
        stages::ask(Stage::Upload, &self.config, &self.blackbox) == Verdict::Proceed
    }

    /// Earlier sessions that ended without anybody telling of it.
    pub(super) fn tell_of_unfinished(&mut self) {
        if !self.may_store() {
            return self.life.look_no_more();
        }
        // A process that left a minimal record has told of its end.
        let mut unfinished = self.life.unfinished(&records::processes(&self.config.spool));
        let more = unfinished.split_off(unfinished.len().min(session::MOST_TOLD));
        if !more.is_empty() {
            self.log.event("supervisor", "unclean-exit", format!("{} more sessions had no end", more.len()));
        }
        for session in unfinished {
            let reason = Reason::UncleanExit { signal: None, evidence: session.evidence, oom_kills: 0 };
            self.log.event("supervisor", "unclean-exit", format!("{reason:?}"));
            let captured = Captured::of_the_dead(reason, Snapshot::default());
            let blackbox = self.blackbox.clone();
            self.epitaph(
                FIRST,
                &blackbox,
                captured.map(|captured| captured.of_session(&session.version, session.started_ms)),
            );
        }
    }

    /// Has a report made of a process that is no more.
    fn epitaph(&mut self, owner: Number, blackbox: &Rc<Blackbox>, captured: Result<Captured>) {
        if !self.may_store() {
            return blackbox.count(Count::RefusedByConsent, 1);
        }
        let bundle = captured.and_then(|captured| captured.bundle());
        match bundle.and_then(|bundle| Ok((bundle, nobody()?))) {
            Ok((bundle, client)) => {
                let mut case = Case::of(owner, blackbox.clone(), 0, Vec::new(), client);
                case.bundle = Some(bundle);
                self.give(case, Effort::Full);
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, why: impl std::fmt::Display) {
        self.blackbox.count(Count::Failed, 1);
        self.log.event("supervisor", "failed", why);
    }

    pub(super) fn look_for_hangs(&mut self) {
        let now = Instant::now();
        let mut all = Vec::new();
        for client in &mut self.clients {
            if client.hangs.next_time().is_none_or(|next| next > now) {
                continue;
            }
            let pid = client.application.pid();
            let hung = client.hangs.look(client.blackbox.watched(), now, || procfs::is_stopped(pid));
            all.extend(hung.into_iter().map(|hung| (client.number, hung)));
        }
        for (number, Hung { thread, limit_ms }) in all {
            self.log.event("supervisor", "hang", format!("a watched thread was silent for {limit_ms} ms"));
            self.look_at(number, thread, &Cause::Hang { limit_ms });
        }
    }

    /// Has a report made that nobody has asked for, and that nobody waits for.
    fn look_at(&mut self, number: Number, thread: u32, cause: &Cause) {
        let mut context = SignalRequest::empty_context();
        context.tid = thread.cast_signed();
        let request = protocol::capture_request(0, process::monotonic_ns(), 0, context, cause);
        match nobody() {
            Ok(client) => {
                let Some(owner) = self.client(number) else { return };
                let mut case = Case::new(owner, owner.application.pid(), request, client);
                // It lives on, and has the patience of one that asked.
                case.waits_until = self.waits_until(process::monotonic_ns());
                self.give(case, Effort::Full);
            }
            Err(error) => self.failed(error),
        }
    }
}

/// In the place of an application that waits: its other end is closed.
fn nobody() -> Result<OwnedFd> {
    let (client, _) = Socket::pair()?;
    client.as_fd().try_clone_to_owned().map_err(|source| Error::System { call: "dup", source })
}
