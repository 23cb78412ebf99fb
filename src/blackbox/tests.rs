//! What the blackbox promises as a whole.
#![allow(unsafe_code, reason = "the proof forks and enters seccomp")]

use std::os::fd::{AsFd, FromRawFd};

use super::*;

#[test]
fn another_mapping_reads_what_was_written() {
    let ours = Blackbox::create().unwrap();
    ours.set_attribute("level", "castle".into()).unwrap();
    ours.add_breadcrumb(7, Level::Info, "ui", "opened").unwrap();
    ours.add_secret("alice-account").unwrap();
    ours.set_mirror(Mirror::Refuses);
    ours.count(Count::Spooled, 2);
    let theirs = Blackbox::from_fd(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let snapshot = theirs.snapshot();
    assert_eq!(snapshot.attributes[0].key, "level");
    assert_eq!(snapshot.breadcrumbs[0].message, "opened");
    assert_eq!(snapshot.secrets, ["alice-account"]);
    assert_eq!((snapshot.torn, theirs.mirror(), theirs.counted(Count::Spooled)), (0, Mirror::Refuses, 2));
}

#[test]
fn foreign_memory_is_refused() {
    let other = crate::sys::memory::SharedMemory::create(c"other", layout::WORDS).unwrap();
    assert!(Blackbox::from_fd(other.as_fd().try_clone_to_owned().unwrap()).is_err());
    let short = crate::sys::memory::SharedMemory::create(c"short", 8).unwrap();
    assert!(Blackbox::from_fd(short.as_fd().try_clone_to_owned().unwrap()).is_err());
    let sealed = crate::sys::memory::memfd_with(c"sealed", &[&vec![0; layout::WORDS * 8]]).unwrap();
    assert!(Blackbox::from_fd(sealed).is_err(), "nobody can write to it");
    // SAFETY: a name and a flag; the descriptor is new, and nobody else's.
    let unsealed = unsafe {
        let fd = libc::memfd_create(c"unsealed".as_ptr(), libc::MFD_CLOEXEC);
        assert_eq!(libc::ftruncate(fd, (layout::WORDS * 8) as libc::off_t), 0);
        std::os::fd::OwnedFd::from_raw_fd(fd)
    };
    assert!(Blackbox::from_fd(unsealed).is_err());
}

/// In strict seccomp mode (prctl(2)) any system call but read, write, _exit and sigreturn is death by SIGKILL.
#[test]
fn setting_takes_no_system_call() {
    let blackbox = Blackbox::create().unwrap();
    let long = "x".repeat(4000);
    // SAFETY: the child makes no allocation and takes no lock, so it may go on after a fork of many threads.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: plain values; enters strict mode.
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0) };
        let mut ok = true;
        for round in 0..300 {
            ok &= blackbox.set_attribute("text", long.as_str().into()).is_ok();
            ok &= blackbox.set_attribute("number", ValueRef::Integer(round)).is_ok();
            ok &= blackbox.add_breadcrumb(1, Level::Info, "net", &long).is_ok();
            ok &= blackbox.add_secret("a secret").is_ok();
            blackbox.beat(1);
            blackbox.remove_attribute("number");
        }
        // SAFETY: _exit of this one thread; exit_group is not allowed any more.
        unsafe { libc::syscall(libc::SYS_exit, i32::from(!ok)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "killed by signal {}", libc::WTERMSIG(status));
    assert_eq!(libc::WEXITSTATUS(status), 0);
    assert_eq!(blackbox.snapshot().breadcrumbs.len(), 128);
}
