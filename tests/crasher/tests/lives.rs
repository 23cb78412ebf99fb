//! What is known from one life of the application to the next: sessions without an end, crashes of the start, signatures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use cenotaph::report::{Evidence, Reason, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use processes::Part;
use scene::{Ending, Live, Scene, wait_for};

const NULL: Ending = Ending::Signal(libc::SIGSEGV);

fn reports(scene: &Scene) -> Vec<Report> {
    scene.wait_end();
    let Ok(key) = LocalKey::from_file(&scene.spool().join("key")) else { return Vec::new() };
    let open = |path: &std::path::Path| {
        let bytes = std::fs::read(path).unwrap();
        let part = container::read_part(&bytes, PartKind::Report, &key).unwrap().unwrap();
        serde_json::from_slice(&part.bytes).unwrap()
    };
    let items = Spool::new(scene.spool()).list().unwrap();
    let mut reports: Vec<Report> = items.iter().map(|item| open(&item.path)).collect();
    reports.sort_by_key(|report| report.time_ms);
    reports
}

/// A victim whose monitor is killed first, then itself.
fn both_are_killed(scene: &Scene) {
    let live = Live::start(scene.victim(&["--consent", "granted"], "none"));
    let sessions = scene.spool().join("sessions");
    // The record is written whole before it has a reader: it is held from its first moment on.
    let written = || std::fs::read_dir(&sessions).ok()?.next()?.ok()?.metadata().ok().filter(|m| m.len() > 0);
    wait_for("the record of the session", written);
    let all = scene.processes();
    let supervisor =
        all.iter().find(|p| p.pid != live.pid() && p.parent != live.pid() && p.comm == "cenotaph");
    let supervisor = supervisor.unwrap().pid;
    let workers = scene.playing(Part::Worker, supervisor, live.pid());
    processes::kill(supervisor);
    workers.into_iter().for_each(processes::kill);
    processes::kill(live.pid());
    assert_eq!(live.end().0, Ending::Signal(libc::SIGKILL));
    scene.wait_end();
    assert_eq!(std::fs::read_dir(&sessions).unwrap().count(), 1);
}

fn next_start(scene: &Scene) -> Vec<Report> {
    let mut live = Live::start(scene.victim(&["--consent", "granted"], "none"));
    wait_for("the earlier session's report", || (!scene.reports("pending").is_empty()).then_some(()));
    assert_eq!(live.say("exit"), "ok exit");
    live.end();
    reports(scene)
}

#[test]
fn a_session_that_nobody_ended_is_told_by_the_next() {
    let scene = Scene::new();
    both_are_killed(&scene);
    let reports = next_start(&scene);
    assert_eq!(reports.len(), 1);
    let expected = Reason::UncleanExit { signal: None, evidence: Evidence::Record, oom_kills: 0 };
    assert_eq!(reports[0].reason, expected);
    assert!(reports[0].notes[0].contains("the session began at"), "{:?}", reports[0].notes);
    assert_eq!(std::fs::read_dir(scene.spool().join("sessions")).unwrap().count(), 0, "told once");
}

#[test]
fn a_session_whose_monitor_is_still_being_taken_down_is_told_too() {
    let scene = Scene::new();
    both_are_killed(&scene);
    let record = std::fs::read_dir(scene.spool().join("sessions")).unwrap().next().unwrap().unwrap().path();
    // As by a killed process, whose files the kernel closes only when it has freed its memory.
    let held = std::fs::File::open(&record).unwrap();
    held.lock().unwrap();
    let mut live = Live::start(scene.victim(&["--consent", "granted"], "none"));
    assert_eq!(live.say("flush 20000"), "ok flush");
    assert_eq!((scene.reports("pending").len(), record.exists()), (0, true), "it was looked at and left");
    drop(held);
    wait_for("the earlier session's report", || (!scene.reports("pending").is_empty()).then_some(()));
    assert_eq!(live.say("exit"), "ok exit");
    live.end();
    assert_eq!((reports(&scene).len(), record.exists()), (1, false), "told once");
}

#[test]
fn a_power_cut_is_told_apart() {
    let scene = Scene::new();
    both_are_killed(&scene);
    let record = std::fs::read_dir(scene.spool().join("sessions")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&record).unwrap();
    let (before, boot) = text.split_once("\"boot\":\"").unwrap();
    let end = boot.find('"').unwrap();
    // As if the machine had been started anew since.
    let earlier = format!("{before}\"boot\":\"{}{}", "0".repeat(end), &boot[end..]);
    std::fs::write(&record, earlier.replace(env!("CARGO_PKG_VERSION"), "0.0.9")).unwrap();
    let reports = next_start(&scene);
    let expected = Reason::UncleanExit { signal: None, evidence: Evidence::RecordBeforeBoot, oom_kills: 0 };
    assert_eq!((reports.len(), &reports[0].reason), (1, &expected));
    assert_eq!(reports[0].version, "0.0.9", "of the application then");
}

#[test]
fn a_crash_leaves_no_open_session() {
    let scene = Scene::new();
    assert_eq!(scene.run(scene.victim(&["--consent", "granted"], "null")).0, NULL);
    assert_eq!(reports(&scene).len(), 1);
    assert_eq!(std::fs::read_dir(scene.spool().join("sessions")).unwrap().count(), 0);
    let scene = Scene::new();
    scene.run(scene.victim(&["--consent", "denied"], "null"));
    scene.wait_end();
    assert!(!scene.spool().join("sessions").exists_with_entries(), "nothing is noted without consent");
}

trait Entries {
    fn exists_with_entries(&self) -> bool;
}

impl Entries for std::path::PathBuf {
    fn exists_with_entries(&self) -> bool {
        std::fs::read_dir(self).is_ok_and(|mut entries| entries.next().is_some())
    }
}

#[test]
fn crashes_of_the_start_in_a_row_make_it_a_safe_one() {
    let scene = Scene::new();
    let options = ["--consent", "granted", "--start-up-ms", "60000"];
    let mode = || {
        let mut live = Live::start(scene.victim(&options, "none"));
        let mode = live.say("mode");
        // Killed before it has outlived its start: it counts as another crash.
        processes::kill(live.pid());
        live.end();
        scene.wait_end();
        mode
    };
    for crashes in 0..4 {
        assert_eq!(mode(), "ok mode usual", "{crashes} crashes so far");
    }
    assert_eq!(mode(), "ok mode safe");
    // An orderly end breaks the row.
    let mut live = Live::start(scene.victim(&options, "none"));
    assert_eq!(live.say("mode"), "ok mode safe");
    live.say("exit");
    live.end();
    scene.wait_end();
    assert_eq!(mode(), "ok mode usual");
}

#[test]
fn a_start_that_lasts_breaks_the_row() {
    let scene = Scene::new();
    let long = ["--consent", "granted", "--start-up-ms", "60000"];
    assert_eq!(scene.run(scene.victim(&long, "sigkill")).0, Ending::Signal(libc::SIGKILL));
    scene.wait_end();
    let row = scene.spool().join("start-ups");
    assert_eq!(std::fs::read_to_string(&row).unwrap(), "1");
    let live = Live::start(scene.victim(&["--consent", "granted", "--start-up-ms", "1"], "none"));
    wait_for("the end of the row", || (!row.exists()).then_some(()));
    live.end();
}

#[test]
fn the_next_start_waits_for_the_delivery() {
    let scene = Scene::new();
    let options = ["--consent", "granted", "--start-up-ms", "60000"];
    assert_eq!(scene.run(scene.victim(&options, "null")).0, NULL);
    scene.wait_end();
    assert_eq!(scene.reports("pending").len(), 1);
    let collector = scene.collector("collected");
    let destination = collector.options("crashpad");
    let mut command = scene.victim(&options, "none");
    command.args(&destination);
    let mut live = Live::start(command);
    // It said `ready` when it was installed.
    assert_eq!(collector.server().seen().accepted, 1);
    live.say("exit");
    live.end();
    scene.wait_end();
}

#[test]
fn many_crashes_alike_are_counted_and_the_count_travels() {
    let scene = Scene::new();
    let options = ["--consent", "granted", "--reports-per-signature", "2"];
    for _ in 0..5 {
        assert_eq!(scene.run(scene.victim(&options, "null")).0, NULL);
        scene.wait_end();
    }
    let alike = reports(&scene);
    assert_eq!(alike.len(), 2);
    assert!(alike.iter().all(|report| report.repeats.is_empty()));
    assert_eq!(alike[0].fingerprint, alike[1].fingerprint);
    let counted = scene.log().iter().filter(|line| line["event"] == "repeated").count();
    assert_eq!(counted, 3);
    assert_eq!(scene.run(scene.victim(&options, "ill")).0, Ending::Signal(libc::SIGILL));
    let all = reports(&scene);
    let other = all.last().unwrap();
    assert_eq!((all.len(), other.repeats.len()), (3, 1));
    assert_eq!((other.repeats[0].fingerprint, other.repeats[0].count), (alike[0].fingerprint, 3));
}
