//! A monitor that has nothing to do does nothing: none of its threads is ever switched to.
//!
//! The window is 3 s; `CRASHER_IDLE_SECONDS=60` makes it as long as the slow lane wants it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;
use std::{env, fs, thread};

use scene::{Live, Scene, wait_for};

/// A thread as /proc shows it (proc_pid_status(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thread {
    /// 'S' sleeps until something wakes it; 'R' runs, or would if it were given a processor.
    state: char,
    voluntary: u64,
    involuntary: u64,
}

/// The threads of Cenotaph's processes.
type Threads = BTreeMap<(i32, String), Thread>;

fn threads(scene: &Scene) -> Threads {
    let ours = scene.processes().into_iter().filter(|process| process.comm == "cenotaph");
    let mut found = Threads::new();
    for process in ours {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", process.pid)) else { continue };
        for thread in threads {
            let thread = thread.unwrap().file_name().into_string().unwrap();
            let status = fs::read_to_string(format!("/proc/{}/task/{thread}/status", process.pid)).unwrap();
            found.insert((process.pid, thread), thread_as(&status));
        }
    }
    found
}

fn thread_as(status: &str) -> Thread {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    let count = |name| field(name).parse().unwrap();
    Thread {
        state: field("State:").chars().next().unwrap(),
        voluntary: count("voluntary_ctxt_switches:"),
        involuntary: count("nonvoluntary_ctxt_switches:"),
    }
}

/// What the processes look like once they have gone to sleep: two looks, a tenth of a second apart, are the same, and
/// all sleep. A thread that works, or waits for a processor, is switched as little as one that sleeps.
fn settled(scene: &Scene) -> Threads {
    let mut last = Threads::new();
    wait_for("the monitor to come to rest", || {
        let before = std::mem::replace(&mut last, threads(scene));
        thread::sleep(Duration::from_millis(100));
        // The supervisor and the worker that it keeps for the first crash.
        let rests = last.len() >= 2 && last.values().all(|thread| thread.state == 'S');
        (rests && last == before).then(|| last.clone())
    })
}

fn stays_asleep(commands: &[&str]) {
    let seconds = env::var("CRASHER_IDLE_SECONDS").map_or(3, |text| text.parse().unwrap());
    let scene = Scene::new();
    let mut live = Live::start(scene.victim(&["--consent", "granted"], "none"));
    for command in commands {
        assert!(live.say(command).starts_with("ok "), "{command}");
    }
    let before = settled(&scene);
    thread::sleep(Duration::from_secs(seconds));
    assert_eq!(threads(&scene), before, "after {seconds} s of nothing");
    live.end();
    scene.wait_end();
}

#[test]
fn an_idle_monitor_has_no_wake_ups() {
    stays_asleep(&[]);
}

#[test]
fn nor_has_one_that_has_reported() {
    stays_asleep(&["capture", "flush 20000"]);
}

/// The figures that are compared do move when something happens.
#[test]
fn a_report_wakes_it() {
    let scene = Scene::new();
    let mut live = Live::start(scene.victim(&["--consent", "granted"], "none"));
    let before = settled(&scene);
    assert!(live.say("capture").starts_with("ok capture"));
    assert_ne!(threads(&scene), before);
    live.end();
    scene.wait_end();
}
