//! Filling a [`CrashContext`] from what the kernel hands to a handler, or from the calling thread.

use crash_context::CrashContext;

/// Exception code of a dump without a crash (Breakpad's `MD_EXCEPTION_CODE_LIN_DUMP_REQUESTED`).
const DUMP_REQUESTED: u32 = 0xffff_ffff;

/// Copies the kernel's view of a fault; signal-safe.
///
/// # Safety
/// `info` and `context` must be the pointers that the kernel passed to a handler installed with SA_SIGINFO.
pub(super) unsafe fn fill(
    out: &mut CrashContext,
    info: *const libc::siginfo_t,
    context: *const libc::c_void,
    pid: libc::pid_t,
    tid: libc::pid_t,
) {
    out.pid = pid;
    out.tid = tid;
    // SAFETY: the caller's promise.
    out.siginfo = signal_information(unsafe { &*info });
    // The kernel's ucontext ends after the signal mask; libc's type is longer than what lies on the stack.
    let length = std::mem::offset_of!(crash_context::ucontext_t, uc_sigmask) + 8;
    let target = (&raw mut out.context).cast::<u8>();
    // SAFETY: the kernel wrote at least `length` bytes (sigaction(2), asm/ucontext.h), and `target` is longer.
    unsafe { std::ptr::copy_nonoverlapping(context.cast::<u8>(), target, length) };
    #[cfg(target_arch = "x86_64")]
    {
        let float = out.context.uc_mcontext.fpregs;
        if !float.is_null() {
            // SAFETY: not null, so it points at the FXSAVE area that the kernel put on the signal stack.
            unsafe { std::ptr::copy_nonoverlapping(float, &raw mut out.float_state, 1) };
        }
    }
}

/// What signalfd(2) would report for this signal: `minidump-writer` reads the fault's address from there.
fn signal_information(info: &libc::siginfo_t) -> libc::signalfd_siginfo {
    // SAFETY: integers only; all-zero is a value.
    let mut out: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    out.ssi_signo = info.si_signo as u32;
    out.ssi_errno = info.si_errno;
    out.ssi_code = info.si_code;
    if is_fault(info.si_signo, info.si_code) {
        // SAFETY: for these signals raised by the kernel the address is the active member (sigaction(2)).
        out.ssi_addr = unsafe { info.si_addr() } as u64;
    } else if info.si_code <= 0 {
        // SAFETY: sent by a process, so the sender is the active member.
        out.ssi_pid = unsafe { info.si_pid() } as u32;
    }
    out
}

/// Whether `si_addr` means something.
pub(crate) fn is_fault(signal: libc::c_int, code: libc::c_int) -> bool {
    code > 0
        && matches!(
            signal,
            libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP | libc::SIGSYS
        )
}

/// The calling thread as it is now. Keep the calling frame alive until the dump is taken.
#[inline(always)]
pub(crate) fn here() -> CrashContext {
    let mut context = crate::protocol::SignalRequest::empty_context();
    context.pid = super::signal_safe::getpid();
    context.tid = super::signal_safe::gettid();
    context.siginfo.ssi_signo = DUMP_REQUESTED;
    // SAFETY: writes the registers into a context of the type that it expects.
    unsafe { crash_context::crash_context_getcontext(&raw mut context.context) };
    context
}
