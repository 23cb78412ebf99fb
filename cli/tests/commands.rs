//! The commands as a user runs them: output, exit codes, what is written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

#[path = "../../tests/support/byte_diff.rs"]
mod byte_diff;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use byte_diff::assert_equals_receipt;
use cenotaph::dump::synthetic;
use cenotaph::report::{
    Detail, Fingerprint, Frame, Module, Reason, Report, ReportId, StackTrace, Thread, Trust,
};
use cenotaph::spool::file::Spool;
use cenotaph::spool::key::LocalKey;
use cenotaph::spool::{Part, PartKind, container};

fn cenotaph(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cenotaph")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The exit code and the words on standard error.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = cenotaph(arguments);
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn trace() -> StackTrace {
    let frame = |offset, trust| Frame { instruction: 0x40_0000 + offset, module: Some(0), offset, trust };
    StackTrace {
        modules: vec![Module {
            name: "game\u{1b}[31m".to_owned(),
            build_id: "00112233445566778899aabbccddeeff00112233".to_owned(),
            base: 0x40_0000,
            size: 0x10_0000,
        }],
        threads: vec![Thread {
            id: 77,
            name: Some("render".to_owned()),
            crashed: true,
            frames: vec![frame(0x1234, Trust::Context), frame(0x2233, Trust::Unwound)],
        }],
    }
}

fn dump() -> Vec<u8> {
    let reason = Reason::Signal { number: 11, code: 1, address: Some(0x10) };
    synthetic::write(&trace(), &reason, 1_700_000_000_000).unwrap()
}

#[test]
fn inspect_prints_reason_frames_and_modules() {
    let dir = tempfile::tempdir().unwrap();
    let (file, json) = (dir.path().join("a.dmp"), dir.path().join("a.json"));
    std::fs::write(&file, dump()).unwrap();
    let out = stdout(&cenotaph(&["inspect", text(&file), "--json", text(&json)]));
    assert!(out.contains("SIGSEGV / SEGV_MAPERR at 0x10"), "{out}");
    assert!(out.contains("+ 0x1234") && out.contains("+ 0x2233"), "{out}");
    assert!(out.contains("thread 77 render (crashed)"), "{out}");
    assert!(!out.contains('\u{1b}'), "a dump's names reached the terminal raw");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(json["crashed_thread"], 77);
    assert_eq!(json["address"], 0x10);
    assert_eq!(json["threads"][0]["frames"][0]["offset"], 0x1234);
    assert_eq!(json["threads"][0]["frames"][0]["trust"], "context");
    assert_eq!(json["modules"][0]["base"], 0x40_0000);
    let only = stdout(&cenotaph(&["inspect", text(&file), "--json", "-"]));
    assert!(serde_json::from_str::<serde_json::Value>(&only).is_ok());
}

#[test]
fn a_sealed_report_is_listed_opened_and_inspected() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let key = LocalKey::load_or_create(&spool).unwrap();
    let id = ReportId::random().unwrap();
    let report = Report {
        id,
        time_ms: 1_700_000_000_000,
        application: "game".to_owned(),
        version: "1".to_owned(),
        environment: "test".to_owned(),
        reason: Reason::Requested { reason: "x".to_owned() },
        detail: Detail::StackTrace,
        attributes: Vec::new(),
        breadcrumbs: Vec::new(),
        stack_trace: trace(),
        fingerprint: Fingerprint::default(),
        device_id: None,
        annotations: Vec::new(),
        classifiers: Vec::new(),
        origin: None,
        repeats: Vec::new(),
        notes: Vec::new(),
        stages_ms: BTreeMap::new(),
        stages_bytes: BTreeMap::new(),
    };
    let parts = [
        Part { kind: PartKind::Report, bytes: serde_json::to_vec(&report).unwrap() },
        Part { kind: PartKind::StackTrace, bytes: dump() },
    ];
    let sealed = container::seal(id, report.time_ms, &parts, &key).unwrap();
    let path = Spool::new(&spool).commit(id, &sealed.bytes, || true).unwrap().path;

    let elsewhere = cenotaph(&["spool", "list", text(dir.path())]);
    assert_eq!(elsewhere.status.code(), Some(1), "a folder that is no spool");
    let listed = stdout(&cenotaph(&["spool", "list", text(&spool)]));
    assert!(listed.starts_with(&format!("{id}\tpending\t{}\t0\t", sealed.bytes.len())), "{listed}");
    let json = stdout(&cenotaph(&["spool", "list", text(&spool), "--json", "-"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["id"], id.to_string());

    let out = dir.path().join("out");
    let key_file = spool.join("key");
    stdout(&cenotaph(&["open", text(&path), "--key", text(&key_file), "-o", text(&out)]));
    assert_eq!(std::fs::read(out.join("stack-trace.dmp")).unwrap(), dump());
    let opened: Report = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(opened, report);

    let (code, error) = failure(&["inspect", text(&path)]);
    assert!(code == 1 && error.contains("cenotaph open"), "{error}");
    // Another device's key.
    let other = dir.path().join("other");
    LocalKey::load_or_create(&other).unwrap();
    let (code, error) = failure(&["open", text(&path), "--key", text(&other.join("key")), "-o", text(&out)]);
    assert!(code == 1 && error.contains(text(&path)), "{error}");
    // Bytes that were changed.
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let bad = dir.path().join("bad");
    std::fs::write(&bad, bytes).unwrap();
    assert_eq!(failure(&["open", text(&bad), "--key", text(&key_file), "-o", text(&out)]).0, 1);
}

#[test]
fn scrub_writes_a_dump_of_the_same_length_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("a.dmp"), dir.path().join("b.dmp"));
    std::fs::write(&from, dump()).unwrap();
    let receipt =
        stdout(&cenotaph(&["scrub", text(&from), "-o", text(&to), "--known", "render", "--receipt", "-"]));
    let receipt: serde_json::Value = serde_json::from_str(&receipt).unwrap();
    let entries = receipt["entries"].as_array().unwrap();
    assert!(entries.iter().any(|e| e["place"] == "thread-name"), "{receipt}");
    let scrubbed = std::fs::read(&to).unwrap();
    assert_equals_receipt("scrub", &dump(), &scrubbed, &receipt);
    let render: Vec<u8> = "render".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let has = |bytes: &[u8]| bytes.windows(render.len()).any(|w| w == render);
    assert!(has(&dump()) && !has(&scrubbed));

    let (cut, none) = (dir.path().join("cut.dmp"), dir.path().join("none.dmp"));
    std::fs::write(&cut, &dump()[..100]).unwrap();
    let (code, error) = failure(&["scrub", text(&cut), "-o", text(&none)]);
    assert!(code == 1 && error.contains("cut.dmp") && error.contains("nothing was written"), "{error}");
    assert!(!none.exists());
}

#[test]
fn scrub_takes_levels_and_rules_and_its_receipt_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (from, to, receipt, rules) = (path("a.dmp"), path("b.dmp"), path("r.json"), path("rules.toml"));
    std::fs::write(&from, dump()).unwrap();
    std::fs::write(&rules, "[[rule]]\nname = \"thread-kind\"\npattern = 'rende[a-z]'\n").unwrap();
    let own = ["--rules", text(&rules), "--level", "pointers", "--level", "module-path=keep"];
    let scrub = ["scrub", text(&from), "-o", text(&to), "--receipt", text(&receipt)];
    stdout(&cenotaph(&[&scrub[..], &own[..]].concat()));
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
    let entries = written["entries"].as_array().unwrap();
    assert!(entries.iter().any(|e| e["rule"] == "thread-kind"), "{written}");
    assert_eq!(written["dump"]["length"], dump().len());
    assert_equals_receipt("scrub with rules", &dump(), &std::fs::read(&to).unwrap(), &written);
    assert!(stdout(&cenotaph(&["receipt", "verify", text(&to), text(&receipt)])).contains(": verified: "));
    let (code, error) = failure(&["receipt", "verify", text(&from), text(&receipt)]);
    assert!(code == 1 && error.contains("is not the dump that") && error.contains("SHA-256"), "{error}");
    assert!(!error.contains("malformed"), "{error}");
    let mut wrong = written;
    wrong["entries"][0]["offset"] = 0.into();
    std::fs::write(&receipt, wrong.to_string()).unwrap();
    let (code, error) = failure(&["receipt", "verify", text(&to), text(&receipt)]);
    assert!(code == 1 && error.contains("not verified"), "{error}");

    let none = path("none.dmp");
    for (rule, line) in [("[[rule]]\nname = \"a\"\npattern = '(a+)+b'\n", ":3:"), ("[[rule]\n", ":1:")] {
        std::fs::write(&rules, rule).unwrap();
        let (code, error) = failure(&["scrub", text(&from), "-o", text(&none), "--rules", text(&rules)]);
        assert!(code == 1 && error.contains(line), "{error}");
    }
    let core = path("core");
    std::fs::write(&core, b"\x7fELF\x02\x01\x01").unwrap();
    let (code, error) = failure(&["scrub", text(&core), "-o", text(&none)]);
    assert!(code == 1 && error.contains("core file") && error.contains("nothing was written"), "{error}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "no part of a file is left: {left:?}");
}

/// What has no end is not read to its end, and what a file says of itself does not reach the terminal raw.
#[test]
fn rules_and_receipts_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (from, to, receipt) = (path("a.dmp"), path("b.dmp"), path("r.json"));
    std::fs::write(&from, dump()).unwrap();
    let (code, error) = failure(&["scrub", text(&from), "-o", text(&to), "--rules", "/dev/zero"]);
    assert!(
        code == 1 && error.contains("/dev/zero: it is no regular file; write the rules into one"),
        "{error}"
    );
    let (code, error) = failure(&["receipt", "verify", text(&from), "/dev/zero"]);
    assert!(code == 1 && error.contains("not a file with an end"), "{error}");
    stdout(&cenotaph(&["scrub", text(&from), "-o", text(&to), "--receipt", text(&receipt)]));
    let good = std::fs::read_to_string(&receipt).unwrap();
    let written: serde_json::Value = serde_json::from_str(&good).unwrap();
    let policy = written["policy"].as_str().unwrap();
    let sha256 = written["dump"]["sha256"].as_str().unwrap();
    for (from, to) in [
        (policy, "\\u001b]0;title\\u0007"),
        (sha256, "\\u001b[31m"),
        ("binary", "\\u001b[31m"),
        ("registers", "\\u001b[31m"),
        ("text-stream", "\\u001b[31m"),
    ] {
        std::fs::write(&receipt, good.replace(from, to)).unwrap();
        if good.contains(from) {
            let output = cenotaph(&["receipt", "verify", text(&path("b.dmp")), text(&receipt)]);
            assert!(!output.status.success(), "{from}");
            let said = [output.stdout, output.stderr].concat();
            assert!(
                !said.contains(&0x1b) && !said.contains(&7),
                "{from}: {}",
                String::from_utf8_lossy(&said)
            );
        }
    }
}

#[test]
fn help_has_every_option() {
    let scrub = stdout(&cenotaph(&["scrub", "--help"]));
    for word in
        ["--level", "--known", "--rules", "--receipt", "[[rule]]", "fewer than 5 bytes", "thread-name"]
    {
        assert!(scrub.contains(word), "{word}: {scrub}");
    }
    let score = stdout(&cenotaph(&["score", "-h"]));
    for word in [
        "small",
        "seed",
        "plants",
        "negatives",
        "heaps",
        "data",
        "python",
        "generator",
        "only-speed",
        "examples",
        "json",
    ] {
        assert!(score.contains(&format!("  --{word} ")), "{word}: {score}");
    }
    for command in ["demo", "collect", "inspect", "receipt", "open", "spool", "pmodule"] {
        assert!(stdout(&cenotaph(&[command, "--help"])).contains(command));
    }
    // Before anything is measured.
    let (code, error) = failure(&["score", "--small", "--json", "/nonexistent/score.json"]);
    assert!(code == 1 && error.contains("/nonexistent/score.json"), "{error}");
}

/// Neither an input nor the machine's devices are lost to an output.
#[test]
fn outputs_replace_neither_inputs_nor_each_other_nor_devices() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (from, to, hard) = (path("a.dmp"), path("b.dmp"), path("hard.dmp"));
    std::fs::write(&from, dump()).unwrap();
    std::fs::hard_link(&from, &hard).unwrap();
    for (output, receipt) in [(&from, &to), (&hard, &to), (&to, &hard), (&to, &to)] {
        let (code, error) = failure(&["scrub", text(&from), "-o", text(output), "--receipt", text(receipt)]);
        assert!(code == 2 && error.contains("would be lost"), "{error}");
    }
    let (code, error) = failure(&["scrub", text(&from), "-o", "-"]);
    assert!(code == 2 && error.contains("name it"), "{error}");
    for target in ["/proc/self/fd/1", "/dev/null"] {
        let link = path("link");
        std::os::unix::fs::symlink(target, &link).unwrap();
        for arguments in [
            &["scrub", text(&from), "-o", text(&link)][..],
            &["scrub", text(&from), "-o", text(&to), "--receipt", text(&link)],
        ] {
            let (code, error) = failure(arguments);
            assert!(code == 1 && error.contains("no file; name another"), "{error}");
        }
        let output = cenotaph(&["inspect", text(&from), "--json", text(&link)]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(target));
        std::fs::remove_file(&link).unwrap();
    }
    assert_eq!(std::fs::read(&from).unwrap(), dump());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn what_a_command_does_not_take_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (hello, core, to) = (path("hello.txt"), path("core"), path("b.dmp"));
    std::fs::write(&hello, "hello").unwrap();
    std::fs::write(&core, b"\x7fELF\x02\x01\x01").unwrap();
    let (code, error) = failure(&["scrub", text(&hello), "-o", text(&to)]);
    assert!(code == 1 && error.contains("takes a minidump or an ELF core file"), "{error}");
    let (code, error) = failure(&["inspect", text(&core)]);
    assert!(code == 1 && error.contains("inspect takes minidumps"), "{error}");
    assert!(!to.exists());
}

#[test]
fn wrong_command_lines_have_exit_code_2() {
    for arguments in [
        &[][..],
        &["fly"],
        &["--fly"],
        &["inspect"],
        &["inspect", "a", "b"],
        &["inspect", "--fly"],
        &["open", "a"],
        &["scrub", "a", "-o", "b", "--level", "raw"],
        &["scrub", "a", "-o", "b", "--level", "moon=drop"],
        &["scrub", "a", "-o", "b", "--level", "unclaimed=keep"],
        &["scrub", "a", "-o", "b", "--level", "attribute=drop"],
        &["scrub", "a", "-o", "b", "--level", "log-tail=keep"],
        &["receipt"],
        &["receipt", "verify", "a"],
        &["spool"],
        &["spool", "fly"],
        &["collect", "--listen", "127.0.0.1:0", "--dir", "x"],
        &["collect", "--listen", "nowhere", "--dir", "x", "--self-signed"],
        &["collect", "--listen", "0.0.0.0:0", "--dir", "x", "--self-signed"],
        &["collect", "--listen", "127.0.0.1:0", "--dir", "x", "--self-signed", "--fail", "1"],
    ] {
        let (code, error) = failure(arguments);
        assert!(code == 2 && error.contains("--help"), "{arguments:?}: {error}");
    }
    assert!(stdout(&cenotaph(&["--help"])).contains("collect --listen"));
    assert!(!Path::new("x").exists());
}

#[test]
fn files_that_cannot_be_used_have_exit_code_1_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    for arguments in [
        &["inspect", text(&missing)][..],
        &["spool", "list", text(&missing)],
        &["open", text(&missing), "--key", text(&missing), "-o", text(dir.path())],
        &["scrub", text(&missing), "-o", "x"],
        &["receipt", "verify", text(&missing), text(&missing)],
    ] {
        let (code, error) = failure(arguments);
        assert!(code == 1 && error.contains("missing"), "{arguments:?}: {error}");
    }
}

#[test]
fn collect_says_where_it_listens_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cenotaph"))
        .args(["collect", "--listen", "127.0.0.1:0", "--dir", text(dir.path()), "--self-signed"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("https://").unwrap();
    assert!(address.parse::<std::net::SocketAddr>().unwrap().port() != 0);
    // There before the address was printed.
    assert!(std::fs::read_to_string(dir.path().join("ca.pem")).unwrap().contains("BEGIN CERTIFICATE"));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}
