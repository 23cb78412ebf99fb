//! A report in the hands of an uploader.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file::{Item, State, take_lock};
use super::name::Name;
use crate::error::{Error, Result};
use crate::private_file::{self, Lock, Locked, steps};
use crate::report::ReportId;

/// The only right to send a report. It is a lock on the report's file, so it ends when dropped or with the process (and
/// all processes it forked meanwhile that did not exec), and the report goes back to `pending` then.
///
/// A report that was purged meanwhile stays purged: every ending is `Ok` and has no effect.
#[derive(Debug)]
#[must_use = "a dropped claim counts as a delivery that failed"]
pub struct Claim {
    dir: PathBuf,
    name: Name,
    locked: Locked,
}

impl Claim {
    /// Moves a pending report to `sending`, or returns `None` if somebody has it. The caller holds the spool's lock.
    pub(super) fn take(dir: &Path, item: &Item) -> Result<Option<Self>> {
        let Some(claim) = Self::take_over(dir, item)? else { return Ok(None) };
        steps::at("claim: locked");
        let path = claim.path();
        // Not synced: after a power cut it is pending or being sent by nobody, which is the same.
        std::fs::rename(&item.path, &path).map_err(|e| Error::file(&path, "create", e))?;
        steps::at("claim: renamed");
        Ok(Some(claim))
    }

    /// Locks a report where it lies, or returns `None` if somebody has it. The caller holds the spool's lock.
    pub(super) fn take_over(dir: &Path, item: &Item) -> Result<Option<Self>> {
        let Some(file) = private_file::open(&item.path, OpenOptions::new().read(true))? else {
            return Ok(None);
        };
        let locked = Locked::try_now(file, &item.path, Lock::Exclusive)?;
        Ok(locked.map(|locked| Self { dir: dir.to_path_buf(), name: item.name(), locked }))
    }

    /// The report's id.
    pub fn id(&self) -> ReportId {
        self.name.id
    }

    /// How many deliveries were begun before this one and did not end well.
    pub fn attempts(&self) -> u32 {
        self.name.attempts
    }

    /// Which destinations are done with; the uploader gives the bits their meaning.
    pub fn delivered_mask(&self) -> u32 {
        self.name.delivered
    }

    /// The container.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        let path = self.path();
        let failed = |e| Error::file(&path, "read", e);
        let mut file = self.locked.file();
        file.rewind().map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Whether the report was deleted since it was claimed: consent was withdrawn, so do not send it.
    pub fn is_purged(&self) -> bool {
        self.locked.file().metadata().is_ok_and(|found| found.nlink() == 0)
    }

    /// Every destination has accepted it: deletes it, durably.
    ///
    /// # Errors
    /// If it cannot be deleted; it will be sent again.
    pub fn accepted(self) -> Result<()> {
        let path = self.path();
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file(&path, "remove", e)),
            _ => steps::at("accepted: removed"),
        }
        sync_if_there(&self.dir.join(State::Sending.name()))
    }

    /// To be tried again, not before `not_before_ms` (milliseconds since the Unix epoch). `delivered_mask` is added to the
    /// mask. Counts as an attempt.
    ///
    /// # Errors
    /// If the spool cannot be changed; the report is tried again as it was.
    pub fn retry(self, not_before_ms: u64, delivered_mask: u32) -> Result<()> {
        let attempts = self.name.attempts.saturating_add(1);
        let delivered = self.name.delivered | delivered_mask;
        let name = Name { attempts, not_before_ms, delivered, ..self.name };
        let _lock = take_lock(&self.dir)?;
        self.move_to(State::Pending, name)
    }

    /// Notes which destinations have accepted it and keeps the claim: a kill from here on does not send it there
    /// again. `delivered_mask` is added to the mask.
    ///
    /// # Errors
    /// If the spool cannot be changed.
    pub fn note_delivered(&mut self, delivered_mask: u32) -> Result<()> {
        let name = Name { delivered: self.name.delivered | delivered_mask, ..self.name };
        let _lock = take_lock(&self.dir)?;
        self.rename(State::Sending, name)?;
        self.name = name;
        Ok(())
    }

    /// Not tried, for a reason that holds until `not_before_ms`. As [`retry`](Self::retry), but counts no attempt.
    ///
    /// # Errors
    /// As [`retry`](Self::retry).
    pub fn defer(self, not_before_ms: u64, delivered_mask: u32) -> Result<()> {
        let delivered = self.name.delivered | delivered_mask;
        let name = Name { not_before_ms, delivered, ..self.name };
        let _lock = take_lock(&self.dir)?;
        self.move_to(State::Pending, name)
    }

    /// A server has refused it for good: keeps it in `rejected`, to be looked at.
    ///
    /// # Errors
    /// If the spool cannot be changed; the report is tried again.
    pub fn rejected(self) -> Result<()> {
        let _lock = take_lock(&self.dir)?;
        private_file::create_dir(&self.dir.join(State::Rejected.name()))?;
        let name = self.name;
        self.move_to(State::Rejected, name)
    }

    /// Gives it back as it was: it was not tried.
    ///
    /// # Errors
    /// If the spool cannot be changed; the report goes back later.
    pub fn release(self) -> Result<()> {
        let _lock = take_lock(&self.dir)?;
        let name = self.name;
        self.move_to(State::Pending, name)
    }

    /// Its uploader died. The caller holds the spool's lock.
    pub(super) fn abandoned(self) -> Result<()> {
        let attempts = self.name.attempts.saturating_add(1);
        let name = Name { attempts, ..self.name };
        self.move_to(State::Pending, name)
    }

    /// Ends the claim before the caller's lock ends, so that the next claimant finds the report free.
    fn move_to(self, state: State, name: Name) -> Result<()> {
        self.rename(state, name)
    }

    fn rename(&self, state: State, name: Name) -> Result<()> {
        let directory = self.dir.join(state.name());
        let path = directory.join(name.to_string());
        match std::fs::rename(self.path(), &path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::file(&path, "create", e)),
            Ok(()) => steps::at("move: renamed"),
        }
        // The new place first: a power cut in between may leave two names of one report, never none.
        private_file::sync_dir(&directory)?;
        sync_if_there(&self.dir.join(State::Sending.name()))
    }

    fn path(&self) -> PathBuf {
        self.dir.join(State::Sending.name()).join(self.name.to_string())
    }
}

fn sync_if_there(directory: &Path) -> Result<()> {
    if directory.exists() { private_file::sync_dir(directory) } else { Ok(()) }
}
