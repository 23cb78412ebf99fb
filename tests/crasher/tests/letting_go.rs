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

/// Far more than the victims' deadline, far less than a worker's time for a report (120 s).
const BOUND: Duration = Duration::from_secs(60);
/// What the worker is left between two looks: a small part of what letting 512 threads go takes.
const STEP: Duration = Duration::from_micros(100);

/// How long a worker is led: so that the victim has enough left of its deadline for another one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far a worker is with a victim whose threads it has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It has the thread that crashed, and reads.
    Reading,
    /// That one is let go, others are not.
    LettingGo,
    /// That one has ended too, and waits for the others.
    Ending,
    /// It traces nobody.
    Over,
}

/// `first` is the thread that crashed, which is the process's first; `left` tells whether it traces any thread at all.
fn phase(worker: i32, first: Option<Traced>, left: bool) -> Phase {
    match first {
        _ if !left => Phase::Over,
        Some(Traced { tracer, .. }) if tracer == worker => Phase::Reading,
        Some(Traced { zombie: false, .. }) => Phase::LettingGo,
        Some(_) | None => Phase::Ending,
    }
}

fn phase_of(worker: i32, victim: i32) -> Phase {
    let tasks = fs::read_dir(format!("/proc/{victim}/task")).into_iter().flatten();
    let mut threads = tasks.map_while(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let left = threads.any(|thread| traced(victim, thread).is_some_and(|thread| thread.tracer == worker));
    phase(worker, traced(victim, victim), left)
}

/// Leads the victim's worker in small steps to `wanted`, or past it but not to the end, and leaves it standing there. `false` if it
/// was not caught: then it goes on. Between two looks it stands, so what was seen stays true. One that yields to whoever looks takes
/// small steps on a single processor too, but comes to nothing where others want all the processors.
fn stop_at(wanted: Phase, victim: i32, yields: bool) -> bool {
    let began = Instant::now();
    let worker = loop {
        match traced(victim, victim) {
            Some(Traced { tracer: 0, zombie: false }) => {}
            Some(Traced { tracer, .. }) if tracer != 0 => break tracer,
            Some(_) | None => return false,
        }
        assert!(began.elapsed() < BOUND, "no worker has come");
    };
    if yields {
        processes::make_idle(worker);
    }
    let took_over = Instant::now();
    loop {
        if took_over.elapsed() > PATIENCE {
            processes::kill(worker);
            return false;
        }
        if !processes::stop(worker) {
            return false;
        }
        let phase = standing(worker, victim, wanted);
        if (wanted..Phase::Over).contains(&phase) {
            return true;
        }
        processes::signal(worker, libc::SIGCONT);
        if phase > wanted {
            return false;
        }
        std::thread::sleep(STEP);
    }
}

/// What is found while the worker stands. The thread that it has let go gets the time to end, if that is what is wanted.
fn standing(worker: i32, victim: i32, wanted: Phase) -> Phase {
    let began = Instant::now();
    loop {
        let phase = phase_of(worker, victim);
        if phase != Phase::LettingGo || wanted <= phase || began.elapsed() > PATIENCE / 10 {
            return phase;
        }
        std::thread::sleep(STEP);
    }
}

#[test]
fn a_worker_that_is_stopped_while_it_lets_go_holds_nobody() {
    holds_nobody(Phase::LettingGo);
}

#[test]
fn a_worker_that_is_stopped_while_the_process_ends_holds_nobody() {
    holds_nobody(Phase::Ending);
}

#[test]
fn a_parent_is_not_taken_for_a_tracer() {
    let status =
        |tracer: i32| format!("Name:\tcrasher\nState:\tR (running)\nPPid:\t7\nTracerPid:\t{tracer}\n");
    // Process 7 has the threads 7 and 9.
    let is_thread_of = |thread, process| process == 7 && [7, 9].contains(&thread);
    let seen = |tracer| processes::traced_as(&status(tracer), is_thread_of).map(|thread| thread.tracer);
    assert_eq!([seen(0), seen(8), seen(7), seen(9)], [Some(0), Some(8), Some(0), Some(0)]);
}

#[test]
fn phases() {
    let thread = |tracer, zombie| Some(Traced { tracer, zombie });
    for (first, left, expected) in [
        (thread(8, false), true, Phase::Reading),
        (thread(0, false), true, Phase::LettingGo),
        (thread(0, true), true, Phase::Ending),
        (None, true, Phase::Ending),
        (thread(0, false), false, Phase::Over),
        (None, false, Phase::Over),
    ] {
        assert_eq!(phase(8, first, left), expected, "{first:?} {left}");
    }
}

fn holds_nobody(moment: Phase) {
    let mut caught = 0;
    for round in 0..40 {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let mut options = collector.options("crashpad");
        options
            .extend(["--consent", "granted", "--deadline-ms", "8000", "--threads", "512"].map(str::to_owned));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut live = Live::start(scene.victim(&options, "none"));
        wait_for("the supervisor and its idle worker", || (scene.processes().len() == 3).then_some(()));
        let began = Instant::now();
        live.tell("die null");
        let hit = stop_at(moment, live.pid(), round % 2 == 1);
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
