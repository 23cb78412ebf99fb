//! The folder of minimal records in a spool directory. Dying processes write them, handlers that cannot wait for a lock;
//! here they are found, taken one at a time, and removed.
//!
//! ```text
//! DIR/last-words/TIME-PID.tmp      being written           TIME-PID.record   whole
//! DIR/last-words/TIME-PID.once     taken once              TIME-PID.twice    taken again, after its taker had died
//! ```
//!
//! `TIME` is CLOCK_MONOTONIC of the crash in nanoseconds, 16 hex digits; `PID` the process's own id, 8 hex digits.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::private_file::{self, Lock, Locked};

const FOLDER: &str = "last-words";
/// A half-written file is nobody's after so long; its writer had seconds.
const ABANDONED: Duration = Duration::from_secs(600);
/// Records kept, at most: the newest. A program that dies at every start must not fill the disk.
const MOST: usize = 64;

/// Where a handler makes its record.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder, or the nearest one above it that is there.
    pub(crate) directory: OwnedFd,
    /// The names of those that are missing below, each with a zero byte behind.
    pub(crate) missing: Vec<u8>,
}

/// The place for records of spool directory `spool`. Makes nothing: an application that starts writes nothing.
///
/// # Errors
/// If something there is not a folder, or the spool is not this user's own.
pub(crate) fn place(spool: &Path) -> Result<Place> {
    let folder = spool.join(FOLDER);
    for own in [spool, &folder] {
        match private_file::check_dir(own) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            checked => checked?,
        }
    }
    let (mut path, mut names) = (folder.as_path(), Vec::new());
    while !path.exists() {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { break };
        names.push(name);
        path = parent;
    }
    let flags = libc::O_DIRECTORY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let directory = opened.map(OwnedFd::from).map_err(|e| Error::file(path, "open", e))?;
    let missing = names.iter().rev().flat_map(|name| [name.as_encoded_bytes(), b"\0"].concat()).collect();
    Ok(Place { directory, missing })
}

/// Whether there is anything to take.
pub(crate) fn is_any(spool: &Path) -> bool {
    list(&spool.join(FOLDER)).is_ok_and(|found| !found.is_empty())
}

/// The processes whose records are there, by their own account.
pub(crate) fn processes(spool: &Path) -> Vec<libc::pid_t> {
    let pid = |name: Name| {
        let (_, pid) = name.stem.split_once('-')?;
        Some(u32::from_str_radix(pid, 16).ok()?.cast_signed())
    };
    list(&spool.join(FOLDER)).unwrap_or_default().into_iter().filter_map(pid).collect()
}

/// Whether process `pid` has left one.
pub(crate) fn is_one_of(spool: &Path, pid: i32) -> bool {
    let pid = format!("-{pid:08x}");
    list(&spool.join(FOLDER)).is_ok_and(|found| found.iter().any(|name| name.stem.ends_with(&pid)))
}

/// A record that nobody else has meanwhile.
#[derive(Debug)]
pub(crate) struct Taken {
    path: PathBuf,
    /// Its bytes, or why they cannot be had.
    pub(crate) bytes: Result<Vec<u8>>,
    _lock: Option<Locked>,
}

impl Taken {
    /// It is dealt with.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes the oldest record; `longest` is the length of a whole one. `None` if there is none left.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn take(spool: &Path, longest: usize) -> Result<Option<Taken>> {
    let folder = spool.join(FOLDER);
    let mut found = list(&folder)?;
    found.sort();
    let surplus = found.len().saturating_sub(MOST);
    for name in found.drain(..surplus) {
        let _ = std::fs::remove_file(folder.join(name.file()));
    }
    for name in found {
        if let Some(taken) = take_one(&folder, &name, longest) {
            return Ok(Some(taken));
        }
    }
    Ok(None)
}

/// Removes the record of a crash of which a report was made after all.
pub(crate) fn remove(spool: &Path, monotonic_ns: u64) {
    let folder = spool.join(FOLDER);
    let time = format!("{monotonic_ns:016x}-");
    for name in list(&folder).unwrap_or_default() {
        if name.state == State::Whole && name.stem.starts_with(&time) {
            let _ = std::fs::remove_file(folder.join(name.file()));
        }
    }
}

/// Removes the folder with everything in it; a handler that still has its descriptor finds it gone. Returns how many
/// whole records there were.
///
/// # Errors
/// If something could not be removed.
pub(crate) fn purge(spool: &Path) -> Result<usize> {
    let folder = spool.join(FOLDER);
    let mut count = 0;
    loop {
        let entries = match std::fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(count),
            Err(e) => return Err(Error::file(&folder, "read", e)),
        };
        for entry in entries {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => count += usize::from(Name::parse(&entry).is_some()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::file(entry.path(), "remove", e)),
            }
        }
        match std::fs::remove_dir(&folder) {
            // A dying process was quicker: once more.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file(&folder, "remove", e)),
            _ => return Ok(count),
        }
    }
}

fn take_one(folder: &Path, name: &Name, longest: usize) -> Option<Taken> {
    let path = folder.join(name.file());
    let mut file = match private_file::open(&path, OpenOptions::new().read(true)) {
        Ok(file) => file?,
        // A link, a pipe, somebody else's file: no handler made it.
        Err(error) => return Some(Taken { path, bytes: Err(error), _lock: None }),
    };
    let lock = Locked::try_now(file.try_clone().ok()?, &path, Lock::Exclusive).ok()??;
    let refuse = |path: PathBuf, reason: &str, lock: Locked| {
        let bytes = Err(Error::malformed("minimal record", reason));
        Some(Taken { path, bytes, _lock: Some(lock) })
    };
    let Some(next) = name.state.next() else {
        return refuse(path, "two processes have died over it", lock);
    };
    let taken = folder.join(Name { stem: name.stem.clone(), state: next }.file());
    // Whoever had it before may have removed it between the opening and the lock.
    std::fs::rename(&path, &taken).ok()?;
    let bytes = read(&mut file, longest).map_err(|e| Error::file(&taken, "read", e));
    Some(Taken { path: taken, bytes, _lock: Some(lock) })
}

fn read(file: &mut File, longest: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more, so that a file that is too long shows.
    file.take(longest as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How far a record is. Also the order in which they are taken: those that somebody died over last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Whole,
    Once,
    Twice,
}

impl State {
    const ALL: [(Self, &str); 3] = [(Self::Whole, "record"), (Self::Once, "once"), (Self::Twice, "twice")];

    fn next(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::Once),
            Self::Once => Some(Self::Twice),
            Self::Twice => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    state: State,
    stem: String,
}

impl Name {
    fn parse(entry: &std::fs::DirEntry) -> Option<Self> {
        let name = entry.file_name();
        let (stem, ending) = name.to_str()?.split_once('.')?;
        let (state, _) = State::ALL.into_iter().find(|(_, known)| *known == ending)?;
        let hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let (time, pid) = stem.split_once('-')?;
        (hex(time, 16) && hex(pid, 8)).then(|| Self { stem: stem.to_owned(), state })
    }

    fn file(&self) -> String {
        let ending = State::ALL.into_iter().find(|(state, _)| *state == self.state).map_or("", |(_, e)| e);
        format!("{}.{ending}", self.stem)
    }
}

/// The records in a folder; none if it is missing. What was abandoned half-written is removed, other files are left alone.
fn list(folder: &Path) -> Result<Vec<Name>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::file(folder, "read", e)),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if let Some(name) = Name::parse(&entry) {
            found.push(name);
        } else if entry.file_name().as_encoded_bytes().ends_with(b".tmp") {
            let age = entry.metadata().and_then(|found| found.modified()).map(|time| time.elapsed());
            if age.is_ok_and(|age| age.is_ok_and(|age| age > ABANDONED)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const STEM: &str = "00000000000000ff-00000007";

    fn scene() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        assert_eq!(place(dir.path()).unwrap().missing, b"last-words\0");
        assert_eq!(place(&dir.path().join("a/b")).unwrap().missing, b"a\0b\0last-words\0");
        private_file::create_dir(&folder).unwrap();
        assert_eq!(place(dir.path()).unwrap().missing, b"");
        (dir, folder)
    }

    fn put(path: PathBuf, bytes: &[u8]) {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn a_record_is_taken_twice_at_most() {
        let (dir, folder) = scene();
        put(folder.join(format!("{STEM}.record")), b"abc");
        for ending in ["once", "twice"] {
            let taken = take(dir.path(), 3).unwrap().unwrap();
            assert_eq!(taken.bytes.as_ref().unwrap(), b"abc");
            assert!(folder.join(format!("{STEM}.{ending}")).exists());
            assert!(take(dir.path(), 3).unwrap().is_none(), "locked");
        }
        let taken = take(dir.path(), 3).unwrap().unwrap();
        assert!(taken.bytes.is_err());
        taken.remove();
        assert!(take(dir.path(), 3).unwrap().is_none() && !is_any(dir.path()));
    }

    #[test]
    fn what_is_no_record_is_not_read() {
        let (dir, folder) = scene();
        put(folder.join(format!("{STEM}.tmp")), b"half");
        put(folder.join("readme.record"), b"somebody's");
        assert!(take(dir.path(), 9).unwrap().is_none());
        assert!(folder.join(format!("{STEM}.tmp")).exists() && folder.join("readme.record").exists());
        std::os::unix::fs::symlink("/dev/zero", folder.join(format!("{STEM}.record"))).unwrap();
        let taken = take(dir.path(), 9).unwrap().unwrap();
        assert!(taken.bytes.is_err());
        taken.remove();
        put(folder.join(format!("{STEM}.record")), &[7; 100]);
        assert_eq!(take(dir.path(), 9).unwrap().unwrap().bytes.unwrap().len(), 10, "no more than that");
    }

    #[test]
    fn the_oldest_first_and_not_too_many() {
        let (dir, folder) = scene();
        for i in 0..MOST + 3 {
            put(folder.join(format!("{i:016x}-00000007.record")), &[i as u8]);
        }
        assert!(is_one_of(dir.path(), 7) && !is_one_of(dir.path(), 0x70));
        let taken = take(dir.path(), 9).unwrap().unwrap();
        assert_eq!(taken.bytes.unwrap(), [3]);
        remove(dir.path(), 4);
        assert_eq!(list(&folder).unwrap().len(), MOST - 1);
        assert_eq!(purge(dir.path()).unwrap(), MOST - 1);
        assert!(!folder.exists() && purge(dir.path()).unwrap() == 0);
    }
}
