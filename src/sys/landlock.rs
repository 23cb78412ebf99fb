//! Which files and ports a process may still use (landlock(7)). Needs no privilege.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The version of 2022 (Linux 5.19): before it, a file could not be renamed into another directory.
const LEAST: libc::c_long = 2;

// <linux/landlock.h>
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const RULE_NET_PORT: u32 = 2;
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// REMOVE_DIR to REFER: making, removing and moving entries of folders.
const ENTRIES: u64 = (1 << 14) - (1 << 4);
/// From version 3 on.
const TRUNCATE: u64 = 1 << 14;
/// From version 4 on.
const BIND_TCP: u64 = 1 << 0;
const CONNECT_TCP: u64 = 1 << 1;
/// From version 6 on: no abstract sockets, and no signals, of processes outside.
const NO_SOCKETS: u64 = 1 << 0;
const NO_SIGNALS: u64 = 1 << 1;

#[repr(C)]
struct Ruleset {
    files: u64,
    ports: u64,
    scopes: u64,
}

#[repr(C, packed)]
struct Beneath {
    access: u64,
    parent: i32,
}

#[repr(C)]
struct Port {
    access: u64,
    port: u64,
}

/// What stays allowed.
#[derive(Debug, Default)]
pub(crate) struct Allowed<'a> {
    /// Folders in which everything may be done but execute, and files that may be written.
    pub(crate) written: Vec<&'a Path>,
    /// Where files may be read; `None`: everywhere.
    pub(crate) read: Option<Vec<&'a Path>>,
    /// TCP ports that may be connected to, as far as the kernel can tell (version 4).
    pub(crate) ports: Vec<u16>,
    /// Whether processes may be signalled that were there before, such as own children.
    pub(crate) signals: bool,
}

/// Confines this thread, and what it starts, for ever. Also sets no_new_privs. What of `allowed` is not there is left out.
///
/// # Errors
/// If the kernel has no Landlock, or too old a one; nothing is confined then.
pub(crate) fn confine(allowed: &Allowed<'_>) -> io::Result<()> {
    // SAFETY: asks for the version: no attributes, by the manual.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    if version < 0 {
        return Err(io::Error::last_os_error());
    }
    if version < LEAST {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel's Landlock is of version 1"));
    }
    let truncate = if version >= 3 { TRUNCATE } else { 0 };
    let write = WRITE_FILE | truncate;
    let read = if allowed.read.is_some() { READ_FILE | READ_DIR } else { 0 };
    let ruleset = Ruleset {
        files: EXECUTE | write | ENTRIES | read,
        ports: if version >= 4 { BIND_TCP | CONNECT_TCP } else { 0 },
        scopes: match version {
            ..6 => 0,
            _ if allowed.signals => NO_SOCKETS,
            _ => NO_SOCKETS | NO_SIGNALS,
        },
    };
    // The attributes grew from version to version.
    let length = match version {
        ..4 => 8_usize,
        4..6 => 16,
        _ => 24,
    };
    // SAFETY: `ruleset` is as long as said at least; a descriptor is returned.
    let rules = unsafe {
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, length, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    for path in &allowed.written {
        let entries = if path.is_dir() { ENTRIES | READ_DIR & read } else { 0 };
        beneath(&rules, path, write | entries | READ_FILE & read)?;
    }
    for path in allowed.read.iter().flatten() {
        let listed = if path.is_dir() { READ_DIR } else { 0 };
        beneath(&rules, path, READ_FILE | listed)?;
    }
    for &port in allowed.ports.iter().filter(|_| version >= 4) {
        let rule = Port { access: CONNECT_TCP, port: port.into() };
        // SAFETY: a rule of the kind that is named.
        check(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), RULE_NET_PORT, &raw const rule, 0)
        })?;
    }
    // SAFETY: plain values.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    // SAFETY: a ruleset's descriptor and no flags.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })
}

fn beneath(rules: &OwnedFd, path: &Path, access: u64) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // What is not there needs no permission.
    let Ok(parent) = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) else {
        return Ok(());
    };
    let rule = Beneath { access, parent: parent.as_raw_fd() };
    // SAFETY: a rule of the kind that is named; its descriptor is open.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
    })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{self, Ended};
    use crate::sys::restrict::{Part, restrict};

    /// What a confined child could do.
    fn trials(part: Part, allowed: &Allowed<'_>, inside: &Path, outside: &Path) -> String {
        let opens = |path: &Path, write: bool| {
            std::fs::OpenOptions::new().read(!write).write(write).create(write).open(path).is_ok()
        };
        let (new, other) = (inside.join("new"), inside.join("folder/other"));
        let (mut reader, mut writer) = io::pipe().unwrap();
        // SAFETY: the child makes system calls and allocates a little, which glibc lets it, and ends by _exit.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                let confined = confine(allowed).is_ok() && restrict(part).is_ok();
                let mut word = 0_u64;
                let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
                let own = libc::getpid();
                let mut done = String::new();
                let mut tried = |name: &str, succeeded: bool| {
                    if succeeded {
                        done.push_str(name);
                        done.push(' ');
                    }
                };
                tried("confined", confined);
                tried("write", opens(&new, true));
                tried("move", std::fs::rename(&new, &other).is_ok());
                tried("write-outside", opens(&outside.join("new"), true));
                tried("read-outside", opens(&outside.join("old"), false));
                tried("socket", libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) >= 0);
                tried("ptrace", libc::ptrace(libc::PTRACE_ATTACH, libc::getppid(), 0, 0) >= 0);
                tried("readv", libc::process_vm_readv(own, &raw const local, 1, &raw const local, 1, 0) >= 0);
                tried("signal", libc::kill(libc::getppid(), 0) >= 0);
                tried("io_uring", libc::syscall(libc::SYS_io_uring_setup, 1, 0) >= 0);
                let forked = libc::syscall(libc::SYS_fork);
                if forked == 0 {
                    libc::_exit(0);
                }
                tried("fork", forked > 0);
                let _ = io::Write::write_all(&mut writer, done.as_bytes());
                libc::execv(c"/bin/true".as_ptr(), [c"true".as_ptr(), std::ptr::null()].as_ptr());
                libc::_exit(3);
            }
            drop(writer);
            assert_eq!(process::wait_end(child), Ended::Exit(3), "it became another program");
        }
        let mut done = String::new();
        io::Read::read_to_string(&mut reader, &mut done).unwrap();
        // Older versions leave signals alone.
        if supported().is_ok_and(|version| version < 6) { done.replace("signal ", "") } else { done }
    }

    #[test]
    fn the_confined_do_what_is_left_and_nothing_else() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(inside.path().join("folder")).unwrap();
        std::fs::write(outside.path().join("old"), "x").unwrap();
        if let Err(error) = supported() {
            println!("not tried: {error}");
            return;
        }
        let written = || vec![inside.path()];
        let parser = Allowed { written: written(), ..Allowed::default() };
        let found = trials(Part::Parser, &parser, inside.path(), outside.path());
        assert_eq!(found, "confined write move read-outside fork ");
        std::fs::remove_file(inside.path().join("folder/other")).unwrap();
        let read = Some(vec![Path::new("/etc")]);
        let uploader = Allowed { written: written(), read, ports: vec![443], signals: false };
        let found = trials(Part::Uploader, &uploader, inside.path(), outside.path());
        assert_eq!(found, "confined write move socket ");
    }

    #[test]
    fn ports_are_those_that_are_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = |of: &std::net::TcpListener| of.local_addr().unwrap().port();
        if supported().unwrap_or(0) < 4 {
            println!("not tried: Landlock of version 4 is wanted");
            return;
        }
        let allowed = Allowed { ports: vec![port(&listener)], ..Allowed::default() };
        // SAFETY: system calls alone in the child, which ends by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = match confine(&allowed) {
                Ok(()) => {
                    let reaches = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
                    i32::from(reaches(port(&listener))) + 2 * i32::from(reaches(port(&other)))
                }
                Err(_) => 9,
            };
            process::exit_now(code);
        }
        assert_eq!(process::wait_end(child), Ended::Exit(1));
    }

    fn supported() -> io::Result<libc::c_long> {
        // SAFETY: asks for the version.
        let version = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, CREATE_RULESET_VERSION)
        };
        check(version).map(|()| version)
    }
}
