//! When the monitor does not answer: every way to die still ends as it would, in time, and leaves a report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/filters.rs"]
mod filters;
#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use filters::{forbid_tracing, trap_calls};
use processes::Traced;
use scene::{Collector, Ending, Live, Scene, attachment_of, wait_for};
use serde_json::Value;
use support::ending;

fn options(collector: &Collector) -> Vec<String> {
    let mut options = collector.options("crashpad");
    options.extend(["--consent".to_owned(), "granted".to_owned()]);
    options
}

/// The supervisor of the scene's only victim, ready.
fn supervisor(scene: &Scene, victim: i32) -> i32 {
    wait_for("the supervisor and its idle worker", || {
        let all = scene.processes();
        let others: Vec<_> = all.iter().filter(|p| p.pid != victim && p.comm == "cenotaph").collect();
        let supervisor = others.iter().find(|p| others.iter().any(|worker| worker.parent == p.pid))?;
        Some(supervisor.pid)
    })
}

fn records(scene: &Scene) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(scene.spool().join("last-words")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A victim whose monitor is no more.
fn alone(scene: &Scene, command: Command) -> Live {
    let live = Live::start(command);
    processes::kill(supervisor(scene, live.pid()));
    wait_for("the monitor's end", || (scene.processes().len() == 1).then_some(()));
    live
}

/// A victim that dies while its monitor is no more, and whose program cannot be executed again.
fn die_alone(scene: &Scene, options: &[&str], way: &str) -> (Ending, String) {
    let program = scene.path("crasher");
    support::copy_program(support::crasher(), &program);
    let mut command = scene.victim_of(&program, options, "none");
    scene.named(&mut command);
    let mut live = alone(scene, command);
    fs::set_permissions(&program, Permissions::from_mode(0o600)).unwrap();
    live.tell(&format!("die {way}"));
    let ended = live.end();
    fs::remove_file(&program).unwrap();
    ended
}

/// Another start of the application: what is left becomes a report, which is delivered.
fn next_start(scene: &Scene, collector: &Collector, options: &[&str]) -> Value {
    let live = Live::start(scene.victim(options, "none"));
    let requests = collector.wait_accepted(1);
    let (ending, said) = live.end();
    assert_eq!(ending, Ending::Code(0), "{said}");
    scene.wait_end();
    assert_eq!(requests.len(), 1);
    attachment_of(&requests[0])["report"].clone()
}

fn own_frames(report: &Value) -> usize {
    let thread = &report["stack_trace"]["threads"][0];
    assert_eq!(thread["crashed"], true);
    let modules = report["stack_trace"]["modules"].as_array().unwrap();
    let frames = thread["frames"].as_array().unwrap();
    let own = frames.iter().filter(|frame| {
        frame["module"]
            .as_u64()
            .is_some_and(|index| modules[usize::try_from(index).unwrap()]["name"] == "crasher")
    });
    own.count()
}

/// The dying process starts a new monitor, which makes the report that the old one would have made.
#[test]
fn a_dead_monitor_is_replaced() {
    for (way, expected) in ending::PLAIN {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let options = options(&collector);
        let options = words(&options);
        let mut live = alone(&scene, scene.victim(&options, "none"));
        live.tell(&format!("die {way}"));
        let (ending, said) = live.end();
        assert_eq!(ending, expected, "{way}: {said}");
        let requests = collector.wait_accepted(1);
        scene.wait_end();
        let report = attachment_of(&requests[0])["report"].clone();
        assert_eq!(report["detail"], "minidump", "{way}: {report:#}");
        assert!(own_frames(&report) >= 10, "{way}: {report:#}");
        assert_eq!(records(&scene), [] as [PathBuf; 0], "{way}");
    }
}

#[test]
fn without_a_monitor_every_way_leaves_a_record() {
    let twice = ("panic-in-panic", Ending::Signal(libc::SIGABRT));
    for (way, expected) in ending::PLAIN.into_iter().chain([twice]) {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let options = options(&collector);
        let options = words(&options);
        let (ending, said) = die_alone(&scene, &options, way);
        assert_eq!(ending, expected, "{way}: {said}");
        assert_eq!(records(&scene).len(), 1, "{way}: {said}");
        let report = next_start(&scene, &collector, &options);
        assert_eq!(report["detail"], "stack-trace", "{way}");
        assert!(
            report["notes"][0].as_str().unwrap().contains("minimal record: the monitor had ended"),
            "{way}"
        );
        let kind = if way.starts_with("panic") { "panic" } else { "signal" };
        assert_eq!(report["reason"]["kind"], kind, "{way}");
        assert!(own_frames(&report) >= 3, "{way}: {report:#}");
        assert_eq!(records(&scene), [] as [PathBuf; 0], "{way}");
        if way == "null" {
            assert_eq!(report["reason"]["address"], 0x10);
            assert_eq!(report["notes"].as_array().unwrap().len(), 1, "{report:#}");
        }
    }
}

/// Nothing that was planted is in the record, which is not sealed, and the report has nothing either.
#[test]
fn a_record_holds_nothing_personal() {
    const VALUES: [&str; 6] = [
        "lst-Ottoline.Featherstone@mail.example",
        "lhs-Barnaby-Wigglesworth",
        "lrg-Eustacia-Pemberton",
        "lat-Algernon-Moncrieff",
        "lbc-Gwendolen-Fairfax",
        "len-Lancelot-Worthing",
    ];
    let places = ["stack", "heap", "register", "attribute", "breadcrumb", "env"];
    let entries: Vec<Value> = VALUES
        .iter()
        .zip(places)
        .map(|(value, place)| match place {
            "heap" => serde_json::json!({"value": value, "place": place, "pointer": "stack"}),
            "stack" | "register" | "env" => serde_json::json!({"value": value, "place": place}),
            _ => serde_json::json!({"value": value, "place": place, "key": "user"}),
        })
        .collect();
    for way in ["null", "abort", "panic", "stack-overflow"] {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let plant = scene.path("plant.json");
        let register = if way == "null" { entries.len() } else { 0 };
        let applicable = entries.iter().filter(|entry| register > 0 || entry["place"] != "register");
        fs::write(&plant, serde_json::to_vec(&applicable.collect::<Vec<_>>()).unwrap()).unwrap();
        let mut options = options(&collector);
        options.extend(["--plant".to_owned(), plant.to_str().unwrap().to_owned()]);
        let options = words(&options);
        die_alone(&scene, &options, way);
        let record = fs::read(&records(&scene)[0]).unwrap();
        let said = next_start(&scene, &collector, &options[..options.len() - 2]).to_string();
        for value in VALUES {
            for piece in value.as_bytes().windows(8) {
                assert_eq!(memchr::memmem::find(&record, piece), None, "{way}: {value}");
                assert_eq!(memchr::memmem::find(said.as_bytes(), piece), None, "{way}: {value}");
            }
        }
        let home = scene.path("home");
        assert_eq!(memchr::memmem::find(&record, home.to_str().unwrap().as_bytes()), None, "{way}: a path");
    }
}

#[test]
fn consent_decides_about_records() {
    // Not asked, and nothing may be stored before: neither a folder nor a record.
    let scene = Scene::new();
    die_alone(&scene, &["--consent-policy", "drop"], "null");
    assert!(!scene.spool().join("last-words").exists());
    // Denied.
    let scene = Scene::new();
    die_alone(&scene, &["--consent", "denied"], "null");
    assert!(!scene.spool().join("last-words").exists());
    // Granted while running.
    let scene = Scene::new();
    let program = scene.path("crasher");
    support::copy_program(support::crasher(), &program);
    let mut command = scene.victim_of(&program, &["--consent-policy", "drop"], "none");
    scene.named(&mut command);
    let mut live = alone(&scene, command);
    assert!(live.say("grant").starts_with("ok"));
    fs::set_permissions(&program, Permissions::from_mode(0o600)).unwrap();
    live.tell("die null");
    live.end();
    assert_eq!(records(&scene).len(), 1);
    // The person changed their mind before the next start looked.
    let left = records(&scene).remove(0);
    let kept = fs::read(&left).unwrap();
    let mut live = Live::start(scene.victim(&["--consent-policy", "drop"], "none"));
    assert!(live.say("withdraw").starts_with("ok"));
    assert!(!scene.spool().join("last-words").exists());
    live.end();
    scene.wait_end();
    // One that comes back from a backup is not used.
    fs::create_dir(scene.spool().join("last-words")).unwrap();
    fs::write(&left, kept).unwrap();
    let live = Live::start(scene.victim(&["--consent-policy", "drop"], "none"));
    wait_for("the record's end", || (!left.exists()).then_some(()));
    live.end();
    scene.wait_end();
    assert_eq!(scene.all_reports(), [] as [PathBuf; 0]);
}

#[test]
fn hostile_records_are_refused_and_removed() {
    let scene = Scene::new();
    die_alone(&scene, &["--consent", "granted"], "null");
    let path = records(&scene).remove(0);
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    // Without its record the session would be one that nobody ended.
    fs::remove_dir_all(scene.spool().join("sessions")).unwrap();
    let folder = scene.spool().join("last-words");
    let mut damaged = whole.clone();
    damaged[1000] ^= 1;
    let cases: [&[u8]; 5] =
        [b"", &whole[..whole.len() - 1], &[&whole[..], b"x"].concat(), &damaged, &[0xff; 4096]];
    for (i, bytes) in cases.iter().enumerate() {
        write_private(&folder.join(format!("{i:016x}-00000007.record")), bytes);
    }
    std::os::unix::fs::symlink("/dev/zero", folder.join("00000000000000ff-00000007.record")).unwrap();
    write_private(&folder.join("0000000000000100-00000007.record"), &whole);
    let live = Live::start(scene.victim(&["--consent", "granted"], "none"));
    wait_for("the folder to be empty", || records(&scene).is_empty().then_some(()));
    live.end();
    scene.wait_end();
    assert_eq!(scene.reports("pending").len(), 1, "the whole one");
    let failed = scene.log().iter().filter(|line| line["event"] == "failed").count();
    assert_eq!(failed, 6, "{:#?}", scene.log());
}

fn write_private(path: &std::path::Path, bytes: &[u8]) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// After an update the program's file is another one.
#[test]
fn a_record_of_an_older_program_is_scanned() {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    let options = options(&collector);
    let options = words(&options);
    // The older program: the same bytes under the same name, with another build id.
    let old = scene.path("crasher");
    let mut bytes = fs::read(support::crasher()).unwrap();
    let note = memchr::memmem::find(&bytes, b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0").unwrap();
    bytes[note + 16] ^= 0xff;
    fs::write(&old, bytes).unwrap();
    fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
    let mut command = scene.victim_of(&old, &options, "none");
    scene.named(&mut command);
    let mut live = alone(&scene, command);
    fs::set_permissions(&old, Permissions::from_mode(0o600)).unwrap();
    live.tell("die null");
    live.end();
    fs::remove_file(&old).unwrap();
    let report = next_start(&scene, &collector, &options);
    assert!(own_frames(&report) >= 3, "{report:#}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("scanning the stack"), "{notes}");
}

/// The whole deadline of the victims below.
const PATIENCE: Duration = Duration::from_millis(1000);

/// A monitor that does not answer is given up for a fresh one; when it goes on it leaves the crash to that.
#[test]
fn a_stopped_monitor_is_given_up_for_another() {
    for (way, expected) in [ending::PLAIN[0], ending::PLAIN[1], ending::PLAIN[9]] {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let mut live = Live::start(scene.victim(&words(&options(&collector)), "none"));
        let supervisor = supervisor(&scene, live.pid());
        processes::signal(supervisor, libc::SIGSTOP);
        live.tell(&format!("die {way}"));
        let (ending, said) = live.end();
        assert_eq!(ending, expected, "{way}: {said}");
        let requests = collector.wait_accepted(1);
        let report = attachment_of(&requests[0])["report"].clone();
        assert_eq!(report["detail"], "minidump", "{way}: {report:#}");
        assert!(own_frames(&report) >= 3, "{way}: {report:#}");
        processes::signal(supervisor, libc::SIGCONT);
        scene.wait_event("client-ended");
        scene.wait_end();
        assert_eq!(records(&scene), [] as [PathBuf; 0], "{way}");
        assert_eq!(
            (collector.requests().len(), scene.all_reports().len()),
            (1, 0),
            "{way}: one crash, one report"
        );
    }
}

/// Where no other one can be started there is time for a record.
#[test]
fn a_stopped_monitor_holds_nobody_longer_than_the_deadline() {
    for (way, expected) in [ending::PLAIN[0], ending::PLAIN[1], ending::PLAIN[9]] {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let mut options = options(&collector);
        options.extend(["--deadline-ms".to_owned(), PATIENCE.as_millis().to_string()]);
        let program = scene.path("crasher");
        support::copy_program(support::crasher(), &program);
        let mut live = Live::start(scene.victim_of(&program, &words(&options), "none"));
        let supervisor = supervisor(&scene, live.pid());
        processes::signal(supervisor, libc::SIGSTOP);
        fs::set_permissions(&program, Permissions::from_mode(0o600)).unwrap();
        live.tell(&format!("die {way}"));
        let (ending, said) = live.end();
        assert_eq!(ending, expected, "{way}: {said}");
        assert_eq!(records(&scene).len(), 1, "{way}");
        // It goes on, and finds that it was given up. Whoever is first makes a report of the record.
        fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        processes::signal(supervisor, libc::SIGCONT);
        scene.wait_event("client-ended");
        let report = next_start(&scene, &collector, &words(&options));
        assert!(report["notes"][0].as_str().unwrap().contains("did not answer in time"), "{way}");
        assert!(own_frames(&report) >= 3, "{way}: {report:#}");
    }
}

fn words(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

/// The thread that traces `victim`, once there is one; `None` if the victim ended first.
fn tracer(victim: i32) -> Option<i32> {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody traces it, and it does not end");
        match processes::traced(victim, victim)? {
            Traced { tracer: 0, zombie: true } => return None,
            Traced { tracer: 0, .. } => {}
            Traced { tracer, .. } => return Some(tracer),
        }
    }
}

/// A worker that hangs while attached is killed, and another one tried; one that dies while attached is replaced.
#[test]
fn a_tracer_that_hangs_or_dies_costs_no_report() {
    for signal in [libc::SIGSTOP, libc::SIGKILL] {
        let mut caught = 0;
        for _ in 0..20 {
            let scene = Scene::new();
            let collector = scene.collector("collected");
            let mut options = options(&collector);
            options.extend(["--deadline-ms", "4000", "--threads", "100"].map(str::to_owned));
            let options = words(&options);
            let mut live = Live::start(scene.victim(&options, "none"));
            let victim = live.pid();
            supervisor(&scene, victim);
            live.tell("die null");
            let hit = tracer(victim).map(|tracer| processes::signal(tracer, signal)).is_some();
            let (ending, said) = live.end();
            assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
            collector.wait_accepted(1);
            scene.wait_end();
            let report = attachment_of(&collector.requests()[0])["report"].clone();
            assert!(own_frames(&report) >= 3, "{report:#}");
            let replaced = scene.log().iter().any(|line| line["event"] == "worker-replaced");
            caught += usize::from(hit && replaced);
            if caught == 2 {
                break;
            }
        }
        assert!(caught > 0, "signal {signal}: no tracer was caught in the act");
    }
}

/// Where nobody may trace, a copy of the process tells its memory, be the monitor alive or new.
#[test]
fn where_tracing_is_forbidden_a_copy_tells() {
    for (way, expected) in ending::PLAIN {
        for dead in [false, true] {
            if dead && way != "null" {
                continue;
            }
            let scene = Scene::new();
            let collector = scene.collector("collected");
            let mut options = options(&collector);
            options.extend(["--threads", "3"].map(str::to_owned));
            let options = words(&options);
            let mut command = scene.victim(&options, "none");
            forbid_tracing(&mut command);
            let mut live = if dead { alone(&scene, command) } else { Live::start(command) };
            live.tell(&format!("die {way}"));
            let (ending, said) = live.end();
            assert_eq!(ending, expected, "{way}: {said}");
            let requests = collector.wait_accepted(1);
            scene.wait_end();
            let report = attachment_of(&requests[0])["report"].clone();
            assert_eq!(report["detail"], "minidump", "{way}: {report:#}");
            assert!(own_frames(&report) >= 10, "{way}: {report:#}");
            assert!(report["notes"].to_string().contains("a copy of it told"), "{way}: {}", report["notes"]);
            let threads = report["stack_trace"]["threads"].as_array().unwrap();
            assert!(threads.len() >= 3, "{way}: {threads:#?}");
            assert_eq!(records(&scene), [] as [PathBuf; 0], "{way}");
        }
    }
}

/// A fault while the monitor is asked: a record. A fault while that is written: nothing but the right end.
#[test]
fn a_fault_inside_the_handler_ends_as_the_first_one_would() {
    for (way, expected) in [ending::PLAIN[0], ending::PLAIN[1], ending::PLAIN[4], ending::PLAIN[9]] {
        let scene = Scene::new();
        let collector = scene.collector("collected");
        let options = options(&collector);
        let options = words(&options);
        // What std does after a stack overflow comes behind our handler, and is not reached.
        let expected = if way.starts_with("stack") { Ending::Signal(libc::SIGSEGV) } else { expected };
        let mut command = scene.victim(&options, way);
        trap_calls(&mut command, &[libc::SYS_sendto]);
        let (ending, said) = scene.run(command);
        assert_eq!(ending, expected, "{way}: {said}");
        scene.wait_end();
        // Its own monitor, which was never asked, may have found the record already; else the next start does.
        let report = next_start(&scene, &collector, &options);
        assert!(report["notes"][0].as_str().unwrap().contains("asking the monitor faulted"), "{way}");
        assert!(own_frames(&report) >= 3, "{way}: {report:#}");

        let mut command = scene.victim(&options, way);
        trap_calls(&mut command, &[libc::SYS_sendto, libc::SYS_renameat]);
        let (ending, said) = scene.run(command);
        assert_eq!(ending, expected, "{way}: {said}");
        assert!(records(&scene).iter().all(|path| path.extension().is_some_and(|e| e == "tmp")), "{way}");
        scene.wait_end();
    }
}
