//! Stopping threads of another process and looking at their registers (ptrace(2)).
//!
//! Tracing belongs to the calling thread: every call about a thread must come from the thread that seized it.

use std::ffi::{c_int, c_long};
use std::io;

/// General registers in the kernel's order (elf(5), `NT_PRSTATUS`).
pub(crate) const GENERAL: c_int = 1;
/// Floating point and SSE registers (`NT_PRFPREG`): the FXSAVE image.
pub(crate) const FLOAT: c_int = 2;

/// What waiting for a seized thread found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// It stands still. `signal` is one that it was about to take: it must be handed back by [`detach`].
    Stopped {
        /// 0 if it stopped because it was asked to.
        signal: c_int,
    },
    /// It runs still.
    Running,
    /// It ended, or nobody traces it any more.
    Gone,
}

/// Begins to trace a thread without stopping it. When the calling process dies, the thread goes on.
///
/// # Errors
/// EPERM if it is traced already, is a zombie, or may not be traced; ESRCH if there is none.
pub(crate) fn seize(tid: libc::pid_t) -> io::Result<()> {
    // No options: PTRACE_O_EXITKILL would make our death the application's.
    request(libc::PTRACE_SEIZE, tid, 0, 0).map(|_| ())
}

/// Asks a seized thread to stop, without a signal and without a trace of it.
///
/// # Errors
/// ESRCH if it is gone.
pub(crate) fn interrupt(tid: libc::pid_t) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0).map(|_| ())
}

/// Whether a seized thread has stopped. Does not block.
pub(crate) fn wait(tid: libc::pid_t) -> Waited {
    let mut status = 0;
    // SAFETY: `status` is a place for the status; a thread id and flags (waitpid(2)).
    let result =
        super::retry(|| unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) });
    match result {
        Ok(0) => Waited::Running,
        Ok(_) if libc::WIFSTOPPED(status) => {
            // With an event the thread stands in a trap or a group stop, which the kernel itself keeps up.
            let event = status >> 16;
            Waited::Stopped { signal: if event == 0 { libc::WSTOPSIG(status) } else { 0 } }
        }
        Ok(_) | Err(_) => Waited::Gone,
    }
}

/// Waits until a traced thread that is dying has ended, and takes notice of it. Any thread of the tracer's process may.
pub(crate) fn wait_for_end(tid: libc::pid_t) {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a place for the status; a thread id and a flag (waitpid(2)).
        let result = super::retry(|| unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) });
        if result.is_err() || !libc::WIFSTOPPED(status) {
            return;
        }
    }
}

/// Takes notice of a traced thread if it has ended, and else changes nothing: a stop stays to be waited for by whom it concerns.
/// Any thread of the tracer's process may.
pub(crate) fn take_notice_of_end(tid: libc::pid_t) {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: an all-zero siginfo is a valid place for the answer; its fields are those of SIGCHLD (waitid(2)).
    let ended = unsafe {
        let mut found: libc::siginfo_t = std::mem::zeroed();
        let asked = libc::waitid(libc::P_PID, tid.unsigned_abs(), &raw mut found, options);
        let code = found.si_code;
        asked == 0
            && found.si_pid() == tid
            && [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED].contains(&code)
    };
    if ended {
        wait(tid);
    }
}

/// Fills `buffer` with a set of registers of a stopped thread; returns how many bytes the kernel has of it.
///
/// # Errors
/// ESRCH if the thread is gone or does not stand still.
pub(crate) fn registers(tid: libc::pid_t, set: c_int, buffer: &mut [u8]) -> io::Result<usize> {
    let mut place = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let place = &raw mut place;
    request(libc::PTRACE_GETREGSET, tid, set as usize, place as usize)?;
    // SAFETY: `place` is a local variable of this function, in which the kernel has put the length.
    Ok(unsafe { (*place).iov_len })
}

/// Lets a stopped thread go on, with the signal that it was about to take, or 0.
///
/// # Errors
/// ESRCH if the thread is gone or does not stand still.
pub(crate) fn detach(tid: libc::pid_t, signal: c_int) -> io::Result<()> {
    request(libc::PTRACE_DETACH, tid, 0, signal as usize).map(|_| ())
}

/// For GETREGSET `data` must be the address of an iovec that describes writable memory; for the others it is a number.
fn request(request: libc::c_uint, tid: libc::pid_t, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: of the requests above only GETREGSET writes, into the buffer that its caller describes by `data`.
    match unsafe { libc::ptrace(request, tid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
