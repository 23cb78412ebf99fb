//! A scrubbed core file: the same frames for gdb as before, nothing of what was planted, and changes exactly where the receipt
//! says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../support/byte_diff.rs"]
mod byte_diff;
#[path = "support/cores.rs"]
mod cores;
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use byte_diff::assert_equals_receipt;
use cenotaph::scrub::{self, Level, Policy, Receipt};
use tempfile::TempDir;

const IN_ENVIRONMENT: &str = "zq7vxkwjhgq2-qwpzmb";
const MAIL: &str = "gwendolyn.zephyr@example.org";
const CARD: &str = "4111 1111 1111 1111";
const CPP: [&str; 6] = ["null", "abort", "divide", "trap", "throw", "callback"];
const RUST: [&str; 2] = ["null", "panic-abort"];

/// gdb's backtraces of all threads, without values, addresses of threads, and words about files.
fn backtrace(program: &Path, core: &Path) -> Vec<String> {
    let mut command = gdb();
    command.arg(program).arg("-c").arg(core).args(["-ex", "thread apply all backtrace"]);
    let output = command.output().expect("gdb");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = said.lines().skip_while(|line| !line.starts_with("Thread "));
    let lines: Vec<String> = lines
        .filter(|line| line.starts_with(['#', 'T']))
        // "Thread 2 (Thread 0x7f... (LWP 17)):" has an address of libthread_db's making, if it finds its list.
        .map(|line| {
            line.strip_prefix("Thread ").map_or(line, |line| line.split(' ').next().unwrap()).to_owned()
        })
        .collect();
    assert!(lines.len() > 3, "{said}{}", String::from_utf8_lossy(&output.stderr));
    lines
}

fn gdb() -> Command {
    let mut command = cores::gdb();
    command.args(["-iex", "set print frame-arguments none", "-iex", "set backtrace past-main on"]);
    command
}

/// What gdb writes where the program dies.
fn gdb_core(program: &Path, arguments: &[&str], folder: &Path) -> PathBuf {
    let core = folder.join("by-gdb");
    let mut command = gdb();
    command.args(["-ex", "run", "-ex"]).arg(format!("generate-core-file {}", core.display()));
    command.arg("--args").arg(program).args(arguments).env("PLANT", IN_ENVIRONMENT).current_dir(folder);
    let output = command.output().expect("gdb");
    assert!(core.exists(), "{output:?}");
    core
}

/// What the kernel writes, if this machine has it write core files where the program stands.
fn kernel_core(program: &Path, arguments: &[&str], folder: &Path) -> Option<PathBuf> {
    if cores::not_applicable().is_some() {
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments).env("PLANT", IN_ENVIRONMENT).current_dir(folder);
    cores::allow(&mut command);
    let output = command.output().unwrap();
    if !output.status.core_dumped() {
        return None;
    }
    cores::in_folder(folder)
}

fn scrubbed(core: &Path, level: Level, to: &Path) -> Receipt {
    let output = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(to).unwrap();
    let mut receipt = Receipt::default();
    let policy = Policy { level, known: vec!["wilhelmina.q".into()], ..Policy::default() };
    scrub::core_file(&File::open(core).unwrap(), &output, &policy, &mut receipt).unwrap();
    receipt
}

fn holds(bytes: &[u8], text: &str) -> bool {
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    [text.as_bytes(), &wide].iter().any(|needle| memchr::memmem::find(bytes, needle).is_some())
}

fn check(what: &str, program: &Path, core: &Path, planted: &[&str]) {
    let before = fs::read(core).unwrap();
    for plant in planted {
        assert!(holds(&before, plant), "{what}: {plant} was planted");
    }
    let frames = backtrace(program, core);
    let to = core.with_extension("scrubbed");
    for level in [Level::Pattern, Level::Pointers] {
        let receipt = scrubbed(core, level, &to);
        let after = fs::read(&to).unwrap();
        assert_equals_receipt(&format!("{what} at {level:?}"), &before, &after, &receipt);
        for plant in planted {
            // Half of it is too much.
            assert!(!holds(&after, &plant[..plant.len() / 2]), "{what}: {plant} at {level:?}");
        }
        assert_eq!(backtrace(program, &to), frames, "{what} at {level:?}");
        // What is left holds nothing that is found again.
        if before.len() > 32 << 20 {
            continue;
        }
        let second = scrubbed(&to, level, &to.with_extension("twice"));
        assert_eq!(second.entries, [], "{what} at {level:?}, a second time");
    }
}

/// The kernel's core file, and for the first way gdb's as well.
fn cores(program: &Path, arguments: &[&str], planted: &[&str]) {
    let folder = TempDir::new().unwrap();
    let what = format!("{} {arguments:?}", program.file_name().unwrap().display());
    let by_kernel = kernel_core(program, arguments, folder.path());
    if by_kernel.is_none() || arguments[0] == CPP[0] {
        let core = gdb_core(program, arguments, folder.path());
        check(&format!("gdb's core of {what}"), program, &core, planted);
    }
    match by_kernel {
        Some(core) => check(&format!("the kernel's core of {what}"), program, &core, planted),
        None => drop(writeln!(io::stderr(), "{what}: the kernel writes no core file here")),
    }
}

#[test]
fn cpp_cores_keep_their_frames() {
    let folder = TempDir::new().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("native/frames.cpp");
    for (optimized, ways) in [("-O0", &CPP[..1]), ("-O2", &CPP[..])] {
        let program = folder.path().join(format!("frames{optimized}"));
        let built = Command::new("c++")
            .args(["-g", "-std=c++17", "-pthread", optimized, "-o"])
            .args([&program, &source])
            .status();
        assert!(built.expect("a C++ compiler").success());
        for way in ways {
            cores(&program, &[way, MAIL, CARD], &[IN_ENVIRONMENT, MAIL, CARD]);
        }
    }
}

#[test]
fn rust_cores_keep_their_frames() {
    for way in RUST {
        let (program, arguments) = (support::crasher(), [way, "--threads", "4", "--no-sdk"]);
        let folder = TempDir::new().unwrap();
        // gdb's core file would hold all of the program's debug information.
        let core = kernel_core(program, &arguments, folder.path());
        let core = core.unwrap_or_else(|| gdb_core(program, &arguments, folder.path()));
        check(&format!("the core of crasher {way}"), program, &core, &[IN_ENVIRONMENT]);
    }
}
