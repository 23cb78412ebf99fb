//! The spool directory. Only this module (with `claim`) writes report files.
//!
//! ```text
//! DIR/key                  the local key          DIR/consent   the consent record
//! DIR/lock                 held (flock) by whoever changes anything below
//! DIR/pending/NAME.ceno    committed, waiting     DIR/pending/.ID.tmp   being written
//! DIR/sending/NAME.ceno    held (flock) by the uploader that sends it
//! DIR/rejected/NAME.ceno   a server refused it for good; kept until the quota takes it
//! DIR/last-words/          what dying processes wrote themselves, see `records.rs`
//! ```
//!
//! All directories are 0700, all files 0600. A report changes its state by one rename, so that it is always in exactly one
//! of them. A temporary file that holds a whole report is one, too: the next user of the spool gives it its name. A lock ends with its holder, so nothing needs a time-out to find out who died: a temporary file seen
//! under the lock is nobody's any more, and so is a file in `sending` that is not locked.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::claim::Claim;
use super::name::Name;
use super::quota::{Excess, Limits, Stored, select};
use super::unfinished;
use crate::error::{Error, Result};
use crate::private_file::{self, Lock, Locked, steps};
use crate::report::ReportId;

/// A spool directory. Cheap to make; holds nothing open. All calls may be made from any thread and from several
/// processes at once; each takes the directory's lock for as long as it needs, at most.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    limits: Limits,
    tally: Mutex<Tally>,
}

/// Where a report stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waiting to be sent.
    Pending,
    /// An uploader has it.
    Sending,
    /// A server refused it for good.
    Rejected,
}

impl State {
    pub(super) const ALL: [Self; 3] = [Self::Pending, Self::Sending, Self::Rejected];

    /// The directory's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Rejected => "rejected",
        }
    }
}

/// One report in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its id.
    pub id: ReportId,
    /// Where it stands.
    pub state: State,
    /// How many deliveries were begun and did not end well.
    pub attempts: u32,
    /// Not to be sent before, in milliseconds since the Unix epoch.
    pub not_before_ms: u64,
    /// Bit i: destination i has accepted it.
    pub delivered_mask: u32,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub stored_ms: u64,
    /// Bytes.
    pub size: u64,
    /// Its file.
    pub path: PathBuf,
}

/// A report that survives a power cut from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its file.
    pub path: PathBuf,
    /// It was there before, from an earlier try; nothing was written.
    pub existed: bool,
}

/// What the spool did besides what it was asked for, counted so that nothing goes silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Reports deleted because they were too old.
    pub expired: usize,
    /// Reports deleted because there were too many.
    pub over_count: usize,
    /// Reports deleted because they took too much room.
    pub over_bytes: usize,
    /// Reports taken back from an uploader that died.
    pub recovered: usize,
    /// Reports of a writer that died before it had given them their names.
    pub adopted: usize,
    /// Half-written files of a writer that died.
    pub unfinished: usize,
    /// Files that are not reports or not this user's; left alone.
    pub strangers: usize,
}

impl Spool {
    /// The spool in `dir` with the general limits. Touches nothing on disk; the directory is made by the first
    /// [`commit`](Self::commit).
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), limits: Limits::default(), tally: Mutex::default() }
    }

    /// With other limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes what a first [`commit`](Self::commit) would make besides the report. Ask consent first.
    ///
    /// # Errors
    /// If the directory cannot be made, or is not this user's.
    pub fn prepare(&self) -> Result<()> {
        private_file::create_dir(&self.dir)?;
        let _lock = self.take_lock()?;
        private_file::create_dir(&self.state_dir(State::Pending))
    }

    /// Stores a sealed report so that neither a kill nor a power cut loses it. The same id a second time is not
    /// written again. Afterwards the oldest reports beyond the limits are deleted ([`take_tally`](Self::take_tally)).
    ///
    /// `still_allowed` is asked under the lock: after a [`purge`](Self::purge) that followed a withdrawal nothing
    /// is stored any more.
    ///
    /// # Errors
    /// [`Error::ConsentRefused`] if not allowed; [`Error::Limit`] for a report longer than the spool;
    /// [`Error::File`] if it cannot be written (a full disk, a directory that is not this user's). What was
    /// committed before is not touched then.
    pub fn commit(
        &self,
        id: ReportId,
        bytes: &[u8],
        still_allowed: impl FnOnce() -> bool,
    ) -> Result<Committed> {
        if bytes.len() as u64 > self.limits.max_bytes {
            let limit = usize::try_from(self.limits.max_bytes).unwrap_or(usize::MAX);
            return Err(Error::Limit { what: "the bytes of a sealed report", limit });
        }
        private_file::create_dir(&self.dir)?;
        let _lock = self.take_lock()?;
        if !still_allowed() {
            return Err(Error::ConsentRefused("storing a report"));
        }
        // The other states' directories are made by who moves a report there: each is a sync, and a dying process may wait.
        private_file::create_dir(&self.state_dir(State::Pending))?;
        steps::at("commit: locked");
        self.recover_locked()?;
        if let Some(there) = self.scan_all()?.into_iter().find(|item| item.id == id) {
            return Ok(Committed { path: there.path, existed: true });
        }
        let pending = self.state_dir(State::Pending);
        let temporary = pending.join(unfinished::temporary(id));
        let path = pending.join(Name::new(id).to_string());
        let file = unfinished::write(&temporary, bytes).inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })?;
        std::fs::rename(&temporary, &path).map_err(|e| Error::file(&path, "create", e))?;
        steps::at("commit: renamed");
        // After a power cut it may have its temporary name again, by which it is found. Where that name is not certain to
        // be on disk either, wait for the new one; a flush of the disk is half of a small report's time.
        if !private_file::syncs_name(&file) {
            private_file::sync_dir(&pending)?;
        }
        steps::at("commit: durable");
        // The report is safe; that an older one could not be deleted is no failure of this call.
        let _ = self.evict_locked(now_ms(), Some(id));
        Ok(Committed { path, existed: false })
    }

    /// Takes the oldest report that is due, for as long as the returned claim lives. Reports whose uploader died
    /// are taken back first, and those beyond the limits deleted.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn claim(&self, now_ms: u64) -> Result<Option<Claim>> {
        if !self.exists() {
            return Ok(None);
        }
        let _lock = self.take_lock()?;
        self.recover_locked()?;
        self.evict_locked(now_ms, None)?;
        let (mut due, _) = self.scan(State::Pending)?;
        due.retain(|item| item.name().due_ms(now_ms) <= now_ms);
        due.sort_by_key(|item| (item.stored_ms, item.not_before_ms, item.id));
        private_file::create_dir(&self.state_dir(State::Sending))?;
        for item in due {
            match Claim::take(&self.dir, &item) {
                Ok(Some(claim)) => return Ok(Some(claim)),
                Ok(None) => {}
                // A file that is not plainly ours must not keep the others from being sent.
                Err(_) => self.count(|tally| tally.strangers += 1),
            }
        }
        Ok(None)
    }

    /// When the next report is due, in milliseconds since the Unix epoch; `None` if none is waiting.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn next_due(&self) -> Result<Option<u64>> {
        let now_ms = now_ms();
        let _lock = self.take_shared_lock()?;
        let mut due: Vec<u64> =
            self.scan(State::Pending)?.0.iter().map(|item| item.name().due_ms(now_ms)).collect();
        // An uploader that died has left its report here, due at once; a living one holds a lock on it.
        due.extend(self.scan(State::Sending)?.0.iter().filter(|item| is_abandoned(&item.path)).map(|_| 0));
        // So has a writer, maybe.
        due.extend(read_dir(&self.state_dir(State::Pending))?.iter().filter(|e| is_temporary(e)).map(|_| 0));
        Ok(due.into_iter().min())
    }

    /// All reports, oldest first.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn list(&self) -> Result<Vec<Item>> {
        let _lock = self.take_shared_lock()?;
        let mut items = self.scan_all()?;
        items.sort_by_key(|item| (item.stored_ms, item.id));
        Ok(items)
    }

    /// Deletes the reports beyond the limits, as [`commit`](Self::commit) and [`claim`](Self::claim) do: for reports
    /// that are held for long without either.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn expire(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        let _lock = self.take_lock()?;
        self.evict_locked(now_ms(), None).map(|_| ())
    }

    /// Puts reports whose uploader died back to `pending` and removes what a dead writer left. Returns how many
    /// reports were put back. [`commit`](Self::commit) and [`claim`](Self::claim) do this too.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn recover(&self) -> Result<usize> {
        if !self.exists() {
            return Ok(0);
        }
        let _lock = self.take_lock()?;
        self.recover_locked()
    }

    /// Deletes every report in every state, those being sent, half-written ones and minimal records too. Returns how many
    /// reports there were. Claims on them stay valid to hold, and end without effect.
    ///
    /// # Errors
    /// If something could not be deleted; everything else is.
    pub fn purge(&self) -> Result<usize> {
        let records = super::records::purge(&self.dir);
        if !self.exists() {
            return records;
        }
        let _lock = self.take_lock()?;
        let (mut count, mut failure) = records.map_or_else(|e| (0, Some(e)), |count| (count, None));
        for state in State::ALL {
            let dir = self.state_dir(state);
            for entry in read_dir(&dir)? {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                match std::fs::remove_file(entry.path()) {
                    Ok(()) => count += usize::from(parse(&entry).is_some()),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => failure = failure.or(Some(Error::file(entry.path(), "remove", e))),
                }
                steps::at("purge: removed one");
            }
            if dir.exists() {
                private_file::sync_dir(&dir)?;
            }
        }
        failure.map_or(Ok(count), Err)
    }

    /// What was counted since the last call.
    pub fn take_tally(&self) -> Tally {
        std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn recover_locked(&self) -> Result<usize> {
        let pending = self.state_dir(State::Pending);
        for entry in read_dir(&pending)? {
            if !is_temporary(&entry) {
                continue;
            }
            let path = entry.path();
            let whole = unfinished::whole(&self.dir, &path, self.limits.max_bytes);
            let is_there = |name: &Name| self.scan_all().is_ok_and(|all| all.iter().any(|i| i.id == name.id));
            if let Some(name) = whole.filter(|name| !is_there(name))
                && std::fs::rename(&path, pending.join(name.to_string())).is_ok()
            {
                self.count(|tally| tally.adopted += 1);
                steps::at("recover: adopted");
            } else if std::fs::remove_file(&path).is_ok() {
                self.count(|tally| tally.unfinished += 1);
            }
        }
        let mut settled = Vec::new();
        let mut strangers = 0;
        for state in [State::Pending, State::Rejected] {
            let (items, others) = self.scan(state)?;
            settled.extend(items.into_iter().map(|item| item.id));
            strangers += others;
        }
        let (sending, others) = self.scan(State::Sending)?;
        self.count(|tally| tally.strangers = strangers + others);
        let mut recovered = 0;
        for item in sending {
            // `release` is what the dead uploader would have done, but the delivery it had begun counts: a
            // report that kills its uploader must not be tried for ever.
            if let Ok(Some(claim)) = Claim::take_over(&self.dir, &item) {
                if settled.contains(&item.id) {
                    // A power cut within a move left the old name too.
                    std::fs::remove_file(&item.path).map_err(|e| Error::file(&item.path, "remove", e))?;
                    continue;
                }
                claim.abandoned()?;
                recovered += 1;
            }
        }
        self.count(|tally| tally.recovered += recovered);
        Ok(recovered)
    }

    fn evict_locked(&self, now_ms: u64, just_written: Option<ReportId>) -> Result<()> {
        let items = self.scan_all()?;
        let stored: Vec<Stored> = items
            .iter()
            .map(|item| Stored {
                since_ms: item.stored_ms,
                bytes: item.size,
                in_use: item.state == State::Sending || Some(item.id) == just_written,
            })
            .collect();
        for (i, excess) in select(&stored, &self.limits, now_ms) {
            let Some(item) = items.get(i) else { continue };
            std::fs::remove_file(&item.path).map_err(|e| Error::file(&item.path, "remove", e))?;
            self.count(|tally| match excess {
                Excess::Age => tally.expired += 1,
                Excess::Count => tally.over_count += 1,
                Excess::Bytes => tally.over_bytes += 1,
            });
        }
        Ok(())
    }

    fn scan_all(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for state in State::ALL {
            items.append(&mut self.scan(state)?.0);
        }
        Ok(items)
    }

    /// The reports in one state, and how many other files lie there.
    fn scan(&self, state: State) -> Result<(Vec<Item>, usize)> {
        let (mut items, mut strangers) = (Vec::new(), 0);
        for entry in read_dir(&self.state_dir(state))? {
            if is_temporary(&entry) {
                continue;
            }
            // Not following links; what vanishes meanwhile is not there.
            let Ok(found) = entry.metadata() else { continue };
            match parse(&entry) {
                Some(name) if found.is_file() => items.push(Item {
                    id: name.id,
                    state,
                    attempts: name.attempts,
                    not_before_ms: name.not_before_ms,
                    delivered_mask: name.delivered,
                    stored_ms: u64::try_from(found.mtime()).unwrap_or(0).saturating_mul(1000)
                        + u64::try_from(found.mtime_nsec()).unwrap_or(0) / 1_000_000,
                    size: found.len(),
                    path: entry.path(),
                }),
                _ => strangers += 1,
            }
        }
        Ok((items, strangers))
    }

    /// Whether there is anything that a lock would protect.
    fn exists(&self) -> bool {
        State::ALL.iter().any(|state| self.state_dir(*state).exists())
    }

    fn take_lock(&self) -> Result<Locked> {
        take_lock(&self.dir)
    }

    fn take_shared_lock(&self) -> Result<Option<Locked>> {
        if !self.exists() {
            return Ok(None);
        }
        private_file::check_dir(&self.dir)?;
        let path = self.dir.join("lock");
        let file = private_file::open(&path, OpenOptions::new().read(true))?;
        file.map(|file| Locked::wait(file, &path, Lock::Shared)).transpose()
    }

    fn state_dir(&self, state: State) -> PathBuf {
        self.dir.join(state.name())
    }

    fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Item {
    pub(super) fn name(&self) -> Name {
        let Self { id, attempts, not_before_ms, delivered_mask, .. } = *self;
        Name { id, attempts, not_before_ms, delivered: delivered_mask }
    }
}

/// Takes the exclusive lock of the spool in `dir`.
pub(super) fn take_lock(dir: &Path) -> Result<Locked> {
    private_file::check_dir(dir)?;
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = private_file::open(&path, options.read(true).write(true).create(true))?
        .ok_or_else(|| Error::file(&path, "create", io::ErrorKind::NotFound.into()))?;
    Locked::wait(file, &path, Lock::Exclusive)
}

/// Whether nobody holds the claimed file any more.
fn is_abandoned(path: &Path) -> bool {
    let Ok(Some(file)) = private_file::open(path, OpenOptions::new().read(true)) else { return false };
    Locked::try_now(file, path, Lock::Shared).is_ok_and(|locked| locked.is_some())
}

fn parse(entry: &std::fs::DirEntry) -> Option<Name> {
    entry.file_name().to_str()?.parse().ok()
}

fn is_temporary(entry: &std::fs::DirEntry) -> bool {
    unfinished::is_temporary(entry.file_name().as_encoded_bytes())
}

/// The entries of a directory; none if it is missing.
fn read_dir(path: &Path) -> Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(path).and_then(Iterator::collect) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(|e| Error::file(path, "read", e)),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod tests;
