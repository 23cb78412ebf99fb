//! The monitor's main process: owns the sockets and sleeps in the kernel. It never attaches to anything, parses no
//! dump and uses no network; what can hang or die is done by processes that it starts.
#![forbid(unsafe_code)]

mod case;
mod client;
mod sharing;
mod untold;

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::delivery::Delivery;
use super::job::{self, Progress};
use super::leftovers::Leftovers;
use super::life::Life;
use super::log::Log;
use super::outcome::{Effort, Next, Outcome, after_death, monitors_share, time_to_read};
use super::pmodules::Pmodules;
use super::role::Start;
use super::stages;
use super::worker::Handle;
use crate::blackbox::{Blackbox, Count, MonitorState};
use crate::config::ValidConfig;
use crate::error::Result;
use crate::generation;
use crate::privacy::{Stage, Verdict};
use crate::protocol::{self, Answer, AnswerKind, CaptureRequest, ClientMessage, MAX_MESSAGE};
use crate::report::ReportId;
use crate::scrub;
use crate::sys::process;
use crate::sys::socket::{self, Received, Socket};
use crate::target;
use case::{Busy, Case};
use client::{Client, FIRST, Number};
use sharing::Seat;

/// How long a worker may take from the memory read to the commit.
const COMPLETE_TIME: Duration = Duration::from_secs(120);

/// How often a worker for which the application waits is looked at: one that is stopped holds it and does nothing.
const LOOK: Duration = Duration::from_millis(50);
/// How a worker ends that made a system call which a filter forbids on pain of death.
const BARRED: process::Ended = process::Ended::Signal(libc::SIGSYS);

const KILLED: process::Ended = process::Ended::Signal(libc::SIGKILL);

struct Supervisor {
    config: ValidConfig,
    log: Log,
    /// Of the process that started this monitor.
    blackbox: Rc<Blackbox>,
    clients: Vec<Client>,
    next_number: Number,
    seats: Vec<Seat>,
    life: Life,
    pmodules: Pmodules,
    idle: Option<Handle>,
    busy: Vec<Busy>,
    leftovers: Leftovers,
    delivery: Delivery,
    /// A filter (seccomp(2)) ends whoever traces: a worker has found out, as the one to be sacrificed for it.
    barred: bool,
}

/// Who a poll is about.
#[derive(Clone, Copy)]
enum Source {
    Client { number: Number, crash: bool },
    Seat(usize),
    Idle,
    Busy(usize),
    Leftover,
    Uploader,
    Application(Number),
}

/// Runs until the application is gone and nothing is left to do. Returns the exit code.
pub(super) fn run(start: Start) -> i32 {
    let log = Log::new(start.config.log.clone());
    // Compiled now, found by every worker. They were checked before they travelled.
    if let Err(error) = scrub::validate_rules(&start.config.rules) {
        log.event("supervisor", "rules-refused", error);
    }
    let pmodules = Pmodules::gather(start.pmodules, &start.config);
    for absent in &pmodules.absent {
        let why = absent.result.as_ref().err().map_or("", |why| &why.text);
        log.event("supervisor", "pmodule-absent", format!("{}: {why}", absent.pmodule));
    }
    let allowed = stages::ask(Stage::Upload, &start.config, &start.blackbox) == Verdict::Proceed;
    // A monitor that the dying application starts is not the first.
    let first = start.blackbox.monitor_state() != MonitorState::Ready;
    if let Err(error) = target::known_modules::share() {
        log.event("supervisor", "no-module-table", error);
    }
    let blackbox = Rc::new(start.blackbox);
    let mut supervisor = Supervisor {
        life: Life::begin(&start.config, log.clone(), start.launcher, first, allowed),
        delivery: Delivery::new(&start.config, log.clone()),
        log,
        idle: Handle::start(&start.config, &pmodules, &blackbox, Some(start.launcher)).ok(),
        pmodules,
        busy: Vec::new(),
        leftovers: Leftovers::default(),
        barred: false,
        clients: vec![Client::new(FIRST, start.launcher, start.crash, start.control, blackbox.clone())],
        next_number: FIRST,
        seats: Vec::new(),
        blackbox,
        config: start.config,
    };
    supervisor.blackbox.set_monitor_state(MonitorState::Ready);
    supervisor.tell_of_unfinished();
    supervisor.look_for_leftovers();
    supervisor.delivery.start_if_due(&supervisor.blackbox);
    match supervisor.serve() {
        Ok(()) => 0,
        Err(error) => {
            supervisor.log.event("supervisor", "failed", error);
            1
        }
    }
}

impl Supervisor {
    fn serve(&mut self) -> Result<()> {
        while !self.is_finished() {
            let (mut polled, sources) = self.poll_set();
            socket::poll(
                &mut polled,
                self.next_deadline().map(|at| at.saturating_duration_since(Instant::now())),
            )?;
            // Busy workers from the last to the first, so that removing one keeps the other indices true.
            for (polled, source) in polled.iter().zip(sources).rev() {
                if polled.revents != 0 {
                    self.handle(source);
                }
            }
            self.kill_overdue();
            self.look_for_hangs();
            self.life.look();
            self.forget_gone();
            if self.client(FIRST).is_none() {
                self.life.over();
            }
            self.delivery.start_if_due(&self.blackbox);
            self.answer_flushes();
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.clients.is_empty()
            && self.busy.is_empty()
            && self.leftovers.is_idle()
            && self.delivery.may_end(Duration::from_millis(self.config.linger_ms))
    }

    fn poll_set(&self) -> (Vec<libc::pollfd>, Vec<Source>) {
        let sockets = self.clients.iter().flat_map(|client| {
            let source = |crash| (client.socket(crash), Source::Client { number: client.number, crash });
            [source(true), source(false)]
        });
        let sockets = sockets.filter_map(|(socket, source)| Some((socket?.as_raw(), source)));
        let seats = self.seats.iter().enumerate().map(|(i, seat)| (seat.socket.as_raw(), Source::Seat(i)));
        let idle = self.idle.as_ref().map(|w| (w.socket.as_raw(), Source::Idle));
        let uploader = self.delivery.socket().map(|s| (s.as_raw(), Source::Uploader));
        let leftover = self.leftovers.as_raw().map(|fd| (fd, Source::Leftover));
        let busy = self.busy.iter().enumerate().map(|(i, b)| (b.worker.socket.as_raw(), Source::Busy(i)));
        let application = self
            .clients
            .iter()
            .filter_map(|client| Some((client.application.as_raw()?, Source::Application(client.number))));
        // The application's end first, so that it is handled last: it may have said something before.
        application
            .chain(sockets)
            .chain(seats)
            .chain(idle)
            .chain(uploader)
            .chain(leftover)
            .chain(busy)
            .map(|(fd, source)| (libc::pollfd { fd, events: libc::POLLIN, revents: 0 }, source))
            .unzip()
    }

    /// `None`: nothing but a message can change anything, so sleep until one comes.
    fn next_deadline(&self) -> Option<Instant> {
        let workers = self.busy.iter().flat_map(|b| b.next_look.into_iter().chain([b.deadline]));
        let hangs = self.clients.iter().filter_map(|client| client.hangs.next_time());
        let looks = hangs.chain(self.life.next_time());
        workers.chain(self.leftovers.deadline()).chain(self.delivery.next_time()).chain(looks).min()
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Client { number, crash } => self.handle_client(number, crash),
            Source::Seat(index) => self.handle_seat(index),
            // It has nothing to say before it has a job, so it died. The next crash makes another one; doing so now
            // could go round and round where processes die at once.
            Source::Idle => {
                let ended = self.idle.take().map(Handle::end);
                self.barred |= ended == Some(BARRED);
            }
            Source::Busy(index) => self.handle_worker(index),
            Source::Leftover => self.handle_leftover(),
            Source::Uploader => self.delivery.handle_message(),
            Source::Application(number) => self.handle_end(number),
        }
    }

    fn client(&self, number: Number) -> Option<&Client> {
        self.clients.iter().find(|client| client.number == number)
    }

    fn is_anybody_there(&self) -> bool {
        self.clients.iter().any(Client::is_there)
    }

    fn handle_client(&mut self, number: Number, crash: bool) {
        let Some(client) = self.clients.iter_mut().find(|client| client.number == number) else { return };
        let Some(socket) = client.socket(crash) else { return };
        let received = socket.receive(MAX_MESSAGE, Duration::ZERO);
        let message = match received {
            Ok(Received::Message(message)) => message,
            Ok(Received::Nothing) => return,
            Ok(Received::Closed) => {
                let closed = client.close(crash);
                if !client.is_there() {
                    client.application.disconnected(&client.blackbox);
                }
                if closed {
                    self.somebody_left();
                }
                return;
            }
            Ok(Received::Malformed(why)) => return self.end_client(number, why),
            Err(error) => return self.end_client(number, error),
        };
        match protocol::parse(&message.bytes) {
            Ok(ClientMessage::Capture(request)) => {
                if !generation::take_on(client.blackbox.generation(), request.monitor) {
                    return self
                        .end_client(number, "the application has given this monitor up for another one");
                }
                let memory = message.fds.into_iter().next();
                self.begin(number, message.pid, message.bytes, &request, memory, crash);
            }
            Ok(ClientMessage::Flush { sequence }) => {
                client.flushes.push(sequence);
                self.delivery.start(&self.blackbox);
            }
            Ok(ClientMessage::WatchesChanged) => {
                client.hangs.look(client.blackbox.watched(), Instant::now(), || true);
            }
            Ok(ClientMessage::ConsentChanged) => {
                self.delivery.consent_changed(&self.blackbox);
                self.life.consent_changed(self.may_note());
            }
            Ok(ClientMessage::Share) => {
                if let Err(why) = self.open_seat(message.fds.into_iter().next()) {
                    self.end_client(number, why);
                }
            }
            Ok(ClientMessage::Join { .. } | ClientMessage::Hello(_)) => {
                self.end_client(number, "a second hello");
            }
            Err(error) => self.end_client(number, error),
        }
    }

    /// A malformed message ends that client's connection and nothing else.
    fn end_client(&mut self, number: Number, why: impl std::fmt::Display) {
        self.log.event("supervisor", "client-ended", why);
        if let Some(client) = self.clients.iter_mut().find(|client| client.number == number) {
            client.application.forget();
            client.close_both();
        }
        self.somebody_left();
    }

    /// If it was the last one, deliveries are waited for so long and no longer.
    fn somebody_left(&mut self) {
        if self.clients.iter().all(|client| client.crash.is_none() || client.control.is_none()) {
            self.delivery.application_gone();
        }
    }

    /// For an application that asked at `monotonic_ns`, by its own account: not in the future, whatever that says.
    fn waits_until(&self, monotonic_ns: u64) -> Instant {
        let deadline = Duration::from_millis(self.config.deadline_ms);
        let passed = Duration::from_nanos(process::monotonic_ns().saturating_sub(monotonic_ns));
        Instant::now() + monitors_share(deadline).saturating_sub(passed)
    }

    fn begin(
        &mut self,
        number: Number,
        pid: libc::pid_t,
        message: Vec<u8>,
        request: &CaptureRequest,
        memory: Option<OwnedFd>,
        crash: bool,
    ) {
        let Some(owner) = self.clients.iter_mut().find(|client| client.number == number) else { return };
        let socket = owner.socket(crash).and_then(|s| s.as_fd().try_clone_to_owned().ok());
        let Some(client) = socket else { return };
        owner.application.crashed |= crash;
        let case = Case::new(owner, pid, message, client);
        let waits_until = self.waits_until(request.monotonic_ns);
        let monitor = Some(request.monitor);
        let case = Case { monitor, memory, waits_until, ..case };
        if self.barred && case.memory.is_none() {
            return self.answer(case, AnswerKind::OutOfReach);
        }
        self.give(case, Effort::Full);
    }

    /// Hands a crash to the idle worker, or to a new one.
    fn give(&mut self, case: Case, effort: Effort) {
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
        let next_look = case.bundle.is_none().then(|| now + LOOK);
        self.busy.push(Busy { worker, case, deadline: now + time, next_look, since: now, stood_at: None });
    }

    fn handle_worker(&mut self, index: usize) {
        let Some(busy) = self.busy.get_mut(index) else { return };
        match job::progress(&busy.worker.socket) {
            Progress::Read(bundle) => {
                busy.case.bundle = Some(bundle);
                busy.deadline = Instant::now() + COMPLETE_TIME;
                busy.next_look = None;
            }
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

    fn handle_leftover(&mut self) {
        match self.leftovers.finish() {
            None | Some(Outcome::Nothing) => {}
            Some(outcome) => {
                outcome.count(&self.blackbox);
                if matches!(outcome, Outcome::Spooled { .. }) {
                    self.delivery.start(&self.blackbox);
                }
                self.look_for_leftovers();
            }
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
    fn answer(&self, case: Case, kind: AnswerKind) {
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

    fn kill_overdue(&mut self) {
        let now = Instant::now();
        if self.leftovers.kill_overdue() {
            self.log.event("supervisor", "worker-overdue", "ended at its deadline over a minimal record");
        }
        for index in (0..self.busy.len()).rev() {
            let Some(busy) = self.busy.get_mut(index) else { continue };
            if busy.deadline <= now {
                self.log.event("supervisor", "worker-overdue", "ended at its deadline");
                self.replace(index, true);
            } else if busy.next_look.is_some_and(|look| look <= now) {
                // The longer it has worked, the rarer: what a crash costs does not grow with the machine's load.
                busy.next_look = Some(now + LOOK.max((now - busy.since) / 2));
                let before = std::mem::replace(&mut busy.stood_at, busy.worker.stood_at());
                if before.is_some() && busy.stood_at == before {
                    self.log.event("supervisor", "worker-stopped", "ended, since somebody has stopped it");
                    self.replace(index, true);
                }
            }
        }
    }

    fn answer_flushes(&mut self) {
        if !self.busy.is_empty() || self.delivery.is_running() {
            return;
        }
        for client in &mut self.clients {
            for sequence in client.flushes.drain(..) {
                if let Some(control) = &client.control {
                    let answer = Answer { kind: AnswerKind::Flushed, sequence, report: ReportId([0; 16]) };
                    let _ = control.send(&protocol::answer(answer), &[]);
                }
            }
        }
    }
}
