//! What runs when a signal arrives: hand the thread's context to the monitor, wait with a deadline, let the
//! original fault take its course.
//!
//! Nothing here allocates, locks or calls user code. All state is static and was written before the handlers were
//! installed; the system calls are those of [`super::signal_safe`].

use std::cell::UnsafeCell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crash_context::CrashContext;

use super::signal_safe::{self, Errno, Waited};
use super::{context, last_words, memory_server, relaunch, signals};
use crate::generation;
use crate::minimal_record::{TEXT, Why};
use crate::protocol::{ANSWER, AnswerKind, SignalRequest, parse_answer, patience_ns, reserve_ns};
use crate::sys::process::monotonic_ns;

/// What the handler needs to know; set before the handlers are installed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armament {
    /// The application's end of the crash socket.
    pub(crate) socket: RawFd,
    /// The monitor's process id, for Yama.
    pub(crate) monitor: libc::pid_t,
    /// The word of [`generation`], mapped for as long as the handlers are there.
    pub(crate) generation: *const AtomicU64,
    /// The longest wait.
    pub(crate) deadline_ns: u64,
    /// Whether to wait for the commit rather than for the memory to be read.
    pub(crate) until_spooled: bool,
    /// Whether a reported process may not leave a core file, which would hold what the report leaves out.
    pub(crate) no_core: bool,
    /// Which of [`signals::ALL`] are handled, as bits.
    pub(crate) signals: u32,
    /// Whether the earlier handlers are asked first, and only what they leave unchanged is a crash.
    pub(crate) chain_first: bool,
    /// What its minimal records say.
    pub(crate) last_words: last_words::Constants,
}

/// The sequence number of the one crash that a process has.
const CRASH: u64 = 1;
const NOBODY: u32 = 0;

/// A word in a page that the kernel zeroes in forked children (MADV_WIPEONFORK): they are not our clients.
static ARMED: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
static PID: AtomicI32 = AtomicI32::new(0);
static SOCKET: AtomicI32 = AtomicI32::new(-1);
/// What `SOCKET` refers to. An application that closes every descriptor it finds may have put a file or a
/// connection of its own there, and must not find a crash context in it.
static SOCKET_DEVICE: AtomicU64 = AtomicU64::new(0);
static SOCKET_INODE: AtomicU64 = AtomicU64::new(0);
static MONITOR: AtomicI32 = AtomicI32::new(0);
static GENERATION: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
static DEADLINE_NS: AtomicU64 = AtomicU64::new(0);
static UNTIL_SPOOLED: AtomicU32 = AtomicU32::new(0);
static NO_CORE: AtomicU32 = AtomicU32::new(0);
/// A thread whose panic was reported and ends in abort().
static DOOMED: AtomicU32 = AtomicU32::new(NOBODY);
/// The thread that reports; the others wait for it.
static REPORTER: AtomicU32 = AtomicU32::new(NOBODY);
static REPORTED: AtomicU32 = AtomicU32::new(0);
/// How far the reporting thread is.
static STEP: AtomicU32 = AtomicU32::new(DONE);
const DONE: u32 = 0;
const ASKING: u32 = 1;
const RECORDING: u32 = 2;
const ENDING: u32 = 3;
/// What the reporting thread met first.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static INFORMATION: AtomicPtr<libc::siginfo_t> = AtomicPtr::new(std::ptr::null_mut());
/// Whether it has made the process dumpable.
static UNDUMPABLE: AtomicU32 = AtomicU32::new(0);
static CHAIN_FIRST: AtomicU32 = AtomicU32::new(0);

struct RequestCell(UnsafeCell<SignalRequest>);
// SAFETY: written only by the thread that won `REPORTER`.
unsafe impl Sync for RequestCell {}
static REQUEST: RequestCell = RequestCell(UnsafeCell::new(SignalRequest::empty()));

/// Publishes what the handler needs. Touches every page that it will write.
pub(super) fn prepare(armament: Armament, wiped_on_fork: *mut AtomicU32) {
    PID.store(signal_safe::getpid(), Ordering::Relaxed);
    serve(armament.socket, armament.monitor);
    GENERATION.store(armament.generation.cast_mut(), Ordering::Relaxed);
    DEADLINE_NS.store(armament.deadline_ns, Ordering::Relaxed);
    UNTIL_SPOOLED.store(u32::from(armament.until_spooled), Ordering::Relaxed);
    NO_CORE.store(u32::from(armament.no_core), Ordering::Relaxed);
    DOOMED.store(NOBODY, Ordering::Relaxed);
    REPORTED.store(0, Ordering::Relaxed);
    STEP.store(DONE, Ordering::Relaxed);
    CHAIN_FIRST.store(u32::from(armament.chain_first), Ordering::Relaxed);
    last_words::prepare(armament.last_words);
    // SAFETY: no handler is installed yet, so nobody else uses the request.
    unsafe { std::ptr::write_volatile(REQUEST.0.get(), SignalRequest::empty()) };
    ARMED.store(wiped_on_fork, Ordering::Release);
    REPORTER.store(NOBODY, Ordering::Release);
}

/// From now on `monitor` is the one to ask, over `socket`. A handler that runs at this moment finds the two out of step, and
/// does without.
pub(crate) fn serve(socket: RawFd, monitor: libc::pid_t) {
    let (device, inode) = signal_safe::identity(socket).unwrap_or_default();
    SOCKET_DEVICE.store(device, Ordering::Relaxed);
    SOCKET_INODE.store(inode, Ordering::Relaxed);
    SOCKET.store(socket, Ordering::Relaxed);
    MONITOR.store(monitor, Ordering::Relaxed);
}

/// Whether this process (and not a forked copy of it) has armed handlers. Takes no system call.
pub(crate) fn is_armed() -> bool {
    let word = ARMED.load(Ordering::Acquire);
    // SAFETY: set to a page that is never unmapped while the pointer stands.
    !word.is_null() && unsafe { (*word).load(Ordering::Acquire) } != 0
}

/// Lets the monitor and its workers trace this process where Yama restricts that; signal-safe.
pub(crate) fn allow_monitor() {
    signal_safe::allow_tracer(MONITOR.load(Ordering::Relaxed));
}

/// The calling thread's death is reported already; the SIGABRT that comes is the same event.
pub(crate) fn expect_abort() {
    DOOMED.store(signal_safe::gettid() as u32, Ordering::Relaxed);
}

/// The calling thread lives on after all.
pub(crate) fn expect_no_abort() {
    let tid = signal_safe::gettid() as u32;
    let _ = DOOMED.compare_exchange(tid, NOBODY, Ordering::Relaxed, Ordering::Relaxed);
}

/// Makes the handlers inert before they are removed.
pub(super) fn retire() {
    ARMED.store(std::ptr::null_mut(), Ordering::Release);
    GENERATION.store(std::ptr::null_mut(), Ordering::Release);
    SOCKET.store(-1, Ordering::Release);
}

/// The handler for every signal.
pub(super) extern "C" fn on_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let _errno = Errno::save();
    if signals::repair(signal) {
        // There is no siginfo to be had this time. A fault happens again by itself; anything else must be sent.
        if !matches!(signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE) {
            signal_safe::raise(signal);
        }
        return;
    }
    // SAFETY: the kernel's siginfo.
    let sent = unsafe { (*info).si_code } <= 0;
    // What the application ignores ends nothing. (Except abort(), which cannot be told from raise() and does end it.)
    if (sent || signals::is_on_request(signal)) && signal != libc::SIGABRT && signals::was_ignored(signal) {
        return;
    }
    // A child made by vfork or clone(CLONE_VM) shares our memory but not our process id.
    if is_armed() && PID.load(Ordering::Relaxed) == signal_safe::getpid() {
        let tid = signal_safe::gettid();
        if REPORTER.load(Ordering::Acquire) == tid as u32 && STEP.load(Ordering::Acquire) != DONE {
            nested();
        }
        if CHAIN_FIRST.load(Ordering::Relaxed) != 0 && !signals::is_crash_to_earlier(signal, info, context) {
            return;
        }
        let doomed = DOOMED.load(Ordering::Relaxed) == tid as u32;
        if signal != libc::SIGABRT || !doomed {
            report_or_wait(signal, info, context);
        }
        if NO_CORE.load(Ordering::Relaxed) != 0 {
            signal_safe::forbid_core();
        }
    }
    // From here on the process is as it would be without us, and meets the same signal again.
    signals::restore(signal);
    if !signal_safe::requeue(signal, info) {
        // SAFETY: the kernel's siginfo.
        let code = unsafe { (*info).si_code };
        // A fault happens again by itself when the handler returns; anything else must be sent.
        if !context::is_fault(signal, code) || signal == libc::SIGTRAP || signal == libc::SIGSYS {
            signal_safe::raise(signal);
        }
    }
}

fn report_or_wait(signal: libc::c_int, info: *mut libc::siginfo_t, context: *const libc::c_void) {
    let tid = signal_safe::gettid();
    let deadline_ns = monotonic_ns().saturating_add(DEADLINE_NS.load(Ordering::Relaxed));
    match REPORTER.compare_exchange(NOBODY, tid as u32, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            signal_safe::must_end_by(deadline_ns);
            SIGNAL.store(signal, Ordering::Relaxed);
            INFORMATION.store(info, Ordering::Relaxed);
            // SAFETY: this thread alone won `REPORTER`; `info` and `context` are the kernel's.
            let request = unsafe {
                let request = &mut *REQUEST.0.get();
                context::fill(&mut request.context, info, context, PID.load(Ordering::Relaxed), tid);
                request
            };
            STEP.store(ASKING, Ordering::Release);
            // From here to the end of the report a fault of our own is met by `nested`.
            signal_safe::block_signals(true);
            UNDUMPABLE.store(u32::from(signal_safe::make_dumpable()), Ordering::Relaxed);
            report(request, deadline_ns);
            make_undumpable_again();
            signal_safe::block_signals(false);
            STEP.store(DONE, Ordering::Release);
            REPORTED.store(1, Ordering::Release);
            signal_safe::futex_wake(&REPORTED);
        }
        // Another thread of the same process crashed first: its death is ours, once its report is made.
        Err(other) if other != tid as u32 => signal_safe::futex_wait(&REPORTED, 0, deadline_ns),
        Err(_) => {}
    }
}

fn make_undumpable_again() {
    if UNDUMPABLE.swap(0, Ordering::Relaxed) != 0 {
        signal_safe::forbid_core();
    }
}

/// Makes a process that is not dumpable so for the time of `call`, in which its monitor looks at it.
pub(crate) fn while_readable<T>(call: impl FnOnce() -> T) -> T {
    let was_undumpable = signal_safe::make_dumpable();
    let result = call();
    if was_undumpable {
        signal_safe::forbid_core();
    }
    result
}

/// A fault inside the handler: what it was doing is not done again, but the next less; then the process ends with the signal
/// that it met first.
fn nested() -> ! {
    let signal = SIGNAL.load(Ordering::Relaxed);
    match STEP.load(Ordering::Acquire) {
        ASKING => {
            STEP.store(RECORDING, Ordering::Release);
            // SAFETY: filled before the first step, by this thread.
            let request = unsafe { &*REQUEST.0.get() };
            last_words::write_elsewhere(&request.context, request.monotonic_ns(), Why::Fault);
        }
        RECORDING => {}
        _ => signal_safe::exit_now(128 + signal),
    }
    STEP.store(ENDING, Ordering::Release);
    make_undumpable_again();
    signal_safe::block_signals(false);
    signals::set_default(signal);
    // The kernel's siginfo lies on the stack of the handler that faulted, which this one interrupted.
    if !signal_safe::requeue(signal, INFORMATION.load(Ordering::Relaxed)) {
        signal_safe::raise(signal);
    }
    // Ends here. Only the first process of a pid namespace is not killed by a signal of its own.
    signal_safe::meet_only(signal);
    signal_safe::exit_now(128 + signal)
}

/// How asking the monitor went.
enum Asked {
    /// There is a report, or somebody else makes it.
    Reported,
    /// Consent does not allow one, or a pmodule does not want it.
    Refused,
    /// It was silent for too long, and was given up.
    GivenUp,
    /// There is none.
    Unreported(Why),
}

/// Goes down the ladder: the monitor, which may need a copy of this process that tells its memory; a new monitor; a minimal
/// record.
fn report(request: &mut SignalRequest, deadline_ns: u64) {
    let happened_ns = monotonic_ns();
    let whole_ns = DEADLINE_NS.load(Ordering::Relaxed);
    let until_ns = deadline_ns.saturating_sub(reserve_ns(whole_ns));
    let patient_until_ns = happened_ns.saturating_add(patience_ns(whole_ns)).min(until_ns);
    request.begin(CRASH, happened_ns, number());
    let mut asked = ask_monitor(request, patient_until_ns, until_ns);
    if let Asked::Unreported(Why::Gone | Why::Closed) = asked {
        with_generation(generation::replace);
    }
    if let Asked::GivenUp | Asked::Unreported(Why::Gone | Why::Closed) = asked
        && let Some(monitor) = relaunch::start(until_ns)
    {
        MONITOR.store(monitor.pid, Ordering::Relaxed);
        request.begin(CRASH, happened_ns, number());
        asked = ask(monitor.socket, request, until_ns, until_ns);
    }
    let why = match asked {
        Asked::Reported | Asked::Refused => return,
        Asked::GivenUp => Why::Silent,
        Asked::Unreported(why) => why,
    };
    STEP.store(RECORDING, Ordering::Release);
    last_words::write(&request.context, happened_ns, None, why);
}

fn ask_monitor(request: &SignalRequest, patient_until_ns: u64, until_ns: u64) -> Asked {
    let socket = SOCKET.load(Ordering::Relaxed);
    let ours = (SOCKET_DEVICE.load(Ordering::Relaxed), SOCKET_INODE.load(Ordering::Relaxed));
    if signal_safe::identity(socket) != Some(ours) {
        return Asked::Unreported(Why::Closed);
    }
    ask(socket, request, patient_until_ns, until_ns)
}

/// Asks and waits for the answer: `patient_until_ns`, and if the monitor is at it by then, `until_ns`.
fn ask(socket: RawFd, request: &SignalRequest, patient_until_ns: u64, until_ns: u64) -> Asked {
    allow_monitor();
    if !signal_safe::send(socket, request.as_bytes()) {
        return Asked::Unreported(Why::Gone);
    }
    let (mut wait_ns, mut copied) = (patient_until_ns, false);
    let mut buffer = [0u8; ANSWER];
    loop {
        let length = match signal_safe::receive(socket, &mut buffer, wait_ns) {
            Waited::Answer(length) => length,
            Waited::Gone => return Asked::Unreported(Why::Gone),
            Waited::Late if wait_ns < until_ns => {
                if relaunch::is_prepared() && with_generation(generation::give_up) == Some(true) {
                    return Asked::GivenUp;
                }
                wait_ns = until_ns;
                continue;
            }
            Waited::Late => return Asked::Unreported(Why::Silent),
        };
        let Some(answer) = parse_answer(&buffer[..length.min(ANSWER)]) else { continue };
        if answer.sequence != CRASH {
            continue;
        }
        match answer.kind {
            AnswerKind::Released if UNTIL_SPOOLED.load(Ordering::Relaxed) != 0 => {}
            AnswerKind::Released | AnswerKind::Spooled => return Asked::Reported,
            AnswerKind::Refused | AnswerKind::Vetoed => return Asked::Refused,
            AnswerKind::OutOfReach if !copied => {
                copied = true;
                let Some(memory) = memory_server::start(until_ns) else {
                    return Asked::Unreported(Why::Failed);
                };
                let sent = signal_safe::send_with(socket, request.as_bytes(), &[memory]);
                signal_safe::close(memory);
                if !sent {
                    return Asked::Unreported(Why::Gone);
                }
            }
            AnswerKind::Failed | AnswerKind::OutOfReach => return Asked::Unreported(Why::Failed),
            AnswerKind::Flushed | AnswerKind::Joined => {}
        }
    }
}

/// The number of the monitor that is asked.
fn number() -> u32 {
    with_generation(generation::current).unwrap_or(0)
}

fn with_generation<T>(act: impl FnOnce(&AtomicU64) -> T) -> Option<T> {
    let word = GENERATION.load(Ordering::Acquire);
    // SAFETY: the client unmaps the blackbox after `retire` alone. A handler that is here at that very moment meets a fault
    // inside the handler, for which there is `nested`.
    unsafe { word.as_ref() }.map(act)
}

/// A minimal record of a panic for which no report could be made, and which happened at `monotonic_ns`. Returns whether
/// there is one.
pub(crate) fn record_panic(
    context: &CrashContext,
    monotonic_ns: u64,
    location: &[u8; TEXT],
    why: Why,
) -> bool {
    last_words::write(context, monotonic_ns, Some(location), why)
}

/// Takes back the record of a panic that happened at `monotonic_ns`, if there is one.
pub(crate) fn withdraw_record(monotonic_ns: u64) {
    last_words::withdraw(signal_safe::getpid(), monotonic_ns);
}
