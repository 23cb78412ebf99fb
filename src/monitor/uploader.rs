//! The uploader: a process of its own, the only one that uses the network. One pass over the spool, then it ends.

use super::delivery::Pass;
use super::log::Log;
use super::role::Start;
use super::stages;
use crate::blackbox::Count;
use crate::config::ValidConfig;
use crate::error::Result;
use crate::privacy::Stage;
use crate::report::ReportId;
use crate::spool::file::Spool;
use crate::spool::key::LocalKey;
use crate::spool::{self, Claim, PartKind, container};
use crate::upload::{self, Hooks, Https, Opened, Progress, TimeLimits};

/// Bits from here on of a spooled report's mask: destinations that will never take it.
const REFUSED: u32 = 16;

/// Sends what is due. Returns the exit code.
pub(super) fn run(start: &Start) -> i32 {
    let log = Log::new(start.config.log.clone());
    match pass(start, &log) {
        Ok(pass) => {
            if let Ok(message) = serde_json::to_vec(&pass) {
                // The supervisor may be gone; the spool tells the next one everything.
                let _ = start.control.send(&message, &[]);
            }
            0
        }
        Err(error) => {
            log.event("uploader", "failed", error);
            1
        }
    }
}

fn pass(start: &Start, log: &Log) -> Result<Pass> {
    let Start { blackbox, config, .. } = start;
    let spool = Spool::new(&config.spool).with_limits(stages::limits(config));
    let transport = match Https::new(&config.certificate_authorities, TimeLimits::default()) {
        Ok(transport) => transport,
        Err(error) => {
            // Nothing can be sent before someone mends this; it is no reason to start us again and again.
            log.event("uploader", "no-transport", error);
            return Ok(Pass::default());
        }
    };
    let summary = upload::drain(
        &mut Queue { spool: &spool, config },
        &config.destinations,
        &mut Vec::new(),
        &transport,
        &mut Hooks {
            gate: &mut || stages::ask(Stage::Upload, config, blackbox),
            log: &mut |event| log.event("uploader", "delivery", event),
            now_ms: &mut upload::drain::system_now_ms,
            random: &mut upload::drain::system_random,
        },
    )?;
    blackbox.count(Count::Delivered, summary.delivered.into());
    blackbox.count(Count::Rejected, summary.rejected.into());
    blackbox.count(Count::Deferred, summary.held.into());
    let tally = spool.take_tally();
    blackbox.count(Count::Expired, (tally.expired + tally.over_count + tally.over_bytes) as u64);
    log.line("uploader", serde_json::json!({ "event": "pass", "summary": summary }));
    // Held for consent: only a grant changes that, and it tells us.
    Ok(Pass { next_due_ms: summary.next_due_ms.filter(|_| !summary.awaits_consent) })
}

/// The spool as the uploader's queue.
struct Queue<'a> {
    spool: &'a Spool,
    config: &'a ValidConfig,
}

struct Claimed<'a> {
    claim: Claim,
    config: &'a ValidConfig,
}

impl<'a> upload::Queue for Queue<'a> {
    type Claim = Claimed<'a>;

    fn claim_due(&mut self, now_ms: u64) -> Result<Option<Self::Claim>> {
        Ok(self.spool.claim(now_ms)?.map(|claim| Claimed { claim, config: self.config }))
    }

    fn next_due_ms(&mut self) -> Result<Option<u64>> {
        self.spool.next_due()
    }
}

impl upload::Claim for Claimed<'_> {
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

    fn open(&mut self) -> Result<Opened> {
        let key = LocalKey::load(&self.config.spool)?
            .ok_or(crate::error::Error::Unsealed("the spool's key is gone"))?;
        opened(container::open(&self.claim.read()?, &key)?)
    }

    fn record(&mut self, progress: Progress) -> Result<()> {
        self.claim.note(mask(progress))
    }

    fn delivered(self) -> Result<()> {
        self.claim.accepted()
    }

    fn hold(self, progress: Progress) -> Result<()> {
        if progress.attempts == self.claim.attempts() {
            return self.claim.postpone(progress.next_due_ms);
        }
        self.claim.retry(progress.next_due_ms, mask(progress))
    }

    fn reject(self, _reason: &str) -> Result<()> {
        self.claim.rejected()
    }

    fn discard(self) -> Result<()> {
        self.claim.accepted()
    }
}

fn mask(progress: Progress) -> u32 {
    progress.delivered | progress.refused << REFUSED
}

/// What is sent of a container's parts: the most detailed dump that is there.
fn opened(parts: Vec<spool::Part>) -> Result<Opened> {
    let missing = || crate::error::Error::malformed("container", "a part that every report has is missing");
    let mut parts: Vec<_> = parts.into_iter().map(|part| (part.kind, part.bytes)).collect();
    let mut take = |kind: PartKind| {
        let index = parts.iter().position(|(k, _)| *k == kind)?;
        Some(parts.swap_remove(index).1)
    };
    let json = |e: serde_json::Error| crate::error::Error::malformed("container", e.to_string());
    let report = serde_json::from_slice(&take(PartKind::Report).ok_or_else(missing)?).map_err(json)?;
    let receipt = serde_json::from_slice(&take(PartKind::Receipt).ok_or_else(missing)?).map_err(json)?;
    let dump = take(PartKind::Minidump)
        .or_else(|| take(PartKind::Pointers))
        .or_else(|| take(PartKind::StackTrace))
        .ok_or_else(missing)?;
    Ok(Opened { report, dump, receipt })
}
