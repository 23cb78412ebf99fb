//! The core file that the kernel writes after Cenotaph has reported shows gdb the original fault, as without Cenotaph.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/cores.rs"]
mod cores;
#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use scene::{Ending, Scene};

/// What gdb prints for the values in [`QUERIES`], one a line.
type Answers = Vec<String>;

/// The cause, the instruction that it came from, and the innermost frames.
const QUERIES: [&str; 6] = [
    "printf \"signal %d\\n\", $_siginfo.si_signo",
    "printf \"code %d\\n\", $_siginfo.si_code",
    "printf \"address %#lx\\n\", $_siginfo._sifields._sigfault.si_addr",
    "printf \"sender %d\\n\", $_siginfo._sifields._kill.si_uid",
    "info symbol $pc",
    "x/i $pc",
];

/// Ways whose last signal is the kernel's for an instruction, and whether its address is the same in every run.
const FAULTS: [(&str, i32, bool); 7] = [
    ("null", libc::SIGSEGV, true),
    ("bus", libc::SIGBUS, true),
    ("ill", libc::SIGILL, false),
    ("fpe", libc::SIGFPE, false),
    ("trap", libc::SIGTRAP, true),
    ("heap-lock", libc::SIGSEGV, true),
    ("two-threads", libc::SIGSEGV, true),
];

/// Ways whose last signal is a thread's own.
const ABORTS: [(&str, i32); 2] = [("abort", libc::SIGABRT), ("stack-overflow", libc::SIGABRT)];

/// Dies with a core file in `folder`; returns it.
fn core_of(scene: &Scene, mut command: Command, folder: &Path, signal: i32) -> PathBuf {
    fs::create_dir(folder).unwrap();
    command.current_dir(folder);
    cores::allow(&mut command);
    let (ending, said) = scene.run(command);
    assert_eq!(ending, Ending::Signal(signal), "{said}");
    cores::in_folder(folder).unwrap_or_else(|| panic!("no core file in {}: {said}", folder.display()))
}

fn ask_gdb(core: &Path) -> Answers {
    let mut command = cores::gdb();
    command.arg(support::crasher()).arg("-c").arg(core);
    for query in QUERIES {
        command.arg("-ex").arg(query);
    }
    let output = command.output().expect("gdb");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let signal = said.lines().position(|line| line.starts_with("signal "));
    let signal = signal.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    said.lines().skip(signal).map(str::to_owned).collect()
}

/// A way's answers without Cenotaph and after its report.
fn both(way: &str, signal: i32) -> (Answers, Answers) {
    let scene = Scene::new();
    let (mut alone, mut reported) =
        (scene.dumping(support::crasher(), way), scene.dumping(support::crasher(), way));
    alone.args(["--threads", "3", "--no-sdk"]);
    reported.args(["--threads", "3", "--consent", "granted", "--deadline-ms", "60000"]);
    reported.arg("--spool").arg(scene.spool());
    let without = ask_gdb(&core_of(&scene, alone, &scene.path("alone"), signal));
    let with = ask_gdb(&core_of(&scene, reported, &scene.path("reported"), signal));
    scene.wait_end();
    assert_eq!(scene.all_reports().len(), 1, "{way}: it was reported");
    (without, with)
}

#[test]
fn gdb_sees_the_fault_itself() {
    if let Some(why) = cores::not_applicable() {
        let _ = writeln!(io::stderr(), "n/a: {why}");
        return;
    }
    for (way, signal, same_address) in FAULTS {
        let (without, with) = both(way, signal);
        assert_eq!(without[0], format!("signal {signal}"), "{way}: {without:?}");
        assert_eq!(with[..2], without[..2], "{way}: {with:?}");
        if same_address {
            assert_eq!(with[2], without[2], "{way}");
        } else {
            assert_ne!(with[2], "address 0", "{way}");
        }
        // The symbol with its offset: the very instruction.
        assert_eq!(with[4], without[4], "{way}");
        assert!(with[4].contains(" in section "), "{way}: {with:?}");
    }
}

#[test]
fn gdb_sees_who_raised_the_signal() {
    if let Some(why) = cores::not_applicable() {
        let _ = writeln!(io::stderr(), "n/a: {why}");
        return;
    }
    for (way, signal) in ABORTS {
        let (without, with) = both(way, signal);
        // SI_TKILL.
        assert_eq!(without[..2], [format!("signal {signal}"), "code -6".to_owned()], "{way}");
        assert_eq!(with[..2], without[..2], "{way}: {with:?}");
        assert_eq!((&with[3], &with[4]), (&without[3], &without[4]), "{way}");
    }
}
