//! Surroundings that an application may find itself in: privileges of its file, the first process of a container.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;

#[path = "support/applications.rs"]
mod applications;

use applications::Watched;

const CRASHER: &str = env!("CARGO_BIN_EXE_crasher");

fn is_root() -> bool {
    // SAFETY: no precondition.
    unsafe { libc::geteuid() == 0 }
}

/// Whoever starts a set-user-id program would choose the settings of the monitor that it becomes.
#[test]
fn a_set_user_id_program_takes_no_role() {
    if !is_root() {
        // Only root can make a program that belongs to another user.
        return;
    }
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("crasher");
    assert!(Command::new("cp").arg(CRASHER).arg(&program).status().unwrap().success());
    for (mode, takes) in [(0o755, true), (0o4755, false)] {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(takes_message(&program, NOBODY), takes, "mode {mode:o}");
    }
}

/// Whether the program, told that it is a monitor, takes the message that waits at descriptor 3.
fn takes_message(program: &Path, user: u32) -> bool {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors, which are owned from here on.
    let (ours, theirs) = unsafe {
        assert_eq!(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()), 0);
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    };
    // SAFETY: one byte.
    assert_eq!(unsafe { libc::send(ours.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) }, 1);
    let mut command = Command::new(program);
    command.arg("--no-sdk").arg("none").env("CENOTAPH_ROLE", format!("monitor:{}", "11".repeat(16)));
    let number = theirs.as_raw_fd();
    // SAFETY: system calls only between fork and exec.
    unsafe {
        command.uid(user).gid(user).pre_exec(move || match libc::dup2(number, 3) {
            // dup2 onto itself leaves close-on-exec as it is.
            3 if number != 3 || libc::fcntl(3, libc::F_SETFD, 0) == 0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    assert!(command.stdin(std::process::Stdio::null()).output().unwrap().status.success());
    let mut byte = 0_u8;
    // SAFETY: one byte; does not wait.
    let left = unsafe { libc::recv(theirs.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT) };
    left != 1
}

/// With the first process of a pid namespace the kernel ends the monitor too, so the report must be stored before.
#[test]
fn the_first_process_of_a_container_is_reported() {
    for way in ["null", "panic"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(if is_root() { &["-pf", "--mount-proc"][..] } else { &["-Urpf", "--mount-proc"] });
        if !command.arg("true").status().is_ok_and(|status| status.success()) {
            // A container that may not make another one.
            return;
        }
        let mut command = Command::new("unshare");
        command.args(if is_root() { &["-pf", "--mount-proc"][..] } else { &["-Urpf", "--mount-proc"] });
        command.arg(CRASHER).arg("--spool").arg(folder.path()).args(["--consent", "granted", way]);
        let watched = Watched::on(&mut command);
        let output = command.output().unwrap();
        let reports = fs::read_dir(folder.path().join("pending")).map_or(0, Iterator::count);
        let ended = (output.status.signal(), output.status.code());
        assert_eq!(reports, 1, "{way}: {ended:?} {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(watched.check(folder.path()), 1, "{way}: the dump was compared with its receipt");
    }
}
