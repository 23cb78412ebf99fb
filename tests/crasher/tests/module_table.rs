//! What one worker learnt of the binaries' files, the next one knows, and says the same of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use cenotaph::report::{Module, Report};
use cenotaph::spool::key::LocalKey;
use cenotaph::spool::{PartKind, container};
use scene::{Live, Scene};

/// Whether the file system's numbers in `/proc/PID/maps` are those of stat(2). Overlays and btrfs have others.
fn numbers_are_told() -> bool {
    let program = std::env::current_exe().unwrap();
    let inode = fs::metadata(&program).unwrap().ino().to_string();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with(program.to_str().unwrap())).unwrap();
    line.split_whitespace().nth(4) == Some(&inode)
}

#[test]
fn the_second_dump_learns_nothing_new() {
    let scene = Scene::new();
    let mut live = Live::start(scene.victim(&["--consent", "granted"], "none"));
    let events = |name: &str| scene.log().iter().filter(|line| line["event"] == name).count();
    for dump in 1..=3 {
        assert!(live.say("capture").starts_with("ok capture"));
        // Answered when no worker has anything in hand any more, and a worker learns before it says that it is done.
        assert_eq!(live.say("flush 60000"), "ok flush");
        assert_eq!(events("spooled"), dump);
        if numbers_are_told() {
            // Of the first dump's, what was not read in advance: maybe nothing.
            assert!(events("modules-learnt") <= 1, "dump {dump}: {:#?}", scene.log());
        }
    }
    live.say("exit");
    live.end();
    scene.wait_end();
    let log = scene.log();
    let place = |name: &str, nth: usize| {
        let mut all = log.iter().enumerate().filter(|(_, line)| line["event"] == name);
        all.nth(nth).map(|(index, _)| index)
    };
    if numbers_are_told()
        && let Some(learnt) = place("modules-learnt", 0)
    {
        assert!(place("spooled", 0) < Some(learnt) && Some(learnt) < place("spooled", 1), "{log:#?}");
    }
    let key = LocalKey::from_file(&scene.spool().join("key")).unwrap();
    let modules = |path: &std::path::PathBuf| -> Vec<Module> {
        let parts = container::open(&fs::read(path).unwrap(), &key).unwrap();
        let part = parts.into_iter().find(|part| part.kind == PartKind::Report).unwrap();
        serde_json::from_slice::<Report>(&part.bytes).unwrap().stack_trace.modules
    };
    let all: Vec<_> = scene.reports("pending").iter().map(modules).collect();
    assert_eq!(all.len(), 3);
    assert!(all[0].len() > 4 && all[0].iter().all(|module| !module.build_id.is_empty()));
    assert!(all.iter().all(|modules| *modules == all[0]), "{all:#?}");
}
