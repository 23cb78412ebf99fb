//! What a report says about its reason, for ends that a signal alone does not explain: exactly one report each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use cenotaph::report::{Evidence, Origin, Reason, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use scene::{Ending, Scene};

const ABORT: Ending = Ending::Signal(libc::SIGABRT);

/// Every report in the scene's spool, oldest first, once nothing runs any more.
fn reports(scene: &Scene) -> Vec<Report> {
    scene.wait_end();
    let Ok(key) = LocalKey::from_file(&scene.spool().join("key")) else { return Vec::new() };
    let items = Spool::new(scene.spool()).list().unwrap();
    let open = |path: &std::path::Path| {
        let bytes = std::fs::read(path).unwrap();
        let part = container::read_part(&bytes, PartKind::Report, &key).unwrap().unwrap();
        serde_json::from_slice(&part.bytes).unwrap()
    };
    let mut reports: Vec<Report> = items.iter().map(|item| open(&item.path)).collect();
    reports.sort_by_key(|report| report.time_ms);
    reports
}

/// The reports of a victim that dies `way`.
fn died(way: &str, ending: Ending) -> Vec<Report> {
    let scene = Scene::new();
    let (ended, said) = scene.run(scene.victim(&["--consent", "granted"], way));
    assert_eq!(ended, ending, "{way}: {said}");
    reports(&scene)
}

fn one(way: &str, ending: Ending) -> Report {
    let mut reports = died(way, ending);
    assert_eq!(reports.len(), 1, "{way}: {:?}", reports.iter().map(|r| &r.reason).collect::<Vec<_>>());
    let report = reports.remove(0);
    let crashed = &report.stack_trace.threads[0];
    assert!(crashed.crashed && crashed.frames.len() >= 10, "{way}: {crashed:?}");
    report
}

fn signal(report: &Report) -> i32 {
    let Reason::Signal { number, .. } = report.reason else { panic!("{:?}", report.reason) };
    number
}

#[test]
fn aborts_say_why() {
    let report = one("abort", ABORT);
    assert_eq!((signal(&report), report.origin), (libc::SIGABRT, Some(Origin::Abort)));

    let report = one("cxx-throw", ABORT);
    let Some(Origin::CxxException { type_name, what }) = report.origin else { panic!("{:?}", report.origin) };
    assert_eq!(type_name, "game::Refused");
    assert_eq!(what.as_deref(), Some("crasher: an exception was asked for"));

    let report = one("stack-smash", ABORT);
    let Some(Origin::StackSmashing { message }) = report.origin else { panic!("{:?}", report.origin) };
    assert!(message.contains("stack smashing detected"), "{message}");

    let report = one("double-free", ABORT);
    let Some(Origin::HeapCorruption { message }) = report.origin else { panic!("{:?}", report.origin) };
    assert!(message.contains("double free"), "{message}");

    let report = one("oom-rust", ABORT);
    assert_eq!(report.origin, Some(Origin::OutOfMemory { bytes: Some(isize::MAX as u64) }));
}

#[test]
fn a_panic_that_ends_the_process_is_one_report() {
    let report = one("panic-abort", ABORT);
    let Reason::Panic { message, .. } = &report.reason else { panic!("{:?}", report.reason) };
    assert_eq!(message, "crasher: a panic was asked for");
}

/// The first one is what went wrong; the second ends the process by way of the first, and the abort is neither's.
#[test]
fn a_panic_in_a_panic_is_one_report() {
    let report = one("panic-in-panic", ABORT);
    let Reason::Panic { message, .. } = &report.reason else { panic!("{:?}", report.reason) };
    assert_eq!(message, "crasher: the first of two panics");
}

#[test]
fn a_handler_that_aborts_adds_no_report() {
    let report = one("abort-in-handler-chain", ABORT);
    assert_eq!((signal(&report), report.origin), (libc::SIGSEGV, None));
}

#[test]
fn a_hang_is_reported_once_and_the_process_lives_on() {
    let report = one("hang", Ending::Code(0));
    assert_eq!(report.reason, Reason::Hang { limit_ms: 100 });
    assert_eq!(report.detail, cenotaph::report::Detail::Minidump, "{:?}", report.notes);
}

#[test]
fn a_death_that_nobody_can_catch_is_reported_without_frames() {
    let mut reports = died("sigkill", Ending::Signal(libc::SIGKILL));
    assert_eq!(reports.len(), 1);
    let report = reports.remove(0);
    let Reason::UncleanExit { signal, evidence, oom_kills } = report.reason else {
        panic!("{:?}", report.reason)
    };
    assert_eq!((signal, oom_kills), (Some(libc::SIGKILL), 0));
    assert!(matches!(evidence, Evidence::Pidfd | Evidence::Zombie), "{evidence:?}");
    assert_eq!(report.stack_trace, cenotaph::report::StackTrace::default());
    assert_eq!(report.notes, [] as [String; 0]);
}

/// What the application noted is in it, and what it must not hold is not.
#[test]
fn the_notes_of_a_killed_process_are_kept_and_scrubbed() {
    let scene = Scene::new();
    let plant = scene.path("plant.json");
    let entries = r#"[{"place": "attribute", "key": "mail", "value": "alice@example.com"},
        {"place": "breadcrumb", "key": "ui", "value": "opened the gate"}]"#;
    std::fs::write(&plant, entries).unwrap();
    let command = scene.victim(&["--consent", "granted", "--plant", plant.to_str().unwrap()], "sigkill");
    let (ended, said) = scene.run(command);
    assert_eq!(ended, Ending::Signal(libc::SIGKILL), "{said}");
    let reports = reports(&scene);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].attributes[0].key, "mail");
    assert!(!reports[0].attributes[0].value.to_string().contains("alice"));
    assert_eq!(reports[0].breadcrumbs[0].message, "opened the gate");
}

#[test]
fn ends_that_somebody_wanted_are_not_unclean() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // A shell's background jobs are started with some of them ignored, and pass that on.
        // SAFETY: sets a disposition that this program has no other use for.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        let scene = Scene::new();
        let live = scene::Live::start(scene.victim(&["--consent", "granted"], "none"));
        // SAFETY: the victim, which waits for commands.
        unsafe { libc::kill(live.pid(), signal) };
        assert_eq!(live.end().0, Ending::Signal(signal));
        assert_eq!(reports(&scene).len(), 0, "{signal}");
    }
    let scene = Scene::new();
    let mut live = scene::Live::start(scene.victim(&["--consent", "granted"], "none"));
    assert_eq!(live.say("exit"), "ok exit");
    assert_eq!(live.end().0, Ending::Code(0));
    assert_eq!(reports(&scene).len(), 0);
}

#[test]
fn nothing_is_kept_of_a_killed_process_without_consent() {
    let scene = Scene::new();
    let (_, said) = scene.run(scene.victim(&["--consent", "denied"], "sigkill"));
    assert_eq!(reports(&scene).len(), 0, "{said}");
}

#[test]
fn a_forked_child_is_no_client() {
    let report = one("fork-child", Ending::Signal(libc::SIGSEGV));
    assert_eq!(signal(&report), libc::SIGSEGV);
}
