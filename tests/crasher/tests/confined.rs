//! The uploader and the worker that parses are confined, and where the kernel refuses that, the log says so and reports
//! arrive all the same.
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
#[path = "support/servers.rs"]
mod servers;
mod support;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use processes::Part;
use scene::{Ending, Live, Scene, wait_for};
use servers::Quiet;

/// `Seccomp` of a process: 2 with a filter (proc_pid_status(5)).
fn filtered(pid: i32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?;
    Some(line.trim() == "2")
}

#[test]
fn the_uploader_has_a_filter_while_it_talks() {
    let scene = Scene::new();
    // Takes connections and never says a word.
    let server = Quiet::new();
    let mut command = scene.victim(&["--consent", "granted"], "none");
    command.args(server.options());
    let mut live = Live::start(command);
    let victim = live.pid();
    let supervisor = wait_for("the supervisor", || supervisor(&scene, victim));
    assert!(live.say("capture").starts_with("ok capture"));
    wait_for("the uploader's connection", || (server.connections() > 0).then_some(()));
    let pid = scene.playing(Part::Uploader, supervisor, victim)[0];
    assert_eq!(filtered(pid), Some(true));
    assert_eq!(filtered(supervisor), Some(false), "it has to attach, in its workers");
    scene.end();
}

#[test]
fn a_worker_that_parses_has_a_filter_and_one_that_waits_has_none() {
    let scene = Scene::new();
    // Its scrub hook does not come back for as long as it may.
    let options = ["--consent", "granted", "--pmodule", "scrub-loop", "--pmodule-ms", "60000"];
    let mut live = Live::start(scene.victim(&options, "none"));
    let victim = live.pid();
    let supervisor = wait_for("the supervisor", || supervisor(&scene, victim));
    let idle =
        wait_for("the idle worker", || scene.playing(Part::Worker, supervisor, victim).first().copied());
    assert_eq!(filtered(idle), Some(false));
    // Answered when the memory is read.
    assert!(live.say("capture").starts_with("ok capture"));
    wait_for("the worker's filter", || filtered(idle).unwrap().then_some(()));
    scene.end();
}

#[test]
fn refused_confinement_is_logged_and_reports_arrive() {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    let mut command = scene.victim(&["--consent", "granted"], "null");
    command.args(collector.options("crashpad"));
    without(&mut command, &[libc::SYS_seccomp, libc::SYS_landlock_create_ruleset]);
    let (ending, said) = scene.run(command);
    assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
    collector.wait_accepted(1);
    for process in ["worker", "uploader"] {
        for event in ["no-seccomp", "no-landlock"] {
            scene.wait_log(event, |line| line["event"] == event && line["process"] == process);
        }
    }
    scene.wait_end();
    assert!(scene.all_reports().is_empty());
}

#[test]
fn with_confinement_nothing_of_it_is_in_the_log() {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    let mut command = scene.victim(&["--consent", "granted"], "null");
    command.args(collector.options("crashpad"));
    scene.run(command);
    collector.wait_accepted(1);
    scene.wait_end();
    let log = scene.log();
    let landlock = landlock_version() >= 2;
    let refused = log.iter().filter(|line| line["event"] == "no-landlock").count();
    assert_eq!(refused > 0, !landlock, "{log:#?}");
    assert!(!log.iter().any(|line| line["event"] == "no-seccomp"), "{log:#?}");
}

fn landlock_version() -> libc::c_long {
    // SAFETY: asks for the version: no attributes (landlock_create_ruleset(2)).
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, 1) }
}

fn supervisor(scene: &Scene, victim: i32) -> Option<i32> {
    let all = scene.processes();
    let candidates = all.iter().filter(|process| process.pid != victim && process.comm == "cenotaph");
    let mut found = candidates.filter(|process| all.iter().any(|other| other.parent == process.pid));
    found.next().map(|process| process.pid)
}

/// Has the kernel answer ENOSYS to these calls, in the victim and in all that it starts.
fn without(command: &mut Command, calls: &[libc::c_long]) {
    let step = |code: u32, k: u32, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number is the first word of seccomp_data; the architecture is ours, as nothing here is built for another.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &call in calls {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::try_from(call).unwrap(), 0, 1));
        let errno = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
        program.push(step(libc::BPF_RET | libc::BPF_K, errno, 0, 0));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    // SAFETY: prctl(2) twice between fork and exec, with memory that the closure owns.
    unsafe {
        command.pre_exec(move || {
            let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
            let confined = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0;
            if confined { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}
