//! What the SDK cannot work with is said, by a typed error or in the log, and the application never suffers from it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cenotaph::spool::container;
use cenotaph::spool::key::LocalKey;
use cenotaph::{Config, Destination, Error};
use scene::{Ending, Live, Scene};

const NOBODY: u32 = 65534;
const SEGFAULT: Ending = Ending::Signal(libc::SIGSEGV);

fn is_root() -> bool {
    // SAFETY: no precondition.
    unsafe { libc::geteuid() == 0 }
}

/// `install` must refuse with these words, and the victim end as one without Cenotaph.
fn refused(scene: &Scene, command: Command, words: &[&str]) {
    let (ending, said) = scene.run(command);
    assert_eq!(ending, SEGFAULT, "{said}");
    let line = said.lines().find(|line| line.starts_with("crasher: install: ")).unwrap_or(&said);
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
    scene.wait_end();
}

/// A victim that an ordinary user can run: as root the user is nobody, for whom the program is copied to where he can
/// get.
fn as_ordinary_user(scene: &Scene, command: &Command) -> Command {
    if !is_root() {
        let mut same = Command::new(command.get_program());
        copy_settings(command, &mut same);
        return same;
    }
    for folder in ["", "home", "tmp"] {
        fs::set_permissions(scene.path(folder), Permissions::from_mode(0o777)).unwrap();
    }
    let program = scene.path("crasher");
    support::copy_program(support::crasher(), &program);
    let mut other = Command::new(program);
    copy_settings(command, &mut other);
    other.uid(NOBODY).gid(NOBODY);
    other
}

fn copy_settings(from: &Command, to: &mut Command) {
    to.args(from.get_args()).env_clear().current_dir("/").stdin(Stdio::null());
    to.stdout(Stdio::piped()).stderr(Stdio::piped());
    for (key, value) in from.get_envs() {
        value.map(|value| to.env(key, value));
    }
    scene::no_core(to);
}

#[test]
fn a_missing_spool_directory_is_made_when_there_is_something_to_keep() {
    let scene = Scene::new();
    let spool = scene.path("not/there/yet");
    let mut command = scene.bare("none");
    command.args(["--consent-policy", "ask", "--log"]).arg(scene.path("log")).arg("--spool").arg(&spool);
    let mut live = Live::start(command);
    assert!(!scene.path("not").exists(), "installing writes nothing");
    live.say("die null");
    assert_eq!(live.end().0, SEGFAULT);
    scene.wait_end();
    scene.wait_event("spooled");
    assert_eq!(fs::read_dir(spool.join("pending")).unwrap().count(), 1);
    for folder in [&spool, &spool.join("pending")] {
        assert_eq!(fs::metadata(folder).unwrap().mode() & 0o7777, 0o700, "{}", folder.display());
    }
}

#[test]
fn a_spool_that_is_a_file_is_refused() {
    let scene = Scene::new();
    fs::write(scene.path("spool"), "a file").unwrap();
    let spool = scene.spool();
    refused(&scene, scene.victim(&[], "null"), &["directory", spool.to_str().unwrap()]);
    assert_eq!(fs::read(spool).unwrap(), b"a file");
}

#[test]
fn a_spool_that_this_user_cannot_write_to_is_refused() {
    let scene = Scene::new();
    let closed = scene.path("closed");
    fs::create_dir(&closed).unwrap();
    // Root's, or without the right to write.
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    for spool in [closed.clone(), closed.join("below")] {
        let mut command = scene.bare("null");
        command.arg("--spool").arg(&spool);
        let command = as_ordinary_user(&scene, &command);
        refused(&scene, command, &[closed.to_str().unwrap(), "ermission denied", "choose a directory"]);
    }
}

#[test]
fn a_spool_that_becomes_unwritable_is_logged() {
    let scene = Scene::new();
    let spool = scene.path("open/spool");
    fs::create_dir(scene.path("open")).unwrap();
    fs::set_permissions(scene.path("open"), Permissions::from_mode(0o777)).unwrap();
    let mut command = scene.bare("none");
    command.args(["--consent-policy", "ask", "--log"]).arg(scene.path("log")).arg("--spool").arg(&spool);
    let mut live = Live::start(as_ordinary_user(&scene, &command));
    fs::set_permissions(scene.path("open"), Permissions::from_mode(0o555)).unwrap();
    live.say("die null");
    assert_eq!(live.end().0, SEGFAULT);
    let line = scene.wait_event("failed");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("ermission denied") && reason.contains("choose a directory"), "{reason}");
    fs::set_permissions(scene.path("open"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn bad_urls_are_typed_errors() {
    for (url, word) in [
        ("http://host/submit", "https"),
        ("ftp://host/", "https://"),
        ("host", "https://"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://user:secret@host/", "user info"),
        ("https://ho st/", "white space"),
    ] {
        for parsed in [Destination::crashpad(url), Destination::backtrace(url)] {
            let error = parsed.unwrap_err();
            assert!(matches!(error, Error::InvalidConfig { field: "destination", .. }), "{url}: {error:?}");
            assert!(error.to_string().contains(word), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
    // What has the shape of a URL may still be none; that is found when it is used.
    let scene = Scene::new();
    let url = "crashpad=https://[::bad/submit";
    let (ending, said) = scene.run(scene.victim(&["--consent", "granted", "--destination", url], "null"));
    if ending == SEGFAULT {
        let line = scene.wait_event("delivery");
        println!("{}", line["message"]);
        assert_eq!(scene.all_reports().len(), 1);
    } else {
        assert_eq!(ending, Ending::Code(2), "{said}");
    }
    scene.end();
}

#[test]
fn impossible_settings_are_typed_errors() {
    for (config, wanted) in [
        (Config::new("", "1"), "new"),
        (Config::new("a/b", "1"), "new"),
        (Config::new("a", ""), "new"),
        (Config::new("a", "1").deadline(std::time::Duration::ZERO), "deadline"),
    ] {
        match config.spool("/nonexistent").install() {
            Err(Error::InvalidConfig { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_authority_is_refused() {
    let scene = Scene::new();
    let ca = scene.path("no-such-ca.pem");
    let command = scene.victim(&["--ca", ca.to_str().unwrap()], "null");
    refused(&scene, command, &["no-such-ca.pem", "No such file"]);
}

#[test]
fn an_authority_that_is_none_is_logged_and_the_report_stays() {
    let scene = Scene::new();
    let ca = scene.path("ca.pem");
    fs::write(&ca, "not a certificate").unwrap();
    let options =
        ["--ca", ca.to_str().unwrap(), "--destination", "crashpad=https://127.0.0.1:1/", "--consent"];
    let mut command = scene.victim(&options, "null");
    command.arg("granted");
    let (ending, said) = scene.run(command);
    // Either is right: found when it is installed, or when it is to be used.
    if said.contains("crasher: install: ") {
        assert!(said.contains("ca.pem"), "{said}");
    } else {
        scene.wait_end();
        let line = scene.wait_event("no-transport");
        assert!(line["message"].as_str().unwrap().contains("ca.pem"), "{line}");
        assert_eq!(scene.all_reports().len(), 1);
    }
    assert_eq!(ending, SEGFAULT);
}

#[test]
fn the_dynamic_loader_as_program_is_refused() {
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    if !loader.exists() {
        println!("n/a: this system has no glibc");
        return;
    }
    let scene = Scene::new();
    let plain = scene.victim(&[], "null");
    let mut command = Command::new(loader);
    command.arg(support::crasher());
    copy_settings(&plain, &mut command);
    refused(&scene, command, &["no monitor process", "dynamic loader", "run it directly"]);
}

#[test]
fn a_user_who_may_start_no_more_processes_is_told() {
    let scene = Scene::new();
    let mut command = as_ordinary_user(&scene, &scene.victim(&[], "null"));
    // Counts for this user id as a whole, so one is too many already. Root is exempt (setrlimit(2)).
    // SAFETY: setrlimit(2) is async-signal-safe and reads a value on the stack.
    unsafe {
        command.pre_exec(|| limit(libc::RLIMIT_NPROC, 0));
    }
    refused(&scene, command, &["no monitor process", "could not be started"]);
}

#[test]
fn without_proc_the_victim_dies_all_the_same() {
    let scene = Scene::new();
    if !is_root() {
        println!("n/a as an ordinary user: hiding /proc takes a mount");
        return;
    }
    let mut command = scene.victim(&["--consent-policy", "ask"], "null");
    // SAFETY: system calls on C strings, in a process that is about to execute its program.
    unsafe {
        command.pre_exec(|| {
            checked(libc::unshare(libc::CLONE_NEWNS))?;
            private_mounts()?;
            mount(c"tmpfs", c"/proc", None)
        });
    }
    let (ending, said) = scene.run(command);
    assert_eq!(ending, SEGFAULT, "{said}");
    scene.wait_end();
    println!("said: {said}; log: {:?}", scene.log());
    // Nothing of it can be seen: either there is no monitor, and that is said, or it says what it could not do.
    let logged = scene.log().iter().any(|line| matches!(line["event"].as_str(), Some("failed" | "spooled")));
    assert!(said.contains("crasher: install: ") || logged, "{said} {:?}", scene.log());
}

#[test]
fn a_full_disk_loses_the_new_report_only_and_says_so() {
    let scene = Scene::new();
    let spool = scene.spool();
    let die = |scene: &Scene| {
        let (ending, said) = scene.run(scene.victim(&["--consent-policy", "ask"], "null"));
        assert_eq!(ending, SEGFAULT, "{said}");
        scene.wait_end();
    };
    if is_root() {
        // For this thread, and for what it starts.
        // SAFETY: system calls on C strings; this thread shares its mounts with nobody afterwards.
        unsafe {
            checked(libc::unshare(libc::CLONE_NEWNS)).unwrap();
            private_mounts().unwrap();
        }
        fs::create_dir(&spool).unwrap();
        fs::set_permissions(&spool, Permissions::from_mode(0o700)).unwrap();
        let target = std::ffi::CString::new(spool.to_str().unwrap()).unwrap();
        mount(c"tmpfs", &target, Some(c"size=64k,mode=0700")).unwrap();
        die(&scene);
        let first = scene.reports("pending");
        assert_eq!(first.len(), 1, "{:?}", scene.log());
        let _ = fs::write(spool.join("ballast"), vec![1; 1 << 20]);
        die(&scene);
        check_full(&scene, &spool, &first, "No space left");
    } else {
        println!("an ordinary user cannot mount a small disk; a limit on the size of files is the next test");
    }
}

#[test]
fn a_report_that_is_larger_than_the_user_may_write_becomes_a_smaller_one() {
    let scene = Scene::new();
    scene.run(scene.victim(&["--consent-policy", "ask"], "null"));
    scene.wait_end();
    let first = scene.reports("pending");
    assert_eq!(first.len(), 1, "{:?}", scene.log());
    let mut live = Live::start(scene.victim(&["--consent-policy", "ask"], "none"));
    let monitors = scene::wait_for("the supervisor and its worker", || {
        let all: Vec<_> = scene.processes().into_iter().filter(|process| process.pid != live.pid()).collect();
        (all.len() == 2 && all.iter().all(|process| process.comm == "cenotaph")).then_some(all)
    });
    for process in monitors {
        let most = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
        // SAFETY: reads a value on the stack; the process is our own.
        checked(unsafe {
            libc::prlimit(process.pid, libc::RLIMIT_FSIZE, &raw const most, std::ptr::null_mut())
        })
        .unwrap();
    }
    live.say("die null");
    assert_eq!(live.end().0, SEGFAULT);
    scene.wait_end();
    let line = scene.wait_log("the smaller report", |line| line["detail"] == "stack-trace");
    let why = line["notes"].to_string();
    assert!(
        why.contains("stepped down") && why.contains("too large") && why.contains("free some space"),
        "{why}"
    );
    let reports = scene.all_reports();
    assert!(reports.len() == 2 && reports.contains(&first[0]), "{reports:?}");
    let key = LocalKey::from_file(&scene.spool().join("key")).unwrap();
    for report in reports {
        assert!(container::open(&fs::read(&report).unwrap(), &key).is_ok(), "{}", report.display());
    }
}

#[test]
fn a_limit_on_file_sizes_does_not_end_the_victim() {
    let scene = Scene::new();
    let mut command = scene.victim(&["--consent-policy", "ask"], "null");
    // Less than the memory that is shared with the monitor, which counts as a file.
    // SAFETY: setrlimit(2) is async-signal-safe and reads a value on the stack.
    unsafe {
        command.pre_exec(|| limit(libc::RLIMIT_FSIZE, 4096));
    }
    refused(&scene, command, &["File too large"]);
}

/// The log names the cause and the way out, nothing half-written is left, and what was there before can be opened.
fn check_full(scene: &Scene, spool: &Path, before: &[PathBuf], cause: &str) {
    let line = scene.wait_event("failed");
    let reason = line["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(cause) && reason.contains("free some space"), "{line}");
    assert_eq!(scene.all_reports(), before);
    if let [first] = before {
        let key = LocalKey::from_file(&spool.join("key")).unwrap();
        assert!(container::open(&fs::read(first).unwrap(), &key).is_ok());
    }
}

fn limit(what: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: reads a value on the stack.
    checked(unsafe { libc::setrlimit(what, &raw const limit) })
}

fn private_mounts() -> io::Result<()> {
    // SAFETY: C strings, or null where mount(2) ignores the argument.
    checked(unsafe {
        let null = std::ptr::null();
        libc::mount(c"none".as_ptr(), c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast())
    })
}

fn mount(kind: &std::ffi::CStr, target: &std::ffi::CStr, options: Option<&std::ffi::CStr>) -> io::Result<()> {
    let options = options.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: C strings, and options as tmpfs takes them.
    checked(unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.cast()) })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
