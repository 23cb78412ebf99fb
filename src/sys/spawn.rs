//! Starting a program that is nobody's child: the application's `waitpid(-1)` never sees it, no `atfork`
//! handler runs, and no page table is copied, however large the application is.
//!
//! Two nested `clone(CLONE_VM | CLONE_VFORK)` (clone(2)): the outer child starts the inner one and exits, so
//! that the inner one belongs to init (or the nearest subreaper) by the time it runs.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Error, Result};

/// The descriptor number at which the program finds its socket.
pub(crate) const CHILD_SOCKET: RawFd = 3;
/// The descriptor number at which a test build finds its raw tap.
pub(crate) const CHILD_TAP: RawFd = 4;
/// The program must stop this alarm within so many seconds, or SIGALRM ends it.
const START_SECONDS: libc::c_uint = 2;

const STACK_SIZE: usize = 64 * 1024;
const DEV_NULL: &CStr = c"/dev/null";

/// What is executed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Executable<'a> {
    /// A file by its path.
    Path(&'a CStr),
    /// The very file that a descriptor stands for.
    File(BorrowedFd<'a>),
}

struct Plan {
    program: *const c_char,
    /// In the place of `program`, unless it is -1.
    file: RawFd,
    argv: *const *const c_char,
    envp: *const *const c_char,
    socket: RawFd,
    tap: RawFd,
    inner_stack: *mut c_void,
    pid: libc::pid_t,
    errno: c_int,
}

/// Starts `executable` detached, with `socket` at [`CHILD_SOCKET`], /dev/null as standard streams, every other
/// descriptor closed and all signals at their default. Returns its process id.
///
/// # Errors
/// If it cannot be started; the caller's process is as before.
pub(crate) fn spawn_detached(
    executable: Executable<'_>,
    argv: &[CString],
    envp: &[CString],
    socket: BorrowedFd<'_>,
    tap: Option<RawFd>,
) -> Result<libc::pid_t> {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    let mut stacks = vec![0u128; 2 * STACK_SIZE / 16];
    // Stacks grow down: each child gets the end of its half.
    let base: *mut u8 = stacks.as_mut_ptr().cast();
    let (outer_stack, inner_stack) = (base.wrapping_add(2 * STACK_SIZE), base.wrapping_add(STACK_SIZE));
    let mut plan = Plan {
        program: if let Executable::Path(path) = executable { path.as_ptr() } else { c"".as_ptr() },
        file: if let Executable::File(file) = executable { file.as_raw_fd() } else { -1 },
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        socket: socket.as_raw_fd(),
        tap: tap.unwrap_or(-1),
        inner_stack: inner_stack.cast(),
        pid: 0,
        errno: 0,
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    let blocked = block_all_signals();
    // SAFETY: the child runs `outer` on its own stack while this thread is suspended (CLONE_VFORK), with all
    // signals blocked, so nothing else touches `plan`. Exit signal 0: the application sees no SIGCHLD.
    let outer_pid =
        unsafe { libc::clone(outer, outer_stack.cast(), flags, (&raw mut plan).cast::<c_void>()) };
    let clone_failed = (outer_pid < 0).then(|| Error::last_os("clone"));
    if outer_pid > 0 {
        let mut status = 0;
        // SAFETY: waits for exactly the child made above; __WALL because its exit signal is not SIGCHLD.
        let _ = super::retry(|| unsafe { libc::waitpid(outer_pid, &raw mut status, libc::__WALL) });
    }
    restore_signals(&blocked);
    if let Some(error) = clone_failed {
        return Err(error);
    }
    if plan.errno != 0 || plan.pid <= 0 {
        let source = std::io::Error::from_raw_os_error(plan.errno);
        return Err(Error::System { call: "execve", source });
    }
    Ok(plan.pid)
}

/// In the started program: a copy of the socket at [`CHILD_SOCKET`].
///
/// # Errors
/// If nothing is open there.
pub(crate) fn copy_inherited() -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor, or fails for a number that is not open.
    let copy = unsafe { libc::fcntl(CHILD_SOCKET, libc::F_DUPFD_CLOEXEC, 8) };
    if copy < 0 {
        return Err(Error::last_os("fcntl(F_DUPFD_CLOEXEC)"));
    }
    // SAFETY: made just above, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// In the started program: closes [`CHILD_SOCKET`]. Only after a message with the nonce came through it.
pub(crate) fn close_inherited() {
    // SAFETY: the launcher opened the number for this program alone; nothing in it holds it as an owner.
    unsafe { libc::close(CHILD_SOCKET) };
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;
    use crate::sys::socket::{Received, Socket};

    #[test]
    fn starts_a_program_that_is_no_child_of_ours() {
        let (ours, theirs) = Socket::pair().unwrap();
        let script = c"echo \"$X $(cut -d' ' -f4 /proc/self/stat)\" >&3; ls /proc/self/fd | tr '\\n' ' ' >&3";
        let argv = [c"sh".to_owned(), c"-c".to_owned(), script.to_owned()];
        let pid = spawn_detached(
            Executable::Path(c"/bin/sh"),
            &argv,
            &[c"X=7".to_owned(), c"PATH=/usr/bin:/bin".to_owned()],
            theirs.as_fd(),
            None,
        )
        .unwrap();
        drop(theirs);
        let Received::Message(message) = ours.receive(256, Duration::from_secs(10)).unwrap() else {
            panic!()
        };
        assert!(message.bytes.starts_with(b"7 "), "{:?}", String::from_utf8_lossy(&message.bytes));
        assert!(pid > 0);
        // SAFETY: asks for any child of this process without waiting; there is none.
        let any = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
        assert_eq!((any, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ECHILD)));
    }

    #[test]
    fn starts_the_file_of_a_descriptor() {
        let (ours, theirs) = Socket::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shell");
        std::fs::copy("/bin/sh", &path).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let script = c"echo $0 >&3; for i in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$i ] && echo $i >&3; done";
        let argv = [c"name".to_owned(), c"-c".to_owned(), script.to_owned()];
        spawn_detached(Executable::File(file.as_fd()), &argv, &[], theirs.as_fd(), None).unwrap();
        drop(theirs);
        let mut words = Vec::new();
        while let Received::Message(message) = ours.receive(256, Duration::from_secs(10)).unwrap() {
            words.push(String::from_utf8(message.bytes).unwrap());
        }
        assert_eq!(words, ["name\n", "3\n"]);
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let (_ours, theirs) = Socket::pair().unwrap();
        let error = spawn_detached(Executable::Path(c"/nonexistent/program"), &[], &[], theirs.as_fd(), None)
            .unwrap_err();
        assert!(error.to_string().contains("execve"), "{error}");
    }
}
