//! How many reports of one fingerprint are stored in a day; those beyond are counted, and the counts travel with the next
//! report.
//!
//! `DIR/signatures` is JSON, at most 128 entries, read and replaced under the spool's lock. It is not synced: after a
//! power cut some counts may be missing or old, which costs less than another wait for the disk in a crash.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file::take_lock;
use crate::error::{Error, Result};
use crate::private_file;
use crate::report::{Fingerprint, Repeats};

const FILE: &str = "signatures";
const TEMPORARY: &str = ".signatures.tmp";
/// Signatures that are remembered. Beyond it the one that was seen longest ago goes; its count goes to
/// [`OTHERS`].
const MOST: usize = 128;
/// An entry takes less than 200 bytes.
const LONGEST: usize = 64 * 1024;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Counts of signatures that are no longer remembered.
const OTHERS: Fingerprint = Fingerprint([0; 32]);

/// What becomes of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is stored, and these counts travel with it.
    Store(Vec<Repeats>),
    /// It is counted: so many times by now.
    Repeated(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    fingerprint: Fingerprint,
    /// When its day began.
    since_ms: u64,
    /// Reports stored within it.
    stored: u32,
    /// When it was seen last.
    last_ms: u64,
    /// Those that were not stored and that no report has told of.
    repeats: u64,
    repeats_since_ms: u64,
}

/// Decides about a report of `fingerprint`, of which `limit` are stored in a day, and counts it.
///
/// # Errors
/// If the file cannot be read or written. The report is then better stored.
pub fn admit(dir: &Path, fingerprint: Fingerprint, now_ms: u64, limit: u32) -> Result<Admission> {
    private_file::create_dir(dir)?;
    let _lock = take_lock(dir)?;
    let mut entries = read(dir)?;
    let admission = decide(&mut entries, fingerprint, now_ms, limit);
    write(dir, &entries)?;
    Ok(admission)
}

/// The report that should have told of `repeats` was not stored after all: the next one does.
///
/// # Errors
/// As [`admit`].
pub fn give_back(dir: &Path, repeats: &[Repeats], now_ms: u64) -> Result<()> {
    if repeats.is_empty() {
        return Ok(());
    }
    let _lock = take_lock(dir)?;
    let mut entries = read(dir)?;
    for Repeats { fingerprint, count, since_ms } in repeats {
        add(entry(&mut entries, *fingerprint, now_ms), *count, *since_ms);
    }
    bound(&mut entries);
    write(dir, &entries)
}

/// Removes all counts.
///
/// # Errors
/// If the file cannot be removed.
pub fn forget(dir: &Path) -> Result<()> {
    private_file::destroy(&dir.join(FILE)).map(|_| ())
}

fn decide(entries: &mut Vec<Entry>, fingerprint: Fingerprint, now_ms: u64, limit: u32) -> Admission {
    let entry = entry(entries, fingerprint, now_ms);
    entry.last_ms = now_ms;
    // Also when the clock was set back.
    if now_ms.checked_sub(entry.since_ms).is_none_or(|age| age >= DAY_MS) {
        (entry.since_ms, entry.stored) = (now_ms, 0);
    }
    let admission = if entry.stored >= limit {
        add(entry, 1, now_ms);
        Admission::Repeated(entry.repeats)
    } else {
        entry.stored += 1;
        let told = entries.iter_mut().filter(|entry| entry.repeats > 0).map(|entry| {
            let count = std::mem::take(&mut entry.repeats);
            Repeats { fingerprint: entry.fingerprint, count, since_ms: entry.repeats_since_ms }
        });
        Admission::Store(told.collect())
    };
    bound(entries);
    admission
}

fn entry(entries: &mut Vec<Entry>, fingerprint: Fingerprint, now_ms: u64) -> &mut Entry {
    let known = entries.iter().position(|entry| entry.fingerprint == fingerprint);
    let index = known.unwrap_or_else(|| {
        let (since_ms, last_ms) = (now_ms, now_ms);
        entries.push(Entry { fingerprint, since_ms, stored: 0, last_ms, repeats: 0, repeats_since_ms: 0 });
        entries.len() - 1
    });
    &mut entries[index]
}

fn add(entry: &mut Entry, count: u64, since_ms: u64) {
    if entry.repeats == 0 {
        entry.repeats_since_ms = since_ms;
    }
    entry.repeats_since_ms = entry.repeats_since_ms.min(since_ms);
    entry.repeats = entry.repeats.saturating_add(count);
}

/// Forgets the oldest beyond the limit, but not their counts.
fn bound(entries: &mut Vec<Entry>) {
    while entries.len() > MOST {
        let oldest = entries.iter().enumerate().filter(|(_, entry)| entry.fingerprint != OTHERS);
        let Some(oldest) = oldest.min_by_key(|(_, entry)| entry.last_ms).map(|(index, _)| index) else {
            return;
        };
        let gone = entries.swap_remove(oldest);
        if gone.repeats > 0 {
            add(entry(entries, OTHERS, gone.last_ms), gone.repeats, gone.repeats_since_ms);
        }
    }
}

/// A damaged file counts as none.
fn read(dir: &Path) -> Result<Vec<Entry>> {
    let bytes = private_file::read(&dir.join(FILE), LONGEST)?;
    let mut entries: Vec<Entry> =
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    bound(&mut entries);
    Ok(entries)
}

fn write(dir: &Path, entries: &[Entry]) -> Result<()> {
    let bytes = serde_json::to_vec(entries).map_err(|e| Error::malformed("signatures", e.to_string()))?;
    let (path, temporary) = (dir.join(FILE), dir.join(TEMPORARY));
    let mut options = OpenOptions::new();
    // Under the lock, so nobody else uses the temporary name.
    let file = private_file::open(&temporary, options.write(true).create(true).truncate(true))?;
    let mut file =
        file.ok_or_else(|| Error::file(&temporary, "create", std::io::ErrorKind::NotFound.into()))?;
    file.write_all(&bytes).map_err(|e| Error::file(&temporary, "write", e))?;
    std::fs::rename(&temporary, &path).map_err(|e| Error::file(&path, "replace", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fingerprint = Fingerprint([1; 32]);
    const B: Fingerprint = Fingerprint([2; 32]);

    fn store(told: &[(Fingerprint, u64, u64)]) -> Admission {
        let repeats = |&(fingerprint, count, since_ms): &_| Repeats { fingerprint, count, since_ms };
        Admission::Store(told.iter().map(repeats).collect())
    }

    #[test]
    fn beyond_the_limit_reports_are_counted_and_the_next_one_tells() {
        let dir = tempfile::tempdir().unwrap();
        let admit = |fingerprint, now_ms| admit(dir.path(), fingerprint, now_ms, 2).unwrap();
        assert_eq!(admit(A, 10), store(&[]));
        assert_eq!(admit(A, 20), store(&[]));
        assert_eq!(admit(A, 30), Admission::Repeated(1));
        assert_eq!(admit(A, 40), Admission::Repeated(2));
        // Another signature's report takes the count along, once.
        assert_eq!(admit(B, 50), store(&[(A, 2, 30)]));
        assert_eq!(admit(A, 60), Admission::Repeated(1));
        assert_eq!(admit(A, 9 + DAY_MS), Admission::Repeated(2));
        assert_eq!(admit(A, 10 + DAY_MS), store(&[(A, 2, 60)]));
        assert_eq!(admit(A, 11 + DAY_MS), store(&[]));
        assert_eq!(admit(A, 12 + DAY_MS), Admission::Repeated(1));
        assert_eq!(admit(A, 5), store(&[(A, 1, 12 + DAY_MS)]), "the clock was set back");
        forget(dir.path()).unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_count_whose_report_failed_travels_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        for now_ms in [1, 2] {
            admit(dir.path(), A, now_ms, 1).unwrap();
        }
        let Admission::Store(told) = admit(dir.path(), B, 3, 1).unwrap() else { panic!() };
        give_back(dir.path(), &told, 4).unwrap();
        assert_eq!(admit(dir.path(), Fingerprint([3; 32]), 5, 1).unwrap(), store(&[(A, 1, 2)]));
    }

    #[test]
    fn memory_is_bounded_and_counts_are_not_lost() {
        let mut entries = Vec::new();
        let name = |i: u64| {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&i.to_le_bytes());
            Fingerprint(bytes)
        };
        let mut suppressed = 0;
        for i in 0..1000 {
            for _ in 0..2 {
                let before = entries.clone();
                // Nothing is told in between.
                match decide(&mut entries, name(i), 100 + i, 1) {
                    Admission::Repeated(_) => suppressed += 1,
                    Admission::Store(told) => {
                        let back: u64 = told.iter().map(|repeats| repeats.count).sum();
                        assert_eq!(back, suppressed);
                        entries = before;
                        let entry = entry(&mut entries, name(i), 100 + i);
                        entry.stored = 1;
                        bound(&mut entries);
                    }
                }
            }
            assert!(entries.len() <= MOST);
            assert!(serde_json::to_vec(&entries).unwrap().len() < LONGEST);
        }
        let kept: u64 = entries.iter().map(|entry| entry.repeats).sum();
        assert_eq!((kept, suppressed), (1000, 1000));
    }

    #[test]
    fn a_damaged_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        admit(dir.path(), A, 1, 1).unwrap();
        for damage in [&b""[..], b"{}", b"[{\"fingerprint\":1}]", &[0xff; 100]] {
            std::fs::write(dir.path().join(FILE), damage).unwrap();
            assert_eq!(admit(dir.path(), A, 1, 1).unwrap(), store(&[]));
        }
    }
}
