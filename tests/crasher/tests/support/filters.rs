//! System call filters for a victim, from its start (seccomp(2)), in the classic BPF that the kernel takes.

use std::process::Command;

/// Has the kernel refuse, for the process that is about to be executed and all that it starts, what a tracer needs: ptrace,
/// process_vm_readv, and reads at addresses (offsets of 4 GiB and more, which no file here has). The same as what Yama's
/// `ptrace_scope` 2 and 3 do to an ordinary user, on kernels without it.
pub(crate) fn forbid_tracing(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    // Classic BPF (linux/filter.h, linux/seccomp.h); offsets of `nr` and of the upper half of the fourth argument.
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let program = [
        line(LOAD, 0, 0, 0),
        line(EQUAL, 5, 0, number(libc::SYS_ptrace)),
        line(EQUAL, 4, 0, number(libc::SYS_process_vm_readv)),
        line(EQUAL, 0, 2, number(libc::SYS_pread64)),
        line(LOAD, 0, 0, 44),
        line(EQUAL, 0, 1, 0),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        line(RETURN, 0, 0, REFUSE),
    ];
    // SAFETY: two calls of prctl(2) between fork and exec; the program is copied by the kernel.
    unsafe {
        command.pre_exec(move || {
            let mut program = program;
            let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Has the kernel answer these calls, which only the handler makes, with SIGSYS.
pub(crate) fn trap_calls(command: &mut Command, calls: &[libc::c_long]) {
    use std::os::unix::process::CommandExt as _;
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![line(LOAD, 0, 0, 0)];
    for call in calls {
        program.push(line(EQUAL, 0, 1, u32::try_from(*call).unwrap()));
        program.push(line(RETURN, 0, 0, libc::SECCOMP_RET_TRAP));
    }
    program.push(line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    // SAFETY: two calls of prctl(2) between fork and exec; the program is copied by the kernel.
    unsafe {
        command.pre_exec(move || {
            let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
