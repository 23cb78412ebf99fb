//! Nothing that Cenotaph's handlers do allocates, frees or locks, in any way to die: a preloaded library would end the
//! process at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use scene::{Ending, Scene};
use support::ending;

const SIGSEGV: Ending = Ending::Signal(libc::SIGSEGV);

/// The ways on which no handler of Cenotaph's runs.
const WITHOUT_HANDLER: [&str; 4] = ["panic", "sigkill", "hang", "capture"];

/// The exit code and the words of a detector that found something.
const FOUND: (Ending, &str) = (Ending::Code(99), "detector: a handler called ");
const ENTERED: &str = "detector: entered";

/// Compiles a C file of tests/support.
fn compile(scene: &Scene, source: &str, name: &str, arguments: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(source);
    let made = scene.path(name);
    let mut command = Command::new("cc");
    command
        .args(["-O1", "-g", "-Wall", "-Werror", "-pthread"])
        .args(arguments)
        .arg(source)
        .arg("-o")
        .arg(&made);
    let output = command.output().expect("a C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    made
}

fn detector(scene: &Scene) -> PathBuf {
    compile(scene, "detector.c", "detector.so", &["-shared", "-fPIC", "-ldl"])
}

#[test]
fn it_finds_what_a_handler_must_not_do() {
    let scene = Scene::new();
    let detector = detector(&scene);
    let program = compile(&scene, "handler.c", "handler", &[]);
    for (deed, finds, enters) in [
        ("malloc", true, true),
        ("free", true, true),
        ("lock", true, true),
        ("nothing", false, true),
        // Not one of Cenotaph's.
        ("unmasked", false, false),
    ] {
        let mut command = Command::new(&program);
        command.arg(deed).env("LD_PRELOAD", &detector);
        scene.named(&mut command);
        let (ending, said) = scene.run(command);
        let expected = if finds { FOUND.0 } else { SIGSEGV };
        assert_eq!((ending, said.contains(FOUND.1)), (expected, finds), "{deed}: {said}");
        assert_eq!(said.contains(ENTERED), enters, "{deed}: {said}");
    }
}

/// Every way, with the monitor in `state`.
fn is_silent(state: &str) {
    let compiled = Scene::new();
    let detector = detector(&compiled);
    // Without a monitor nobody notices a hang.
    let applies = |way: &str| is_known(way) && (way != "hang" || state == "alive");
    for (way, expected) in ending::all().filter(|(way, _)| *way != "none" && applies(way)) {
        let scene = Scene::new();
        let mut command = scene.victim(&["--consent", "granted", "--monitor-state", state], way);
        command.args(["--threads", "3", "--deadline-ms", "20000"]).env("LD_PRELOAD", &detector);
        let (ending, said) = scene.run(command);
        assert!(!said.contains(FOUND.1), "{way}, monitor {state}: {said}");
        assert_eq!(ending, expected, "{way}, monitor {state}: {said}");
        assert_eq!(said.contains(ENTERED), !WITHOUT_HANDLER.contains(&way), "{way}, monitor {state}: {said}");
        scene.end();
    }
}

/// The ways that the program has, as it prints them.
fn ways() -> Vec<String> {
    let output = Command::new(support::crasher()).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let list = help.split_once("ways to die:").unwrap().1.split("`none` prints").next().unwrap();
    list.split_whitespace().map(str::to_owned).filter(|way| way != "none").collect()
}

fn is_known(way: &str) -> bool {
    ways().iter().any(|known| known == way)
}

#[test]
fn every_way_is_in_the_table() {
    let ways = ways();
    assert!(ways.len() >= 13, "{ways:?}");
    for way in ways {
        assert!(ending::all().any(|(known, _)| known == way), "{way}");
    }
}

#[test]
fn handlers_are_silent_while_the_monitor_is_there() {
    is_silent("alive");
}

#[test]
fn handlers_are_silent_when_the_monitor_is_gone() {
    is_silent("killed");
}

#[test]
fn handlers_are_silent_when_there_can_be_no_monitor() {
    is_silent("none");
}
