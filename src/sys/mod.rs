//! Thin wrappers around system calls, each with its contract. The only other places with `unsafe` are
//! `capture` (the handler) and the C interface.

pub(crate) mod cgroup;
pub(crate) mod confine;
pub(crate) mod cxx;
pub(crate) mod detach;
pub(crate) mod errno;
pub(crate) mod exit;
pub(crate) mod fault;
pub(crate) mod holes;
pub(crate) mod kept;
pub(crate) mod landlock;
#[cfg(feature = "pmodule-plugins")]
pub(crate) mod library;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod ptrace;
pub(crate) mod remote;
pub(crate) mod restrict;
mod seccomp;
pub(crate) mod sharing_child;
pub(crate) mod socket;
pub(crate) mod spawn;
pub(crate) mod trusted;

/// Repeats a system call while a signal interrupts it, and turns -1 into `errno`.
pub(crate) fn retry(mut call: impl FnMut() -> libc::c_int) -> std::io::Result<libc::c_int> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result);
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
