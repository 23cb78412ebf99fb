#![allow(clippy::print_stdout)] // A child process's only way to speak.

use std::collections::BTreeSet;
use std::fs::{File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

pub(super) fn id(number: u8) -> ReportId {
    ReportId([number; 16])
}

fn spool() -> (tempfile::TempDir, Spool) {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::new(root.path().join("state/app/spool"));
    (root, spool)
}

fn commit(spool: &Spool, number: u8) -> Committed {
    spool.commit(id(number), &[number; 100], || true).unwrap()
}

/// Makes a committed report look older.
fn age(committed: &Committed, seconds: u64) {
    let file = File::options().append(true).open(&committed.path).unwrap();
    let time = SystemTime::now() - Duration::from_secs(seconds);
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

fn states(spool: &Spool) -> Vec<(u8, State)> {
    spool.list().unwrap().into_iter().map(|item| (item.id.0[0], item.state)).collect()
}

/// A test of this binary in a process of its own; it does nothing unless `role` is in its environment.
pub(super) fn child(test: &str, role: &str, spool: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("CENOTAPH_TEST_ROLE", role)
        .env("CENOTAPH_TEST_SPOOL", spool)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The role that [`child`] gave to this process, and its spool.
pub(super) fn role() -> Option<(String, Spool)> {
    let dir = std::env::var_os("CENOTAPH_TEST_SPOOL")?;
    Some((std::env::var("CENOTAPH_TEST_ROLE").unwrap(), Spool::new(dir)))
}

#[test]
fn nothing_is_touched_before_the_first_commit() {
    let (root, spool) = spool();
    assert_eq!(spool.list().unwrap(), []);
    assert_eq!(spool.next_due().unwrap(), None);
    assert!(spool.claim(0).unwrap().is_none());
    assert_eq!((spool.recover().unwrap(), spool.purge().unwrap()), (0, 0));
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);

    commit(&spool, 1);
    for (path, mode) in [("", 0o700), ("pending", 0o700), ("lock", 0o600)] {
        assert_eq!(spool.dir().join(path).metadata().unwrap().mode() & 0o777, mode, "{path}");
    }
    let item = spool.list().unwrap().remove(0);
    assert_eq!(item.path.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!((item.id, item.state, item.attempts, item.size), (id(1), State::Pending, 0, 100));
    spool.claim(0).unwrap().unwrap().rejected().unwrap();
    for path in ["sending", "rejected"] {
        assert_eq!(spool.dir().join(path).metadata().unwrap().mode() & 0o777, 0o700, "{path}");
    }
}

#[test]
fn a_commit_is_durable_in_this_order() {
    use std::{cell::RefCell, rc::Rc};
    let (_root, spool) = spool();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let record = Rc::clone(&seen);
    steps::observe(move |step| record.borrow_mut().push(step));
    let committed = commit(&spool, 1);
    let steps: Vec<_> = seen.borrow().iter().copied().filter(|step| step.starts_with("commit")).collect();
    assert_eq!(
        steps,
        [
            "commit: locked",
            "commit: created",
            "commit: wrote a piece",
            "commit: synced",
            "commit: renamed",
            "commit: durable"
        ]
    );
    assert_eq!(std::fs::read(&committed.path).unwrap(), [1; 100]);
    assert!(!committed.existed);
    seen.borrow_mut().clear();
    assert_eq!(commit(&spool, 1), Committed { existed: true, ..committed });
    assert!(!seen.borrow().contains(&"commit: created"), "the same id is not written twice");
}

#[test]
fn consent_is_asked_under_the_lock() {
    let (_root, spool) = spool();
    let lock_is_held = || {
        let other = File::open(spool.dir().join("lock")).unwrap();
        matches!(other.try_lock(), Err(std::fs::TryLockError::WouldBlock))
    };
    let refused = spool.commit(id(1), b"x", || !lock_is_held());
    assert!(matches!(refused, Err(Error::ConsentRefused(_))));
    assert!(!spool.dir().join("pending").exists());
    spool.commit(id(1), b"x", lock_is_held).unwrap();
}

#[test]
fn a_claim_ends_in_one_of_these_ways() {
    let (_root, spool) = spool();
    commit(&spool, 1);
    let claim = |now| spool.claim(now).unwrap();
    let first = claim(0).unwrap();
    assert_eq!((first.id(), first.attempts(), first.delivered_mask()), (id(1), 0, 0));
    assert_eq!(first.read().unwrap(), [1; 100]);
    assert_eq!(first.read().unwrap(), [1; 100]);
    assert_eq!(states(&spool), [(1, State::Sending)]);
    assert!(claim(0).is_none(), "a claim excludes others");
    assert_eq!(spool.next_due().unwrap(), None);

    first.release().unwrap();
    assert_eq!(spool.list().unwrap()[0].attempts, 0);
    claim(0).unwrap().retry(5_000, 0b10).unwrap();
    assert_eq!(spool.next_due().unwrap(), Some(5_000));
    assert!(claim(4_999).is_none());
    let second = claim(5_000).unwrap();
    assert_eq!((second.attempts(), second.delivered_mask()), (1, 0b10));
    second.retry(6_000, 0b01).unwrap();
    let third = claim(6_000).unwrap();
    assert_eq!((third.attempts(), third.delivered_mask()), (2, 0b11));
    third.rejected().unwrap();
    assert_eq!(states(&spool), [(1, State::Rejected)]);
    assert!(claim(1_000_000).is_none());

    commit(&spool, 2);
    claim(0).unwrap().accepted().unwrap();
    assert_eq!(states(&spool), [(1, State::Rejected)]);
}

#[test]
fn the_oldest_due_report_comes_first() {
    let (_root, spool) = spool();
    for (number, seconds) in [(1, 10), (2, 30), (3, 20)] {
        age(&commit(&spool, number), seconds);
    }
    let now = now_ms();
    let claims: Vec<_> = std::iter::from_fn(|| spool.claim(now).unwrap()).collect();
    assert_eq!(claims.iter().map(|claim| claim.id().0[0]).collect::<Vec<_>>(), [2, 3, 1]);
}

#[test]
fn an_abandoned_claim_goes_back_and_counts_as_an_attempt() {
    let (_root, spool) = spool();
    commit(&spool, 1);
    drop(spool.claim(0).unwrap().unwrap());
    assert_eq!(states(&spool), [(1, State::Sending)]);
    assert_eq!(spool.next_due().unwrap(), Some(0));
    assert_eq!(spool.recover().unwrap(), 1);
    assert_eq!(spool.take_tally(), Tally { recovered: 1, ..Tally::default() });
    let again = spool.claim(0).unwrap().unwrap();
    assert_eq!(again.attempts(), 1);
    assert_eq!(spool.recover().unwrap(), 0, "a living claim is left alone");
    // What a power cut within the rename of a retry may leave on some file systems.
    std::fs::copy(
        &spool.list().unwrap()[0].path,
        spool.dir().join("pending").join(format!("{}-2-7-0.ceno", id(1))),
    )
    .unwrap();
    drop(again);
    assert_eq!(spool.recover().unwrap(), 0);
    assert_eq!(
        spool.list().unwrap().iter().map(|item| (item.state, item.attempts)).collect::<Vec<_>>(),
        [(State::Pending, 2)]
    );
}

#[test]
fn a_purge_leaves_no_report_in_any_state() {
    let (_root, spool) = spool();
    for number in 1..=4 {
        age(&commit(&spool, number), 100 - u64::from(number));
    }
    let first = spool.claim(0).unwrap().unwrap();
    let second = spool.claim(0).unwrap().unwrap();
    let third = spool.claim(0).unwrap().unwrap();
    let fourth = spool.claim(0).unwrap().unwrap();
    fourth.rejected().unwrap();
    commit(&spool, 5);
    std::fs::write(spool.dir().join("pending").join(format!(".{}.tmp", id(6))), b"half").unwrap();
    std::fs::write(spool.dir().join("pending/core.ceno"), b"?").unwrap();
    assert!(!first.is_purged());
    assert_eq!(spool.purge().unwrap(), 5);
    for state in State::ALL {
        assert_eq!(std::fs::read_dir(spool.dir().join(state.name())).unwrap().count(), 0);
    }
    assert!(first.is_purged());
    first.retry(0, 0).unwrap();
    second.accepted().unwrap();
    third.rejected().unwrap();
    assert_eq!(spool.list().unwrap(), [], "no ending brings a purged report back");
}

#[test]
fn old_reports_make_room_and_are_counted() {
    let (_root, spool) = spool();
    let spool = spool.with_limits(Limits { max_age_ms: 60_000, max_reports: 2, max_bytes: 250 });
    age(&commit(&spool, 1), 61);
    age(&commit(&spool, 2), 40);
    assert_eq!(spool.take_tally(), Tally { expired: 1, ..Tally::default() });
    age(&commit(&spool, 3), 30);
    commit(&spool, 4);
    assert_eq!(spool.take_tally(), Tally { over_count: 1, ..Tally::default() });
    spool.commit(id(5), &[5; 151], || true).unwrap();
    assert_eq!(spool.take_tally(), Tally { over_count: 1, over_bytes: 1, ..Tally::default() });
    assert_eq!(states(&spool), [(5, State::Pending)]);
    let long = spool.commit(id(6), &[6; 251], || true).unwrap_err();
    assert!(matches!(long, Error::Limit { limit: 250, .. }), "{long}");
    // A report that is being sent is not taken away from its sender.
    let claim = spool.claim(now_ms()).unwrap().unwrap();
    spool.commit(id(7), &[7; 240], || true).unwrap();
    assert_eq!(states(&spool), [(5, State::Sending), (7, State::Pending)]);
    claim.release().unwrap();
    assert_eq!(spool.claim(now_ms() + 120_000).unwrap().map(|claim| claim.id()), None);
    assert_eq!(spool.take_tally(), Tally { expired: 2, ..Tally::default() });
}

#[test]
fn strange_files_are_left_alone() {
    let (_root, spool) = spool();
    let committed = commit(&spool, 1);
    let pending = spool.dir().join("pending");
    let name = |number: u8| pending.join(format!("{}-0-0-0.ceno", id(number)));
    let outside = spool.dir().join("outside");
    std::fs::write(&outside, b"private").unwrap();
    symlink(&outside, name(2)).unwrap();
    std::fs::create_dir(name(3)).unwrap();
    std::fs::write(pending.join("notes.txt"), b"hello").unwrap();
    std::fs::write(name(4), b"open to others").unwrap();
    std::fs::set_permissions(name(4), PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::remove_file(&committed.path).unwrap();
    assert!(spool.claim(0).unwrap().is_none());
    assert_eq!(spool.take_tally().strangers, 4);
    for path in [&outside, &name(2), &name(3), &name(4), &pending.join("notes.txt")] {
        assert!(path.symlink_metadata().is_ok());
    }
    commit(&spool, 5);
    assert_eq!(spool.claim(0).unwrap().unwrap().id(), id(5), "they do not keep others from being sent");
}

#[test]
fn an_unusable_directory_is_named_with_the_way_out() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let message = |dir: &Path| Spool::new(dir).commit(id(1), b"x", || true).unwrap_err().to_string();
    assert!(message(&file).contains("file"), "{}", message(&file));
    assert!(message(&file.join("below")).contains("file/below"), "{}", message(&file.join("below")));
    let proc = message(Path::new("/proc/cenotaph"));
    assert!(proc.contains("/proc/cenotaph"), "{proc}");
    let shared = root.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(message(&shared).contains("chmod 700"), "{}", message(&shared));
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o500)).unwrap();
    let refused = Spool::new(&shared).commit(id(1), b"x", || true);
    // Root may write everywhere.
    if let Err(error) = refused {
        assert!(error.to_string().contains("choose a directory that this user owns"), "{error}");
    }
}

#[test]
fn several_processes_lose_and_double_nothing() {
    const TEST: &str = "spool::file::tests::several_processes_lose_and_double_nothing";
    if let Some((role, spool)) = role() {
        return worker(&role, &spool);
    }
    let (_root, spool) = spool();
    let dir = spool.dir();
    let writers: Vec<Child> = (0..3).map(|i| child(TEST, &format!("write {i}"), dir)).collect();
    let mut senders: Vec<Child> = (0..3).map(|i| child(TEST, &format!("send {i}"), dir)).collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    // Everything is committed; senders stop at the first empty claim after their input ends.
    senders.iter_mut().for_each(|sender| drop(sender.stdin.take()));
    let mut sent = Vec::new();
    for sender in senders {
        let output = sender.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        sent.extend(
            // The harness leaves "test NAME ... " in front of the first line.
            text.lines().filter_map(|line| line.split_once("sent ")).map(|(_, id)| id.to_owned()),
        );
    }
    let unique: BTreeSet<&String> = sent.iter().collect();
    assert_eq!((unique.len(), sent.len()), (60, 60));
    assert_eq!(spool.list().unwrap(), []);
}

/// One process of the test above: commits 20 reports, or sends what it finds with a retry in between.
fn worker(role: &str, spool: &Spool) {
    let (what, number) = role.split_once(' ').unwrap();
    let number: u8 = number.parse().unwrap();
    if what == "write" {
        let spool = Spool::new(spool.dir()).with_limits(Limits { max_reports: 100, ..Limits::GENERAL });
        for i in 0..20 {
            let mut bytes = [i; 16];
            bytes[1] = number;
            spool.commit(ReportId(bytes), &[number; 10_000], || true).unwrap();
        }
        return;
    }
    let spool = Spool::new(spool.dir()).with_limits(Limits { max_reports: 100, ..Limits::GENERAL });
    let closing = std::thread::spawn(|| io::copy(&mut io::stdin(), &mut io::sink()));
    loop {
        let last_round = closing.is_finished();
        match spool.claim(now_ms()).unwrap() {
            Some(claim) if claim.attempts() == 0 => claim.retry(0, 1).unwrap(),
            Some(claim) => {
                assert_eq!(claim.read().unwrap().len(), 10_000);
                println!("sent {}", claim.id());
                claim.accepted().unwrap();
            }
            None if last_round => return,
            None => std::thread::yield_now(),
        }
    }
}
