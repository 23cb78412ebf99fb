//! A process is killed (SIGKILL) between any two changes it makes to the spool, and what is left is looked at.
//! The child prints each step and waits; its parent lets it go on, or kills it there.
#![allow(clippy::print_stdout)] // The child's only way to speak.

use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::sync::OnceLock;

use super::tests::{child, id, role};
use super::*;
use crate::spool::key::LocalKey;
use crate::spool::{Part, PartKind, container};

const LONG: usize = 2_500_000;

/// Where a spool's test keeps report 9, sealed, for the child and for comparison: sealing is slow in debug builds.
fn kept(spool: &Spool) -> PathBuf {
    spool.dir().with_file_name("report-9")
}

fn report(spool: &Spool) -> Vec<u8> {
    std::fs::read(kept(spool)).unwrap()
}

/// A spool with report 1, and a key under which report 9 was sealed.
fn spool_with_key(root: &Path, length: usize) -> Spool {
    static LARGE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let spool = Spool::new(root.join("spool"));
    spool.commit(id(1), &[1; 100], || true).unwrap();
    let make = || (sealed(&spool, length), std::fs::read(spool.dir().join("key")).unwrap());
    let (report, key) = if length == LONG { LARGE.get_or_init(make).clone() } else { make() };
    private_write(&spool.dir().join("key"), &key);
    std::fs::write(kept(&spool), report).unwrap();
    spool
}

/// Report 9, of bytes that do not compress.
fn sealed(spool: &Spool, length: usize) -> Vec<u8> {
    let mut state = 9u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let bytes = (0..length).map(|_| random()).collect();
    let key = LocalKey::load_or_create(spool.dir()).unwrap();
    container::seal(id(9), 1, &[Part { kind: PartKind::Minidump, bytes }], &key).unwrap().bytes
}

fn temporary(spool: &Spool) -> PathBuf {
    spool.dir().join("pending").join(unfinished::temporary(id(9)))
}

/// What the child is about to do, after report 1 was committed and report 2 has been claimed once and given back.
fn act(role: &str, spool: &Spool) -> Result<()> {
    let claimed = || Ok(spool.claim(1_000)?.expect("report 1 or 2 is due"));
    match role {
        "commit" => spool.commit(id(9), &report(spool), || true).map(|_| ()),
        "recover" => spool.recover().map(|_| ()),
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
        let spool = match role {
            "commit" => spool_with_key(root.path(), LONG),
            _ => Spool::new(root.path().join("spool")),
        };
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
        match number {
            9 => assert!(bytes == report(spool), "report 9 is whole"),
            _ => assert_eq!(bytes, [number; 100], "report {number} is whole"),
        }
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
        // Before that it may be whole, all the same.
        let report = report(spool);
        let whole =
            renamed || temporary(spool).metadata().is_ok_and(|found| found.len() == report.len() as u64);
        assert!(whole || step != "commit: synced");
        let due = spool.next_due().unwrap();
        assert_eq!(due, Some(0), "{step}: an uploader has something to look at");
        assert_eq!(drain(spool), if whole { vec![1, 2, 9] } else { vec![1, 2] }, "{step}");
        // And it can be committed again.
        spool.commit(id(9), &report, || true).unwrap();
        assert_eq!(drain(spool), [9], "{step}");
    });
    let pieces = steps.iter().filter(|step| *step == "commit: wrote a piece").count();
    assert_eq!((steps.len(), pieces), (8, 3), "{steps:?}");
}

#[test]
fn a_power_cut_leaves_a_whole_report_or_rubbish() {
    const LENGTH: usize = 100_000;
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>), bool);
    let damage: [Damage<'_>; 6] = [
        ("nothing", &|_| {}, true),
        ("empty", &|bytes| bytes.clear(), false),
        ("cut short", &|bytes| bytes.truncate(LENGTH / 2), false),
        ("the last byte", &|bytes| bytes.truncate(bytes.len() - 1), false),
        ("a block that was never written", &|bytes| bytes[LENGTH / 2..][..4096].fill(0), false),
        ("more than was written", &|bytes| bytes.push(0), false),
    ];
    for (what, damage, whole) in damage {
        let root = tempfile::tempdir().unwrap();
        let spool = spool_with_key(root.path(), LENGTH);
        let mut bytes = report(&spool);
        damage(&mut bytes);
        private_write(&temporary(&spool), &bytes);
        let tally = || {
            spool.recover().unwrap();
            let tally = spool.take_tally();
            (tally.adopted, tally.unfinished)
        };
        assert_eq!(tally(), (usize::from(whole), usize::from(!whole)), "{what}");
        assert_eq!(tally(), (0, 0), "{what}");
        assert_eq!(drain(&spool), if whole { vec![1, 9] } else { vec![1] }, "{what}");
    }
}

#[test]
fn what_a_writer_left_is_adopted_by_its_own_name_and_key_once() {
    let root = tempfile::tempdir().unwrap();
    let spool = spool_with_key(root.path(), 1000);
    let report = report(&spool);
    // Another report's name.
    private_write(&spool.dir().join("pending").join(unfinished::temporary(id(8))), &report);
    spool.recover().unwrap();
    assert_eq!(spool.list().unwrap().len(), 1);
    // It is there already.
    spool.commit(id(9), &report, || true).unwrap();
    private_write(&temporary(&spool), &report);
    assert_eq!(spool.commit(id(9), &report, || true).map(|committed| committed.existed).ok(), Some(true));
    assert_eq!(drain(&spool), [1, 9]);
    // Sealed under a key that is gone.
    private_write(&temporary(&spool), &report);
    LocalKey::destroy(spool.dir()).unwrap();
    spool.recover().unwrap();
    assert_eq!(spool.list().unwrap(), []);
    // Purged.
    private_write(&temporary(&spool), &sealed(&spool, 1000));
    spool.purge().unwrap();
    assert!(drain(&spool).is_empty());
}

#[test]
fn a_killed_recovery_can_be_finished() {
    let root = tempfile::tempdir().unwrap();
    let spool = spool_with_key(root.path(), 1000);
    private_write(&temporary(&spool), &report(&spool));
    assert_eq!(run_until("recover", spool.dir(), 0).as_deref(), Some("recover: adopted"));
    assert_eq!(drain(&spool), [1, 9]);
}

fn private_write(path: &Path, bytes: &[u8]) {
    let mut options = OpenOptions::new();
    let file = private_file::open(path, options.write(true).create(true).truncate(true));
    file.unwrap().unwrap().write_all(bytes).unwrap();
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
