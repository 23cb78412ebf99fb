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

use processes::{Traced, traced};
use scene::{Live, Scene, attachment_of, wait_for};
use support::ending::Ending;

/// Waits for the worker's letting the first thread go, which is the one that crashed. Who that is, if it was seen to trace:
/// on a busy machine all may be over between two looks.
fn first_is_let_go(victim: i32) -> Option<i32> {
    let mut worker = None;
    looking(|| match traced(victim, victim) {
        Some(Traced { tracer: 0, zombie: false }) => worker.map(Some),
        Some(Traced { tracer: 0, zombie: true }) | None => Some(worker),
        Some(Traced { tracer, .. }) => {
            worker = Some(tracer);
            None
        }
    })
}

/// Waits for the end of the first thread, when that of the others is on its way.
fn first_has_ended(victim: i32) -> Option<i32> {
    let worker = first_is_let_go(victim)?;
    looking(|| match traced(victim, victim) {
        Some(Traced { zombie: false, .. }) => None,
        Some(_) => Some(Some(worker)),
        None => Some(None),
    })
}

/// Without a pause, as what is looked for lasts some microseconds, but not for ever.
fn looking(mut probe: impl FnMut() -> Option<Option<i32>>) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(seen) = probe() {
            return seen;
        }
        assert!(began.elapsed() < BOUND, "the worker has not let go");
    }
}

/// Stops the worker at `moment`. Whether threads are left to it then.
fn stop_at(moment: fn(i32) -> Option<i32>, victim: i32) -> bool {
    let Some(worker) = moment(victim) else { return false };
    processes::signal(worker, libc::SIGSTOP);
    let Ok(threads) = fs::read_dir(format!("/proc/{victim}/task")) else { return false };
    let mut threads = threads.map_while(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    threads.any(|thread| traced(victim, thread).is_some_and(|thread| thread.tracer == worker))
}

/// Far more than the victims' deadline, far less than a worker's time for a report (120 s).
const BOUND: Duration = Duration::from_secs(60);

#[test]
fn a_worker_that_is_stopped_while_it_lets_go_holds_nobody() {
    holds_nobody(first_is_let_go);
}

#[test]
fn a_worker_that_is_stopped_while_the_process_ends_holds_nobody() {
    holds_nobody(first_has_ended);
}

#[test]
fn a_parent_is_not_taken_for_a_tracer() {
    let status =
        |tracer: i32| format!("Name:\tcrasher\nState:\tR (running)\nPPid:\t7\nTracerPid:\t{tracer}\n");
    let seen = |tracer| processes::traced_as(&status(tracer)).map(|thread| thread.tracer);
    assert_eq!([seen(0), seen(8), seen(7)], [Some(0), Some(8), Some(0)]);
}

fn holds_nobody(moment: fn(i32) -> Option<i32>) {
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
        let hit = stop_at(moment, live.pid());
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
