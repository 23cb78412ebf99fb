//! Ends that come from outside the failing code: a signal that nobody can catch, an earlier handler that aborts, a
//! forked child that dies.

use std::io;

/// SIGKILL, as by the kernel when memory is short or by an impatient person.
#[inline(never)]
pub(super) fn sigkill() {
    // SAFETY: plain values; ends this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// Installs a SIGSEGV handler that aborts: SIGABRT. To be called before Cenotaph comes.
pub(super) fn install_aborting_handler() -> Result<(), String> {
    extern "C" fn on_signal(_: libc::c_int) {
        // SAFETY: always allowed, in a handler too (signal-safety(7)).
        unsafe { libc::abort() }
    }
    // SAFETY: an all-zero sigaction is valid, and the handler has the one-argument form that no SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) < 0 {
            return Err(format!("sigaction: {}", io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// A forked child writes to address 0x10 and dies by SIGSEGV. Returns when it has.
#[inline(never)]
pub(super) fn child_dies() -> Result<(), String> {
    // SAFETY: the child does nothing but fault.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(format!("fork: {}", io::Error::last_os_error())),
        0 => super::fault::null(),
        _ => {}
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return Err(format!("waitpid: {}", io::Error::last_os_error()));
    }
    if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV {
        Ok(())
    } else {
        Err(format!("the child ended with status {status:#x}"))
    }
}
