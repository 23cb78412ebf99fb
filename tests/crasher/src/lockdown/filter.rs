//! System call filters (seccomp(2)), in the classic BPF that the kernel takes.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

// linux/filter.h
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
// The offsets of `nr`, `arch` and `args` in seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARCH_X86_64: u32 = 0xc000_003e;

/// What a filter does about a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Fails with this error.
    Errno(libc::c_int),
    /// Ends the process.
    Kill,
    /// Asks whoever holds the listener.
    Ask,
}

impl Answer {
    fn value(self) -> u32 {
        match self {
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | (errno.unsigned_abs() & 0xffff),
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Self::Ask => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

/// A system call, by its number, and if given only with this first argument.
pub(super) type Call = (libc::c_long, Option<u32>);

/// Puts a filter on all threads of this process and on everything it starts from now on. Sets no_new_privs, so that it
/// needs no privilege.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn install(calls: &[Call], answer: Answer) -> Result<(), String> {
    // A positive answer names a thread that could not take the filter on.
    match set(calls, answer, libc::SECCOMP_FILTER_FLAG_TSYNC)? {
        0 => Ok(()),
        thread => Err(format!("seccomp: thread {thread} refuses the filter")),
    }
}

/// The same for this thread alone, and what asks comes through the descriptor returned.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn install_listener(calls: &[Call]) -> Result<OwnedFd, String> {
    let fd = set(calls, Answer::Ask, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let fd = i32::try_from(fd).map_err(|_| "seccomp: no descriptor".to_owned())?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(calls: &[Call], answer: Answer, flags: libc::c_ulong) -> Result<libc::c_long, String> {
    let mut program = program(calls, answer);
    let length = u16::try_from(program.len()).map_err(|_| "seccomp: the filter is too long".to_owned())?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: takes integers only.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    checked("prctl(PR_SET_NO_NEW_PRIVS)", privileges.into())?;
    // SAFETY: `filter` and the program it points to live through the call, and the kernel copies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    checked("seccomp(SECCOMP_SET_MODE_FILTER)", result)
}

fn program(calls: &[Call], answer: Answer) -> Vec<libc::sock_filter> {
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let allow = line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    let mut program = vec![
        line(LOAD_WORD, 0, 0, ARCHITECTURE),
        line(JUMP_IF_EQUAL, 1, 0, ARCH_X86_64),
        allow,
        line(LOAD_WORD, 0, 0, NUMBER),
    ];
    for (number, argument) in calls {
        let number = u32::try_from(*number).unwrap_or(u32::MAX);
        let refuse = line(RETURN, 0, 0, answer.value());
        match argument {
            None => program.extend([line(JUMP_IF_EQUAL, 0, 1, number), refuse]),
            Some(argument) => program.extend([
                line(JUMP_IF_EQUAL, 0, 4, number),
                line(LOAD_WORD, 0, 0, ARGUMENTS),
                line(JUMP_IF_EQUAL, 0, 1, *argument),
                refuse,
                line(LOAD_WORD, 0, 0, NUMBER),
            ]),
        }
    }
    program.push(allow);
    program
}

pub(super) fn checked(call: &str, result: libc::c_long) -> Result<libc::c_long, String> {
    if result < 0 { Err(format!("{call}: {}", io::Error::last_os_error())) } else { Ok(result) }
}
