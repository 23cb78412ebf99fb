//! What must be set up before an instruction can die by SIGBUS or SIGSYS.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::fault::{BUS_ADDRESS, UNUSED_SYSTEM_CALL};

const PAGE: usize = 4096;

/// Maps a page of a file at [`BUS_ADDRESS`] and truncates the file to nothing (mmap(2), SIGBUS). The file is
/// anonymous memory, so nothing is left on a disk.
pub(super) fn page_without_file() -> Result<(), String> {
    // SAFETY: the name is a C string; the call makes a new descriptor.
    let descriptor = unsafe { libc::memfd_create(c"crasher-bus".as_ptr(), libc::MFD_CLOEXEC) };
    checked("memfd_create", descriptor)?;
    // SAFETY: the descriptor is new and ours alone.
    let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
    truncate(&file, PAGE)?;
    // SAFETY: MAP_FIXED_NOREPLACE refuses an address range that is in use, so no other memory is touched.
    let mapped = unsafe {
        libc::mmap(
            BUS_ADDRESS as *mut libc::c_void,
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE,
            file.as_raw_fd(),
            0,
        )
    };
    if mapped as usize != BUS_ADDRESS {
        return Err(format!("mmap at {BUS_ADDRESS:#x}: {}", io::Error::last_os_error()));
    }
    truncate(&file, 0)
}

/// Has the kernel answer [`UNUSED_SYSTEM_CALL`] with SIGSYS, for this thread (seccomp(2), SECCOMP_RET_TRAP). Needs no
/// privilege, as no_new_privs is set first.
pub(super) fn trapping_filter() -> Result<(), String> {
    // Classic BPF (linux/filter.h, linux/seccomp.h): the offsets are those of `nr` and `arch` in seccomp_data.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ARCH_X86_64: u32 = 0xc000_003e;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        line(LOAD_WORD, 0, 0, 4),
        line(JUMP_IF_EQUAL, 0, 3, ARCH_X86_64),
        line(LOAD_WORD, 0, 0, 0),
        line(JUMP_IF_EQUAL, 0, 1, UNUSED_SYSTEM_CALL),
        line(RETURN, 0, 0, libc::SECCOMP_RET_TRAP),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 6, filter: program.as_mut_ptr() };
    // SAFETY: takes integers only.
    checked("prctl(PR_SET_NO_NEW_PRIVS)", unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: `filter` and the program it points to live through the call, and the kernel copies them.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) };
    checked("prctl(PR_SET_SECCOMP)", set)
}

fn truncate(file: &OwnedFd, bytes: usize) -> Result<(), String> {
    // SAFETY: takes integers only.
    checked("ftruncate", unsafe { libc::ftruncate(file.as_raw_fd(), bytes as libc::off_t) })
}

fn checked(call: &str, result: libc::c_int) -> Result<(), String> {
    if result < 0 { Err(format!("{call}: {}", io::Error::last_os_error())) } else { Ok(()) }
}
