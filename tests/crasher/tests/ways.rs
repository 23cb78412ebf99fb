//! Each way to die ends as it says, without Cenotaph: the standard that the other tests compare with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Stdio;

use support::ending::{self, Ending};
use support::{Stopped, crasher, victim};

fn ending(program: &Path, arguments: &[&str], user: Option<u32>) -> (Ending, String) {
    let mut command = victim(program, arguments);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.into(), said)
}

#[test]
fn each_way_ends_as_it_says() {
    for (way, expected) in ending::all() {
        for arguments in [&[way][..], &["--threads", "5", "--heap-mib", "4", way]] {
            let (ended, said) = ending(crasher(), arguments, None);
            assert_eq!(ended, expected, "{arguments:?}: {said}");
        }
    }
}

#[test]
fn each_way_ends_the_same_as_an_ordinary_user() {
    // SAFETY: no precondition.
    if unsafe { libc::geteuid() } != 0 {
        // Then the test above has shown it.
        return;
    }
    const NOBODY: u32 = 65534;
    // The build directory may be closed to others.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("crasher");
    support::copy_program(crasher(), &program);
    for (way, expected) in ending::all() {
        let (ended, said) = ending(&program, &["--threads", "2", way], Some(NOBODY));
        assert_eq!(ended, expected, "{way}: {said}");
    }
}

#[test]
fn signals_carry_the_true_cause() {
    // Signal codes: sigaction(2). The last column is `si_addr`, where the signal has one.
    for (way, signal, code, address) in [
        ("null", libc::SIGSEGV, 1, Some(0x10)),
        ("bus", libc::SIGBUS, 2, Some(0x1000_0000)),
        ("ill", libc::SIGILL, 2, None),
        ("fpe", libc::SIGFPE, 1, None),
        ("trap", libc::SIGTRAP, 0x80, None),
        ("sys", libc::SIGSYS, 1, None),
        ("abort", libc::SIGABRT, -6, None),
        ("heap-lock", libc::SIGSEGV, 1, Some(0x30)),
    ] {
        let stopped = Stopped::at(victim(crasher(), &[way]), &[signal]);
        let info = stopped.siginfo();
        assert_eq!((info.si_signo, info.si_code), (signal, code), "{way}");
        if let Some(expected) = address {
            // SAFETY: these signals are the kernel's, which fills in the address.
            assert_eq!(unsafe { info.si_addr() } as usize, expected, "{way}");
        }
        if matches!(way, "ill" | "fpe") {
            // SAFETY: as above.
            assert_eq!(unsafe { info.si_addr() } as u64, stopped.registers().rip, "{way}");
        }
    }
}

#[test]
fn heap_lock_faults_inside_libc_with_the_lock_held_and_the_cache_empty() {
    let stopped = Stopped::at(victim(crasher(), &["heap-lock"]), &[libc::SIGSEGV]);
    let memory = stopped.memory();
    let program_counter = usize::try_from(stopped.registers().rip).unwrap();
    let module = memory.mapping(program_counter).to_owned();
    let said = stopped.end();
    assert!(module.contains("libc.so") || module.contains("libc-"), "faults in {module}");
    let arena = said.split_once("arena 0x").unwrap().1.split(' ').next().unwrap();
    let arena = usize::from_str_radix(arena, 16).unwrap();
    assert!(memory.mapping(arena).contains("libc") || memory.mapping(arena).is_empty(), "{said}");
    // glibc's low-level lock: 0 free, 1 taken, 2 taken with waiters.
    assert_eq!(memory.word(arena), Some(1), "{said}");
    assert!(said.contains("cached blocks: 0"), "{said}");
}

#[test]
fn panic_prints_what_an_ordinary_panic_prints() {
    let (_, said) = ending(crasher(), &["panic"], None);
    assert!(said.contains("panicked at") && said.contains("a panic was asked for"), "{said}");
}

#[test]
fn usage_errors_exit_2() {
    for arguments in [
        &[][..],
        &["drown"],
        &["--threads", "0", "null"],
        &["--destination", "crashpad=http://h/", "null"],
        &["--plant", "/nonexistent/plant.json", "null"],
        &["--no-such-option", "1", "null"],
    ] {
        let (ended, said) = ending(crasher(), arguments, None);
        assert_eq!(ended, Ending::Code(2), "{arguments:?}: {said}");
        assert!(said.contains("crasher: ") && said.contains("usage: "), "{said}");
    }
}

#[test]
fn commands_are_answered_line_by_line() {
    let mut child = victim(crasher(), &["none"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"grant\nwithdraw\ncapture\nfly\ndie\ndie none\nflush soon\ndie fpe\ncapture\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    let mut lines = answers.lines();
    assert_eq!(lines.next(), Some("ready"));
    for _ in 0..7 {
        assert!(lines.next().unwrap().starts_with("error "), "{answers}");
    }
    assert_eq!((lines.next(), lines.next()), (Some("ok die fpe"), None));
    assert_eq!(output.status.signal(), Some(libc::SIGFPE));
}
