//! What became of a crash, and what to do when a worker dies over it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{Detail, ReportId};

/// What a worker says at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// Committed.
    Spooled {
        report: ReportId,
        reason: String,
        detail: Detail,
        /// Milliseconds from the crash until each stage had ended.
        stages_ms: BTreeMap<String, f64>,
        /// Bytes after each stage.
        stages_bytes: BTreeMap<String, u64>,
        /// Reports removed to stay within limits.
        expired: usize,
        /// What was missing.
        notes: Vec<String>,
    },
    /// Consent does not allow a report.
    RefusedByConsent,
    /// No report could be made or stored.
    Failed {
        /// Which stage, why, and the way out.
        reason: String,
    },
}

/// What follows a worker's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another worker, with at most this detail.
    Retry(Detail),
    /// Nothing more can be done.
    GiveUp,
}

/// Decides after the `deaths`-th worker died over one crash. `read` says whether the application's memory had been
/// read before: then the bytes themselves may be what kills, so the second try steps down.
pub(super) fn after_death(deaths: u32, read: bool, application_waits: bool) -> Next {
    match (deaths, read, application_waits) {
        (0..=1, true, _) | (0..=2, false, true) => Next::Retry(Detail::Minidump),
        (2..=3, true, _) => Next::Retry(Detail::StackTrace),
        _ => Next::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_then_steps_down_then_gives_up() {
        use Next::{GiveUp, Retry};
        let cases = [
            (1, true, false, Retry(Detail::Minidump)),
            (2, true, false, Retry(Detail::StackTrace)),
            (3, true, true, Retry(Detail::StackTrace)),
            (4, true, true, GiveUp),
            (1, false, true, Retry(Detail::Minidump)),
            (1, false, false, GiveUp),
            (3, false, true, GiveUp),
        ];
        for (deaths, read, waits, expected) in cases {
            assert_eq!(after_death(deaths, read, waits), expected, "{deaths} {read} {waits}");
        }
    }
}
