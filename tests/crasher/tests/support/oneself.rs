//! Test programs that execute themselves as [`applications`]: starting one under a name of its own, and what came of it.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;

#[path = "applications.rs"]
mod applications;

pub(crate) use applications::{Application, Watched, begin, wait_for};
use cenotaph::report::{Reason, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};

/// This program as application `name`, which finds both in its environment.
pub(crate) fn application(name: &str, folder: &Path) -> Command {
    let mut command = applications::application(name, folder);
    // So that its monitors, which have the same arguments, can be told from others.
    command.arg0(folder.file_name().unwrap());
    command
}

/// Runs it; `signal` 0: it has to end well.
pub(crate) fn run(name: &str, folder: &Path, signal: i32) -> Watched {
    let mut command = application(name, folder);
    let watched = Watched::on(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let ending = (output.status.signal().unwrap_or(0), output.status.code().unwrap_or(0));
    assert_eq!(ending, (signal, 0), "{name}: {said} {}", log(folder));
    watched
}

/// Waits until nobody of them runs any more.
pub(crate) fn wait_for_all_to_end(folder: &Path) {
    wait_for("everybody's end", || processes(folder).is_empty().then_some(()));
}

/// Processes named `cenotaph` with the folder's name as `argv[0]`: monitors that have begun.
pub(crate) fn monitors(folder: &Path) -> Vec<i32> {
    let comm = |pid: &i32| fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    processes(folder).into_iter().filter(|pid| comm(pid) == b"cenotaph\n").collect()
}

/// All that have the folder's name as `argv[0]`, applications and monitors that have not begun yet too.
pub(crate) fn processes(folder: &Path) -> Vec<i32> {
    let name = folder.file_name().unwrap().as_encoded_bytes();
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_one = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|&byte| byte == 0).next() == Some(name)
    };
    pids.filter(is_one).collect()
}

/// kill -9 of all of them.
pub(crate) fn end_monitor(folder: &Path) {
    wait_for("a monitor", || (!monitors(folder).is_empty()).then_some(()));
    wait_for("its end", || {
        let all = monitors(folder);
        // SAFETY: plain values; looked up just before.
        all.iter().for_each(|pid| unsafe { assert_eq!(libc::kill(*pid, libc::SIGKILL), 0) });
        all.is_empty().then_some(())
    });
}

/// Of all reports, sorted.
pub(crate) fn reasons(folder: &Path) -> Vec<&'static str> {
    let Ok(Some(key)) = LocalKey::load(folder) else { return Vec::new() };
    let items = Spool::new(folder).list().unwrap();
    let reason = |path: &Path| {
        let part = container::read_part(&fs::read(path).unwrap(), PartKind::Report, &key).unwrap().unwrap();
        let report: Report = serde_json::from_slice(&part.bytes).unwrap();
        let crashed = report.stack_trace.threads.iter().find(|thread| thread.crashed);
        assert!(crashed.is_some_and(|thread| thread.frames.len() >= 3), "{report:?}");
        match report.reason {
            Reason::Signal { number: libc::SIGSEGV, .. } => "signal",
            Reason::Requested { .. } => "requested",
            other => panic!("{other:?}"),
        }
    };
    let mut reasons: Vec<_> = items.iter().map(|item| reason(&item.path)).collect();
    reasons.sort_unstable();
    reasons
}

pub(crate) fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// How often something is in the log.
pub(crate) fn events(folder: &Path, event: &str) -> usize {
    log(folder).matches(&format!("\"event\":\"{event}\"")).count()
}
