//! The record of a session: there while the application and its monitor live. One that is found without a holder tells of
//! a session that nobody ended: process and monitor were both killed, or the machine lost its power.
//!
//! `DIR/sessions/NAME` is JSON: version, time of the start, process id and when that process began, a hash of the boot
//! id. No personal data. It is written only where consent lets reports leave, and held by flock.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::ValidConfig;
use crate::error::{Error, Result};
use crate::private_file::{self, Lock, Locked};
use crate::report::Evidence;
use crate::sys::{process, procfs};

const DIRECTORY: &str = "sessions";
/// The extension of a record that is being written.
const NEW: &str = "new";
/// Bytes of a record, at most.
const LONGEST: u64 = 1024;
/// One that is still being written after so long never will be.
const ABANDONED: Duration = Duration::from_secs(600);
/// Records that are looked at, and those that become reports, in one start.
const MOST: usize = 64;
pub(super) const MOST_TOLD: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: String,
    started_ms: u64,
    pid: libc::pid_t,
    /// In clock ticks since boot, so that another process with the number is not taken for it.
    began: u64,
    boot: String,
}

/// The record of the present session. Dropping it keeps the file; [`end`](Self::end) removes it.
#[derive(Debug)]
pub(super) struct Session {
    path: PathBuf,
    held: Locked,
}

impl Session {
    /// Writes the record of the session of process `pid`.
    ///
    /// # Errors
    /// If it cannot be written. Then a sudden end of both processes goes unnoticed.
    pub(super) fn begin(config: &ValidConfig, pid: libc::pid_t) -> Result<Self> {
        let directory = config.spool.join(DIRECTORY);
        private_file::create_dir(&directory)?;
        let path = path(config);
        // Under another name until it is held and whole: others would take it for one that nobody holds.
        let new = path.with_extension(NEW);
        let mut options = OpenOptions::new();
        let file = private_file::open(&new, options.read(true).write(true).create(true).truncate(true))?
            .ok_or_else(|| Error::file(&new, "create", std::io::ErrorKind::NotFound.into()))?;
        let held = Locked::try_now(file, &new, Lock::Exclusive)?.ok_or(Error::Timeout("a session's lock"))?;
        let record = Record {
            version: config.version.clone(),
            started_ms: process::unix_ms(),
            pid,
            began: procfs::began(pid).unwrap_or(0),
            boot: boot(),
        };
        let json = serde_json::to_vec(&record).map_err(|e| Error::malformed("session", e.to_string()))?;
        let failed = |e| Error::file(&new, "write", e);
        held.file().write_all(&json).and_then(|()| held.file().sync_all()).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(|e| Error::file(&new, "rename", e))?;
        private_file::sync_dir(&directory)?;
        Ok(Self { path, held })
    }

    /// The session's end is told, or there is nothing to tell.
    pub(super) fn end(self) {
        // Another monitor of the same session may have written its own meanwhile.
        if is_at(self.held.file(), &self.path) {
            // A record that stays makes one report too many; nothing else can be done about it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The end of this session is told by somebody else than its supervisor, which may be dead.
pub(crate) fn told(config: &ValidConfig) {
    let _ = std::fs::remove_file(path(config));
}

/// A session that nobody ended. Its record goes when this is dropped.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    _held: Locked,
    /// The application's process then, by its own account.
    pub(super) pid: libc::pid_t,
    /// Of the application then.
    pub(super) version: String,
    pub(super) started_ms: u64,
    pub(super) evidence: Evidence,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a look at the records of other sessions has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The sessions that nobody ended. Those whose application still runs, without its monitor, are not among them.
    pub(super) unfinished: Vec<Unfinished>,
    /// There is one more that is over, but somebody holds it: its monitor is about to tell of it, or was killed and is still
    /// being taken down. The kernel frees a dead process's memory first, which takes milliseconds, and then closes its files.
    pub(super) undecided: bool,
}

pub(super) fn look(config: &ValidConfig) -> Found {
    let mut found = Found::default();
    let Ok(entries) = std::fs::read_dir(config.spool.join(DIRECTORY)) else { return found };
    let present = boot();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).take(MOST);
    let own = path(config);
    for path in paths.filter(|path| *path != own) {
        match look_at(path, &present) {
            Some(Look::Unfinished(session)) => found.unfinished.push(session),
            Some(Look::Held) => found.undecided = true,
            None => {}
        }
    }
    found
}

enum Look {
    Unfinished(Unfinished),
    /// Over, but in somebody's hands.
    Held,
}

fn look_at(path: PathBuf, present: &str) -> Option<Look> {
    let file = private_file::open(&path, OpenOptions::new().read(true)).ok()??;
    let mut json = Vec::new();
    (&file).take(LONGEST).read_to_end(&mut json).ok()?;
    let is_new = path.extension().is_some_and(|extension| extension == NEW);
    let Some(held) = Locked::try_now(file, &path, Lock::Exclusive).ok()? else {
        let record = serde_json::from_slice::<Record>(&json).ok().filter(|_| !is_new)?;
        return judge(&record, present, procfs::began).map(|_| Look::Held);
    };
    if is_new {
        // Somebody may be about to hold it, but not for so long.
        let abandoned = held.file().metadata().and_then(|found| found.modified());
        if abandoned.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED)) {
            let _ = std::fs::remove_file(&path);
        }
        return None;
    }
    // Whoever held it when it was opened may have ended it since, or another monitor of the session has taken it over.
    if !is_at(held.file(), &path) {
        return None;
    }
    let Ok(record) = serde_json::from_slice::<Record>(&json) else {
        // A power cut in its first moment. There was a session, and that is all.
        let (version, started_ms, evidence) = (String::new(), 0, Evidence::Record);
        return Some(Look::Unfinished(Unfinished {
            path,
            _held: held,
            pid: 0,
            version,
            started_ms,
            evidence,
        }));
    };
    let evidence = judge(&record, present, procfs::began)?;
    let Record { pid, version, started_ms, .. } = record;
    Some(Look::Unfinished(Unfinished { path, _held: held, pid, version, started_ms, evidence }))
}

/// Whether `path` names this open file.
fn is_at(file: &std::fs::File, path: &Path) -> bool {
    let inode = |metadata: std::fs::Metadata| metadata.ino();
    let there = std::fs::symlink_metadata(path).map(inode);
    there.is_ok_and(|there| file.metadata().map(inode).is_ok_and(|ours| ours == there))
}

/// Whether a session is over, and how that is known. `began` tells when a process began that has the number now.
fn judge(record: &Record, boot: &str, began: impl FnOnce(libc::pid_t) -> Option<u64>) -> Option<Evidence> {
    if record.boot != boot {
        return Some(Evidence::RecordBeforeBoot);
    }
    (began(record.pid) != Some(record.began)).then_some(Evidence::Record)
}

fn path(config: &ValidConfig) -> PathBuf {
    // Not the session's bytes themselves: an identifier is made of them.
    let hash = Sha256::new().chain_update(b"cenotaph session record").chain_update(config.session).finalize();
    config.spool.join(DIRECTORY).join(hex(&hash[..16]))
}

/// Equal as long as the machine was not started anew (random(4)).
fn boot() -> String {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    hex(&Sha256::new().chain_update(b"cenotaph boot").chain_update(id).finalize()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Removes all records that nobody holds: consent does not allow telling of them.
pub(super) fn forget(spool: &Path) {
    let Ok(entries) = std::fs::read_dir(spool.join(DIRECTORY)) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).take(MOST) {
        let Ok(Some(file)) = private_file::open(&path, OpenOptions::new().read(true)) else { continue };
        if let Ok(Some(_held)) = Locked::try_now(file, &path, Lock::Exclusive) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(spool: &Path, session: u8) -> ValidConfig {
        let mut config = Config::new("game", "1.2").spool(spool).validate().unwrap();
        config.session = [session; 16];
        config
    }

    fn unfinished(config: &ValidConfig) -> Vec<Unfinished> {
        look(config).unfinished
    }

    #[test]
    fn a_session_is_unfinished_once_nobody_holds_it_and_its_process_is_gone() {
        let spool = tempfile::tempdir().unwrap();
        let own = std::process::id().cast_signed();
        let alive = Session::begin(&config(spool.path(), 1), own).unwrap();
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let gone = Session::begin(&config(spool.path(), 2), child.id().cast_signed()).unwrap();
        child.wait().unwrap();
        assert!(unfinished(&config(spool.path(), 3)).is_empty(), "both are held");
        drop((alive, gone));
        let found = unfinished(&config(spool.path(), 3));
        let told: Vec<_> = found.iter().map(|u| (u.version.as_str(), u.evidence)).collect();
        assert_eq!(told, [("1.2", Evidence::Record)], "the other one's process lives");
        drop(found);
        assert!(unfinished(&config(spool.path(), 3)).is_empty(), "told once");
        Session::begin(&config(spool.path(), 2), 1).unwrap().end();
        assert_eq!(std::fs::read_dir(spool.path().join(DIRECTORY)).unwrap().count(), 1);
        forget(spool.path());
        assert_eq!(std::fs::read_dir(spool.path().join(DIRECTORY)).unwrap().count(), 0);
    }

    #[test]
    fn a_reboot_is_told_apart() {
        let record = Record { version: "1".into(), started_ms: 1, pid: 7, began: 9, boot: "before".into() };
        assert_eq!(judge(&record, "before", |_| Some(9)), None);
        assert_eq!(judge(&record, "before", |_| Some(10)), Some(Evidence::Record), "the number is another's");
        assert_eq!(judge(&record, "before", |_| None), Some(Evidence::Record));
        assert_eq!(judge(&record, "after", |_| Some(9)), Some(Evidence::RecordBeforeBoot));
    }

    #[test]
    fn a_record_that_was_cut_short_is_still_one() {
        let spool = tempfile::tempdir().unwrap();
        drop(Session::begin(&config(spool.path(), 1), 1).unwrap());
        std::fs::write(path(&config(spool.path(), 1)), "{\"version\"").unwrap();
        assert_eq!(unfinished(&config(spool.path(), 2))[0].evidence, Evidence::Record);
    }
    #[test]
    fn another_monitor_of_a_session_takes_its_record_over() {
        let spool = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let gone = child.id().cast_signed();
        child.wait().unwrap();
        let first = Session::begin(&config(spool.path(), 1), gone).unwrap();
        let second = Session::begin(&config(spool.path(), 1), gone).unwrap();
        assert!(unfinished(&config(spool.path(), 2)).is_empty(), "the second one holds it");
        first.end();
        drop(second);
        assert!(unfinished(&config(spool.path(), 1)).is_empty(), "it is its own");
        assert_eq!(unfinished(&config(spool.path(), 2)).len(), 1, "the first one left it to the second");
    }

    #[test]
    fn what_is_over_but_held_is_to_be_looked_at_again() {
        let spool = tempfile::tempdir().unwrap();
        let own = std::process::id().cast_signed();
        let alive = Session::begin(&config(spool.path(), 1), own).unwrap();
        let other = config(spool.path(), 3);
        assert!(!look(&other).undecided, "its application lives");
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let gone = Session::begin(&config(spool.path(), 2), child.id().cast_signed()).unwrap();
        child.wait().unwrap();
        let found = look(&other);
        assert!(found.undecided && found.unfinished.is_empty());
        drop(gone);
        let found = look(&other);
        assert_eq!((found.undecided, found.unfinished.len()), (false, 1));
        drop((found, alive));
        assert!(!look(&other).undecided);
    }

    #[test]
    fn a_record_that_is_being_written_is_left_alone() {
        let spool = tempfile::tempdir().unwrap();
        std::fs::create_dir(spool.path().join(DIRECTORY)).unwrap();
        let new = path(&config(spool.path(), 2)).with_extension(NEW);
        let mut options = OpenOptions::new();
        let file = private_file::open(&new, options.write(true).create(true)).unwrap().unwrap();
        assert!(unfinished(&config(spool.path(), 3)).is_empty());
        assert!(new.exists());
        let long_ago = std::time::SystemTime::now() - ABANDONED * 2;
        file.set_modified(long_ago).unwrap();
        drop(unfinished(&config(spool.path(), 3)));
        assert!(!new.exists(), "whoever began it is gone");
    }
}
