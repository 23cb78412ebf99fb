//! The monitor's main process: owns the sockets and sleeps in the kernel. It never attaches to anything, parses no
//! dump and uses no network; what can hang or die is done by processes that it starts.
#![forbid(unsafe_code)]

mod case;
mod client;
mod sharing;
mod untold;
mod workers;

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::application::Ended;
use super::delivery::Delivery;
use super::leftovers::Leftovers;
use super::life::Life;
use super::log::Log;
use super::outcome::{Effort, Outcome, monitors_share};
use super::pmodules::Pmodules;
use super::role::Start;
use super::worker::Handle;
use crate::blackbox::{Blackbox, End, MonitorState};
use crate::config::ValidConfig;
use crate::error::Result;
use crate::generation;
use crate::protocol::{self, Answer, AnswerKind, CaptureRequest, ClientMessage};
use crate::report::ReportId;
use crate::scrub;
use crate::sys::process;
use crate::sys::socket;
use crate::target;
use case::{Busy, Case};
use client::{Client, FIRST, Heard, Number};
use sharing::Seat;

/// How a worker ends that made a system call which a filter forbids on pain of death.
const BARRED: process::Ended = process::Ended::Signal(libc::SIGSYS);

struct Supervisor {
    config: ValidConfig,
    log: Log,
    /// Of the process that started this monitor.
    blackbox: Rc<Blackbox>,
    clients: Vec<Client>,
    next_number: Number,
    seats: Vec<Seat>,
    life: Life,
    /// What was left before this monitor's time is seen to.
    looked_back: bool,
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
    process::adopt_orphans();
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
    // A monitor that the dying application starts is not the first.
    let first = start.blackbox.monitor_state() != MonitorState::Ready;
    if let Err(error) = target::known_modules::share() {
        log.event("supervisor", "no-module-table", error);
    }
    let blackbox = Rc::new(start.blackbox);
    let mut supervisor = Supervisor {
        life: Life::new(&start.config, log.clone(), start.launcher, first),
        looked_back: false,
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
            socket::poll(&mut polled, self.time_to_sleep())?;
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
            self.look_back();
            self.look_back_again();
            if self.looked_back {
                self.delivery.start_if_due(&self.blackbox);
            }
            self.answer_flushes();
            // Uploaders, and what dead workers leave. Not the application's to collect, even if it takes in all orphans.
            process::collect_ended(|pid| self.is_awaited(pid));
        }
        Ok(())
    }

    fn is_awaited(&self, pid: libc::pid_t) -> bool {
        let busy = self.busy.iter().map(|busy| &busy.worker);
        busy.chain(&self.idle).chain(self.leftovers.worker()).any(|worker| worker.pid() == pid)
    }

    /// Sees to what was left before this monitor's time, once nobody waits for it: that writes to the disk, which may take
    /// as long as a dying application has.
    fn look_back(&mut self) {
        if self.looked_back || !self.busy.is_empty() {
            return;
        }
        self.looked_back = true;
        // Of a session whose end has its report, a record would tell once more.
        let goes_on = |client: &Client| !client.application.crashed && client.blackbox.end() == End::Running;
        if self.client(FIRST).is_some_and(goes_on) {
            self.life.consent_changed(self.may_note());
            if !self.client(FIRST).is_some_and(goes_on) {
                self.life.take_back();
            }
        }
        self.tell_of_unfinished();
        self.look_for_leftovers();
        self.delivery.look_back();
    }

    /// At sessions that could not be judged then.
    fn look_back_again(&mut self) {
        if self.busy.is_empty() && self.life.looks_again().is_some_and(|at| at <= Instant::now()) {
            self.tell_of_unfinished();
        }
    }

    fn is_finished(&self) -> bool {
        self.clients.is_empty()
            && !self.life.looks_again_soon()
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

    fn time_to_sleep(&self) -> Option<Duration> {
        if !self.looked_back && self.busy.is_empty() {
            return Some(Duration::ZERO);
        }
        self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// `None`: nothing but a message can change anything, so sleep until one comes.
    fn next_deadline(&self) -> Option<Instant> {
        let workers = self.busy.iter().flat_map(|busy| [busy.next_look, busy.deadline]);
        let hangs = self.clients.iter().filter_map(|client| client.hangs.next_time());
        let looks = hangs.chain(self.life.next_time());
        let delivery = self.delivery.next_time().filter(|_| self.looked_back);
        let again = self.life.looks_again().filter(|_| self.busy.is_empty());
        workers.chain(self.leftovers.deadline()).chain(delivery).chain(looks).chain(again).min()
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
        let (message, said) = match client.hear(crash) {
            Heard::Message(message, said) => (message, said),
            Heard::Nothing => return,
            Heard::Foreign => {
                return self.log.event("supervisor", "foreign-message", "of a process that is no client");
            }
            Heard::Closed => {
                let closed = client.close(crash);
                let left = !client.is_there() && client.application.disconnected(&client.blackbox);
                if closed {
                    self.somebody_left();
                }
                if left && number == FIRST {
                    self.life.ended(&Ended::Reported, self.may_note());
                }
                return;
            }
            Heard::Bad(why) => return self.end_client(number, why),
        };
        match said {
            ClientMessage::Capture(request) => {
                if !generation::take_on(client.blackbox.generation(), request.monitor) {
                    return self
                        .end_client(number, "the application has given this monitor up for another one");
                }
                let memory = message.fds.into_iter().next();
                self.begin(number, message.pid, message.bytes, &request, memory, crash);
            }
            ClientMessage::Flush { sequence } => {
                client.flushes.push(sequence);
                self.delivery.start(&self.blackbox);
            }
            ClientMessage::WatchesChanged => {
                client.hangs.look(client.blackbox.watched(), Instant::now(), || true);
            }
            ClientMessage::ConsentChanged => {
                self.delivery.consent_changed(&self.blackbox);
                self.life.consent_changed(self.may_note());
            }
            ClientMessage::Share => {
                if let Err(why) = self.open_seat(message.fds.into_iter().next()) {
                    self.end_client(number, why);
                }
            }
            ClientMessage::Join { .. } | ClientMessage::Hello(_) => {
                self.end_client(number, "a second hello");
            }
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
