//! What a sandbox, a distribution or a debugger takes away from a crash reporter.

mod filter;

use std::str::FromStr;

use filter::Answer;

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
pub(crate) fn possible(_lockdown: Lockdown) -> Result<Option<&'static str>, &'static str> {
    Err("not built yet")
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
