//! Files that only this user may read or write, replaced so that neither a kill nor a power cut leaves half of one.
//!
//! Used for keys, the consent record, the identifier's secret and the spool. Depends on no stage.
//!
//! A replacement is written under a temporary *name* and renamed. `O_TMPFILE` would leave no name behind
//! after a kill, but it needs `linkat` (no safe call), does not replace, and is missing on NFS, FAT and
//! older overlay file systems. Here the temporary file is found and reused or removed by whoever comes next.
#![deny(unsafe_code)]

pub(crate) mod steps;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The longest wait for another process's lock. Holders keep it for a few writes; only a stopped one keeps it
/// longer, and then the application must not stand still with it.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Reads the whole file, or `None` if there is none.
///
/// # Errors
/// If it is not a regular file, not this user's, open to others, longer than `max_len`, or cannot be read.
pub(crate) fn read(path: &Path, max_len: usize) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(file) = open(path, OpenOptions::new().read(true))? else { return Ok(None) };
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_len.saturating_add(1)));
    file.take(u64::try_from(max_len).unwrap_or(u64::MAX).saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| Error::file(path, "read", e))?;
    if bytes.len() > max_len {
        return Err(refuse(path, format!("it is longer than the {max_len} bytes expected there")));
    }
    Ok(Some(bytes))
}

/// Replaces the file by what `decide` makes of its present contents; `None` leaves it as it is.
///
/// Only one process is inside `decide` for one path at a time. The new contents are durable on return.
///
/// # Errors
/// As [`read`], or what `decide` returns, or if the new contents cannot be written: then the old ones stand.
pub(crate) fn update(
    path: &Path,
    max_len: usize,
    decide: impl FnOnce(Option<&[u8]>) -> Result<Option<Zeroizing<Vec<u8>>>>,
) -> Result<()> {
    replace(path, max_len, true, decide)
}

/// As [`update`], but waits for no disk: after a power cut the old contents may stand, or none. For what is written while
/// a report is committed, which would wait for this one's sync too.
///
/// # Errors
/// As [`update`].
pub(crate) fn update_unsynced(
    path: &Path,
    max_len: usize,
    decide: impl FnOnce(Option<&[u8]>) -> Result<Option<Zeroizing<Vec<u8>>>>,
) -> Result<()> {
    replace(path, max_len, false, decide)
}

fn replace(
    path: &Path,
    max_len: usize,
    durably: bool,
    decide: impl FnOnce(Option<&[u8]>) -> Result<Option<Zeroizing<Vec<u8>>>>,
) -> Result<()> {
    let (directory, temporary) = beside(path)?;
    create_dir(&directory)?;
    let locked = open_locked(&temporary)?;
    let replace = |mut file: &File| -> Result<bool> {
        let present = read(path, max_len)?;
        let Some(bytes) = decide(present.as_ref().map(|p| p.as_slice()))? else { return Ok(false) };
        steps::at("update: decided");
        file.set_len(0)
            .and_then(|()| file.write_all(&bytes))
            .map_err(|e| Error::file(&temporary, "write", e))?;
        steps::at("update: written");
        if durably {
            file.sync_all().map_err(|e| Error::file(&temporary, "write", e))?;
            steps::at("update: synced");
        }
        std::fs::rename(&temporary, path).map_err(|e| Error::file(path, "replace", e))?;
        Ok(true)
    };
    match replace(locked.file()) {
        Ok(true) => {
            steps::at("update: renamed");
            if durably { sync_dir(&directory) } else { Ok(()) }
        }
        // The lock is still held, so the temporary file is ours to remove.
        not_replaced => {
            let _ = std::fs::remove_file(&temporary);
            not_replaced.map(|_| ())
        }
    }
}

/// Overwrites and removes the file. Returns whether there was one.
///
/// Overwriting is a best effort: flash storage and copy-on-write file systems may keep the old blocks.
///
/// # Errors
/// If it cannot be removed. A file that is not this user's own is not touched.
pub(crate) fn destroy(path: &Path) -> Result<bool> {
    let (directory, _) = beside(path)?;
    let Some(mut file) = open(path, OpenOptions::new().write(true))? else { return Ok(false) };
    let len = file.metadata().map_err(|e| Error::file(path, "read", e))?.len();
    let overwritten = io::copy(&mut io::repeat(0).take(len), &mut file).and_then(|_| file.sync_all());
    steps::at("destroy: overwritten");
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file(path, "remove", e)),
        _ => sync_dir(&directory)?,
    }
    overwritten.map(|()| true).map_err(|e| Error::file(path, "overwrite", e))
}

/// Opens a file of this user's own, or returns `None` if there is none. Symbolic links are refused, and a FIFO
/// does not block.
///
/// # Errors
/// If it is not a regular file, not this user's, open to others, or cannot be opened.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<File>> {
    let options = options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            return Err(refuse(path, "it is a symbolic link; put the file itself there".to_owned()));
        }
        Err(e) => return Err(Error::file(path, "open", e)),
    };
    let found = file.metadata().map_err(|e| Error::file(path, "read", e))?;
    let (user, mode) = (effective_user(), found.mode() & 0o777);
    if !found.is_file() {
        return Err(refuse(path, "it is not a regular file".to_owned()));
    }
    if found.uid() != user {
        return Err(refuse(
            path,
            format!("it belongs to user {}, this process runs as user {user}", found.uid()),
        ));
    }
    if mode & 0o077 != 0 {
        return Err(refuse(
            path,
            format!("others may read or write it (mode {mode:04o}); run chmod 600 on it"),
        ));
    }
    Ok(Some(file))
}

/// Opens `path`, made if need be, and takes its exclusive lock; the file found there is the one locked.
fn open_locked(path: &Path) -> Result<Locked> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        let mut options = OpenOptions::new();
        let Some(file) = open(path, options.read(true).write(true).create(true))? else {
            return Err(Error::file(path, "create", io::ErrorKind::NotFound.into()));
        };
        lock_until(&file, path, Lock::Exclusive, deadline)?;
        let locked = Locked(file);
        // The holder before us may have renamed or removed the file that we waited for.
        let ours = locked.file().metadata().map_err(|e| Error::file(path, "read", e))?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(locked),
            _ if Instant::now() > deadline => return Err(timeout()),
            _ => {}
        }
    }
}

/// How a lock is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Readers.
    Shared,
    /// One writer.
    Exclusive,
}

/// A file whose flock(2) ends when this is dropped, or with the process.
///
/// Closing alone would not end it while a copy of the descriptor lives in a process that was forked meanwhile, even
/// if only until its exec.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// Waits for the lock.
    ///
    /// # Errors
    /// [`Error::Timeout`] after ten seconds.
    pub(crate) fn wait(file: File, path: &Path, kind: Lock) -> Result<Self> {
        lock_until(&file, path, kind, Instant::now() + LOCK_WAIT)?;
        Ok(Self(file))
    }

    /// Takes the lock, or returns `None` if somebody has it.
    ///
    /// # Errors
    /// If the file system has no locks.
    pub(crate) fn try_now(file: File, path: &Path, kind: Lock) -> Result<Option<Self>> {
        let attempt = match kind {
            Lock::Shared => file.try_lock_shared(),
            Lock::Exclusive => file.try_lock(),
        };
        match attempt {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(Error::file(path, "lock", e)),
        }
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Cannot fail for a lock that is held; closing follows anyway.
        let _ = self.0.unlock();
    }
}

fn lock_until(file: &File, path: &Path, kind: Lock, deadline: Instant) -> Result<()> {
    // flock has no time-out; the pause grows so that a stopped holder costs next to nothing.
    let mut pause = Duration::from_micros(200);
    loop {
        let attempt = match kind {
            Lock::Shared => file.try_lock_shared(),
            Lock::Exclusive => file.try_lock(),
        };
        match attempt {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(Error::file(path, "lock", e)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Err(timeout()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn timeout() -> Error {
    Error::Timeout("the process that holds the lock of Cenotaph's directory; is it stopped?")
}

/// Makes a directory and its missing parents, all for this user only, durably.
///
/// # Errors
/// If it cannot be made, or one is there that is not this user's or that others may write to.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in path.ancestors() {
        // "" is the parent of a relative path: the current directory.
        if ancestor.as_os_str().is_empty() || ancestor.exists() {
            break;
        }
        missing.push(ancestor);
    }
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::file(directory, "create", e));
            }
            _ => steps::at("directory: made"),
        }
        if let Some(parent) = directory.parent() {
            sync_dir(parent)?;
        }
    }
    check_dir(path)
}

/// Whether the directory is this user's and closed to other writers.
///
/// # Errors
/// If it is not, or is not there.
pub(crate) fn check_dir(path: &Path) -> Result<()> {
    let found = std::fs::metadata(path).map_err(|e| Error::file(path, "open", e))?;
    let (user, mode) = (effective_user(), found.mode() & 0o777);
    if !found.is_dir() {
        return Err(Error::file(path, "open", io::ErrorKind::NotADirectory.into()));
    }
    if found.uid() != user {
        let reason = format!("it belongs to user {}, this process runs as user {user}", found.uid());
        return Err(refuse(path, reason));
    }
    if mode & 0o022 != 0 {
        return Err(refuse(path, format!("others may write to it (mode {mode:04o}); run chmod 700 on it")));
    }
    Ok(())
}

/// Makes the directory's entries durable.
///
/// # Errors
/// If the file system reports a failure; one that cannot sync directories at all is taken at its word.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match File::open(path).and_then(|directory| directory.sync_all()) {
        Err(e) if e.kind() != io::ErrorKind::InvalidInput => Err(Error::file(path, "sync", e)),
        _ => Ok(()),
    }
}

/// Whether syncing a file that was just made has made its name durable too. POSIX does not promise it; it is so where both
/// changes are in one journal: ext4 waits for the inode's last transaction, or without a journal syncs a new file's
/// parents (`ext4_sync_file`); XFS forces its log up to the inode's last change; btrfs logs a new inode with its name. tmpfs
/// keeps nothing.
#[allow(unsafe_code)] // std has no call for it.
pub(crate) fn syncs_name(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    let known = [libc::EXT4_SUPER_MAGIC, libc::XFS_SUPER_MAGIC, libc::BTRFS_SUPER_MAGIC, libc::TMPFS_MAGIC];
    // SAFETY: an all-zero statfs is a valid place for fstatfs(2) to write into; the descriptor is borrowed.
    unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        libc::fstatfs(file.as_raw_fd(), &raw mut found) == 0 && known.contains(&found.f_type)
    }
}

/// A file that is there but must not be used.
pub(crate) fn refuse(path: &Path, reason: String) -> Error {
    Error::file(path, "use", io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// The directory that holds `path`, and the one temporary name for replacing it.
fn beside(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::file(path, "write", io::ErrorKind::InvalidFilename.into()));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".tmp");
    Ok((directory.to_path_buf(), directory.join(temporary)))
}

/// The user that files made by this process belong to.
#[allow(unsafe_code)] // std has no call for it, and /proc/self belongs to root in a process that is not dumpable.
fn effective_user() -> u32 {
    // SAFETY: geteuid(2) takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests;
