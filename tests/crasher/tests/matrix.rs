//! A listed part of `crasher matrix`, few enough victims for every change: each case is complete. All of it:
//! `cargo run --release -p crasher -- matrix`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "support/applications.rs"]
mod applications;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use applications::Watched;
use serde_json::Value;

/// Arguments of `crasher matrix`, and how many cases they select: a list that selects nothing must not pass.
struct Part {
    arguments: &'static [&'static str],
    cases: usize,
}

/// Each way as it is everywhere, then each state, then each lock-down. The stopped states have more time than in the whole matrix:
/// this program is not built for speed, and shares the machine with other tests.
const PARTS: &[Part] = &[
    Part {
        arguments: &["--repeat", "1", "--states", "alive", "--lockdown", "-", "--only", EVERY_WAY],
        cases: 23,
    },
    Part {
        arguments: &["--repeat", "2", "--states", "killed,none", "--lockdown", "-", "--only", HARD_WAYS],
        cases: 10,
    },
    Part {
        arguments: &[
            "--repeat",
            "1",
            "--states",
            "stopped,killed-attached",
            "--lockdown",
            "-",
            "--deadline-ms",
            "8000",
            "--only",
            "null,stack-overflow-thread",
        ],
        cases: 4,
    },
    Part {
        arguments: &[
            "--repeat",
            "1",
            "--states",
            "-",
            "--lockdown",
            "yama1,yama2,yama3,nnp,seccomp-ptrace,seccomp-vmread,seccomp-kill,pidns,pid1,cgroup-kill,uid,nodump,traced",
            "--only",
            "null",
        ],
        cases: 26,
    },
    // Ordinary code asks too.
    Part {
        arguments: &[
            "--repeat",
            "1",
            "--states",
            "killed,stopped,stopped-attached",
            "--lockdown",
            "-",
            "--deadline-ms",
            "8000",
            "--only",
            "null,panic-in-panic,capture",
        ],
        cases: 9,
    },
];

const EVERY_WAY: &str = "null,abort,panic,bus,ill,fpe,trap,sys,stack-overflow,stack-overflow-thread,heap-lock,two-threads,\
                         abort-in-handler-chain,panic-abort,panic-in-panic,cxx-throw,oom-rust,sigkill,\
                         stack-smash,double-free,fork-child,hang,capture";
const HARD_WAYS: &str = "null,abort,stack-overflow-thread,heap-lock,two-threads";

fn matrix(arguments: &[&str], json: &Path) -> Output {
    command(arguments, json).output().unwrap()
}

fn command(arguments: &[&str], json: &Path) -> Command {
    let mut command = Command::new(support::crasher());
    command.arg("matrix").args(["--jobs", "2", "--json"]).arg(json).args(arguments);
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn cases(json: &Path) -> Vec<Value> {
    let measured: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    measured["cases"].as_array().unwrap().clone()
}

#[test]
fn the_listed_cases_are_complete() {
    let folder = tempfile::tempdir().unwrap();
    for part in PARTS {
        let (json, victims) = (folder.path().join("matrix.json"), tempfile::tempdir().unwrap());
        fs::set_permissions(victims.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = command(part.arguments, &json);
        command.arg("--keep-all").arg("--folder").arg(victims.path());
        let watched = Watched::on(&mut command);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let spools = fs::read_dir(victims.path()).unwrap().map(|victim| victim.unwrap().path().join("spool"));
        let compared: usize = spools.map(|spool| watched.check(&spool)).sum();
        println!("{compared} dumps compared with their receipts");
        assert!(compared >= part.cases / 2, "{compared} of {} cases", part.cases);
        let cases = cases(&json);
        assert_eq!(cases.len(), part.cases, "{}", text(&output));
        for case in cases {
            let applies = case["not_applicable"].is_null();
            assert_eq!(case["complete"], Value::from(applies.then_some(true)), "{case:#}");
            assert_eq!(case["runs"], case["wanted"], "{case:#}");
        }
    }
}

/// The matrix can fail: nobody attaches to 512 threads, loses a worker, and attaches to them again, all in a millisecond.
#[test]
fn what_is_lost_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("matrix.json");
    let state = ["--states", "killed-attached", "--lockdown", "-", "--only", "null"];
    let output = matrix(&[&["--repeat", "1", "--deadline-ms", "1"][..], &state].concat(), &json);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILS") && said.contains("0 of 1 cases complete"), "{said}");
    let cases = cases(&json);
    assert_eq!((cases.len(), &cases[0]["complete"]), (1, &Value::from(false)), "{said}");
    assert_eq!(cases[0]["failures"].as_array().unwrap().len(), 1, "{said}");
}

#[test]
fn mistakes_exit_2() {
    for arguments in [&["--repeat", "0"][..], &["--only", "drown"], &["--states", "asleep"], &["null"]] {
        let output = matrix(arguments, Path::new("/nonexistent/matrix.json"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains("usage: crasher matrix"), "{arguments:?}");
    }
}
