//! A report that was made arrives: whatever the server does, and whoever of Cenotaph's processes is killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/random.rs"]
mod random;
#[path = "support/scene.rs"]
mod scene;
#[path = "support/servers.rs"]
mod servers;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use cenotaph_cli::collect::Fail;
use processes::{Part, Process};
use random::random;
use scene::{Collector, Ending, Live, Scene, attachment_of, wait_for};
use servers::Odd;

const NOTHING: [PathBuf; 0] = [];
/// How often each part is killed.
const KILLS: usize = 14;

fn granted(scene: &Scene, options: &[String], way: &str) -> Command {
    let mut command = scene.victim(&["--consent", "granted"], way);
    command.args(options);
    command
}

/// Starts the application once more, and waits until `reports` are accepted.
fn next_start(scene: &Scene, collector: &Collector, reports: u64) {
    let mut live = Live::start(granted(scene, &collector.options("crashpad"), "none"));
    wait_for("the delivery by the next start", || {
        (collector.server().seen().accepted >= reports).then_some(())
    });
    assert_eq!(live.say("exit"), "ok exit");
    live.end();
    scene.wait_end();
}

#[test]
fn the_collector_is_down_at_the_crash_and_up_at_the_next_start() {
    let scene = Scene::new();
    let mut down = scene.collector("collected");
    let (options, address) = (down.options("crashpad"), down.server().address());
    down.stop();
    let (ending, said) = scene.run(granted(&scene, &options, "null"));
    assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
    let line = scene.wait_event("delivery");
    let cause = line["message"].as_str().unwrap();
    assert!(cause.contains("refused") && cause.contains("kept"), "{cause}");
    // The machine is switched off.
    scene.end();
    assert_eq!(scene.all_reports().len(), 1);

    let up = scene.collector_at("collected", &address.to_string(), None);
    next_start(&scene, &up, 1);
    assert_eq!((up.server().seen().requests, scene.all_reports()), (1, NOTHING.to_vec()));
    let mut live = Live::start(granted(&scene, &options, "none"));
    assert_eq!(live.say("flush 60000"), "ok flush");
    live.say("exit");
    live.end();
    scene.wait_end();
    assert_eq!(up.server().seen().requests, 1, "once");
}

#[test]
fn a_server_that_fails_is_asked_again_by_the_same_monitor() {
    let scene = Scene::new();
    // With luck its jitter lets it come back at once, and it does not stay for more than a few seconds.
    let fail = Fail { count: 1, status: 503, retry_after: None };
    let collector = scene.collector_at("collected", "127.0.0.1:0", Some(fail));
    scene.run(granted(&scene, &collector.options("crashpad"), "null"));
    collector.wait_accepted(1);
    scene.wait_end();
    assert_eq!((collector.server().seen().requests, scene.all_reports()), (2, NOTHING.to_vec()));
    assert!(scene.wait_event("delivery")["message"].as_str().unwrap().contains("status 503"));
}

#[test]
fn a_server_that_goes_wrong_leaves_the_report_and_the_log_says_why() {
    const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 38\r\nConnection: close\r\n\r\n\
                        <html><body>Please log in</body></html>";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let folder = tempfile::tempdir().unwrap();
    let good = Odd::tls(folder.path(), false, HTML);
    let other = tempfile::tempdir().unwrap();
    let stranger = Odd { address: good.address, authority: Odd::plain(other.path()).authority };
    let cases = [
        ("expired certificate", Odd::tls(folder.path(), true, BUSY), "certificate has expired"),
        ("unknown authority", stranger, "was not signed by the trusted authority"),
        ("web page", good, "status 200 with a web page"),
        ("busy", Odd::tls(tempfile::tempdir().unwrap().keep().as_path(), false, BUSY), "status 503"),
        ("plain http", Odd::plain(tempfile::tempdir().unwrap().keep().as_path()), "does not speak TLS"),
    ];
    for (name, server, words) in cases {
        let scene = Scene::new();
        let (ending, _) = scene.run(granted(&scene, &server.options(), "null"));
        assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{name}");
        let line = scene.wait_event("delivery");
        let message = line["message"].as_str().unwrap();
        assert!(message.contains(words) && message.contains("kept for another try"), "{name}: {message}");
        wait_for("the report to be put back", || (scene.reports("pending").len() == 1).then_some(()));
        scene.end();
    }
}

#[test]
fn killing_the_worker_loses_nothing() {
    kill_often(Part::Worker);
}

#[test]
fn killing_the_uploader_loses_nothing() {
    kill_often(Part::Uploader);
}

#[test]
fn killing_the_supervisor_loses_nothing_once_the_worker_has_the_request() {
    kill_often(Part::Supervisor);
}

fn kill_often(part: Part) {
    let mut random = random();
    let (mut late, mut again, mut missed) = (0, 0, 0);
    for round in 0..KILLS {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let options = collector.options("crashpad");
        let mut live = Live::start(granted(&scene, &options, "none"));
        let victim = live.pid();
        let supervisor = wait_for("the supervisor and its idle worker", || supervisor(&scene, victim));
        assert_eq!(live.say("die null"), "ok die null");
        let delay = Duration::from_micros(random() % 400_000);
        let killed = match part {
            Part::Worker => at(delay, || scene.playing(part, supervisor, victim)),
            Part::Supervisor => {
                wait_for("the worker to look at the victim", || has_the_request(victim));
                at(delay / 2, || still(&scene, &[supervisor]))
            }
            Part::Uploader => {
                // The first sight of it, then some way into its work.
                let seen = wait_for("the uploader, or the report's arrival", || {
                    let running = scene.playing(part, supervisor, victim);
                    (!running.is_empty() || collector.server().seen().accepted > 0).then_some(running)
                });
                at(delay / 16, || still(&scene, &seen))
            }
        };
        missed += usize::from(killed == 0);
        let (ending, said) = live.end();
        assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "round {round} after {delay:?}: {said}");
        scene.wait_end();
        if collector.server().seen().accepted == 0 {
            late += 1;
            assert_eq!(
                scene.all_reports().len(),
                1,
                "round {round} after {delay:?}: lost; {:#?}",
                scene.log()
            );
            next_start(&scene, &collector, 1);
        }
        let ids: BTreeSet<String> = collector
            .requests()
            .iter()
            .filter(|request| request.join("cenotaph.json").exists())
            .map(|request| attachment_of(request)["report"]["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 1, "round {round} after {delay:?}: {ids:?} {:#?}", scene.log());
        // A kill between the server's answer and the report's removal sends it once more, under the same id.
        again += usize::from(collector.server().seen().accepted > 1);
        let left: Vec<_> = scene.all_reports();
        assert!(left.is_empty() || part != Part::Worker, "round {round} after {delay:?}: {left:?}");
        if !left.is_empty() {
            next_start(&scene, &collector, collector.server().seen().accepted + 1);
            assert_eq!(scene.all_reports(), NOTHING, "round {round} after {delay:?}");
        }
        fs::remove_dir_all(scene.spool()).unwrap();
    }
    println!(
        "{part:?}: {KILLS} rounds; {missed} after it had ended, {late} by the next start, {again} sent twice"
    );
}

/// Kills what `which` finds at that time, and returns how many that were.
fn at(delay: Duration, which: impl Fn() -> Vec<i32>) -> usize {
    // The moment is what is tried here; nothing waits for it.
    let until = Instant::now() + delay;
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    let found = which();
    found.iter().for_each(|pid| processes::kill(*pid));
    found.len()
}

/// Those of the processes that have not ended.
fn still(scene: &Scene, pids: &[i32]) -> Vec<i32> {
    let running = scene.processes().into_iter().map(|process| process.pid);
    running.filter(|pid| pids.contains(pid)).collect()
}

/// The one of Cenotaph's processes that has a child.
fn supervisor(scene: &Scene, victim: i32) -> Option<i32> {
    let all = scene.processes();
    let of_ours = |process: &&Process| process.pid != victim && process.comm == "cenotaph";
    let has_child = |process: &&Process| all.iter().any(|other| other.parent == process.pid);
    all.iter().filter(of_ours).find(has_child).map(|process| process.pid)
}

/// A worker that looks at a process has stopped it; one that has read it has let it die.
fn has_the_request(victim: i32) -> Option<()> {
    let stat = fs::read_to_string(format!("/proc/{victim}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
    matches!(state, Some('t' | 'Z' | 'X') | None).then_some(())
}
