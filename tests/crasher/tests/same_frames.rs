//! Scrubbing changes no frame: dumps of the crasher, for each way to die that leaves one, and with up to 128 threads for some.
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

/// Ways that are died with this many threads more: at once, in one of them, and where it waits.
const MANY: [(usize, [&str; 3]); 2] =
    [(16, ["abort", "stack-overflow-thread", "hang"]), (128, ["null", "two-threads", "capture"])];

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

/// One after the other: symbols of a large program are read once.
#[test]
fn of_the_crasher() {
    let folder = tempfile::tempdir().unwrap();
    let (judge, mut tally) = (Stackwalk::new(folder.path()), Tally::default());
    let policy = Policy { known: vec!["parked".to_owned()], ..Policy::default() };
    let many = MANY.iter().flat_map(|(threads, ways)| ways.iter().map(|way| (*way, *threads)));
    let all: Vec<(&str, usize)> = WAYS.iter().map(|way| (*way, 1)).chain(many).collect();
    for &(way, threads) in &all {
        let dump = dump(way, threads);
        symbols::write(folder.path(), support::crasher(), &dump, &SOURCES);
        judge.compare(&format!("{way} with {threads} threads"), &dump, &policy, &mut tally);
    }
    assert_eq!(tally.dumps, all.len());
    // Else the comparison would compare nothing.
    assert!(tally.lines > all.len() * 20, "{tally:#?}");
    tally.assert("the crasher");
}
