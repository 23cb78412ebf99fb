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

#[path = "support/oneself.rs"]
mod oneself;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, mem};

use cenotaph::privacy::ConsentPolicy;
use cenotaph::report::{Detail, Reason, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use cenotaph::{Config, Destination, Guard, Monitor};
use oneself::{Application, Watched, begin, monitors, wait_for, wait_for_all_to_end};

const APPLICATIONS: [(&str, Application); 6] = [
    ("opted-out", opted_out),
    ("panics", panics),
    ("takes-in-orphans", takes_in_orphans),
    ("short-files", short_files),
    ("no-descriptors", no_descriptors),
    ("another-thread-ends-it", another_thread_ends_it),
];

fn main() {
    let chosen = begin(APPLICATIONS);
    for (name, test) in [
        ("opted-out", no_report_of_what_was_opted_out as fn()),
        ("panics", panics_out_of_main_are_crashes_of_the_start),
        ("takes-in-orphans", nothing_is_left_for_the_application_to_collect),
        ("short-files", a_limit_on_file_sizes_changes_no_end),
        ("no-descriptors", a_new_monitor_needs_no_descriptor_to_spare),
        ("another-thread-ends-it", what_a_crash_sent_outlives_the_process),
    ] {
        if chosen.contains(&name) {
            test();
            println!("{name} ok");
        }
    }
}

fn application(name: &str, folder: &Path) -> Command {
    let mut command = oneself::application(name, folder);
    command.stderr(Stdio::null());
    command
}

fn config(folder: &Path) -> Config {
    Config::new("ends", "1")
        .spool(folder.join("spool"))
        .consent(ConsentPolicy::NotRequired)
        .log(folder.join("log"))
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: plain values.
    unsafe { libc::kill(pid, signal) };
}

fn kill_the_monitor(folder: &Path, guard: &Guard) {
    wait_for("the monitor", || (guard.status().monitor == Monitor::Ready).then_some(()));
    wait_for("its end", || {
        let left = monitors(folder);
        left.iter().for_each(|&pid| signal(pid, libc::SIGKILL));
        left.is_empty().then_some(())
    });
}

fn limit(what: libc::__rlimit_resource_t, now: u64, most: u64) {
    let limit = libc::rlimit { rlim_cur: now, rlim_max: most };
    // SAFETY: reads a value on the stack.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0);
}

/// The reports there are: how detailed, and why.
fn reports(folder: &Path) -> Vec<(Detail, Reason)> {
    let spool = folder.join("spool");
    let Ok(Some(key)) = LocalKey::load(&spool) else { return Vec::new() };
    let read = |item: cenotaph::spool::file::Item| {
        let part =
            container::read_part(&fs::read(&item.path).unwrap(), PartKind::Report, &key).unwrap().unwrap();
        let report: Report = serde_json::from_slice(&part.bytes).unwrap();
        (report.detail, report.reason)
    };
    Spool::new(&spool).list().unwrap().into_iter().map(read).collect()
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
        let watched = Watched::on(&mut command);
        assert_eq!(command.status().unwrap().signal(), Some(signal));
        wait_for_all_to_end(folder.path());
        assert_eq!(Spool::new(folder.path().join("spool")).list().unwrap().len(), reports, "{signal}");
        assert_eq!(watched.check(&folder.path().join("spool")), reports, "{signal}");
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
        let mut command = application("panics", folder.path());
        let watched = Watched::on(command.env("PANICS", "1"));
        assert_eq!(command.status().unwrap().code(), Some(101));
        wait_for_all_to_end(folder.path());
        // A tap knows what went through it.
        assert_eq!(watched.check(&folder.path().join("spool")), 1);
        fs::remove_dir_all(folder.path().join("spool/pending")).unwrap();
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
    let mut command = application("takes-in-orphans", folder.path());
    let watched = Watched::on(command.stderr(Stdio::inherit()));
    let ended = command.status().unwrap();
    assert!(ended.success(), "{ended:?}");
    wait_for_all_to_end(folder.path());
    assert_eq!(watched.check(&folder.path().join("spool")), 3);
}

/// Nobody can be started in the place of the monitor, and the minidump's place is a record of 96 KiB.
fn short_files(folder: &Path) {
    let guard = config(folder).install().unwrap();
    kill_the_monitor(folder, &guard);
    mem::forget(guard);
    let most = if env::var_os("FOR-GOOD").is_some() { 4096 } else { libc::RLIM_INFINITY };
    limit(libc::RLIMIT_FSIZE, 4096, most);
    limit(libc::RLIMIT_AS, 4096, 4096);
    fault();
}

fn a_limit_on_file_sizes_changes_no_end() {
    for (for_good, records) in [(false, 1), (true, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = application("short-files", folder.path());
        if for_good {
            command.env("FOR-GOOD", "1");
        }
        assert_eq!(command.status().unwrap().signal(), Some(libc::SIGSEGV), "for good: {for_good}");
        let found = fs::read_dir(folder.path().join("spool/last-words")).map_or(0, Iterator::count);
        assert_eq!(found, records, "for good: {for_good}");
    }
}

fn no_descriptors(folder: &Path) {
    let guard = config(folder).install().unwrap();
    kill_the_monitor(folder, &guard);
    mem::forget(guard);
    let mut most = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for the limit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut most) }, 0);
    limit(libc::RLIMIT_NOFILE, 64, most.rlim_max);
    // SAFETY: plain values; the copies are never used.
    while unsafe { libc::dup(0) } >= 0 {}
    fault();
}

fn a_new_monitor_needs_no_descriptor_to_spare() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = application("no-descriptors", folder.path());
    let watched = Watched::on(&mut command);
    assert_eq!(command.status().unwrap().signal(), Some(libc::SIGSEGV));
    wait_for_all_to_end(folder.path());
    assert_eq!(watched.check(&folder.path().join("spool")), 1);
    let found = reports(folder.path());
    assert!(
        matches!(found[..], [(Detail::Minidump, Reason::Signal { number: libc::SIGSEGV, .. })]),
        "{found:?}"
    );
}

/// Its monitor is stopped, and then another thread calls exit(2) while the crashing one waits for the answer.
fn another_thread_ends_it(folder: &Path) {
    let config = config(folder).deadline(Duration::from_secs(120));
    mem::forget(config.install().unwrap());
    wait_for("the monitor", || (cenotaph::status().unwrap().monitor == Monitor::Ready).then_some(()));
    let supervisor = supervisor(folder);
    signal(supervisor, libc::SIGSTOP);
    let main = std::process::id();
    std::thread::spawn(move || {
        let waits = format!("{} ", libc::SYS_ppoll);
        let call = format!("/proc/self/task/{main}/syscall");
        wait_for("the crash", || {
            fs::read_to_string(&call).is_ok_and(|call| call.starts_with(&waits)).then_some(())
        });
        // SAFETY: ends the process.
        unsafe { libc::_exit(7) };
    });
    fault();
}

/// The one whose parent is none of them.
fn supervisor(folder: &Path) -> i32 {
    let all = monitors(folder);
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.split(' ').nth(1)?.parse::<i32>().ok()
    };
    *all.iter().find(|&&pid| parent(pid).is_none_or(|parent| !all.contains(&parent))).unwrap()
}

fn what_a_crash_sent_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let ended = application("another-thread-ends-it", folder.path()).status().unwrap();
    assert_eq!(ended.code(), Some(7));
    signal(supervisor(folder.path()), libc::SIGCONT);
    wait_for_all_to_end(folder.path());
    let found = reports(folder.path());
    assert!(
        matches!(found[..], [(Detail::StackTrace, Reason::Signal { number: libc::SIGSEGV, .. })]),
        "{found:?}"
    );
}
