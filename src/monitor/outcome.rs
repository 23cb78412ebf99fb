//! What became of a crash, and what to do when a worker dies over it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blackbox::{Blackbox, Count};
use crate::protocol;
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
    /// There are many like it: it was counted, and the count travels with the next report.
    Repeated {
        /// So many times since the last one that was stored.
        count: u64,
    },
    /// Consent does not allow a report.
    RefusedByConsent,
    /// There was nothing to make a report of.
    Nothing,
    /// A panic that came while another one unwound, which has a report.
    Superseded,
    /// The application's memory may not be read; it was asked to tell it.
    OutOfReach {
        /// The kernel's answer.
        reason: String,
    },
    /// A pmodule did not want it.
    Vetoed {
        /// Its name.
        pmodule: String,
        /// In its words, which hold no personal data.
        #[serde(rename = "why")]
        reason: String,
    },
    /// No report could be made or stored.
    Failed {
        /// Which stage, why, and the way out.
        reason: String,
    },
}

impl Outcome {
    /// Counts it where the application can see it.
    pub(super) fn count(&self, blackbox: &Blackbox) {
        match self {
            Self::Spooled { expired, notes, .. } => {
                blackbox.count(Count::Spooled, 1);
                blackbox.count(Count::Expired, *expired as u64);
                if notes.iter().any(|note| note.starts_with(super::stages::STEPPED_DOWN)) {
                    blackbox.count(Count::SteppedDown, 1);
                }
            }
            Self::Repeated { .. } => blackbox.count(Count::Repeated, 1),
            Self::RefusedByConsent => blackbox.count(Count::RefusedByConsent, 1),
            Self::Nothing | Self::Superseded | Self::OutOfReach { .. } => {}
            Self::Vetoed { .. } => blackbox.count(Count::Vetoed, 1),
            Self::Failed { .. } => blackbox.count(Count::Failed, 1),
        }
    }
}

/// How much of a dump a worker may touch: bytes that killed one worker would kill the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Effort {
    /// The registers that the handler sent, nothing else.
    RegistersOnly = 0,
    /// Frames, but no memory in the report: nothing is scrubbed.
    StackTrace = 1,
    /// Everything that the configuration allows.
    Full = 2,
}

impl Effort {
    pub(super) fn from_byte(byte: u8) -> Self {
        match byte {
            2 => Self::Full,
            1 => Self::StackTrace,
            _ => Self::RegistersOnly,
        }
    }
}

/// What follows a worker's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another worker, with at most this effort.
    Retry(Effort),
    /// A filter ends whoever looks into the application, which is to have a copy of itself tell its memory.
    AskForCopy,
    /// Nothing more can be done.
    GiveUp,
}

/// Decides after the `deaths`-th worker died over one crash. A first death may be an accident; after that the bytes
/// are suspected, and each try does less with them. Before the memory was `read` there is only starting afresh, as
/// long as the application waits; a worker that was `barred` would be so again.
pub(super) fn after_death(deaths: u32, read: bool, barred: bool, application_waits: bool) -> Next {
    match (deaths, read, application_waits) {
        (_, false, true) if barred => Next::AskForCopy,
        (0..=1, true, _) | (0..=2, false, true) => Next::Retry(Effort::Full),
        (2, true, _) => Next::Retry(Effort::StackTrace),
        (3, true, _) => Next::Retry(Effort::RegistersOnly),
        _ => Next::GiveUp,
    }
}

/// How long an application that waits for `deadline` waits for its monitor: it keeps the rest for a record of its own.
pub(super) fn monitors_share(deadline: Duration) -> Duration {
    let ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(ns - protocol::reserve_ns(ns))
}

/// How long a worker may take to read the memory of an application that waits, when `left` is what is left of the monitor's
/// share. One that hangs while attached freezes the application, so each but the last leaves some of the time to the next.
/// `None` if it is too late for another.
pub(super) fn time_to_read(deaths: u32, left: Duration) -> Option<Duration> {
    /// Less is not worth holding a dying process for.
    const LEAST: Duration = Duration::from_millis(20);
    let time = match deaths {
        0 | 1 => left * 2 / 3,
        _ => left,
    };
    (time >= LEAST || (deaths == 0 && !left.is_zero())).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_leaves_time_for_the_next() {
        let ms = Duration::from_millis;
        assert_eq!([500, 1000, 10_000].map(|t| monitors_share(ms(t))), [400, 800, 9000].map(ms));
        let cases = [
            (0, 9000, Some(6000)),
            (1, 3000, Some(2000)),
            (2, 1000, Some(1000)),
            (0, 3, Some(2)),
            (1, 30, Some(20)),
            (1, 29, None),
            (2, 30, Some(30)),
            (2, 19, None),
            (0, 0, None),
        ];
        for (deaths, left, expected) in cases {
            assert_eq!(time_to_read(deaths, ms(left)), expected.map(ms), "{deaths} {left}");
        }
    }

    #[test]
    fn retries_then_steps_down_then_gives_up() {
        use Next::{AskForCopy, GiveUp, Retry};
        let cases = [
            (1, true, false, false, Retry(Effort::Full)),
            (2, true, false, false, Retry(Effort::StackTrace)),
            (3, true, false, true, Retry(Effort::RegistersOnly)),
            (4, true, false, true, GiveUp),
            (1, true, true, true, Retry(Effort::Full)),
            (1, false, false, true, Retry(Effort::Full)),
            (1, false, false, false, GiveUp),
            (3, false, false, true, GiveUp),
            (1, false, true, true, AskForCopy),
            (1, false, true, false, GiveUp),
        ];
        for (deaths, read, barred, waits, expected) in cases {
            let found = after_death(deaths, read, barred, waits);
            assert_eq!(found, expected, "{deaths} {read} {barred} {waits}");
        }
        for effort in [Effort::RegistersOnly, Effort::StackTrace, Effort::Full] {
            assert_eq!(Effort::from_byte(effort as u8), effort);
        }
    }
}
