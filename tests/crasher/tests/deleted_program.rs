//! A program that is deleted, as by an update, while it runs: its report has the frames that it would have had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs;

use cenotaph::report::{Report, Trust};
use cenotaph::spool::key::LocalKey;
use cenotaph::spool::{PartKind, container};
use scene::{Ending, Live, Scene};

/// The report of a copy of the program that crashes by command, after it was deleted or not.
fn report(deleted: bool) -> Report {
    let scene = Scene::new();
    let program = scene.path("copy");
    support::copy_program(support::crasher(), &program);
    let command = scene.victim_of(&program, &["--consent", "granted", "--release-at", "spooled"], "none");
    let mut live = Live::start(command);
    if deleted {
        fs::remove_file(&program).unwrap();
    }
    live.tell("die null");
    assert_eq!(live.end().0, Ending::Signal(libc::SIGSEGV));
    let reports = scene.reports("pending");
    assert_eq!(reports.len(), 1);
    let key = LocalKey::from_file(&scene.spool().join("key")).unwrap();
    let parts = container::open(&fs::read(&reports[0]).unwrap(), &key).unwrap();
    let part = parts.iter().find(|part| part.kind == PartKind::Report).unwrap();
    serde_json::from_slice(&part.bytes).unwrap()
}

#[test]
fn its_frames_are_the_same() {
    let frames = |report: &Report| {
        let frames = &report.stack_trace.threads[0].frames;
        frames.iter().map(|frame| (frame.offset, frame.trust)).collect::<Vec<_>>()
    };
    let (kept, deleted) = (report(false), report(true));
    assert_eq!(frames(&deleted), frames(&kept), "{:?}", deleted.notes);
    assert!(frames(&deleted).len() > 8);
    assert!(
        frames(&deleted)[1..].iter().all(|(_, trust)| *trust == Trust::Unwound),
        "{:?}",
        frames(&deleted)
    );
    assert_eq!(deleted.notes, kept.notes);
}
