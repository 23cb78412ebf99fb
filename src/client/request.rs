//! Requests that wait for an answer: a report without dying, a panic's report, a flush.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crash_context::CrashContext;

use super::control::{Control, monitor_gone};
use super::{Client, client};
use crate::blackbox::End;
use crate::capture::panic_hook::Deeds;
use crate::capture::{
    self as handlers, allow_monitor, context, record_panic, tell_memory, while_readable, withdraw_record,
};
use crate::config::ReleaseAt;
use crate::error::{Error, Result};
use crate::generation;
use crate::minimal_record::{TEXT, Why, fixed};
use crate::monitor;
use crate::protocol::{self, Answer, AnswerKind, Cause};
use crate::report::ReportId;
use crate::sys::errno::Errno;
use crate::sys::process::monotonic_ns;

/// How long a flush keeps the socket at a time: a delivery may take a minute, and a thread that panics, or a person who
/// withdraws consent, must not wait for it.
const TURN: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(1);

/// Makes a report of the process as it is and lives on. Returns when its memory is read (with
/// [`ReleaseAt::Spooled`], when the report is committed).
///
/// All threads of the process stand still for a few milliseconds. Linux restarts most calls that wait as if nothing had
/// happened; these return early with EINTR, once, whatever `SA_RESTART` says (signal(7), "Interruption of system calls and
/// library functions by stop signals"; the first three rows were seen on Linux 6.18):
///
/// | call | in a thread that waits in it |
/// |---|---|
/// | `epoll_wait`, `epoll_pwait` | EINTR |
/// | `sigtimedwait`, `sigwaitinfo` | EINTR |
/// | `recv`, `accept`, `send`, `connect` on a socket with a timeout (`SO_RCVTIMEO`, `SO_SNDTIMEO`) | EINTR |
/// | `semop`, `semtimedop` | EINTR |
/// | `read`, `recv`, `accept` without a timeout; `poll`, `select`, `nanosleep`, `futex` (locks, conditions), `waitpid` | go on |
///
/// The thread that calls this waits for the monitor and sees none of it.
///
/// If the monitor has ended, or does not take the request on within an eighth of the [deadline](crate::Config::deadline),
/// another one is started.
///
/// # Errors
/// [`Error::ConsentRefused`], [`Error::Vetoed`], [`Error::Timeout`], [`Error::MonitorUnavailable`],
/// [`Error::NotInstalled`].
#[inline(never)]
pub fn capture(reason: &str) -> Result<ReportId> {
    let _errno = Errno::save();
    let client = client()?;
    // In this frame, which is still there while the dump is taken.
    let context = context::here();
    let answer = request(&client, context, monotonic_ns(), &Cause::Requested(reason.to_owned()));
    report_of(&std::hint::black_box(answer)?)
}

/// For the panic hook: whether there is a report. One that cannot be made is counted by the monitor; a panic has its own course.
#[inline(never)]
fn report_panic(cause: Cause) -> bool {
    let Ok(client) = client() else { return false };
    // Of the request and of a record alike: by it whoever makes a report after all finds the record.
    let happened_ns = monotonic_ns();
    LAST_PANIC_NS.set(happened_ns);
    let context = context::here();
    let answer = std::hint::black_box(request(&client, context.clone(), happened_ns, &cause));
    match unreported(&answer) {
        Some(why) => record_panic(&context, happened_ns, &place(&cause), why),
        None => answer.is_ok_and(|answer| report_of(&answer).is_ok()),
    }
}

/// Why a panic needs a record of its own; `None` where there is a report, or nobody wants one.
fn unreported(answer: &Result<Answer>) -> Option<Why> {
    match answer {
        Ok(answer) => match answer.kind {
            AnswerKind::Released | AnswerKind::Spooled | AnswerKind::Refused | AnswerKind::Vetoed => None,
            AnswerKind::Failed | AnswerKind::OutOfReach | AnswerKind::Flushed | AnswerKind::Joined => {
                Some(Why::Failed)
            }
        },
        Err(Error::Timeout(_)) => Some(Why::Silent),
        Err(_) => Some(Why::Gone),
    }
}

fn report_of(answer: &Answer) -> Result<ReportId> {
    match answer.kind {
        AnswerKind::Released | AnswerKind::Spooled => Ok(answer.report),
        AnswerKind::Refused => Err(Error::ConsentRefused("a report")),
        AnswerKind::Vetoed => Err(Error::Vetoed),
        AnswerKind::Failed | AnswerKind::OutOfReach | AnswerKind::Flushed | AnswerKind::Joined => {
            Err(Error::MonitorUnavailable("it could not make the report; its log says why".into()))
        }
    }
}

/// For the panic hook.
pub(super) const PANICS: Deeds = Deeds { report: report_panic, expect_abort, expect_no_abort, supersede };

thread_local! {
    /// When this thread's last panic happened, by the request about it and by its record.
    static LAST_PANIC_NS: Cell<u64> = const { Cell::new(0) };
}

/// Threads whose panic has its report, and that may abort now.
static DOOMED: AtomicU32 = AtomicU32::new(0);

fn expect_abort(certain: bool) {
    handlers::expect_abort();
    DOOMED.fetch_add(1, Ordering::Relaxed);
    if let Ok(client) = client() {
        client.blackbox.set_end(End::Reported);
        if certain && client.config.release_at == ReleaseAt::Spooled {
            // The monitor may be ended with us, before it has read that.
            monitor::forget_session(&client.config);
        }
    }
}

fn expect_no_abort() {
    handlers::expect_no_abort();
    if DOOMED.fetch_sub(1, Ordering::Relaxed) == 1
        && let Ok(client) = client()
    {
        client.blackbox.set_end(End::Running);
    }
}

fn supersede() {
    let happened_ns = LAST_PANIC_NS.get();
    if let Ok(client) = client() {
        client.blackbox.set_superseded(happened_ns);
    }
    withdraw_record(happened_ns);
}

/// `file:line:column` of a panic without its folders, which are those of who built it.
fn place(cause: &Cause) -> [u8; TEXT] {
    let Cause::Panic { location, .. } = cause else { return [0; TEXT] };
    fixed(location.rsplit(['/', '\\']).next().unwrap_or_default().as_bytes())
}

fn request(client: &Client, context: CrashContext, happened_ns: u64, cause: &Cause) -> Result<Answer> {
    while_readable(|| request_readable(client, context, happened_ns, cause))
}

fn request_readable(
    client: &Client,
    context: CrashContext,
    happened_ns: u64,
    cause: &Cause,
) -> Result<Answer> {
    let began = Instant::now();
    let deadline_ns = client.config.deadline_ms.saturating_mul(1_000_000);
    let asking = Asking {
        client,
        context,
        cause,
        happened_ns,
        patient_until: began + Duration::from_nanos(protocol::patience_ns(deadline_ns)),
        until: began + Duration::from_nanos(deadline_ns - protocol::reserve_ns(deadline_ns)),
    };
    let mut control = client.control.lock().unwrap_or_else(PoisonError::into_inner);
    let first = match asking.ask(&mut control, true) {
        Asked::Gone => {
            generation::replace(client.blackbox.generation());
            None
        }
        Asked::GivenUp => None,
        Asked::Answered(answered) => Some(answered),
    };
    match first {
        Some(answered) => answered,
        None => {
            control.replace_monitor(client)?;
            match asking.ask(&mut control, false) {
                Asked::Answered(answered) => answered,
                Asked::Gone | Asked::GivenUp => Err(monitor_gone()),
            }
        }
    }
}

/// A request, which may go to two monitors.
struct Asking<'a> {
    client: &'a Client,
    context: CrashContext,
    cause: &'a Cause,
    happened_ns: u64,
    patient_until: Instant,
    until: Instant,
}

/// How asking a monitor went.
enum Asked {
    /// It is gone.
    Gone,
    /// It did not take the request on, and will not.
    GivenUp,
    Answered(Result<Answer>),
}

impl Asking<'_> {
    /// `patiently`: a monitor that does not take the request on is waited for only so long.
    fn ask(&self, control: &mut Control, patiently: bool) -> Asked {
        let client = self.client;
        let sequence = client.next_sequence();
        let monitor = generation::current(client.blackbox.generation());
        let context = self.context.clone();
        let message = protocol::capture_request(sequence, self.happened_ns, monitor, context, self.cause);
        allow_monitor();
        if let Err(closed) = control.socket() {
            return Asked::Answered(Err(closed));
        }
        let send = |control: &Control, fds: &[BorrowedFd<'_>]| {
            control.socket().is_ok_and(|socket| socket.send(&message, fds).is_ok())
        };
        if !send(control, &[]) {
            return Asked::Gone;
        }
        // Whether a panic that may be another's is stored is decided when this thread has gone on.
        let is_again = matches!(self.cause, Cause::Panic { again: true, .. });
        let until_spooled = client.config.release_at == ReleaseAt::Spooled && !is_again;
        let is_final = |kind| kind != AnswerKind::Released || !until_spooled;
        let mut until = if patiently { self.patient_until } else { self.until };
        let mut copied = false;
        loop {
            match control.await_answer(sequence, until, is_final) {
                Ok(Answer { kind: AnswerKind::OutOfReach, .. }) if !copied => {
                    copied = true;
                    let left = self.until.saturating_duration_since(Instant::now());
                    let memory = tell_memory(monotonic_ns().saturating_add(left.as_nanos() as u64));
                    if !memory.is_some_and(|memory| send(control, &[memory.as_fd()])) {
                        return Asked::Gone;
                    }
                }
                Err(Error::Timeout(_)) if until < self.until => {
                    if generation::give_up(client.blackbox.generation()) {
                        return Asked::GivenUp;
                    }
                    until = self.until;
                }
                Err(Error::MonitorUnavailable(_)) => return Asked::Gone,
                answered => return Asked::Answered(answered),
            }
        }
    }
}

/// Waits until nothing is left to deliver now.
pub(super) fn flush(wait: Duration) -> Result<()> {
    let _errno = Errno::save();
    // A wait of centuries is as good as for ever, and a clock cannot hold more.
    let until = Instant::now() + wait.min(Duration::from_secs(u64::from(u32::MAX)));
    let client = client()?;
    let sequence = client.ask(protocol::flush)?;
    loop {
        {
            let mut control = client.control.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = control.flushed.iter().position(|&flushed| flushed == sequence) {
                control.flushed.swap_remove(index);
                return Ok(());
            }
            let turn = until.min(Instant::now() + TURN);
            match control.await_answer(sequence, turn, |kind| kind == AnswerKind::Flushed) {
                Ok(_) => return Ok(()),
                Err(Error::Timeout(_)) if Instant::now() < until => {}
                Err(error) => return Err(error),
            }
        }
        // The lock is not fair: without a pause a thread that waits for it might never get it.
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_reported_or_refused_is_recorded() {
        let answered = |kind| Ok(Answer { kind, sequence: 1, report: ReportId([0; 16]) });
        for (answer, expected) in [
            (answered(AnswerKind::Released), None),
            (answered(AnswerKind::Spooled), None),
            (answered(AnswerKind::Refused), None),
            (answered(AnswerKind::Vetoed), None),
            (answered(AnswerKind::Failed), Some(Why::Failed)),
            (answered(AnswerKind::OutOfReach), Some(Why::Failed)),
            (Err(Error::Timeout("the monitor")), Some(Why::Silent)),
            (Err(monitor_gone()), Some(Why::Gone)),
        ] {
            assert_eq!(unreported(&answer), expected, "{answer:?}");
        }
    }
}
