//! Several processes of one application with one monitor.
//!
//! No test harness: the program executes itself, once as each application, which executes itself as its children; and
//! those become monitors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "support/applications.rs"]
mod applications;

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, ptr};

use applications::{Application, Watched, application, begin, wait_for};
use cenotaph::privacy::ConsentPolicy;
use cenotaph::report::{Reason, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use cenotaph::{Config, Guard, Monitor};

const APPLICATIONS: [(&str, Application); 8] = [
    ("everybody-is-reported-by-one-monitor", everybody),
    ("the-first-one-goes-first", first_goes_first),
    ("a-forked-child", forked_child),
    ("other-settings", other_settings),
    ("nonsense-over-the-seat", nonsense),
    ("a-killed-child", killed_child),
    ("the-monitor-is-gone", monitor_is_gone),
    ("child", child),
];

fn main() {
    for name in begin(APPLICATIONS).into_iter().filter(|name| *name != "child") {
        let folder = tempfile::tempdir().unwrap();
        let mut command = named(name, folder.path());
        let watched = Watched::on(&mut command);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let ending = if name.starts_with("everybody") { libc::SIGSEGV } else { 0 };
        let code = if ending == 0 { Some(0) } else { None };
        assert_eq!(
            (output.status.signal().unwrap_or(0), output.status.code()),
            (ending, code),
            "{name}: {said}"
        );
        wait_for("everybody's end", || processes(folder.path()).is_empty().then_some(()));
        check(name, folder.path());
        let dumps = watched.check(folder.path());
        assert!(dumps > 0 || name == "a-killed-child", "{name}: no dump was compared with its receipt");
        println!("{name} ok");
    }
}

/// Reasons of all reports, and how often the log says that a process joined.
fn check(name: &str, folder: &Path) {
    let mut found = reasons(folder);
    found.sort();
    let expected: (&[&str], usize) = match name {
        "everybody-is-reported-by-one-monitor" => (&["requested", "signal", "signal", "signal", "signal"], 3),
        "the-first-one-goes-first" | "a-forked-child" => (&["signal"], 1),
        "other-settings" | "the-monitor-is-gone" => (&["signal"], 0),
        "nonsense-over-the-seat" => (&["requested", "signal"], 1),
        "a-killed-child" => (&["unclean-exit"], 1),
        _ => unreachable!(),
    };
    assert_eq!(
        (found.as_slice(), events(folder, "joined")),
        expected_strings(expected),
        "{name}: {}",
        log(folder)
    );
}

fn expected_strings((reasons, joined): (&[&'static str], usize)) -> (&'static [String], usize) {
    let reasons: Vec<String> = reasons.iter().map(|&reason| reason.to_owned()).collect();
    (reasons.leak(), joined)
}

fn config(folder: &Path, version: &str) -> Config {
    let config = Config::new("sharing", version).spool(folder).consent(ConsentPolicy::NotRequired);
    config.linger(Duration::ZERO).reports_per_signature(u32::MAX).log(folder.join("log"))
}

fn install(folder: &Path) -> Guard {
    config(folder, "1").install().unwrap()
}

/// One that got a seat as its standard input. What it does is in `DO`.
fn child(folder: &Path) {
    let seat = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let version = env::var("VERSION").unwrap_or_else(|_| "1".to_owned());
    let guard = config(folder, &version).share_monitor(seat).install().unwrap();
    cenotaph::set_attribute("who", "a child").unwrap();
    let mut output = std::io::stdout();
    output.write_all(b"ready\n").and_then(|()| output.flush()).unwrap();
    match env::var("DO").unwrap().as_str() {
        "crash" => fault(),
        "wait" => loop {
            std::thread::park();
        },
        // Until its parent and everybody else that wrote there is gone.
        "crash-last" => {
            let mut first = [0];
            let _ = std::io::Read::read(&mut pipe(), &mut first);
            fault();
        }
        other => panic!("{other}"),
    }
    drop(guard);
}

fn pipe() -> fs::File {
    fs::File::open(env::var_os("PIPE").unwrap()).unwrap()
}

fn fault() {
    // SAFETY: none: the process is to die.
    unsafe { ptr::null_mut::<u8>().write_volatile(1) };
}

fn everybody(folder: &Path) {
    let _guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    let mut children: Vec<Child> = (0..3).map(|_| start(folder, &seat, "crash", "1")).collect();
    for child in &mut children {
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGSEGV));
    }
    wait_for("their reports", || (reasons(folder).len() == 3).then_some(()));
    cenotaph::capture("still there").unwrap();
    assert_eq!(supervisors(folder).len(), 1);
    fault();
}

fn first_goes_first(folder: &Path) {
    let guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    let path = std::ffi::CString::new(folder.join("pipe").into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: a path with its end.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut child = start(folder, &seat, "crash-last", "1");
    ready(&mut child);
    assert_eq!(supervisors(folder).len(), 1);
    drop(guard);
    // Nobody of this process is a client any more; the monitor stays for the child.
    wait_for("the good-bye", || (events(folder, "joined") == 1).then_some(()));
    let monitor = supervisors(folder);
    drop(fs::File::create(folder.join("pipe")).unwrap());
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGSEGV));
    assert_eq!(monitor.len(), 1);
}

fn forked_child(folder: &Path) {
    let guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    // SAFETY: one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let own = config(folder, "1").share_monitor(seat).install().unwrap();
        assert_eq!(supervisors(folder).len(), 1);
        std::mem::forget((guard, own));
        fault();
    }
    let mut status = 0;
    // SAFETY: waits for the child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
}

fn other_settings(folder: &Path) {
    let _guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    let mut child = start(folder, &seat, "crash", "2");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGSEGV), "it has a monitor of its own");
    wait_for("the refusal", || (events(folder, "not-joined") == 1).then_some(()));
}

fn nonsense(folder: &Path) {
    let _guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    let long = vec![0x55; 64 << 10];
    let messages: [&[u8]; 6] = [b"", b"x", &long, b"CENOMSG\x01", &[0; 80], &[0xff; 4096]];
    for message in messages {
        // SAFETY: bytes and their length. What the socket does not take is no message.
        unsafe { libc::send(seat.as_raw_fd(), message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
    }
    wait_for("the refusals", || (events(folder, "not-joined") == 6).then_some(()));
    let mut child = start(folder, &seat, "crash", "1");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGSEGV));
    cenotaph::capture("unharmed").unwrap();
    assert_eq!(supervisors(folder).len(), 1);
}

fn killed_child(folder: &Path) {
    let _guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    let mut child = start(folder, &seat, "wait", "1");
    ready(&mut child);
    child.kill().unwrap();
    // Not collected yet: the monitor finds out how it ended from the zombie.
    wait_for("the report", || (reasons(folder).len() == 1).then_some(()));
    child.wait().unwrap();
}

fn monitor_is_gone(folder: &Path) {
    let guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    // One that is still starting is no supervisor yet, and would serve the child.
    wait_for("the monitor", || (guard.status().monitor == Monitor::Ready).then_some(()));
    drop(guard);
    wait_for("the monitor's end", || supervisors(folder).is_empty().then_some(()));
    let mut child = start(folder, &seat, "crash", "1");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGSEGV), "it has a monitor of its own");
}

/// A child with the seat as its standard input.
fn start(folder: &Path, seat: &OwnedFd, deed: &str, version: &str) -> Child {
    let mut command = named("child", folder);
    command.env("DO", deed).env("VERSION", version).env("PIPE", folder.join("pipe"));
    command.stdin(Stdio::from(seat.try_clone().unwrap())).stdout(Stdio::piped()).spawn().unwrap()
}

fn ready(child: &mut Child) {
    let mut line = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
}

fn named(name: &str, folder: &Path) -> Command {
    let mut command = application(name, folder);
    // So that its monitors, which have the same arguments, can be told from others.
    command.arg0(folder.file_name().unwrap());
    command
}

/// All that have the folder's name as `argv[0]`, monitors that are still starting too.
fn processes(folder: &Path) -> Vec<i32> {
    let name = folder.file_name().unwrap().as_encoded_bytes();
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_one = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|&byte| byte == 0).next() == Some(name)
    };
    pids.filter(is_one).collect()
}

/// Those named `cenotaph` whose parent is none of them.
fn supervisors(folder: &Path) -> Vec<i32> {
    let all: Vec<(i32, i32)> = processes(folder)
        .into_iter()
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (head, rest) = stat.rsplit_once(") ")?;
            head.ends_with("(cenotaph").then_some((pid, rest.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let is_one = |pid: i32| all.iter().any(|(other, _)| *other == pid);
    all.iter().filter(|(_, parent)| !is_one(*parent)).map(|(pid, _)| *pid).collect()
}

fn reasons(folder: &Path) -> Vec<String> {
    let Ok(Some(key)) = LocalKey::load(folder) else { return Vec::new() };
    let items: Vec<PathBuf> = Spool::new(folder).list().unwrap().into_iter().map(|item| item.path).collect();
    let reason = |path: &PathBuf| {
        let part = container::read_part(&fs::read(path).unwrap(), PartKind::Report, &key).unwrap().unwrap();
        let report: Report = serde_json::from_slice(&part.bytes).unwrap();
        match report.reason {
            Reason::Signal { .. } => "signal",
            Reason::Requested { .. } => "requested",
            Reason::UncleanExit { signal: Some(libc::SIGKILL), .. } => "unclean-exit",
            other => panic!("{other:?}"),
        }
        .to_owned()
    };
    items.iter().map(reason).collect()
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn events(folder: &Path, event: &str) -> usize {
    log(folder).matches(&format!("\"event\":\"{event}\"")).count()
}
