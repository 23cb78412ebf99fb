//! Ends that are no crash, or are one though no signal was seen, and what the application has to collect meanwhile.
//!
//! No test harness: the program executes itself, once as each application, and that becomes its own monitor.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, mem};

use cenotaph::privacy::ConsentPolicy;
use cenotaph::spool::Spool;
use cenotaph::{Config, Destination};

type Application = fn(&Path);

const APPLICATIONS: [(&str, Application); 3] =
    [("opted-out", opted_out), ("panics", panics), ("takes-in-orphans", takes_in_orphans)];

fn main() {
    cenotaph::monitor_entry();
    if let (Some(name), Some(folder)) = (env::var_os("APPLICATION"), env::var_os("FOLDER")) {
        let (_, run) = APPLICATIONS.into_iter().find(|(known, _)| name == *known).unwrap();
        return run(Path::new(&folder));
    }
    let only: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, test) in [
        ("opted-out", no_report_of_what_was_opted_out as fn()),
        ("panics", panics_out_of_main_are_crashes_of_the_start),
        ("takes-in-orphans", nothing_is_left_for_the_application_to_collect),
    ] {
        if only.is_empty() || only.iter().any(|only| name.contains(only.as_str())) {
            test();
            println!("{name} ok");
        }
    }
}

fn application(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .arg0(folder.file_name().unwrap())
        .env("APPLICATION", name)
        .env("FOLDER", folder)
        .current_dir("/")
        .stderr(Stdio::null());
    // SAFETY: a single system call.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            Ok(())
        })
    };
    command
}

fn config(folder: &Path) -> Config {
    Config::new("ends", "1")
        .spool(folder.join("spool"))
        .consent(ConsentPolicy::NotRequired)
        .log(folder.join("log"))
}

fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Applications and their monitors have the folder's name as their own.
fn wait_for_all_to_end(folder: &Path) {
    let name = folder.file_name().unwrap().as_encoded_bytes();
    wait_for("the monitor's end", || {
        let commands = fs::read_dir("/proc").unwrap();
        let commands = commands.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        let mut names =
            commands.filter_map(|command| Some(command.split(|&byte| byte == 0).next()?.to_vec()));
        (!names.any(|one| one == name)).then_some(())
    });
}

fn fault() {
    // SAFETY: none: the process is to die.
    unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
}

fn opted_out(folder: &Path) {
    mem::forget(config(folder).signal(libc::SIGSEGV, false).install().unwrap());
    if env::var_os("ABORTS").is_some() {
        std::process::abort();
    }
    fault();
}

fn no_report_of_what_was_opted_out() {
    for (aborts, signal, reports) in [(false, libc::SIGSEGV, 0), (true, libc::SIGABRT, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = application("opted-out", folder.path());
        if aborts {
            command.env("ABORTS", "1");
        }
        assert_eq!(command.status().unwrap().signal(), Some(signal));
        wait_for_all_to_end(folder.path());
        assert_eq!(Spool::new(folder.path().join("spool")).list().unwrap().len(), reports, "{signal}");
    }
}

/// What the guard would be without the panic: a clean end.
fn panics(folder: &Path) {
    let guard = config(folder).start_up(Duration::from_secs(60)).safe_mode_after(2).install().unwrap();
    assert!(env::var_os("PANICS").is_none(), "asked for");
    fs::write(folder.join("mode"), if guard.safe_mode() { "safe" } else { "usual" }).unwrap();
}

fn panics_out_of_main_are_crashes_of_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mode = || {
        assert_eq!(application("panics", folder.path()).status().unwrap().code(), Some(0));
        wait_for_all_to_end(folder.path());
        fs::read_to_string(folder.path().join("mode")).unwrap()
    };
    assert_eq!(mode(), "usual");
    for _ in 0..3 {
        let ended = application("panics", folder.path()).env("PANICS", "1").status().unwrap();
        assert_eq!(ended.code(), Some(101));
        wait_for_all_to_end(folder.path());
    }
    assert_eq!(mode(), "safe");
    assert_eq!(mode(), "usual", "a clean end breaks the row");
}

/// As the first process of a container does.
fn takes_in_orphans(folder: &Path) {
    // SAFETY: plain values.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }, 0);
    // Nobody listens there: each report has its uploader, which ends.
    let nobody = Destination::backtrace("https://127.0.0.1:9/post?format=minidump&token=0").unwrap();
    let guard = config(folder).destination(nobody).reports_per_signature(u32::MAX).install().unwrap();
    for deferred in 1..=3 {
        cenotaph::capture("so").unwrap();
        guard.flush(Duration::from_secs(60)).unwrap();
        wait_for("the uploader", || (guard.status().deferred >= deferred).then_some(()));
    }
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
    let children: Vec<i32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let is_dead = |pid: &&i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    assert_eq!(children.len(), 1, "the monitor alone: {children:?}");
    assert_eq!(children.iter().filter(is_dead).count(), 0);
}

fn nothing_is_left_for_the_application_to_collect() {
    let folder = tempfile::tempdir().unwrap();
    let ended = application("takes-in-orphans", folder.path()).stderr(Stdio::inherit()).status().unwrap();
    assert!(ended.success(), "{ended:?}");
    wait_for_all_to_end(folder.path());
}
