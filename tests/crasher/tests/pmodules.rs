//! Pmodules on crashes of real processes: what good ones ask for is done, and what bad ones do costs only their own result.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/came.rs"]
mod came;
#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use came::{Came, alias, crash, memory, parsed};
use cenotaph::spool::{Part, PartKind, container, key::LocalKey};
use scene::{Ending, Live, Scene, attachment_of};
use serde_json::Value;

/// Time enough on any machine; what misbehaves by taking its time gets less.
const PATIENT: [&str; 2] = ["--pmodule-ms", "20000"];
const SHORT: [&str; 2] = ["--pmodule-ms", "300"];

#[test]
fn a_pmodule_annotates_a_crash_and_its_text_is_scrubbed() {
    let came = crash(&["annotate"], &PATIENT);
    let annotations = came.annotations();
    // The same in both places.
    let mail = alias("email", annotations.get(1).expect("annotations").1, 15);
    assert_eq!(
        annotations,
        [
            ("annotate", "1 threads"),
            ("annotate", &*format!("written by {mail}")),
            ("annotate", "the \u{1f525} is on"),
            ("annotate", &*format!(r#"{{"mail":"{mail}","n":7}}"#)),
        ],
        "{:?}",
        came.notes()
    );
    let levels: Vec<_> =
        came.report()["annotations"].as_array().unwrap().iter().map(|a| a["level"].clone()).collect();
    assert_eq!(levels, ["comment", "warning", "critical", "json"]);
    assert_eq!(came.detail(), "minidump");
}

fn has(bytes: &[u8], needle: &[u8]) -> bool {
    !support::occurrences(bytes, needle).is_empty()
}

/// The password in the victim's global, see tests/crasher/src/state.rs.
const PASSWORD: &[u8] = b"zq-hollow-lantern-42";
const LEVEL: &[u8] = b"castle-of-the-north-7";

#[test]
fn attributes_go_from_one_to_the_next_and_into_the_report() {
    // Named first, it still runs behind: its priority says so.
    let came = crash(&["after", "attribute"], &PATIENT);
    assert_eq!(came.annotations(), [("after", "SIGSEGV saw castle")]);
    let attributes = came.report()["attributes"].as_array().unwrap();
    let value = |key: &str| &attributes.iter().find(|a| a["key"] == key).unwrap()["value"];
    let mail = value("pm.mail").as_str().unwrap();
    assert_eq!(
        (value("pm.level"), mail),
        (&"castle".into(), &*format!("mail to {}", alias("email", mail, 15)))
    );
    assert_eq!(came.report()["classifiers"], serde_json::json!(["from-pmodule"]));
    let plain = crash(&["after"], &PATIENT);
    assert_eq!(plain.annotations(), [("after", "SIGSEGV saw nothing")]);
    assert_ne!(plain.report()["fingerprint"], came.report()["fingerprint"], "the component tells them apart");
    assert_eq!(plain.report()["fingerprint"], crash(&[], &[]).report()["fingerprint"]);
}

#[test]
fn frames_regions_and_the_end_are_seen() {
    let came = crash(&["frames"], &[&PATIENT[..], &["--threads", "3"]].concat());
    let said = came.annotations();
    assert_eq!(said.first(), Some(&("frames", "frame 0 in crasher")), "{said:?}");
    assert_eq!(said.iter().filter(|(_, text)| text.starts_with("stack of ")).count(), 3, "{said:?}");
    assert_eq!(said.last(), Some(&("frames", "detached")));
    // By a name that only one frame has.
    let by_symbol = crash(&["symbol"], &PATIENT);
    assert_eq!(by_symbol.annotations(), [("symbol", "__libc_start_main in libc.so.6")]);
    // Frames are those of a report without pmodules.
    let offsets = |came: &Came| {
        let frames = came.report()["stack_trace"]["threads"][0]["frames"].as_array().unwrap().clone();
        frames.iter().map(|frame| frame["offset"].clone()).collect::<Vec<_>>()
    };
    let plain = crash(&[], &["--threads", "3"]);
    assert!(!offsets(&came).is_empty());
    assert_eq!(offsets(&came), offsets(&plain));
}

#[test]
fn memory_is_added_and_read_back() {
    let came = crash(&["add", "memory"], &PATIENT);
    let found = memory(&came.dump);
    let state = found.iter().find(|(_, bytes)| has(bytes, LEVEL)).expect("the global is in the dump");
    // All 136 bytes of it; where other memory adjoins they are one piece.
    let end = 0x0123_4567_89ab_cdef_u64.to_le_bytes();
    let at = state.1.windows(8).position(|bytes| bytes == end).expect("its last field");
    assert!(at >= 128 && has(&state.1[at - 128..at], LEVEL));
    assert_eq!(came.annotations(), [("memory", "136 of 136 bytes: castle-of-the-north-7")]);
    assert!(!has(&crash(&[], &[]).dump, LEVEL), "without the pmodule it is not there");
}

#[test]
fn a_blanked_field_goes_with_its_copies_and_the_receipt_is_exact() {
    let planted = serde_json::json!([
        {"place": "attribute", "value": String::from_utf8_lossy(PASSWORD)},
        {"place": "heap-stack", "value": String::from_utf8_lossy(PASSWORD)},
    ]);
    let folder = tempfile::tempdir().unwrap();
    let plant = folder.path().join("plant.json");
    std::fs::write(&plant, planted.to_string()).unwrap();
    let came = crash(&["blank"], &[&PATIENT[..], &["--plant", plant.to_str().unwrap()]].concat());
    assert_eq!(came.detail(), "minidump", "{:?}", came.notes());
    assert!(has(&came.raw, PASSWORD) && has(&came.raw, LEVEL));
    assert!(!has(&came.dump, PASSWORD), "neither the field nor its copies are left");
    assert!(has(&came.dump, LEVEL), "what stands beside it is");
    assert!(!came.json.to_string().contains("lantern"), "{}", came.report());
    let receipt = &came.json["receipt"];
    let summary = receipt.to_string();
    assert!(summary.contains("pmodule:blank"), "{summary}");
    // That the bytes that differ are those of the receipt is looked at at the end of every scene.
    let entries = receipt["entries"].as_array().unwrap();
    let about = receipt["dump"]["entries"].as_u64().unwrap();
    let blanked = entries.iter().take(usize::try_from(about).unwrap());
    assert!(blanked.filter(|entry| entry["rule"] == "pmodule:blank").count() > 0, "{summary}");
}

#[test]
fn registers_are_blanked_but_those_of_the_unwinder() {
    let came = crash(&["register"], &PATIENT);
    let dump = parsed(&came.dump);
    let exception = dump.get_stream::<minidump::MinidumpException<'_>>().unwrap();
    let system = dump.get_stream::<minidump::MinidumpSystemInfo>().unwrap();
    let misc = dump.get_stream::<minidump::MinidumpMiscInfo>().ok();
    let context = exception.context(&system, misc.as_ref()).unwrap();
    for (name, value) in context.registers() {
        let stays = ["rip", "rsp", "rbp"].contains(&name);
        // The frame pointer may be anything, zero too.
        assert!(name == "rbp" || (value != 0) == stays, "{name} is {value:#x}");
    }
}

#[test]
fn stacks_are_dropped_and_their_frames_stay() {
    let threads = ["--threads", "4"];
    let came = crash(&["drop"], &[&PATIENT[..], &threads].concat());
    let plain = crash(&[], &threads);
    let count = |came: &Came| {
        let dump = parsed(&came.dump);
        let list = dump.get_stream::<minidump::MinidumpThreadList<'_>>().unwrap();
        let memory = dump.get_memory().unwrap_or_default();
        let stacks = list.threads.iter().filter(|thread| thread.stack_memory(&memory).is_some());
        (list.threads.len(), stacks.count())
    };
    assert_eq!((count(&plain), count(&came)), ((4, 4), (4, 1)));
    let frames = |came: &Came| {
        let threads = came.report()["stack_trace"]["threads"].as_array().unwrap().clone();
        threads.iter().map(|thread| thread["frames"].as_array().unwrap().len()).collect::<Vec<_>>()
    };
    assert_eq!(frames(&came), frames(&plain));
    assert!(frames(&came).iter().all(|&frames| frames > 1), "{:?}", frames(&came));
}

#[test]
fn the_level_is_lowered() {
    for (pmodule, detail) in [("lower", "stack-trace"), ("pointers", "pointers")] {
        let came = crash(&[pmodule, "annotate"], &PATIENT);
        assert_eq!(came.detail(), detail);
        assert_eq!(came.annotations().len(), 4, "annotations stay at every level");
        assert!(
            came.notes().contains(&&*format!("pmodule {pmodule} lowered the detail to {detail}")),
            "{:?}",
            came.notes()
        );
        assert!(!came.log.iter().any(|line| line.to_string().contains("stepped down")), "that is no failure");
    }
}

#[test]
fn a_veto_leaves_nothing_but_its_count() {
    for (pmodule, reason) in [("veto", "a test build"), ("veto-late", "minidump is enough")] {
        let scene = Scene::new();
        let mut command = scene.victim(&["--consent", "granted", "--pmodule", pmodule], "null");
        command.args(PATIENT);
        let (ending, said) = scene.run(command);
        assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
        let line = scene.wait_event("vetoed");
        assert_eq!((&line["pmodule"], &line["why"]), (&pmodule.into(), &reason.into()));
        scene.wait_end();
        assert_eq!(scene.all_reports(), [] as [std::path::PathBuf; 0]);
    }
}

#[test]
fn an_application_that_lives_on_is_told_of_a_veto() {
    let scene = Scene::new();
    let mut command = scene.victim(&["--consent", "granted", "--pmodule", "veto"], "none");
    command.args(PATIENT);
    let mut live = Live::start(command);
    assert_eq!(live.say("vetoed"), "ok vetoed 0");
    let answer = live.say("capture");
    assert!(answer.starts_with("error a pmodule did not want the report"), "{answer}");
    // Counted by the supervisor, when the worker has told it.
    scene::wait_for("the count", || (live.say("vetoed") == "ok vetoed 1").then_some(()));
    assert_eq!(live.say("exit"), "ok exit");
    assert_eq!(live.end().0, Ending::Code(0));
}

#[test]
fn a_variable_is_blanked_wherever_it_is() {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    let options = collector.options("crashpad");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut command = scene.victim(&options, "null");
    command.args(["--consent", "granted", "--pmodule", "environment"]).args(PATIENT);
    command.env("CRASHER_TOKEN", "purple dusk over water");
    scene.run(command);
    let requests = collector.wait_accepted(1);
    let attributes = attachment_of(&requests[0])["report"]["attributes"].clone();
    let token = attributes.as_array().unwrap().iter().find(|a| a["key"] == "token").unwrap();
    let token = token["value"].as_str().unwrap();
    assert_eq!(token, alias("known-value", token, 22));
}

#[test]
fn a_scrub_hook_blanks_what_the_engine_left() {
    let came = crash(&["scrub"], &[&PATIENT[..], &["--threads", "3"]].concat());
    assert_eq!(came.detail(), "minidump", "{:?}", came.notes());
    let dump = parsed(&came.dump);
    let list = dump.get_stream::<minidump::MinidumpThreadList<'_>>().unwrap();
    let all = dump.get_memory().unwrap_or_default();
    let last = list.threads.last().unwrap().stack_memory(&all).unwrap();
    assert!(last.bytes().iter().all(|&byte| byte == 0), "the last thread's stack");
    let blank = memory(&came.dump).iter().filter(|(_, bytes)| bytes.iter().all(|&byte| byte == 0)).count();
    assert!(blank >= 2, "and a region");
}

#[test]
fn misbehaviour_is_named_and_costs_only_its_own_result() {
    let cases = [
        ("loop", "did not end within 300 ms"),
        ("alloc", "ran out of its 64 MiB"),
        ("wild", "killed by SIGSEGV"),
        ("overflow", "killed by SIGSEGV"),
        ("exit", "ended by exit(3)"),
        ("fork", "used the system call "),
        ("kill", "used the system call kill, which pmodules may not: killed by SIGSYS in "),
        ("panic", "panicked at tests/crasher/src/pmodules.rs:"),
        ("nonsense", "answered nonsense"),
        ("huge", "its answer has more than 1048576 bytes"),
        ("lie", "there is no memory at 0x8"),
    ];
    for (how, why) in cases {
        let limit = if how == "loop" { SHORT } else { PATIENT };
        for (phase, detail) in [
            ("inspect", "minidump"),
            ("redact", "stack-trace"),
            ("scrub", "stack-trace"),
            ("verdict", "minidump"),
        ] {
            let why = match (how, phase) {
                // These are about edits, of which later phases have none.
                ("huge" | "lie", "verdict") | ("huge", "scrub") => continue,
                _ => why,
            };
            let pmodule = format!("{phase}-{how}");
            let came = crash(&[&pmodule, "annotate"], &limit);
            assert_eq!(came.detail(), detail, "{pmodule}: {:?}", came.notes());
            let before = match detail {
                "minidump" => format!("pmodule {pmodule} failed: {why}"),
                _ => format!("stepped down to stack-trace: pmodule {pmodule}: {why}"),
            };
            assert!(
                came.notes().iter().any(|note| note.starts_with(&before)),
                "{pmodule}: {:?}",
                came.notes()
            );
            // What it says itself is not logged.
            let logged = how == "lie" || came.log.iter().any(|line| line.to_string().contains(&before));
            assert!(logged, "{pmodule}: {:?}", came.log);
            assert_eq!(came.annotations().len(), 4, "{pmodule}: that of its neighbour");
            assert!(!came.json.to_string().contains("eve@example.org"), "{pmodule}");
        }
    }
}

/// A stray write would be in other crashes' reports.
#[test]
fn a_pmodule_has_no_memory_that_others_read() {
    let came = crash(&["reach"], &PATIENT);
    assert_eq!(came.annotations(), [("reach", "shared and writable: ")]);
}

/// The application gives up waiting and writes a record of its own, while its report is still being made.
#[test]
fn a_slow_verdict_makes_no_second_report() {
    let scene = Scene::new();
    let options = ["--consent", "granted", "--pmodule", "slow", "--release-at", "spooled"];
    let mut command = scene.victim(&options, "null");
    command.args(PATIENT).args(["--deadline-ms", "1500"]);
    let (ending, said) = scene.run(command);
    assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
    scene.wait_event("spooled");
    scene.wait_end();
    assert_eq!(scene.all_reports().len(), 1, "{:?}", scene.log());
    let records = std::fs::read_dir(scene.spool().join("records"));
    assert_eq!(records.map_or(0, Iterator::count), 0, "nor a record that becomes one");
}

#[test]
fn what_is_forbidden_is_refused() {
    for (how, refusal) in [("open", "opening was refused"), ("socket", "connecting was refused")] {
        let pmodule = format!("inspect-{how}");
        let came = crash(&[&pmodule], &PATIENT);
        let said = came.annotations();
        assert_eq!(said[0].1, "what is sent before does not count");
        assert_eq!(said[1].1, format!("{refusal}: Permission denied (os error 13)"));
    }
    let came = crash(&["inspect-thread"], &PATIENT);
    assert!(came.annotations()[1].1.starts_with("a thread was refused: "), "{:?}", came.annotations());
}

#[test]
fn a_failure_in_own_words_is_scrubbed_and_not_logged() {
    let came = crash(&["says-why"], &PATIENT);
    let expected = "pmodule says-why failed: no level for ***************; its result is missing";
    assert!(came.notes().contains(&expected), "{:?}", came.notes());
    assert!(!came.log.iter().any(|line| line.to_string().contains("no level for")), "{:?}", came.log);
}

#[test]
fn all_together_have_a_deadline() {
    // The limits of --pmodule-ms: four times that for all. Of six that never end, the last two are not even begun.
    let loops = ["inspect-loop", "redact-loop"];
    let came = crash(&loops, &["--pmodule-ms", "200", "--deadline-ms", "10000"]);
    assert_eq!(came.detail(), "stack-trace");
    // A dying process that waits for a second at most: the pmodules get less than their own limit then.
    let came = crash(&["inspect-loop"], &["--pmodule-ms", "60000", "--deadline-ms", "4000"]);
    let note = came.notes().into_iter().find(|note| note.contains("did not end within ")).unwrap().to_owned();
    let limit = note.split_once("did not end within ").unwrap().1.split(' ').next().unwrap();
    assert!(limit.parse::<u64>().unwrap() <= 3000, "{note}");
    assert_eq!(came.detail(), "minidump");
}

#[test]
fn a_worker_that_is_killed_between_the_phases_is_followed_by_another() {
    let scene = Scene::new();
    let mut command = scene.victim(&["--consent", "granted", "--pmodule", "scrub-again"], "null");
    command.args(PATIENT).args(["--pmodule", "annotate"]);
    let (ending, said) = scene.run(command);
    assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
    // The victim is gone, so its memory was read. Supervisor, worker and pmodule hang one below the other.
    let (worker, pmodule) = scene::wait_for("the pmodule's process", || {
        let all = scene.processes();
        let child_of = |parent: i32| all.iter().find(|process| process.parent == parent);
        all.iter().find_map(|supervisor| {
            let worker = child_of(supervisor.pid)?;
            Some((worker.pid, child_of(worker.pid)?.pid))
        })
    });
    processes::kill(worker);
    scene.wait_event("worker-replaced");
    let outcome = scene.wait_event("spooled");
    assert_eq!(outcome["detail"], "minidump", "{outcome}");
    scene.wait_end();
    assert!(!scene.processes().iter().any(|process| process.pid == pmodule));
    let (report, receipt) = stored(&scene);
    assert_eq!(report["annotations"].as_array().unwrap().len(), 4, "what was said before is not lost");
    assert!(
        receipt.entries.iter().any(|entry| entry.rule == "pmodule:scrub-again"),
        "the hook ran after all"
    );
}

/// The parts of the one report in the spool.
fn parts(scene: &Scene) -> Vec<Part> {
    let reports = scene.all_reports();
    assert_eq!(reports.len(), 1);
    let key = LocalKey::load(&scene.spool()).unwrap().unwrap();
    container::open(&std::fs::read(&reports[0]).unwrap(), &key).unwrap()
}

/// Report and receipt of the one report in the spool.
fn stored(scene: &Scene) -> (Value, cenotaph::scrub::Receipt) {
    let parts = parts(scene);
    let part = |kind| &parts.iter().find(|part| part.kind == kind).unwrap().bytes[..];
    let (report, receipt) = (part(PartKind::Report), part(PartKind::Receipt));
    (serde_json::from_slice(report).unwrap(), serde_json::from_slice(receipt).unwrap())
}

#[test]
fn memory_is_asked_of_the_tracer_where_the_file_cannot_be_opened() {
    // SAFETY: no precondition.
    if unsafe { libc::geteuid() } != 0 {
        // Only root may hide the file.
        return;
    }
    let scene = Scene::new();
    let mut command = scene.victim(&["--consent", "granted", "--pmodule", "memory"], "none");
    command.args(PATIENT);
    hide_memory(&mut command, &scene);
    let mut live = Live::start(command);
    let seen = format!("/proc/{0}/root/proc/{0}/mem", live.pid());
    let refused = std::fs::File::open(seen).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENXIO), "this proves nothing");
    assert!(live.say("die null").starts_with("ok die"));
    scene.wait_event("spooled");
    scene.wait_end();
    let (report, _) = stored(&scene);
    assert_eq!(report["annotations"][0]["text"], "136 of 136 bytes: castle-of-the-north-7", "{report}");
}

/// Puts a socket's name, which nobody can open, over the victim's /proc/PID/mem, in a mount namespace that its monitor shares.
fn hide_memory(command: &mut std::process::Command, scene: &Scene) {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::process::CommandExt as _;
    let socket = scene.path("socket");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let socket = std::ffi::CString::new(socket.as_os_str().as_bytes()).unwrap();
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: plain system calls on strings that outlive them.
    unsafe {
        command.pre_exec(move || {
            let none = std::ptr::null();
            check(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()))?;
            check(libc::mount(
                socket.as_ptr(),
                c"/proc/self/mem".as_ptr(),
                none,
                libc::MS_BIND,
                std::ptr::null(),
            ))
        });
    }
}
