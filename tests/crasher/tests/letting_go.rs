//! A worker that is stopped when it has the memory, while it lets the threads go: those that it still traces would keep the
//! process from ending for as long as it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs;
use std::time::{Duration, Instant};

use scene::{Live, Scene, attachment_of, wait_for};
use support::ending::Ending;

/// Who traces a thread; 0 if nobody does, `None` if it is no more.
fn tracer(victim: i32, thread: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{victim}/task/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok()
}

/// Stops the worker when it has let the first thread go, which is the one that crashed. Whether others are left to it.
fn stop_in_between(victim: i32) -> bool {
    let mut worker = 0;
    loop {
        match tracer(victim, victim) {
            None => return false,
            Some(0) if worker != 0 => break,
            Some(0) => {}
            Some(found) => worker = found,
        }
    }
    processes::signal(worker, libc::SIGSTOP);
    let Ok(threads) = fs::read_dir(format!("/proc/{victim}/task")) else { return false };
    let mut threads = threads.map_while(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    threads.any(|thread| tracer(victim, thread) == Some(worker))
}

/// Far more than the victims' deadline, far less than a worker's time for a report (120 s).
const BOUND: Duration = Duration::from_secs(60);

#[test]
fn a_worker_that_is_stopped_while_it_lets_go_holds_nobody() {
    let mut caught = 0;
    for _ in 0..40 {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let mut options = collector.options("crashpad");
        options
            .extend(["--consent", "granted", "--deadline-ms", "4000", "--threads", "512"].map(str::to_owned));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut live = Live::start(scene.victim(&options, "none"));
        wait_for("the supervisor and its idle worker", || (scene.processes().len() == 3).then_some(()));
        let began = Instant::now();
        live.tell("die null");
        let hit = stop_in_between(live.pid());
        let (ending, said) = live.end();
        assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
        assert!(began.elapsed() < BOUND, "it was held for {:?}", began.elapsed());
        let requests = collector.wait_accepted(1);
        scene.wait_end();
        assert_eq!((requests.len(), scene.all_reports().len()), (1, 0), "one crash, one report");
        assert_eq!(attachment_of(&requests[0])["report"]["detail"], "minidump");
        let replaced = scene.log().iter().any(|line| line["event"] == "worker-replaced");
        caught += usize::from(hit && replaced);
        if caught == 3 {
            break;
        }
    }
    assert!(caught > 0, "no worker was caught in the act");
}
