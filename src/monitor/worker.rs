//! A worker: one process, one crash. It may hang or die over what it looks at; the supervisor starts another.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::captured::{self, Capture, Captured, Writer};
use super::confinement::{self, Starter};
use super::job::{self, Job};
use super::leftover;
use super::log::Log;
use super::outcome::{Effort, Outcome};
use super::pmodules::Pmodules;
use super::rehearsal::rehearse;
use super::stages;
use crate::blackbox::{Blackbox, End};
use crate::config::ValidConfig;
use crate::dump;
use crate::error::Result;
use crate::pmodule::runner::{Ran, Session};
use crate::protocol::{self, Answer, AnswerKind, ClientMessage};
use crate::report::ReportId;
use crate::spool::records;
use crate::sys::memory::read_memfd;
use crate::sys::process::{self, Ended, Forked};
use crate::sys::procfs;
use crate::sys::socket::Socket;
use crate::target;

/// Larger bundles are not ours: a dump may have 1 GiB of stacks, no more.
const MAX_BUNDLE: u64 = 1 << 30;

/// How long a worker waits for a job before it rehearses.
const REHEARSAL_AFTER: Duration = Duration::from_millis(20);

/// The allocator does not give back so many bytes: what a rehearsal uses.
const KEPT_HEAP: i32 = 8 << 20;

/// A worker as the supervisor sees it.
pub(super) struct Handle {
    pub(super) socket: Socket,
    pid: libc::pid_t,
    pidfd: OwnedFd,
}

impl Handle {
    /// Forks a worker that waits for its job; ahead of it, and with time to rehearse, if it is for an `application` that
    /// lives (0: one that cannot be seen from here).
    pub(super) fn start(
        config: &ValidConfig,
        pmodules: &Pmodules,
        blackbox: &Blackbox,
        application: Option<libc::pid_t>,
    ) -> Result<Self> {
        let (ours, theirs) = Socket::pair()?;
        match process::fork()? {
            Forked::Parent(pid, pidfd) => Ok(Self { socket: ours, pid, pidfd }),
            Forked::Child => {
                // Holding any other descriptor would hide the supervisor's death, and others' ends, from someone.
                process::close_all_but(theirs.as_raw());
                let code = run(&theirs, config, pmodules, blackbox, application);
                process::exit_now(code)
            }
        }
    }
}

impl Handle {
    pub(super) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Whether job control or a debugger holds it: what it does not do then is no fault of its own.
    pub(super) fn is_stopped(&self) -> bool {
        procfs::is_stopped(self.pid)
    }

    /// Where it stands still, if it does: the same as at an earlier look if it has done nothing since.
    pub(super) fn stood_at(&self) -> Option<u64> {
        procfs::stood_at(self.pid)
    }

    /// Ends it, unless it has ended, and says how that came. While attached it freezes its target.
    pub(super) fn end(mut self) -> Ended {
        process::kill_pidfd(self.pidfd.as_fd());
        process::wait_end(std::mem::take(&mut self.pid))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.pid > 0 {
            process::kill_pidfd(self.pidfd.as_fd());
            process::reap(self.pid, true);
        }
    }
}

fn run(
    supervisor: &Socket,
    config: &ValidConfig,
    pmodules: &Pmodules,
    blackbox: &Blackbox,
    application: Option<libc::pid_t>,
) -> i32 {
    // What pmodules do must not reach the application.
    blackbox.keep_from_children();
    target::known_modules::keep_from_children();
    process::keep_heap(KEPT_HEAP);
    let log = Log::new(config.log.clone());
    // What can be read before anybody waits for it.
    dump::linux_writer::prepare();
    // Not at once: an application has better use for the processor while it starts, and many end soon.
    if let Some(application) = application
        && !supervisor.is_readable(REHEARSAL_AFTER)
    {
        let _ = rehearse(config, blackbox, application, || supervisor.is_readable(Duration::ZERO));
        // Making a file takes as long as unwinding a small process.
        log.touch();
    }
    let Ok(Some(job)) = job::receive(supervisor) else { return 0 };
    let mut starter = None;
    let (outcome, blackbox) = perform(job, supervisor, config, pmodules, &log, &mut starter);
    log.line("worker", &outcome);
    // For the next dump. The application has its answers; a supervisor that has its own ends this worker.
    match target::known_modules::learn() {
        0 => {}
        learnt => log.event("worker", "modules-learnt", learnt),
    }
    if !job::send_done(supervisor, &outcome) {
        // The supervisor died meanwhile: what it would do now falls to us.
        if let Some(blackbox) = &blackbox {
            outcome.count(blackbox);
            if let (Outcome::Spooled { .. }, Some(starter)) = (&outcome, starter) {
                starter.start(blackbox);
            }
        }
    }
    0
}

fn perform(
    job: Job,
    supervisor: &Socket,
    config: &ValidConfig,
    pmodules: &Pmodules,
    log: &Log,
    starter: &mut Option<Starter>,
) -> (Outcome, Option<Blackbox>) {
    let mut confine = |blackbox: &Blackbox| {
        *starter = Starter::if_alone(supervisor, config);
        confinement::of_parser(config, blackbox, log);
    };
    let failed = |error: &dyn std::fmt::Display| Outcome::Failed { reason: error.to_string() };
    match job {
        Job::Capture { pid, request, faults, client, blackbox, memory } => {
            let client = Socket::from_fd(client);
            let blackbox = Blackbox::from_fd(blackbox);
            let (Ok(client), Ok(blackbox)) = (client, blackbox) else {
                return (failed(&"the job's descriptors are unusable"), None);
            };
            blackbox.keep_from_children();
            // A worker that hung may have waited for memory; what it died over otherwise it would die over again.
            let memory = memory.and_then(|fd| Socket::from_fd(fd).ok());
            let writer = match (memory, faults) {
                (Some(memory), _) => Writer::Told(memory),
                (None, 0) => Writer::Ours,
                (None, 1) => Writer::Patient,
                (None, _) => Writer::Fallback,
            };
            let outcome = capture(
                pid, &request, writer, &client, &blackbox, supervisor, config, pmodules, log, confine,
            );
            (outcome, Some(blackbox))
        }
        Job::Resume { effort, bundle, blackbox, client } => {
            let blackbox = match Blackbox::from_fd(blackbox) {
                Ok(blackbox) => blackbox,
                Err(error) => return (failed(&error), None),
            };
            blackbox.keep_from_children();
            confine(&blackbox);
            let client = client.and_then(|fd| Socket::from_fd(fd).ok());
            let captured = read_memfd(bundle.as_fd(), MAX_BUNDLE).and_then(|b| Captured::from_bundle(&b));
            let outcome = match captured {
                Ok(captured) => {
                    let session = session(pmodules, &captured.meta.ran);
                    if let Some(client) = &client {
                        // The worker before may have died before it said so.
                        answer(client, AnswerKind::Released, captured.meta.sequence, captured.meta.id);
                    }
                    complete(captured, effort, session, client.as_ref(), &blackbox, config)
                }
                Err(error) => failed(&error),
            };
            (outcome, Some(blackbox))
        }
        Job::Leftover { blackbox } => match Blackbox::from_fd(blackbox) {
            Ok(blackbox) => {
                confine(&blackbox);
                let session = session(pmodules, &[]);
                (leftover::report(session, pmodules, &blackbox, config), Some(blackbox))
            }
            Err(error) => (failed(&error), None),
        },
    }
}

#[allow(clippy::too_many_arguments, reason = "a job's parts, each of another kind")]
fn capture(
    pid: libc::pid_t,
    request: &[u8],
    writer: Writer,
    client: &Socket,
    blackbox: &Blackbox,
    supervisor: &Socket,
    config: &ValidConfig,
    pmodules: &Pmodules,
    log: &Log,
    confine: impl FnOnce(&Blackbox),
) -> Outcome {
    let request = match protocol::parse(request) {
        Ok(ClientMessage::Capture(request)) => request,
        _ => return Outcome::Failed { reason: "the request is no capture request".into() },
    };
    let sequence = request.sequence;
    let mut session = session(pmodules, &[]);
    let captured = captured::capture(&request, pid, writer, blackbox, pmodules, &mut session, config);
    let (captured, standing) = match captured {
        Ok(Capture::Taken(captured, standing)) => (*captured, standing),
        Ok(Capture::Refused) => {
            answer(client, AnswerKind::Refused, sequence, ReportId([0; 16]));
            return Outcome::RefusedByConsent;
        }
        Ok(Capture::OutOfReach(error)) => {
            answer(client, AnswerKind::OutOfReach, sequence, ReportId([0; 16]));
            return Outcome::OutOfReach { reason: error.to_string() };
        }
        Ok(Capture::Vetoed { pmodule, reason }) => {
            answer(client, AnswerKind::Vetoed, sequence, ReportId([0; 16]));
            return Outcome::Vetoed { pmodule, reason };
        }
        Err(error) => {
            answer(client, AnswerKind::Failed, sequence, ReportId([0; 16]));
            return Outcome::Failed { reason: error.to_string() };
        }
    };
    // First into the supervisor's hands, then the application may die: from here on no single death loses it.
    if let Err(error) = captured.bundle().map(|fd| job::send_read(supervisor, fd.as_fd())) {
        log.event("worker", "bundle-failed", error);
    }
    answer(client, AnswerKind::Released, sequence, captured.meta.id);
    match standing {
        Some(target) => target.release_crashed_first(),
        // It may have woken on this very processor, which is ours until the scheduler looks again.
        None => std::thread::yield_now(),
    }
    // Until it hears that, the supervisor gives a worker that hangs no longer than the application waits.
    if let Err(error) = job::send_let_go(supervisor) {
        log.event("worker", "supervisor-lost", error);
    }
    confine(blackbox);
    complete(captured, Effort::Full, session, Some(client), blackbox, config)
}

fn complete(
    captured: Captured,
    effort: Effort,
    session: Session<'_>,
    client: Option<&Socket>,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Outcome {
    let (sequence, id, happened_ns) = (captured.meta.sequence, captured.meta.id, captured.meta.monotonic_ns);
    let outcome = match captured.meta.tentative {
        true if is_superseded(happened_ns, client, blackbox) => Outcome::Superseded,
        _ => stages::complete(captured, effort, session, blackbox, config)
            .unwrap_or_else(|error| Outcome::Failed { reason: error.to_string() }),
    };
    if let Some(client) = client {
        let kind = match outcome {
            Outcome::Spooled { .. } | Outcome::Repeated { .. } | Outcome::Superseded => AnswerKind::Spooled,
            Outcome::RefusedByConsent => AnswerKind::Refused,
            Outcome::Vetoed { .. } => AnswerKind::Vetoed,
            Outcome::Nothing | Outcome::OutOfReach { .. } | Outcome::Failed { .. } => AnswerKind::Failed,
        };
        answer(client, kind, sequence, id);
    }
    if !matches!(outcome, Outcome::Nothing | Outcome::OutOfReach { .. } | Outcome::Failed { .. }) {
        // It may have given up waiting, and told of a crash itself that has been dealt with.
        records::remove(&config.spool, happened_ns);
    }
    outcome
}

/// Whether the second panic of a thread turns out to be one while the first one unwound. Then the application aborts, and
/// says so before; one that lives on is not waited for.
fn is_superseded(happened_ns: u64, client: Option<&Socket>, blackbox: &Blackbox) -> bool {
    /// The runtime's own words come behind those of the application's hooks, at once.
    const SETTLED: Duration = Duration::from_secs(2);
    /// The hooks themselves may print all frames with their names, which of a large program takes seconds.
    const LONGEST: Duration = Duration::from_secs(60);
    const PAUSE: Duration = Duration::from_millis(5);
    let began = Instant::now();
    let mut hooks_until = began;
    loop {
        if blackbox.end() == End::Reported {
            hooks_until = Instant::now();
        }
        let settled = hooks_until.elapsed() >= SETTLED || began.elapsed() >= LONGEST;
        let over = client.is_none_or(Socket::is_at_end) || settled;
        if blackbox.superseded() == Some(happened_ns) {
            return true;
        }
        if over {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The pmodules of one crash, without those that failed over it before.
fn session<'a>(pmodules: &'a Pmodules, ran: &[Ran]) -> Session<'a> {
    let failed: Vec<&str> =
        ran.iter().filter(|ran| ran.result.is_err()).map(|ran| ran.pmodule.as_str()).collect();
    Session::new(&pmodules.registered, pmodules.limits, &failed)
}

/// The application may be gone by now; that is no failure.
fn answer(client: &Socket, kind: AnswerKind, sequence: u64, report: ReportId) {
    let _ = client.send(&protocol::answer(Answer { kind, sequence, report }), &[]);
}
