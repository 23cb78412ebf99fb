//! What a process of the monitor gives up for ever once it needs it no longer: the uploader at its start, a worker when
//! the application was released.
//!
//! System calls are refused (EPERM) by name, not allowed by name: libraries (resolvers, name services) make calls that
//! nobody has listed, and a delivery that a new C library breaks would be worse.
#![forbid(unsafe_code)]

use std::io;

use super::seccomp::{self, If, Rule, Verdict};

/// Who gives up what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Uses the network, starts threads, but no process.
    #[cfg_attr(not(feature = "upload"), allow(dead_code, reason = "nothing is sent without that feature"))]
    Uploader,
    /// Parses what a crash left, and forks pmodules. No network.
    Parser,
}

/// Takes away from this thread, and from what it starts, what `part` has no use for.
///
/// # Errors
/// If the kernel has no seccomp; nothing is taken then.
pub(crate) fn restrict(part: Part) -> io::Result<()> {
    seccomp::confine(&rules(part, std::process::id()), Verdict::Allow)
}

/// Looking into other processes, becoming another program, and what the kernel offers to its administrators. io_uring(7)
/// makes calls that no filter sees.
const NEVER: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
];

/// Whoever has no use for the network. `socketpair` and what goes over sockets that are open stay.
const NETWORK: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

fn rules(part: Part, own: u32) -> Vec<Rule> {
    let refused = Verdict::Fail(libc::EPERM as u16);
    let never = NEVER.iter().map(|&call| Rule::of(call, refused));
    // abort(3) sends itself a signal.
    let own_only = |call| Rule::when(call, If::Equal(0, own), Verdict::Allow, refused);
    let special = match part {
        Part::Uploader => vec![
            Rule::of(libc::SYS_fork, refused),
            Rule::of(libc::SYS_vfork, refused),
            Rule::when(libc::SYS_clone, If::AnyBit(0, libc::CLONE_THREAD as u32), Verdict::Allow, refused),
            // Its flags lie in memory, where a filter cannot look; C libraries then take clone.
            Rule::of(libc::SYS_clone3, Verdict::Fail(libc::ENOSYS as u16)),
            Rule::of(libc::SYS_pidfd_send_signal, refused),
            own_only(libc::SYS_kill),
            own_only(libc::SYS_tgkill),
        ],
        // It ends pmodules that are late, and they themselves may abort: signals stay.
        Part::Parser => NETWORK.iter().map(|&call| Rule::of(call, refused)).collect(),
    };
    never.chain(special).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_named_twice() {
        let mut all: Vec<_> = NEVER.iter().chain(NETWORK).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn only_the_uploader_has_a_network_and_only_the_parser_forks() {
        for (part, named) in [(Part::Uploader, libc::SYS_fork), (Part::Parser, libc::SYS_socket)] {
            let other = if part == Part::Uploader { libc::SYS_socket } else { libc::SYS_fork };
            let rules = rules(part, 7);
            assert!(rules.iter().any(|rule| rule.is_about(named)), "{part:?}");
            assert!(!rules.iter().any(|rule| rule.is_about(other)), "{part:?}");
            assert!(rules.iter().any(|rule| rule.is_about(libc::SYS_execve)), "{part:?}");
        }
    }
}
