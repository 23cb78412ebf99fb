//! Starting a program that is nobody's child: the application's `waitpid(-1)` never sees it, no `atfork`
//! handler runs, and no page table is copied, however large the application is.
//!
//! Two nested children that share the caller's memory (clone(2)): the outer child starts the inner one (`CLONE_VFORK`) and exits,
//! so that the inner one belongs to init (or the nearest subreaper) by the time it runs.
//!
//! Signal handlers reach this file: system calls alone, over memory that was prepared before.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU32;

use super::process::monotonic_ns;
use super::sharing_child::{self, Course};

/// The descriptor number at which the program finds its socket.
pub(crate) const CHILD_SOCKET: RawFd = 3;
/// The descriptor number at which a test build finds its raw tap.
pub(crate) const CHILD_TAP: RawFd = 4;
/// The program must stop this alarm within so many seconds, or SIGALRM ends it.
const START_SECONDS: libc::c_uint = 2;

const DEV_NULL: &CStr = c"/dev/null";

/// What is to be started. All pointers are valid for as long as it is used.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) program: *const c_char,
    /// In the place of `program`, unless it is -1.
    pub(super) file: RawFd,
    /// NULL-terminated, as `envp`.
    pub(super) argv: *const *const c_char,
    pub(super) envp: *const *const c_char,
    pub(super) tap: RawFd,
    /// Ends of two stacks for the children.
    pub(super) outer_stack: *mut c_void,
    pub(super) inner_stack: *mut c_void,
    pub(super) socket: RawFd,
    pub(super) pid: libc::pid_t,
    pub(super) errno: c_int,
    /// Cleared by the kernel once the outer child is done.
    pub(super) working: AtomicU32,
}

impl Plan {
    /// The file that is executed, if it is one by descriptor.
    pub(crate) fn file(&self) -> Option<RawFd> {
        (self.file >= 0).then_some(self.file)
    }
}

/// Starts what `plan` says, detached, with `socket` at [`CHILD_SOCKET`], /dev/null as standard streams, every other
/// descriptor closed and all signals at their default. Returns its process id; the caller's process is otherwise as
/// before. Signal-safe. Somebody may hold the children: after `until_ns` (monotonic) they are killed.
///
/// # Errors
/// The `errno` of the call that failed; `ETIMEDOUT`, after which what `plan` points to must stay valid for ever.
pub(crate) fn start(plan: &mut Plan, socket: RawFd, until_ns: u64) -> Result<libc::pid_t, c_int> {
    (plan.socket, plan.pid, plan.errno) = (socket, 0, 0);
    let blocked = block_all_signals();
    let plan: *mut Plan = plan;
    // SAFETY: `outer` runs on its own stack while this thread waits, so nothing else touches `plan`; it is valid for ever if that
    // takes too long (the caller's promise).
    let course =
        unsafe { sharing_child::run(outer, (*plan).outer_stack, plan.cast(), &(*plan).working, until_ns) };
    // SAFETY: the children are done with it, or killed.
    let (pid, errno) = unsafe { ((*plan).pid, (*plan).errno) };
    if course == Course::Late && pid > 0 {
        // The inner child, which nobody but us knows to be late. SAFETY: plain values; it lives, or else its number was free for an
        // instant only.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    restore_signals(&blocked);
    match (course, errno) {
        (Course::NotMade(error), _) => Err(error),
        (Course::Late, _) => Err(libc::ETIMEDOUT),
        (Course::Over, 0) if pid > 0 => Ok(pid),
        (Course::Over, error) => Err(error),
    }
}

/// For who is in no hurry: when to give up on children that somebody holds.
pub(crate) fn in_ordinary_time() -> u64 {
    const SECONDS: u64 = 10;
    monotonic_ns().saturating_add(SECONDS * 1_000_000_000)
}

extern "C" fn outer(argument: *mut c_void) -> c_int {
    let plan: *mut Plan = argument.cast();
    // SAFETY: `plan` is the caller's, who is suspended; the inner child gets its own stack.
    unsafe {
        // The number is written before the inner child runs: whoever gives up on both must know it.
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID;
        let pid = libc::clone(inner, (*plan).inner_stack, flags, argument, &raw mut (*plan).pid);
        if pid < 0 {
            (*plan).errno = *libc::__errno_location();
        }
        libc::_exit(0)
    }
}

/// Only system calls from here: this runs in the caller's memory.
extern "C" fn inner(argument: *mut c_void) -> c_int {
    let plan: *mut Plan = argument.cast();
    // SAFETY: `plan` and the strings it points to belong to the suspended caller. The descriptor table is a copy
    // (no CLONE_FILES), as are the signal dispositions (no CLONE_SIGHAND).
    unsafe {
        // Out of the way of the low numbers first: an application may run with its standard streams closed.
        let socket = libc::fcntl((*plan).socket, libc::F_DUPFD, 16);
        let tap = if (*plan).tap >= 0 { libc::fcntl((*plan).tap, libc::F_DUPFD, 16) } else { -1 };
        let file = if (*plan).file >= 0 { libc::fcntl((*plan).file, libc::F_DUPFD, 16) } else { -1 };
        let null = libc::fcntl(libc::open(DEV_NULL.as_ptr(), libc::O_RDWR), libc::F_DUPFD, 16);
        for stream in 0..3 {
            libc::dup2(null, stream);
        }
        libc::dup2(socket, CHILD_SOCKET);
        let mut first_free = CHILD_SOCKET + 1;
        if tap >= 0 {
            libc::dup2(tap, CHILD_TAP);
            first_free = CHILD_TAP + 1;
        }
        if file >= 0 {
            // Closed by the exec itself: the program has no use for its own file.
            libc::dup3(file, first_free, libc::O_CLOEXEC);
            first_free += 1;
        }
        libc::syscall(libc::SYS_close_range, first_free, libc::c_uint::MAX, 0);
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=64 {
            libc::sigaction(signal, &raw const default, std::ptr::null_mut());
        }
        libc::alarm(START_SECONDS);
        restore_signals(&std::mem::zeroed());
        if file >= 0 {
            let flags = libc::AT_EMPTY_PATH;
            libc::syscall(
                libc::SYS_execveat,
                first_free - 1,
                c"".as_ptr(),
                (*plan).argv,
                (*plan).envp,
                flags,
            );
        } else {
            libc::execve((*plan).program, (*plan).argv, (*plan).envp);
        }
        (*plan).errno = *libc::__errno_location();
        libc::_exit(127)
    }
}

fn block_all_signals() -> libc::sigset_t {
    // SAFETY: both sets are local; sigfillset initialises the one that is read.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn restore_signals(set: &libc::sigset_t) {
    // SAFETY: reads an initialised set; an all-zero set is the empty one on Linux.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) };
}
