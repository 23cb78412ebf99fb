//! `cenotaph pmodule run` with the example pmodules in C and core files of the game that they are for, one made by gdb and,
//! where core files can be found, one by the kernel. The dumps are judged by the `minidump` crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod failures;
mod game;

use std::fs;
use std::process::Command;

use game::{compile, core, replayed, run};
use minidump::{Minidump, MinidumpException, MinidumpThreadList};
use serde_json::{Value, json};

const PASSWORD: &[u8] = b"tangerine lighthouse";
const VENDOR: &[u8] = b"walnut orchard";

/// Events with their calls.
fn calls(json: &Value) -> Vec<(String, u64)> {
    let events = json["cost"]["events"].as_array().unwrap().iter();
    events.map(|e| (e["event"].as_str().unwrap().to_owned(), e["calls"].as_u64().unwrap())).collect()
}

#[test]
fn the_password_is_gone() {
    for ran in replayed("redact_password") {
        assert!(!ran.holds(PASSWORD) && !ran.holds(b"tangerine") && ran.holds(VENDOR));
        let edits = ran.json["edits"].as_array().unwrap();
        let range = &edits[0]["blank-memory"];
        assert_eq!((edits.len(), range["end"].as_u64().unwrap() - range["start"].as_u64().unwrap()), (1, 64));
        assert_eq!(calls(&ran.json), [("attach".to_owned(), 1)]);
        assert!(ran.json["cost"]["reads"].as_u64().unwrap() > 0);
        assert!(
            ran.text.contains("redacts")
                && ran.text.contains("blank memory")
                && !ran.text.contains("tangerine")
        );
        // What is left is a dump like any other.
        let dump = Minidump::read(&ran.dump[..]).unwrap();
        let exception = dump.get_stream::<MinidumpException<'_>>().unwrap();
        assert_eq!(exception.raw.exception_record.exception_code, libc::SIGSEGV.unsigned_abs());
        assert_eq!(dump.get_stream::<MinidumpThreadList<'_>>().unwrap().threads.len(), 4);
    }
}

#[test]
fn the_state_is_noted() {
    for ran in replayed("game_state") {
        assert!(ran.holds(PASSWORD), "nobody redacted");
        let used = 4711 * 1024;
        let allocator = json!({ "allocations": 4711, "bytes_in_use": used, "bytes_at_most": used });
        let edits = ran.json["edits"].as_array().unwrap();
        assert_eq!(edits[0], json!({ "attribute": { "key": "game.level", "value": 12 } }));
        assert_eq!(edits[1], json!({ "attribute": { "key": "game.frame", "value": 4711 } }));
        let text = edits[2]["annotate"]["text"].as_str().unwrap();
        let state: Value = serde_json::from_str(text).unwrap();
        assert_eq!(state, json!({ "level": 12, "frame": 4711, "allocator": allocator }));
        assert_eq!(edits[4], json!({ "classifier": "much-memory" }));
        assert!(ran.json["cost"]["read_bytes"].as_u64().unwrap() >= 40);
        assert!(ran.text.contains("game.frame = 4711"));
    }
}

#[test]
fn the_librarys_stacks_are_gone() {
    for ran in replayed("drop_telemetry") {
        assert!(ran.holds(PASSWORD) && !ran.holds(VENDOR));
        let edits = ran.json["edits"].as_array().unwrap();
        assert_eq!(edits.len(), 3);
        // One frame of each thread is in the library; the filter keeps the others from it.
        assert_eq!(calls(&ran.json), [("frame".to_owned(), 3)]);
        let dropped: Vec<u64> = edits.iter().map(|edit| edit["drop-stack"].as_u64().unwrap()).collect();
        let dump = Minidump::read(&ran.dump[..]).unwrap();
        let memory = dump.get_memory().unwrap_or_default();
        let mut seen = 0;
        for thread in dump.get_stream::<MinidumpThreadList<'_>>().unwrap().threads {
            let stack = thread.stack_memory(&memory).map_or(0, |stack| stack.bytes().len());
            let is_dropped = dropped.contains(&thread.raw.thread_id.into());
            assert_eq!(stack == 0, is_dropped, "{}", thread.raw.thread_id);
            seen += usize::from(is_dropped);
        }
        assert_eq!(seen, 3);
    }
}

#[test]
fn frames_without_a_filter_read_no_symbol_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames.c");
    let text = "#include \"cenotaph_pmodule.h\"\n\
        static int32_t frame(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_frame *frame) {\n\
        (void)user; return host->annotate(host, CENOTAPH_PMODULE_COMMENT, frame->symbol);\n}\n\
        FILTERS\n\
        static const cenotaph_pmodule table = { sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, \
        CENOTAPH_PMODULE_LITERAL(\"frames\"), 0, CENOTAPH_PMODULE_ON_FRAME, 0, USED, NULL, NULL, NULL, \
        frame, NULL, NULL, NULL, NULL, NULL };\n\
        CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi) { (void)abi; return &table; }\n";
    let filter = "static const cenotaph_pmodule_frame_filter filters[] = \
        { { { NULL, 0 }, CENOTAPH_PMODULE_LITERAL(\"__libc_start_main\"), 0, 0 } };";
    let all = text.replace("FILTERS", "").replace("USED", "0, NULL");
    let one = text.replace("FILTERS", filter).replace("USED", "1, filters");
    let [all, one] = [all, one].map(|text| {
        fs::write(&path, text).unwrap();
        let object = path.with_extension("so");
        compile(&["-shared", "-fPIC"], &path, &object);
        let output = run(&object, core(), &["--json", "-"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    });
    let words = |json: &Value| {
        json["edits"].as_array().unwrap().iter().map(|e| e["annotate"]["text"].clone()).collect::<Vec<_>>()
    };
    assert!(words(&all).len() > 4 && words(&all).iter().all(|symbol| symbol == ""), "{all}");
    assert_eq!(all["cost"]["reads"], 0);
    // By its name in the hash table: some entries, not the table.
    assert_eq!(words(&one), ["__libc_start_main"]);
    assert!((1..1 << 16).contains(&one["cost"]["read_bytes"].as_u64().unwrap()), "{}", one["cost"]);
}

#[test]
fn a_veto_is_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veto.c");
    let text = "#include \"cenotaph_pmodule.h\"\n\
        static int32_t verdict(const cenotaph_pmodule_host *host, void *user) {\n\
        (void)user; return host->veto(host, cenotaph_pmodule_string(\"a developer's build\"));\n}\n\
        static const cenotaph_pmodule table = { sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, \
        CENOTAPH_PMODULE_LITERAL(\"veto\"), 0, CENOTAPH_PMODULE_ON_VERDICT, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, \
        NULL, NULL, NULL, verdict };\n\
        CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi) { (void)abi; return &table; }\n";
    fs::write(&path, text).unwrap();
    let object = path.with_extension("so");
    compile(&["-shared", "-fPIC"], &path, &object);
    let output = run(&object, core(), &["--json", "-"]);
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["veto"], "a developer's build");
    assert_eq!((&json["report"], &json["failure"]), (&Value::Null, &Value::Null));
    assert_eq!(calls(&json), [("verdict".to_owned(), 1)]);
    let output = run(&object, core(), &["--dump", folder.path().join("dump").to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && error.contains("not written: the report has no dump"),
        "{error}"
    );
}

#[test]
fn what_a_module_prints_is_shown_and_a_debugger_sees_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prints.c");
    let text = "#include <stdio.h>\n#include <unistd.h>\n#include \"cenotaph_pmodule.h\"\n\
        static int32_t attach(const cenotaph_pmodule_host *host, void *user) {\n\
        (void)user; printf(\"out \"); fprintf(stderr, \"err\"); (void)host->keep_stack(host, 1);\n\
        return host->annotate(host, CENOTAPH_PMODULE_COMMENT, host->error(host));\n}\n\
        static const cenotaph_pmodule table = { sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, \
        CENOTAPH_PMODULE_LITERAL(\"prints\"), 0, CENOTAPH_PMODULE_ON_ATTACH, 0, 0, NULL, NULL, attach, NULL, NULL, NULL, \
        NULL, NULL, NULL, NULL };\n\
        CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi) { (void)abi; return &table; }\n";
    fs::write(&path, text).unwrap();
    let object = path.with_extension("so");
    compile(&["-shared", "-fPIC"], &path, &object);
    for more in [&["--json", "-"][..], &["--json", "-", "--debug"]] {
        let output = run(&object, core(), more);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "out err", "{more:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        // What was refused is not in the list, and spoils nothing.
        assert_eq!(json["edits"].as_array().unwrap().len(), 1);
        assert_eq!(json["edits"][0]["annotate"]["text"], "there is no thread 1");
    }
    let output = run(core(), &object, &[]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && error.contains("is a core file"), "{error}");
    let output = Command::new(env!("CARGO_BIN_EXE_cenotaph")).args(["pmodule", "--help"]).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("follow-fork-mode"));
}
