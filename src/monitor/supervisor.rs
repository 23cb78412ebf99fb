//! The monitor's main process: owns the sockets and sleeps in the kernel. It never attaches to anything, parses no
//! dump and uses no network; what can hang or die is done by processes that it starts.
#![forbid(unsafe_code)]

mod untold;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::application::Application;
use super::delivery::Delivery;
use super::hang::Hangs;
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
use crate::sys::process;
use crate::sys::socket::{self, Received, Socket};
use crate::target;

/// How long a worker may take from the memory read to the commit.
const COMPLETE_TIME: Duration = Duration::from_secs(120);

/// How often a worker for which the application waits is looked at: one that is stopped holds it and does nothing.
const LOOK: Duration = Duration::from_millis(50);
/// How a worker ends that made a system call which a filter forbids on pain of death.
const BARRED: process::Ended = process::Ended::Signal(libc::SIGSYS);

const KILLED: process::Ended = process::Ended::Signal(libc::SIGKILL);

/// The application: gone when both sockets are at their end.
struct Client {
    crash: Option<Socket>,
    control: Option<Socket>,
}

impl Client {
    fn is_there(&self) -> bool {
        self.crash.is_some() || self.control.is_some()
    }
}

/// A crash that has no report yet.
struct Case {
    pid: libc::pid_t,
    request: Vec<u8>,
    /// A copy of the application's socket, so that a second worker can answer too.
    client: OwnedFd,
    /// Which monitor the application took us for when it asked; `None` if it did not.
    monitor: Option<u32>,
    /// The application's memory, once a worker has read it.
    bundle: Option<OwnedFd>,
    /// The other end is a copy of the application, which tells its memory.
    memory: Option<OwnedFd>,
    /// Workers that died over it.
    deaths: u32,
    /// Those that may have died by their own doing.
    faults: u32,
    /// When the application stops waiting and writes its own record.
    waits_until: Instant,
}

/// A worker with a case in its hands.
struct Busy {
    worker: Handle,
    case: Case,
    deadline: Instant,
    /// When to see whether somebody has stopped it; `None` once the application does not wait for it.
    next_look: Option<Instant>,
}

struct Supervisor {
    config: ValidConfig,
    log: Log,
    blackbox: Blackbox,
    client: Client,
    application: Application,
    life: Life,
    pmodules: Pmodules,
    idle: Option<Handle>,
    busy: Vec<Busy>,
    leftovers: Leftovers,
    delivery: Delivery,
    hangs: Hangs,
    flushes: Vec<u64>,
    /// A filter (seccomp(2)) ends whoever traces: a worker has found out, as the one to be sacrificed for it.
    barred: bool,
}

/// Who a poll is about.
#[derive(Clone, Copy)]
enum Source {
    Crash,
    Control,
    Idle,
    Busy(usize),
    Leftover,
    Uploader,
    Application,
}

/// Runs until the application is gone and nothing is left to do. Returns the exit code.
pub(super) fn run(start: Start) -> i32 {
    let log = Log::new(start.config.log.clone());
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
    let mut supervisor = Supervisor {
        life: Life::begin(&start.config, log.clone(), start.launcher, first, allowed),
        delivery: Delivery::new(&start.config, log.clone()),
        log,
        idle: Handle::start(&start.config, &pmodules, &start.blackbox, Some(start.launcher)).ok(),
        pmodules,
        busy: Vec::new(),
        leftovers: Leftovers::default(),
        flushes: Vec::new(),
        barred: false,
        hangs: Hangs::default(),
        application: Application::new(start.launcher),
        client: Client { crash: start.crash, control: Some(start.control) },
        blackbox: start.blackbox,
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
            if !self.client.is_there() && !self.application.is_awaited() && self.busy.is_empty() {
                self.life.over();
            }
            self.delivery.start_if_due(&self.blackbox);
            self.answer_flushes();
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        !self.client.is_there()
            && !self.application.is_awaited()
            && self.busy.is_empty()
            && self.leftovers.is_idle()
            && self.delivery.may_end(Duration::from_millis(self.config.linger_ms))
    }

    fn poll_set(&self) -> (Vec<libc::pollfd>, Vec<Source>) {
        let crash = self.client.crash.as_ref().map(|s| (s.as_raw(), Source::Crash));
        let control = self.client.control.as_ref().map(|s| (s.as_raw(), Source::Control));
        let idle = self.idle.as_ref().map(|w| (w.socket.as_raw(), Source::Idle));
        let uploader = self.delivery.socket().map(|s| (s.as_raw(), Source::Uploader));
        let leftover = self.leftovers.as_raw().map(|fd| (fd, Source::Leftover));
        let busy = self.busy.iter().enumerate().map(|(i, b)| (b.worker.socket.as_raw(), Source::Busy(i)));
        let application = self.application.as_raw().map(|fd| (fd, Source::Application));
        // The application's end first, so that it is handled last: it may have said something before.
        application
            .into_iter()
            .chain(crash)
            .chain(control)
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
        let looks = self.hangs.next_time().into_iter().chain(self.life.next_time());
        workers.chain(self.leftovers.deadline()).chain(self.delivery.next_time()).chain(looks).min()
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Crash => self.handle_client(true),
            Source::Control => self.handle_client(false),
            // It has nothing to say before it has a job, so it died. The next crash makes another one; doing so now
            // could go round and round where processes die at once.
            Source::Idle => {
                let ended = self.idle.take().map(Handle::end);
                self.barred |= ended == Some(BARRED);
            }
            Source::Busy(index) => self.handle_worker(index),
            Source::Leftover => self.handle_leftover(),
            Source::Uploader => self.delivery.handle_message(),
            Source::Application => self.handle_end(),
        }
    }

    fn handle_client(&mut self, crash: bool) {
        let slot = if crash { &mut self.client.crash } else { &mut self.client.control };
        let Some(socket) = slot.as_ref() else { return };
        let received = socket.receive(MAX_MESSAGE, Duration::ZERO);
        let message = match received {
            Ok(Received::Message(message)) => message,
            Ok(Received::Nothing) => return,
            Ok(Received::Closed) => {
                if slot.take().is_some() {
                    self.delivery.application_gone();
                }
                if !self.client.is_there() {
                    self.application.disconnected(&self.blackbox);
                }
                return;
            }
            Ok(Received::Malformed(why)) => return self.end_client(why),
            Err(error) => return self.end_client(error),
        };
        match protocol::parse(&message.bytes) {
            Ok(ClientMessage::Capture(request)) => {
                if !generation::take_on(self.blackbox.generation(), request.monitor) {
                    return self.end_client("the application has given this monitor up for another one");
                }
                let memory = message.fds.into_iter().next();
                self.begin(message.pid, message.bytes, &request, memory, crash);
            }
            Ok(ClientMessage::Flush { sequence }) => {
                self.flushes.push(sequence);
                self.delivery.start(&self.blackbox);
            }
            Ok(ClientMessage::WatchesChanged) => {
                self.hangs.look(self.blackbox.watched(), Instant::now(), || true);
            }
            Ok(ClientMessage::ConsentChanged) => {
                self.delivery.consent_changed(&self.blackbox);
                self.life.consent_changed(self.may_note());
            }
            Ok(ClientMessage::Hello(_)) => self.end_client("a second hello"),
            Err(error) => self.end_client(error),
        }
    }

    /// A malformed message ends that client's connection and nothing else.
    fn end_client(&mut self, why: impl std::fmt::Display) {
        self.log.event("supervisor", "client-ended", why);
        self.application.forget();
        self.client.crash = None;
        self.client.control = None;
        self.delivery.application_gone();
    }

    /// For an application that asked at `monotonic_ns`, by its own account: not in the future, whatever that says.
    fn waits_until(&self, monotonic_ns: u64) -> Instant {
        let deadline = Duration::from_millis(self.config.deadline_ms);
        let passed = Duration::from_nanos(process::monotonic_ns().saturating_sub(monotonic_ns));
        Instant::now() + monitors_share(deadline).saturating_sub(passed)
    }

    fn begin(
        &mut self,
        pid: libc::pid_t,
        message: Vec<u8>,
        request: &CaptureRequest,
        memory: Option<OwnedFd>,
        crash: bool,
    ) {
        let slot = if crash { &self.client.crash } else { &self.client.control };
        let Some(client) = slot.as_ref().and_then(|s| s.as_fd().try_clone_to_owned().ok()) else { return };
        self.application.crashed |= crash;
        let waits_until = self.waits_until(request.monotonic_ns);
        let monitor = Some(request.monitor);
        let case = Case { monitor, memory, waits_until, ..Case::new(pid, message, client) };
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
                self.blackbox.as_fd(),
                case.memory.as_ref().map(AsFd::as_fd),
            ),
            Some(bundle) => job::send_resume(
                &worker.socket,
                effort,
                bundle.as_fd(),
                self.blackbox.as_fd(),
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
        self.busy.push(Busy { worker, case, deadline: now + time, next_look });
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
                if self.idle.is_none() && self.client.is_there() {
                    let application = (!self.barred).then(|| self.application.pid());
                    self.idle = Handle::start(&self.config, &self.pmodules, &self.blackbox, application).ok();
                }
                outcome.count(&self.blackbox);
                if matches!(outcome, Outcome::Spooled { .. }) {
                    self.delivery.start(&self.blackbox);
                }
                self.look_for_what_it_left();
            }
            Progress::Died => self.replace(index, false),
        }
    }

    /// Not while a worker has a crash of the application in its hands: the record that it wrote because that takes long is
    /// about the same crash, and goes when the worker's report is there.
    fn look_for_leftovers(&mut self) {
        let pid = self.application.pid();
        if self.busy.iter().any(|busy| busy.case.pid == pid && busy.case.monitor.is_some()) {
            return;
        }
        self.leftovers.look(&self.config, &self.pmodules, &self.blackbox);
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
        let waits = self.client.is_there();
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
        self.blackbox.count(Count::Failed, 1);
        self.log.event("supervisor", "failed", why);
        self.answer(case, AnswerKind::Failed);
        self.look_for_what_it_left();
    }

    /// A record of an application that ended while its crash was in hand.
    fn look_for_what_it_left(&mut self) {
        if !self.application.is_awaited() {
            self.look_for_leftovers();
        }
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
            generation::done(self.blackbox.generation(), monitor);
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
                busy.next_look = Some(now + LOOK);
                if busy.worker.is_stopped() {
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
        for sequence in self.flushes.drain(..) {
            if let Some(control) = &self.client.control {
                let answer = Answer { kind: AnswerKind::Flushed, sequence, report: ReportId([0; 16]) };
                let _ = control.send(&protocol::answer(answer), &[]);
            }
        }
    }
}
