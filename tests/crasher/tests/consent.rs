//! What the person said decides: what is written, what is sent, and when it is gone again.
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
use std::path::PathBuf;
use std::process::Command;

use cenotaph::spool::container;
use cenotaph::spool::key::LocalKey;
use scene::{Collector, Ending, Live, Scene, attachment_of};
use servers::Quiet;

const NOTHING: [PathBuf; 0] = [];

/// A victim that dies by `null`, with a destination that nobody must connect to.
fn die(scene: &Scene, quiet: &Quiet, options: &[&str]) {
    let mut command = scene.victim(options, "null");
    command.args(quiet.options());
    let (ending, said) = scene.run(command);
    assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
    scene.wait_end();
}

fn with(scene: &Scene, collector: &Collector, options: &[&str], way: &str) -> Command {
    let mut command = scene.victim(options, way);
    command.args(collector.options("crashpad"));
    command
}

#[test]
fn unknown_and_asking_first_holds_the_report_sealed_and_sends_nothing() {
    let (scene, quiet) = (Scene::new(), Quiet::new());
    die(&scene, &quiet, &["--consent-policy", "ask"]);
    assert_eq!(quiet.connections(), 0);
    let held = scene.reports("pending");
    assert_eq!(held.len(), 1, "{held:?}");
    let sealed = fs::read(&held[0]).unwrap();
    let id = container::header(&sealed).unwrap().id;
    for plain in [&b"MDMP"[..], b"crasher", b"SIGSEGV", b"linux"] {
        assert_eq!(memchr::memmem::find(&sealed, plain), None, "the file is sealed");
    }
    let key = LocalKey::from_file(&scene.spool().join("key")).unwrap();
    assert!(container::open(&sealed, &key).unwrap().len() >= 3);

    // The next start asks the person, who agrees.
    let collector = scene.collector("collected");
    let mut live = Live::start(with(&scene, &collector, &["--consent", "granted"], "none"));
    let requests = collector.wait_accepted(1);
    assert_eq!(attachment_of(&requests[0])["report"]["id"], id.to_string());
    live.say("exit");
    live.end();
    scene.wait_end();
    assert_eq!((collector.server().seen().accepted, scene.all_reports().len()), (1, 0));
}

#[test]
fn unknown_and_dropping_writes_nothing() {
    let (scene, quiet) = (Scene::new(), Quiet::new());
    die(&scene, &quiet, &["--consent-policy", "drop"]);
    assert_eq!(quiet.connections(), 0);
    scene.wait_event("refused-by-consent");
    // Not even a folder.
    assert!(!scene.spool().exists(), "{:?}", fs::read_dir(scene.spool()).unwrap().collect::<Vec<_>>());
}

#[test]
fn denied_writes_no_report_whatever_the_policy() {
    for policy in ["ask", "drop", "not-required"] {
        let (scene, quiet) = (Scene::new(), Quiet::new());
        die(&scene, &quiet, &["--consent", "denied", "--consent-policy", policy]);
        // It is remembered by the next start, which says nothing about it.
        die(&scene, &quiet, &["--consent-policy", policy]);
        assert_eq!(quiet.connections(), 0, "{policy}");
        assert_eq!(scene.all_reports(), NOTHING, "{policy}");
        let refused = scene.log().iter().filter(|line| line["event"] == "refused-by-consent").count();
        assert_eq!(refused, 2, "{policy}: {:?}", scene.log());
    }
}

#[test]
fn a_denial_removes_what_was_held() {
    let (scene, quiet) = (Scene::new(), Quiet::new());
    die(&scene, &quiet, &["--consent-policy", "ask"]);
    assert_eq!(scene.all_reports().len(), 1);
    die(&scene, &quiet, &["--consent-policy", "ask", "--consent", "denied"]);
    assert_eq!((quiet.connections(), scene.all_reports()), (0, NOTHING.to_vec()));
}

#[test]
fn where_none_is_required_the_report_arrives() {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    scene.run(with(&scene, &collector, &["--consent-policy", "not-required"], "null"));
    let requests = collector.wait_accepted(1);
    assert!(attachment_of(&requests[0])["report"]["device_id"].is_null(), "an identifier takes a grant");
    scene.wait_end();
    assert_eq!(collector.server().seen().requests, 1);
}

#[test]
fn a_grant_releases_what_was_held() {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    let mut live = Live::start(with(&scene, &collector, &["--consent-policy", "ask"], "none"));
    let said = live.say("capture");
    let id = said.strip_prefix("ok capture ").unwrap().to_owned();
    scene.wait_event("spooled");
    // Whatever was to be sent has been tried by then.
    assert_eq!(live.say("flush 60000"), "ok flush");
    assert_eq!((collector.server().seen().connections, scene.reports("pending").len()), (0, 1));
    assert_eq!(live.say("grant"), "ok grant");
    let requests = collector.wait_accepted(1);
    assert_eq!(attachment_of(&requests[0])["report"]["id"], id);
    assert_eq!(live.say("exit"), "ok exit");
    live.end();
    scene.wait_end();
    assert_eq!((collector.server().seen().requests, scene.all_reports()), (1, NOTHING.to_vec()));
}

#[test]
fn a_withdrawal_leaves_nothing() {
    let (scene, quiet) = (Scene::new(), Quiet::new());
    let mut command = scene.victim(&["--consent-policy", "ask"], "none");
    command.args(quiet.options());
    let mut live = Live::start(command);
    for count in 1..=3 {
        live.say("capture");
        scene::wait_for("the held report", || (scene.reports("pending").len() == count).then_some(()));
        // A file that is still being written has another name.
        scene.wait_log("each report", |_| {
            scene.log().iter().filter(|line| line["event"] == "spooled").count() == count
        });
    }
    // A delivery that is just looking at the consent would delete what it holds itself, and that is not counted here.
    assert_eq!(live.say("flush 60000"), "ok flush");
    let started = std::time::Instant::now();
    assert_eq!(live.say("withdraw"), "ok withdraw 3");
    // Said and done are one: there is nothing to wait for.
    assert_eq!(scene.all_reports(), NOTHING);
    println!("withdrawn in {:?}", started.elapsed());
    assert!(!scene.spool().join("identity").exists());
    let refusal = live.say("capture");
    assert!(refusal.starts_with("error ") && refusal.contains("consent"), "{refusal}");
    assert_eq!(live.say("die null"), "ok die null");
    live.end();
    scene.wait_end();
    assert_eq!((quiet.connections(), scene.all_reports()), (0, NOTHING.to_vec()));
}

#[test]
fn a_withdrawal_ends_a_delivery_that_is_to_be_tried_again() {
    let scene = Scene::new();
    let fail = cenotaph_cli::collect::Fail { count: u64::MAX, status: 503, retry_after: None };
    let collector = scene.collector_at("collected", "127.0.0.1:0", Some(fail));
    let mut live = Live::start(with(&scene, &collector, &["--consent", "granted"], "none"));
    live.say("capture");
    scene.wait_event("delivery");
    assert_eq!(live.say("withdraw"), "ok withdraw 1");
    assert_eq!(scene.all_reports(), NOTHING);
    assert_eq!(live.say("flush 60000"), "ok flush");
    let seen = collector.server().seen();
    assert_eq!(live.say("die abort"), "ok die abort");
    live.end();
    // With anything left to try again, the monitor would stay for a minute.
    scene.wait_end();
    assert_eq!(collector.server().seen(), seen, "the collector saw nothing more");
    assert_eq!((seen.accepted, scene.all_reports()), (0, NOTHING.to_vec()));
}
