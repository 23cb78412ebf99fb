//! Scrubbing changes no frame: dumps of the crasher, for each way to die that leaves one, with 1 to 128 threads.
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
#[path = "support/stackwalk.rs"]
mod stackwalk;
mod support;
#[path = "support/symbols.rs"]
mod symbols;

use cenotaph::scrub::Policy;
use scene::{Scene, sent::byte_diff};
use stackwalk::{Stackwalk, Tally};

/// All but `sigkill`, of which nothing is left to dump, and `none`.
const WAYS: [&str; 22] = [
    "null",
    "abort",
    "panic",
    "bus",
    "ill",
    "fpe",
    "trap",
    "sys",
    "stack-overflow",
    "stack-overflow-thread",
    "heap-lock",
    "two-threads",
    "abort-in-handler-chain",
    "panic-abort",
    "panic-in-panic",
    "cxx-throw",
    "oom-rust",
    "stack-smash",
    "double-free",
    "fork-child",
    "hang",
    "capture",
];

/// The crasher's files that have frames.
const SOURCES: [&str; 8] = [
    "chain.rs",
    "fault.rs",
    "native.rs",
    "overflow.rs",
    "panics.rs",
    "payload.rs",
    "workload.rs",
    "ways.cpp",
];

/// A dump before scrubbing.
fn dump(way: &str, threads: usize) -> Vec<u8> {
    let scene = Scene::new();
    let mut command = scene.victim(&["--consent", "granted", "--deadline-ms", "60000"], way);
    command.args(["--threads", &threads.to_string()]);
    scene.run(command);
    let spooled = scene.wait_event("spooled");
    scene.wait_end();
    assert_eq!(scene.check_dumps(), 1, "{way}");
    scene.raw(spooled["report"].as_str().unwrap())
}

fn with_threads(threads: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (judge, mut tally) = (Stackwalk::new(folder.path()), Tally::default());
    let policy = Policy { known: vec!["parked".to_owned()], ..Policy::default() };
    for way in WAYS {
        let dump = dump(way, threads);
        symbols::write(folder.path(), support::crasher(), &dump, &SOURCES);
        judge.compare(&format!("{way} with {threads} threads"), &dump, &policy, &mut tally);
    }
    assert_eq!(tally.dumps, WAYS.len());
    // Else the comparison would compare nothing.
    assert!(tally.lines > WAYS.len() * 20, "{tally:#?}");
    tally.assert(&format!("the crasher with {threads} threads"));
}

#[test]
fn of_one_thread() {
    with_threads(1);
}

#[test]
fn of_sixteen_threads() {
    with_threads(16);
}

#[test]
fn of_many_threads() {
    with_threads(128);
}
