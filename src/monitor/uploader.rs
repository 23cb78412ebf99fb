//! The uploader: a process of its own, the only one that uses the network. One pass over the spool, then it ends.

use super::confinement;
use super::delivery::Pass;
use super::log::Log;
use super::role::Start;
use super::stages;
use crate::blackbox::Count;
use crate::error::Result;
use crate::privacy::Stage;
use crate::spool::file::Spool;
use crate::spool::key::LocalKey;
use crate::upload::{self, Hooks, Https, Lane, Outbox, TimeLimits};

/// Sends what is due. Returns the exit code.
pub(super) fn run(start: &Start) -> i32 {
    let log = Log::new(start.config.log.clone());
    confinement::of_uploader(&start.config, &log);
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
    let Some(key) = LocalKey::load(&config.spool)? else { return Ok(Pass::default()) };
    let transport = match Https::new(&config.certificate_authorities, TimeLimits::default()) {
        Ok(transport) => transport,
        Err(error) => {
            // Nothing can be sent before someone mends this; it is no reason to start us again and again.
            log.event("uploader", "no-transport", error);
            blackbox.count(Count::Deferred, 1);
            return Ok(Pass::default());
        }
    };
    let mut lanes: Vec<Lane> = serde_json::from_value(start.learnt.clone()).unwrap_or_default();
    let summary = upload::drain(
        &mut Outbox::new(&spool, &key),
        &config.destinations,
        &mut lanes,
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
    let next_due_ms = summary.next_due_ms.filter(|_| !summary.awaits_consent);
    Ok(Pass { next_due_ms, learnt: serde_json::to_value(lanes).unwrap_or_default() })
}
