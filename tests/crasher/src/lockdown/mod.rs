//! What a sandbox, a distribution or a debugger takes away from a crash reporter.

mod debugger;
mod enclosure;
mod filter;
mod yama;

use std::ffi::OsString;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::OnceLock;

use filter::{Answer, checked};

/// A restriction, as a word on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lockdown {
    /// Yama: only ancestors and declared tracers may attach.
    Yama1,
    /// Yama: only those with CAP_SYS_PTRACE may attach.
    Yama2,
    /// Yama: nobody may attach.
    Yama3,
    /// no_new_privs.
    Nnp,
    /// A seccomp filter that refuses ptrace(2).
    SeccompPtrace,
    /// A seccomp filter that refuses process_vm_readv(2).
    SeccompVmread,
    /// A seccomp filter that kills whoever calls ptrace(2) or process_vm_readv(2).
    SeccompKill,
    /// A pid namespace of its own, with an init that waits for orphans.
    Pidns,
    /// The victim is pid 1 of its namespace: everything in it ends with the victim.
    Pid1,
    /// A control group that is killed as soon as the victim has ended, as a service manager does.
    CgroupKill,
    /// The victim takes another user id than its monitor's.
    Uid,
    /// PR_SET_DUMPABLE 0.
    Nodump,
    /// A debugger is attached.
    Traced,
}

impl Lockdown {
    /// All, in the order of the usage text.
    pub(crate) const ALL: [Self; 13] = [
        Self::Yama1,
        Self::Yama2,
        Self::Yama3,
        Self::Nnp,
        Self::SeccompPtrace,
        Self::SeccompVmread,
        Self::SeccompKill,
        Self::Pidns,
        Self::Pid1,
        Self::CgroupKill,
        Self::Uid,
        Self::Nodump,
        Self::Traced,
    ];

    /// The word on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Yama1 => "yama1",
            Self::Yama2 => "yama2",
            Self::Yama3 => "yama3",
            Self::Nnp => "nnp",
            Self::SeccompPtrace => "seccomp-ptrace",
            Self::SeccompVmread => "seccomp-vmread",
            Self::SeccompKill => "seccomp-kill",
            Self::Pidns => "pidns",
            Self::Pid1 => "pid1",
            Self::CgroupKill => "cgroup-kill",
            Self::Uid => "uid",
            Self::Nodump => "nodump",
            Self::Traced => "traced",
        }
    }
}

impl Lockdown {
    /// Yama's `ptrace_scope`.
    fn scope(self) -> Option<u8> {
        match self {
            Self::Yama1 => Some(1),
            Self::Yama2 => Some(2),
            Self::Yama3 => Some(3),
            _ => None,
        }
    }

    /// Whether the kernel writes no core file under it that could be found again.
    pub(crate) fn forbids_core(self) -> bool {
        matches!(self, Self::Nodump | Self::Uid)
    }
}

impl FromStr for Lockdown {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|lockdown| lockdown.name() == name).ok_or(())
    }
}

/// Whether this machine and this user can do it. `Ok` holds a word about how, where it is not the real thing.
///
/// # Errors
/// Why not.
pub(crate) fn possible(lockdown: Lockdown) -> Result<Option<&'static str>, &'static str> {
    static NAMESPACE: OnceLock<bool> = OnceLock::new();
    static GROUP: OnceLock<bool> = OnceLock::new();
    match lockdown {
        Lockdown::Yama1 | Lockdown::Yama2 | Lockdown::Yama3 => {
            Ok((yama::real_scope() != lockdown.scope()).then_some("emulated"))
        }
        Lockdown::Pidns | Lockdown::Pid1 if !*NAMESPACE.get_or_init(enclosure::can_make_namespace) => {
            Err("this user may not make a pid namespace here")
        }
        Lockdown::CgroupKill if !*GROUP.get_or_init(enclosure::can_make_group) => {
            Err("needs a cgroup2 that this user may write to (root)")
        }
        Lockdown::Uid if !is_root() => Err("needs root"),
        _ => Ok(None),
    }
}

/// What must come first: `Some` in a process that is not the victim, and only has to end so.
///
/// # Errors
/// If it cannot be done.
pub(crate) fn enclose(lockdown: Lockdown) -> Result<Option<ExitCode>, String> {
    enclosure::enter(lockdown)
}

/// What must be in place before Cenotaph starts.
///
/// # Errors
/// If it cannot be done.
pub(crate) fn before_start(lockdown: Lockdown) -> Result<(), String> {
    const PTRACE: (libc::c_long, Option<u32>) = (libc::SYS_ptrace, None);
    const VMREAD: (libc::c_long, Option<u32>) = (libc::SYS_process_vm_readv, None);
    match lockdown {
        Lockdown::Yama1 | Lockdown::Yama2 | Lockdown::Yama3 => match lockdown.scope() {
            Some(scope) if yama::real_scope() != Some(scope) => yama::emulate(scope),
            _ => Ok(()),
        },
        // SAFETY: takes integers only.
        Lockdown::Nnp => checked("prctl(PR_SET_NO_NEW_PRIVS)", unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into()
        })
        .map(drop),
        Lockdown::SeccompPtrace => filter::install(&[PTRACE], Answer::Errno(libc::EPERM)),
        Lockdown::SeccompVmread => filter::install(&[VMREAD], Answer::Errno(libc::EPERM)),
        Lockdown::SeccompKill => filter::install(&[PTRACE, VMREAD], Answer::Kill),
        Lockdown::Uid => become_user(FIRST_USER, 0),
        // SAFETY: takes integers only.
        Lockdown::Nodump => checked("prctl(PR_SET_DUMPABLE)", unsafe {
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into()
        })
        .map(drop),
        Lockdown::Pidns | Lockdown::Pid1 | Lockdown::CgroupKill | Lockdown::Traced => Ok(()),
    }
}

/// What comes once Cenotaph and the victim's threads are there.
///
/// # Errors
/// If it cannot be done.
pub(crate) fn after_start(lockdown: Lockdown) -> Result<(), String> {
    match lockdown {
        Lockdown::Uid => become_user(0, 0).and_then(|()| become_user(SECOND_USER, SECOND_USER)),
        Lockdown::Traced => debugger::attach(),
        _ => Ok(()),
    }
}

/// The processes that lock-downs start: `Some` if the arguments are those of one.
pub(crate) fn helper(arguments: &[OsString]) -> Option<ExitCode> {
    let (command, rest) = arguments.split_first()?;
    match command.to_str()? {
        yama::COMMAND => Some(yama::run(rest)),
        debugger::COMMAND => Some(debugger::run(rest)),
        _ => None,
    }
}

/// The user that a victim is when Cenotaph starts: "nobody" on most systems.
pub(crate) const FIRST_USER: libc::uid_t = 65534;
/// And when it dies: one that no system has.
const SECOND_USER: libc::uid_t = 65533;

fn is_root() -> bool {
    // SAFETY: always allowed.
    unsafe { libc::geteuid() == 0 }
}

/// Takes other user ids, real, effective and saved, in all threads.
fn become_user(real: libc::uid_t, saved: libc::uid_t) -> Result<(), String> {
    // SAFETY: takes integers only.
    checked("setresuid", unsafe { libc::setresuid(real, real, saved) }.into()).map(drop)
}

/// No program can be started any more.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn refuse_programs() -> Result<(), String> {
    filter::install(&[(libc::SYS_execve, None), (libc::SYS_execveat, None)], Answer::Errno(libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse() {
        for lockdown in Lockdown::ALL {
            assert_eq!(lockdown.name().parse(), Ok(lockdown));
        }
        assert!("".parse::<Lockdown>().is_err());
    }
}
