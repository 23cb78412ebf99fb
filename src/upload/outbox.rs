//! The spool as the queue that is drained: the one file of this stage that knows it.
#![forbid(unsafe_code)]

use serde::de::DeserializeOwned;
use zeroize::Zeroize;

use super::destination::Opened;
use super::drain::{Claim, Progress, Queue};
use crate::error::{Error, Result};
use crate::report::{Detail, Report, ReportId};
use crate::spool::Claim as Claimed;
use crate::spool::container;
use crate::spool::file::Spool;
use crate::spool::key::LocalKey;
use crate::spool::{Part, PartKind};

/// From this bit on a report's mask tells the destinations that will never take it, below those that have it.
/// (A report goes to 8 destinations at most: `Config::validate`.)
const REFUSED: u32 = 16;

fn mask(progress: Progress) -> u32 {
    progress.delivered | progress.refused << REFUSED
}

/// A spool and the key that opens its reports.
#[derive(Debug, Clone, Copy)]
pub struct Outbox<'a> {
    spool: &'a Spool,
    key: &'a LocalKey,
}

impl<'a> Outbox<'a> {
    /// The reports of `spool`, opened with `key`.
    pub fn new(spool: &'a Spool, key: &'a LocalKey) -> Self {
        Self { spool, key }
    }
}

/// A report of the spool in the hands of this process.
#[derive(Debug)]
pub struct Sealed<'a> {
    claim: Claimed,
    key: &'a LocalKey,
}

impl<'a> Queue for Outbox<'a> {
    type Claim = Sealed<'a>;

    fn claim_due(&mut self, now_ms: u64) -> Result<Option<Self::Claim>> {
        Ok(self.spool.claim(now_ms)?.map(|claim| Sealed { claim, key: self.key }))
    }

    fn next_due_ms(&mut self) -> Result<Option<u64>> {
        self.spool.next_due()
    }
}

impl Claim for Sealed<'_> {
    fn id(&self) -> ReportId {
        self.claim.id()
    }

    fn progress(&self) -> Progress {
        let mask = self.claim.delivered_mask();
        Progress {
            attempts: self.claim.attempts(),
            delivered: mask & ((1 << REFUSED) - 1),
            refused: mask >> REFUSED,
            next_due_ms: 0,
        }
    }

    fn is_purged(&self) -> bool {
        self.claim.is_purged()
    }

    fn open(&mut self) -> Result<Opened> {
        open(&self.claim.read()?, self.key)
    }

    fn record(&mut self, progress: Progress) -> Result<()> {
        self.claim.note_delivered(mask(progress))
    }

    fn delivered(self) -> Result<()> {
        self.claim.accepted()
    }

    fn hold(self, progress: Progress) -> Result<()> {
        if progress.attempts > self.claim.attempts() {
            self.claim.retry(progress.next_due_ms, mask(progress))
        } else {
            self.claim.defer(progress.next_due_ms, mask(progress))
        }
    }

    fn reject(self, _reason: &str) -> Result<()> {
        self.claim.rejected()
    }

    fn discard(self) -> Result<()> {
        self.claim.accepted()
    }
}

/// Opens a container at the best level of detail that is still in it, at most the report's own.
///
/// # Errors
/// [`Error::Unsealed`] or [`Error::Malformed`] if it is damaged, or holds no report, receipt or dump.
pub fn open(container: &[u8], key: &LocalKey) -> Result<Opened> {
    let mut report: Report = json(container, PartKind::Report, key)?;
    let receipt = json(container, PartKind::Receipt, key)?;
    for (detail, kind) in [
        (Detail::Minidump, PartKind::Minidump),
        (Detail::Pointers, PartKind::Pointers),
        (Detail::StackTrace, PartKind::StackTrace),
    ] {
        if detail > report.detail {
            continue;
        }
        if let Some(part) = container::read_part(container, kind, key)? {
            // A part may have been dropped since the report was written: it says what is really in it.
            report.detail = detail;
            return Ok(Opened { report, dump: part.bytes, receipt });
        }
    }
    Err(Error::malformed("container", "it holds no dump"))
}

fn json<T: DeserializeOwned>(container: &[u8], kind: PartKind, key: &LocalKey) -> Result<T> {
    let part: Option<Part> = container::read_part(container, kind, key)?;
    let mut part =
        part.ok_or_else(|| Error::malformed("container", format!("it holds no part of kind {kind:?}")))?;
    let value = serde_json::from_slice(&part.bytes)
        .map_err(|e| Error::malformed("container", format!("its part of kind {kind:?} does not parse: {e}")));
    part.bytes.zeroize();
    value
}
