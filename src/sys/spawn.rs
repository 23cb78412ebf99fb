//! Starting a program that is nobody's child: preparing what [`detach`] then does with system calls alone.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;

use super::detach::{self, Plan};
pub(crate) use super::detach::{CHILD_SOCKET, CHILD_TAP};
use crate::error::{Error, Result};

const STACK_SIZE: usize = 64 * 1024;

/// What is executed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Executable<'a> {
    /// A file by its path.
    Path(&'a CStr),
    /// The very file that a descriptor stands for.
    File(BorrowedFd<'a>),
}

/// A program with everything that starting it takes, in memory of its own.
#[derive(Debug)]
pub(crate) struct Prepared {
    plan: Plan,
    _strings: [Vec<CString>; 3],
    _pointers: [Vec<*const c_char>; 2],
    _stacks: Vec<u128>,
}

impl Prepared {
    /// A file given by its descriptor must stay open.
    pub(crate) fn new(
        executable: Executable<'_>,
        argv: &[CString],
        envp: &[CString],
        tap: Option<RawFd>,
    ) -> Box<Self> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
        };
        let (path, file) = match executable {
            Executable::Path(path) => (path, -1),
            Executable::File(file) => (c"", file.as_raw_fd()),
        };
        // Moving the vectors does not move what they hold.
        let strings = [argv.to_vec(), envp.to_vec(), vec![path.to_owned()]];
        let pointers = [pointers(&strings[0]), pointers(&strings[1])];
        let mut stacks = vec![0u128; 2 * STACK_SIZE / 16];
        // Stacks grow down: each child gets the end of its half.
        let base: *mut u8 = stacks.as_mut_ptr().cast();
        let (outer, inner) = (base.wrapping_add(2 * STACK_SIZE), base.wrapping_add(STACK_SIZE));
        let plan = Plan {
            program: strings[2][0].as_ptr(),
            file,
            argv: pointers[0].as_ptr(),
            envp: pointers[1].as_ptr(),
            tap: tap.unwrap_or(-1),
            outer_stack: outer.cast(),
            inner_stack: inner.cast(),
            socket: -1,
            pid: 0,
            errno: 0,
            working: AtomicU32::new(0),
        };
        Box::new(Self { plan, _strings: strings, _pointers: pointers, _stacks: stacks })
    }

    /// For a handler; the memory is never freed.
    pub(crate) fn leak(self: Box<Self>) -> *mut Plan {
        &raw mut Box::leak(self).plan
    }
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
    let mut prepared = Prepared::new(executable, argv, envp, tap);
    let started = detach::start(&mut prepared.plan, socket.as_raw_fd(), detach::in_ordinary_time());
    if started == Err(libc::ETIMEDOUT) {
        let _ = prepared.leak();
    }
    started.map_err(|errno| {
        let source = std::io::Error::from_raw_os_error(errno);
        Error::System { call: "execve", source }
    })
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
