//! How a process ended that is not our child.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `PIDFD_GET_INFO` (`<linux/pidfd.h>`, Linux 6.13): `_IOWR(0xFF, 11, struct pidfd_info)` with the first version's size.
const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
/// Asks for, and vouches for, `exit_code` (Linux 6.15).
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info`, first version.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    pid: u32,
    group: u32,
    parent: u32,
    users_and_groups: [u32; 8],
    exit_code: i32,
}

/// What wait(2) would tell the parent of an ended process, from its pidfd: the kernel keeps it there once the parent has
/// collected the process. `None` before that, and on kernels before 6.15.
pub(crate) fn collected(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: a structure of the size that the request's number states, which the kernel fills.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// The same from `/proc/PID/stat` (field 52, proc_pid_stat(5)), while its parent has not collected it.
pub(crate) fn zombie(pid: libc::pid_t, pidfd: BorrowedFd<'_>) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = parse_zombie(&stat)?;
    // SAFETY: plain values; signal 0 only asks. It fails once the number may belong to somebody else.
    let still = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), 0, std::ptr::null::<u8>(), 0) == 0
    };
    still.then_some(status)
}

fn parse_zombie(stat: &str) -> Option<i32> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    // `fields[0]` is field 3, the state.
    (*fields.first()? == "Z").then(|| fields.get(52 - 3)?.parse().ok())?
}

/// The signal in a wait status, if one ended the process.
pub(crate) fn signal(status: i32) -> Option<i32> {
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

/// The exit code in a wait status, if the process ended by itself.
pub(crate) fn code(status: i32) -> Option<i32> {
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::sys::process;
    use crate::sys::socket::poll_readable;

    #[test]
    fn tells_how_a_process_ended_before_and_after_it_is_collected() {
        for (script, status) in [("kill -9 $$", 9), ("exit 3", 3 << 8), ("kill -11 $$", 11)] {
            let mut child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let pid = child.id().cast_signed();
            let pidfd = process::pidfd(pid).unwrap();
            assert!(poll_readable(pidfd.as_fd(), Duration::from_secs(60)).unwrap());
            // A core file is none of its doing.
            assert_eq!(zombie(pid, pidfd.as_fd()).map(|found| found & !0x80), Some(status), "{script}");
            assert_eq!(collected(pidfd.as_fd()), None);
            child.wait().unwrap();
            assert_eq!(zombie(pid, pidfd.as_fd()), None);
            if let Some(found) = collected(pidfd.as_fd()) {
                assert_eq!(found & !0x80, status, "{script}");
            }
            assert_eq!(
                (signal(status), code(status)),
                if status == 3 << 8 { (None, Some(3)) } else { (Some(status), None) }
            );
        }
    }

    #[test]
    fn a_name_may_hold_anything() {
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = |state: &str| format!("17 (a) Z (b) {state} {}\n", numbers.join(" "));
        assert_eq!(parse_zombie(&stat("Z")), Some(52));
        assert_eq!(parse_zombie(&stat("S")), None);
        assert_eq!(parse_zombie("17 (x"), None);
    }
}
