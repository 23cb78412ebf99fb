//! A forked child that may only compute: its descriptors, its memory, its system calls.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use super::seccomp::{self, If, Rule, Verdict};

/// What a child keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means<'a> {
    /// The process that forked it; the child dies with that.
    pub(crate) parent: libc::pid_t,
    /// Descriptors besides standard input and output.
    pub(crate) keep: &'a [RawFd],
    /// What becomes standard error.
    pub(crate) complaints: RawFd,
    /// Bytes of address space besides those that it has.
    pub(crate) memory: u64,
    /// Whether what it prints goes where its complaints go, as soon as it is printed.
    pub(crate) aloud: bool,
}

unsafe extern "C" {
    /// Of `<stdio.h>`.
    static stdout: *mut libc::FILE;
}

/// In a child just forked: everything but the filter of [`bar`].
pub(crate) fn enter(means: &Means<'_>) {
    // SAFETY: plain values; this is a forked child with a single thread.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        // It may have died before that.
        if libc::getppid() != means.parent {
            libc::_exit(1);
        }
        libc::dup2(means.complaints, 2);
        if means.aloud {
            libc::dup2(means.complaints, 1);
            // It ends without flushing anything.
            libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IONBF, 0);
        }
        // Handlers of the program's runtime would only hide how the child died.
        for signal in 1..=64 {
            let ignored = matches!(signal, libc::SIGPIPE | libc::SIGXFSZ);
            libc::signal(signal, if ignored { libc::SIG_IGN } else { libc::SIG_DFL });
        }
    }
    close_all_but(means.keep);
    limit_memory(means.memory);
}

/// Takes away every system call that is not for computing, talking over descriptors that are open, and ending.
///
/// # Errors
/// If the kernel has no seccomp.
pub(crate) fn bar() -> io::Result<()> {
    seccomp::confine(&rules(std::process::id()), Verdict::Fail(libc::EACCES as u16))
}

/// Lets a child that has [entered](enter) have `bytes` more.
pub(crate) fn allow_more_memory(child: libc::pid_t, bytes: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: pointers to locals; the child is ours and not reaped, so its number is its own. A refusal leaves the old limit.
    unsafe {
        if libc::prlimit(child, libc::RLIMIT_AS, std::ptr::null(), &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_cur.saturating_add(bytes).min(limit.rlim_max);
            libc::prlimit(child, libc::RLIMIT_AS, &raw const limit, std::ptr::null_mut());
        }
    }
}

/// A pipe for a child's standard error. Neither end ever waits: what does not fit is lost.
pub(crate) fn complaints() -> io::Result<(io::PipeReader, io::PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    for end in [reader.as_raw_fd(), writer.as_raw_fd()] {
        // SAFETY: sets a flag of a pipe made just above.
        super::retry(|| unsafe { libc::fcntl(end, libc::F_SETFL, libc::O_NONBLOCK) })?;
    }
    Ok((reader, writer))
}

fn close_all_but(keep: &[RawFd]) {
    // A pmodule that is a shared object is loaded from one.
    let mut keep: Vec<RawFd> =
        [0, 1, 2].iter().chain(keep).copied().chain(super::process::kept_in_children()).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 0;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: closes descriptors of a forked child that never drops their owners.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// The soft limit only: the parent may raise it, and the filter keeps the child from doing so.
fn limit_memory(bytes: u64) {
    // The first field of /proc/PID/statm, in pages (proc(5)).
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_ascii_whitespace().next().and_then(|pages| pages.parse::<u64>().ok());
    let Some(pages) = pages else { return };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain values and a pointer to a local.
    unsafe {
        let page = u64::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
        if libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) == 0 {
            limit.rlim_cur = pages.saturating_mul(page).saturating_add(bytes).min(limit.rlim_max);
            libc::setrlimit(libc::RLIMIT_AS, &raw const limit);
        }
    }
}

/// Calls that change nothing but the process itself, or move bytes over what it holds.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_poll,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_ppoll,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
];

/// Calls that say that something is badly wrong: other processes are touched, or new ones made.
const FATAL: &[(libc::c_long, &str)] = &[
    (libc::SYS_fork, "fork"),
    (libc::SYS_vfork, "vfork"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_execveat, "execveat"),
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_process_vm_writev, "process_vm_writev"),
    (libc::SYS_tkill, "tkill"),
    (libc::SYS_rt_sigqueueinfo, "rt_sigqueueinfo"),
    (libc::SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
];

/// The name of a call that ends a child, whatever its arguments or with some.
pub(crate) fn fatal_call(number: u32) -> Option<&'static str> {
    let special = [(libc::SYS_tgkill, "tgkill"), (libc::SYS_kill, "kill"), (libc::SYS_clone, "clone")];
    let mut all = FATAL.iter().chain(&special);
    all.find(|(call, _)| *call == libc::c_long::from(number)).map(|(_, name)| *name)
}

fn rules(own: u32) -> Vec<Rule> {
    let allowed = ALLOWED.iter().map(|&call| Rule::of(call, Verdict::Allow));
    let fatal = FATAL.iter().map(|&(call, _)| Rule::of(call, Verdict::Trap));
    let thread = If::AnyBit(0, libc::CLONE_THREAD as u32);
    let special = [
        // abort(3) sends itself a signal.
        Rule::when(libc::SYS_tgkill, If::Equal(0, own), Verdict::Allow, Verdict::Trap),
        Rule::when(libc::SYS_kill, If::Equal(0, own), Verdict::Allow, Verdict::Trap),
        Rule::when(libc::SYS_clone, thread, Verdict::Fail(libc::EPERM as u16), Verdict::Trap),
        // Its flags lie in memory, where a filter cannot look; C libraries then take clone.
        Rule::of(libc::SYS_clone3, Verdict::Fail(libc::ENOSYS as u16)),
    ];
    allowed.chain(special).chain(fatal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_in_two_lists() {
        let mut all: Vec<_> = ALLOWED.iter().chain(FATAL.iter().map(|(call, _)| call)).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
