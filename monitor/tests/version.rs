//! A launcher of another version: the first messages of one are made by hand here, as `src/protocol.rs` and
//! `src/monitor/launch.rs` describe them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use support::{directory, helper};

const NONCE: [u8; 16] = [0xa5; 16];
/// `Kind::Hello` of the protocol.
const HELLO: u32 = 10;

#[test]
fn another_protocol_is_logged_and_the_helper_ends() {
    for (protocol, expected) in [("\"protocol\":77,", "speaks protocol 77"), ("", "speaks protocol 0")] {
        let folder = directory();
        let log = folder.path().join("log");
        let settings =
            format!("{{{protocol}\"config\":{{\"log\":{:?},\"new\":[1]}}}}", log.to_str().unwrap());
        let status = launch(&settings);
        assert_eq!(status.code(), Some(1));
        let log = fs::read_to_string(&log).unwrap();
        assert!(log.contains("other-version") && log.contains(expected), "{log}");
        assert!(log.contains("install the helper of its version"), "{log}");
    }
}

/// Settings of this protocol that lack what they should have are no nonsense either.
#[test]
fn settings_that_cannot_be_read_are_logged() {
    let folder = directory();
    let log = folder.path().join("log");
    let config = format!("\"config\":{{\"log\":{:?}}}", log.to_str().unwrap());
    // Its own number, from what it says to a launcher that has none.
    assert_eq!(launch(&format!("{{{config}}}")).code(), Some(1));
    let said = fs::read_to_string(&log).unwrap();
    let (_, behind) = said.split_once("this monitor ").unwrap();
    let own = behind.split(';').next().unwrap();
    fs::remove_file(&log).unwrap();
    assert_eq!(launch(&format!("{{\"protocol\":{own},{config}}}")).code(), Some(1));
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("other-version") && log.contains("cannot be read"), "{log}");
}

/// Starts the helper as a launcher does, with a first message of its own protocol.
fn launch(settings: &str) -> std::process::ExitStatus {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    let made = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
    };
    assert_eq!(made, 0);
    // SAFETY: made above, and nobody else knows them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    let on: libc::c_int = 1;
    // SAFETY: SO_PASSCRED reads an int.
    unsafe {
        libc::setsockopt(
            theirs.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(settings.as_bytes()).unwrap();
    let mut message = Vec::new();
    message.extend_from_slice(b"CENOMSG\x01");
    message.extend_from_slice(&HELLO.to_ne_bytes());
    message.resize(48, 0);
    message.extend_from_slice(&NONCE);
    // A monitor is given settings, a socket and a blackbox; that of another version is no blackbox to this one.
    send(ours.as_raw_fd(), &message, &[file.as_raw_fd(), theirs.as_raw_fd(), file.as_raw_fd()]);
    let nonce: String = NONCE.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = Command::new(helper());
    command.env("CENOTAPH_ROLE", format!("monitor:{nonce}"));
    let socket = theirs.as_raw_fd();
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(socket, 3) == 3 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    command.status().unwrap()
}

fn send(socket: RawFd, bytes: &[u8], fds: &[RawFd; 3]) {
    let mut control = [0u64; 8];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let length = size_of_val(fds) as libc::c_uint;
    // SAFETY: an all-zero header is valid; `control` has room for three descriptors and their header.
    let sent = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(length) as _;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(length) as _;
        std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(first).cast::<RawFd>(), fds.len());
        libc::sendmsg(socket, &raw const header, 0)
    };
    assert_eq!(sent, bytes.len() as isize, "{}", std::io::Error::last_os_error());
}
