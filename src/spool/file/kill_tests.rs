//! A process is killed (SIGKILL) between any two changes it makes to the spool, and what is left is looked at.
//! The child prints each step and waits; its parent lets it go on, or kills it there.
#![allow(clippy::print_stdout)] // The child's only way to speak.

use std::io::{BufRead, BufReader};
use std::process::Command;

use super::tests::{child, id, role};
use super::*;
use crate::spool::key::LocalKey;

const LONG: usize = 2_500_000;

/// What the child is about to do, after report 1 was committed and report 2 has been claimed once and given back.
fn act(role: &str, spool: &Spool) -> Result<()> {
    let claimed = || Ok(spool.claim(1_000)?.expect("report 1 or 2 is due"));
    match role {
        "commit" => spool.commit(id(9), &vec![9; LONG], || true).map(|_| ()),
        "claim" => claimed().map(drop),
        "accepted" => claimed()?.accepted(),
        "retry" => claimed()?.retry(2_000, 1),
        "rejected" => claimed()?.rejected(),
        "release" => claimed()?.release(),
        "purge" => spool.purge().map(|_| ()),
        "key" => LocalKey::load_or_create(spool.dir()).map(|_| ()),
        _ => panic!("no such role: {role}"),
    }
}

#[test]
fn child_process() {
    let Some((role, spool)) = role() else { return };
    steps::observe(|step| {
        println!("at {step}");
        let mut go_on = String::new();
        assert!(io::stdin().read_line(&mut go_on).unwrap() > 0, "killed before this is read");
    });
    act(&role, &spool).unwrap();
    println!("at done");
}

/// Runs the role up to step `stop` (counted from 0) and kills it there; returns the step's name, or `None` if
/// it had ended before.
fn run_until(role: &str, dir: &Path, stop: usize) -> Option<String> {
    let mut child = child("spool::file::kill_tests::child_process", role, dir);
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut input = child.stdin.take().unwrap();
    let mut number = 0;
    let step = loop {
        let step =
            output.by_ref().find_map(|line| Some(line.unwrap().split_once("at ")?.1.to_owned())).unwrap();
        if step == "done" || number == stop {
            break step;
        }
        writeln!(input).unwrap();
        number += 1;
    };
    if step != "done" {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert_eq!(status.success(), step == "done", "{role}: {status}");
    (step != "done").then_some(step)
}

/// Kills `role` at each of its steps, each time in a fresh spool, and lets `check` look at what is left.
/// Returns the steps.
fn at_each_step(role: &str, check: impl Fn(&str, &Spool)) -> Vec<String> {
    let mut steps = Vec::new();
    loop {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::new(root.path().join("spool"));
        spool.commit(id(1), &[1; 100], || true).unwrap();
        spool.commit(id(2), &[2; 100], || true).unwrap();
        let Some(step) = run_until(role, spool.dir(), steps.len()) else { return steps };
        check(&step, &spool);
        steps.push(step);
    }
}

/// Sends all there is; returns the ids in order. Whole reports only, and no temporary file is left over.
fn drain(spool: &Spool) -> Vec<u8> {
    spool.recover().unwrap();
    let mut ids = Vec::new();
    while let Some(claim) = spool.claim(2_000).unwrap() {
        let (number, bytes) = (claim.id().0[0], claim.read().unwrap());
        assert_eq!(bytes, vec![number; if number == 9 { LONG } else { 100 }], "report {number} is whole");
        ids.push(number);
        claim.accepted().unwrap();
    }
    for state in [State::Pending, State::Sending] {
        assert_eq!(std::fs::read_dir(spool.dir().join(state.name())).unwrap().count(), 0);
    }
    ids.sort_unstable();
    ids
}

#[test]
fn a_killed_commit_loses_at_most_its_own_report() {
    let steps = at_each_step("commit", |step, spool| {
        let renamed = matches!(step, "commit: renamed" | "commit: durable");
        assert_eq!(drain(spool), if renamed { vec![1, 2, 9] } else { vec![1, 2] }, "{step}");
        // And it can be committed again.
        spool.commit(id(9), &vec![9; LONG], || true).unwrap();
        assert_eq!(drain(spool), [9], "{step}");
    });
    let pieces = steps.iter().filter(|step| *step == "commit: wrote a piece").count();
    assert_eq!((steps.len(), pieces), (8, 3), "{steps:?}");
}

#[test]
fn a_killed_uploader_loses_nothing() {
    for role in ["claim", "retry", "release"] {
        let steps = at_each_step(role, |step, spool| assert_eq!(drain(spool), [1, 2], "{role}: {step}"));
        assert!(steps.len() >= 2, "{steps:?}");
    }
    at_each_step("accepted", |step, spool| {
        let left = drain(spool);
        assert_eq!(left.len(), if step == "accepted: removed" { 1 } else { 2 }, "{step}");
    });
    at_each_step("rejected", |step, spool| {
        let rejected = spool.list().unwrap().iter().filter(|item| item.state == State::Rejected).count();
        assert_eq!(drain(spool).len() + rejected, 2, "{step}");
    });
}

#[test]
fn a_killed_purge_can_be_finished() {
    let steps = at_each_step("purge", |step, spool| {
        assert!(spool.list().unwrap().len() < 2, "{step}");
        spool.purge().unwrap();
        assert!(drain(spool).is_empty(), "{step}");
    });
    assert_eq!(steps.len(), 2);
}

#[test]
fn a_killed_key_maker_leaves_a_whole_key_or_none() {
    let steps = at_each_step("key", |step, spool| {
        let left = LocalKey::load(spool.dir()).unwrap();
        assert_eq!(left.is_some(), step == "update: renamed", "{step}");
        let made = LocalKey::load_or_create(spool.dir()).unwrap();
        if let Some(left) = left {
            assert_eq!(left.derive("test"), made.derive("test"));
        }
        assert!(!spool.dir().join(".key.tmp").exists(), "{step}");
    });
    assert_eq!(steps.len(), 4, "{steps:?}");
}

#[test]
fn a_full_disk_harms_nothing_that_was_committed() {
    const TEST: &str = "spool::file::kill_tests::a_full_disk_harms_nothing_that_was_committed";
    if let Some((_, spool)) = role() {
        // The file size limit is 64 KiB here: writing beyond it fails as a full disk does, at any user's hand.
        let error = spool.commit(id(9), &vec![9; LONG], || true).unwrap_err().to_string();
        assert!(
            error.contains("free some space") && error.contains(&*spool.dir().to_string_lossy()),
            "{error}"
        );
        spool.commit(id(3), &[3; 100], || true).unwrap();
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::new(root.path().join("spool"));
    spool.commit(id(1), &[1; 100], || true).unwrap();
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\" >/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--test-threads=1"])
        .env("CENOTAPH_TEST_ROLE", "full")
        .env("CENOTAPH_TEST_SPOOL", spool.dir())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(drain(&spool), [1, 3]);
}
