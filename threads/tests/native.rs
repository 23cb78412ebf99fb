//! Programs of C and C++ with the archive: compiled, run, crashed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cenotaph::report::{Reason, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use tempfile::TempDir;

/// signal(7), on every Linux.
const SIGSEGV: i32 = 11;
/// What Rust's standard library needs, as the documentation of the C interface lists it.
const NATIVE: [&str; 7] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];
/// What has shared libraries use the archive too, as its documentation says.
const FOR_LIBRARIES: [&str; 2] =
    ["-Wl,--undefined=pthread_create", "-Wl,--export-dynamic-symbol=pthread_create"];

#[test]
fn a_stack_overflow_on_a_native_thread_is_reported() {
    let place = directory();
    let program = native(&place, true);
    for (how, spool) in [("plain", "a"), ("protected", "b")] {
        let spool = place.path().join(spool);
        let output = run(Command::new(&program).arg("overflow").arg(&spool).arg(how));
        assert_eq!(output.status.signal(), Some(SIGSEGV), "{output:?}");
        let reports = reports(&spool);
        assert_eq!(reports.len(), 1, "{how}");
        let Reason::Signal { number, address, .. } = reports[0].reason else {
            panic!("{:?}", reports[0].reason);
        };
        assert_eq!(number, SIGSEGV);
        assert!(address.is_some());
        let crashed = &reports[0].stack_trace.threads[0];
        assert!(crashed.crashed && crashed.frames.len() >= 3, "{crashed:?}");
        let of_program = |frame: &&cenotaph::report::Frame| {
            frame.module.is_some_and(|module| reports[0].stack_trace.modules[module].name == "native-true")
        };
        assert!(crashed.frames.iter().filter(of_program).count() >= 3, "{crashed:?}");
    }
}

/// What the documentation says of a program without the archive: the kernel ends it before any handler runs. A thread that
/// asks for protection itself is reported.
#[test]
fn without_the_archive_only_threads_that_ask_are_protected() {
    let place = directory();
    let program = native(&place, false);
    for (how, spool, expected) in [("plain", "a", 0), ("protected", "b", 1)] {
        let spool = place.path().join(spool);
        let output = run(Command::new(&program).arg("overflow").arg(&spool).arg(how));
        assert_eq!(output.status.signal(), Some(SIGSEGV), "{output:?}");
        let frames = reports(&spool).iter().filter(|r| !r.stack_trace.threads.is_empty()).count();
        assert_eq!(frames, expected, "{how}");
    }
    assert_eq!(said(run(Command::new(&program).arg("size"))), "-1\n");
}

/// SIGSTKSZ, and so what Rust's standard library gives its own threads: it must do, as it is not replaced.
#[test]
fn the_handler_is_content_with_the_smallest_usual_stack() {
    let place = directory();
    let spool = place.path().join("spool");
    let used = said(run(Command::new(native(&place, false)).arg("depth").arg(&spool)));
    let used: usize = used.trim().parse().unwrap();
    assert!((1000..8192).contains(&used), "{used}");
    assert_eq!(reports(&spool).len(), 1);
}

#[test]
fn threads_end_in_every_way_and_leave_nothing() {
    let place = directory();
    succeed(&run(Command::new(native(&place, true)).arg("ends")));
}

#[test]
fn threads_start_without_memory_and_without_keys() {
    let place = directory();
    let program = native(&place, true);
    succeed(&run(Command::new(&program).arg("shortage")));
    succeed(&run(Command::new(&program).arg("no-keys")));
}

#[test]
fn threads_of_the_cxx_library_have_one_too() {
    let place = directory();
    let program = place.path().join("thread");
    let source = source("thread.cpp");
    let mut command = Command::new(tool("CXX", "c++"));
    command
        .args(["-std=c++11", "-pthread"])
        .arg(&source)
        .arg(archive("cenotaph_threads"))
        .args(FOR_LIBRARIES);
    succeed(&run(command.args(NATIVE).arg("-o").arg(&program)));
    assert_eq!(said(run(&mut Command::new(&program))), "65536\n");
}

#[test]
fn under_a_sanitizer_it_only_passes_on() {
    let place = directory();
    for sanitizer in ["address", "thread"] {
        let program = place.path().join(sanitizer);
        let mut command = Command::new(tool("CXX", "c++"));
        command
            .arg(format!("-fsanitize={sanitizer}"))
            .args(["-std=c++11", "-pthread"])
            .arg(source("thread.cpp"));
        command.arg(archive("cenotaph_threads")).args(FOR_LIBRARIES).args(NATIVE).arg("-o").arg(&program);
        succeed(&run(&mut command));
        // Randomised addresses collide with what these sanitizers reserve, on some kernels.
        let output = run(Command::new("setarch").arg("-R").arg(&program));
        let size = said(output);
        // AddressSanitizer gives its threads one of its own.
        assert!(!size.starts_with("65536"), "{sanitizer}: {size}");
    }
}

#[test]
fn exports_one_name() {
    let listed = said(run(Command::new("nm")
        .args(["-g", "--defined-only", "--format=posix"])
        .arg(archive("cenotaph_threads"))));
    // Everything mangled is Rust's; compiler-builtins and the allocator's shims have names of their own, hidden.
    let own: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|n| n.starts_with("pthread"))
        .collect();
    assert_eq!(own, ["pthread_create"]);
}

fn native(place: &TempDir, archived: bool) -> PathBuf {
    let program = place.path().join(format!("native-{archived}"));
    let mut command = Command::new(tool("CC", "cc"));
    command.args(["-std=c11", "-g", "-pthread", "-Wall", "-Wextra", "-Werror"]);
    command.arg(format!("-I{}", root().join("include").display())).arg(source("native.c"));
    if archived {
        command.arg(archive("cenotaph_threads"));
    }
    command.arg(archive("cenotaph_ffi")).args(NATIVE).arg("-o").arg(&program);
    succeed(&run(&mut command));
    program
}

fn reports(spool: &Path) -> Vec<Report> {
    let open = |path: &Path| {
        let key = LocalKey::from_file(&spool.join("key")).unwrap();
        let part = container::read_part(&fs::read(path).unwrap(), PartKind::Report, &key).unwrap().unwrap();
        serde_json::from_slice(&part.bytes).unwrap()
    };
    // Before the first report there is no directory.
    Spool::new(spool).list().unwrap_or_default().iter().map(|item| open(&item.path)).collect()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

fn said(output: Output) -> String {
    succeed(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// Built by cargo beside this test, under its own name or one with a hash: then the newest is meant.
fn archive(name: &str) -> PathBuf {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let is_it = |path: &PathBuf| {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let plain = stem.rsplit_once('-').map_or(stem.as_str(), |(plain, _)| plain);
        path.extension().is_some_and(|extension| extension == "a") && plain == format!("lib{name}")
    };
    let entries = fs::read_dir(&beside).unwrap().map(|entry| entry.unwrap().path()).filter(is_it);
    let newest = entries.max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.unwrap_or_else(|| panic!("lib{name}.a was not built in {}", beside.display()))
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn tool(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| name.into())
}

/// On a file system that programs may run from.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempdir()).unwrap()
}
