//! Starting a program that is nobody's child: the application's `waitpid(-1)` never sees it, no `atfork`
//! handler runs, and no page table is copied, however large the application is.
//!
//! Two nested `clone(CLONE_VM | CLONE_VFORK)` (clone(2)): the outer child starts the inner one and exits, so
//! that the inner one belongs to init (or the nearest subreaper) by the time it runs.
//!
//! Signal handlers reach this file: system calls alone, over memory that was prepared before.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::RawFd;

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
}

impl Plan {
    /// The file that is executed, if it is one by descriptor.
    pub(crate) fn file(&self) -> Option<RawFd> {
        (self.file >= 0).then_some(self.file)
    }
}

/// Starts what `plan` says, detached, with `socket` at [`CHILD_SOCKET`], /dev/null as standard streams, every other
/// descriptor closed and all signals at their default. Returns its process id; the caller's process is otherwise as
/// before. Signal-safe.
///
/// # Errors
/// The `errno` of the call that failed.
pub(crate) fn start(plan: &mut Plan, socket: RawFd) -> Result<libc::pid_t, c_int> {
    (plan.socket, plan.pid, plan.errno) = (socket, 0, 0);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    let blocked = block_all_signals();
    // SAFETY: the child runs `outer` on its own stack while this thread is suspended (CLONE_VFORK), with all
    // signals blocked, so nothing else touches `plan`. Exit signal 0: the application sees no SIGCHLD.
    let outer_pid = unsafe { libc::clone(outer, plan.outer_stack, flags, (&raw mut *plan).cast::<c_void>()) };
    let clone_failed = (outer_pid < 0).then(errno);
    if outer_pid > 0 {
        // SAFETY: waits for exactly the child made above; __WALL because its exit signal is not SIGCHLD.
        while unsafe { libc::waitpid(outer_pid, std::ptr::null_mut(), libc::__WALL) } < 0
            && errno() == libc::EINTR
        {}
    }
    restore_signals(&blocked);
    match (clone_failed, plan.errno) {
        (Some(error), _) => Err(error),
        (None, 0) if plan.pid > 0 => Ok(plan.pid),
        (None, error) => Err(error),
    }
}

fn errno() -> c_int {
    // SAFETY: points at this thread's errno for as long as the thread lives.
    unsafe { *libc::__errno_location() }
}

extern "C" fn outer(argument: *mut c_void) -> c_int {
    let plan: *mut Plan = argument.cast();
    // SAFETY: `plan` is the caller's, who is suspended; the inner child gets its own stack.
    unsafe {
        let pid = libc::clone(inner, (*plan).inner_stack, libc::CLONE_VM | libc::CLONE_VFORK, argument);
        (*plan).pid = pid;
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
