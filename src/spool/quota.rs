//! How much the spool may hold, and what goes first.
#![forbid(unsafe_code)]

use std::cmp::Reverse;

/// What the spool may hold. The first limit that is exceeded counts; the oldest report goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a report is kept, in milliseconds.
    pub max_age_ms: u64,
    /// How many reports are kept.
    pub max_reports: usize,
    /// Bytes of all reports together; also the longest single report.
    pub max_bytes: u64,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Limits {
    /// 30 days, 30 reports, 64 MiB.
    pub const GENERAL: Self = Self { max_age_ms: 30 * DAY_MS, max_reports: 30, max_bytes: 64 << 20 };
    /// For child-directed applications: 7 days, 5 reports, 16 MiB (16 CFR 312.10 asks for no longer than needed).
    pub const CHILD_DIRECTED: Self = Self { max_age_ms: 7 * DAY_MS, max_reports: 5, max_bytes: 16 << 20 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::GENERAL
    }
}

/// A stored report, as far as the quota cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// When it was committed, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Its size in the file system.
    pub bytes: u64,
    /// Whether it is being sent or has just been written: it counts, but is not deleted.
    pub in_use: bool,
}

/// Which limit a report fell to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Excess {
    /// It was kept for `max_age_ms`.
    Age,
    /// There were more than `max_reports`.
    Count,
    /// There were more than `max_bytes`.
    Bytes,
}

/// What to delete, as indexes into `stored`, oldest first.
///
/// A report from the future (the clock was set back) has age 0 and is the newest.
pub fn select(stored: &[Stored], limits: &Limits, now_ms: u64) -> Vec<(usize, Excess)> {
    let mut order: Vec<usize> = (0..stored.len()).collect();
    order.sort_by_key(|&i| stored.get(i).map(|s| (s.since_ms, Reverse(s.bytes))));
    let mut count = stored.len();
    let mut bytes = stored.iter().fold(0u128, |sum, s| sum.saturating_add(s.bytes.into()));
    let mut selected = Vec::new();
    for i in order {
        let Some(report) = stored.get(i).filter(|s| !s.in_use) else { continue };
        let excess = if now_ms.saturating_sub(report.since_ms) >= limits.max_age_ms {
            Excess::Age
        } else if count > limits.max_reports {
            Excess::Count
        } else if bytes > limits.max_bytes.into() {
            Excess::Bytes
        } else {
            continue;
        };
        count = count.saturating_sub(1);
        bytes = bytes.saturating_sub(report.bytes.into());
        selected.push((i, excess));
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_age_ms: 100, max_reports: 3, max_bytes: 1000 };

    fn stored(since_ms: u64, bytes: u64) -> Stored {
        Stored { since_ms, bytes, in_use: false }
    }

    #[test]
    fn the_oldest_goes_first_by_each_limit() {
        use Excess::{Age, Bytes, Count};
        let busy = |since_ms, bytes| Stored { in_use: true, ..stored(since_ms, bytes) };
        let cases = [
            ("nothing stored", vec![], vec![]),
            ("within all limits", vec![stored(950, 300), stored(960, 300), stored(970, 400)], vec![]),
            ("just young enough, just too old", vec![stored(901, 1), stored(900, 1)], vec![(1, Age)]),
            (
                "one too many",
                vec![stored(960, 1), stored(950, 1), stored(970, 1), stored(980, 1)],
                vec![(1, Count)],
            ),
            ("a byte too many", vec![stored(960, 500), stored(950, 501)], vec![(1, Bytes)]),
            ("one old one makes room", vec![stored(0, 900), stored(950, 900)], vec![(0, Age)]),
            (
                "bytes until it fits",
                vec![stored(950, 600), stored(960, 600), stored(970, 600)],
                vec![(0, Bytes), (1, Bytes)],
            ),
            ("in use counts and stays", vec![busy(0, 900), stored(950, 200)], vec![(1, Bytes)]),
            ("in use is never selected", vec![busy(0, 5000)], vec![]),
            ("from the future", vec![stored(5000, 1), stored(950, 1000)], vec![(1, Bytes)]),
            (
                "sums do not overflow",
                vec![stored(950, u64::MAX), stored(960, u64::MAX)],
                vec![(0, Bytes), (1, Bytes)],
            ),
        ];
        for (what, stored, expected) in cases {
            assert_eq!(select(&stored, &LIMITS, 1000), expected, "{what}");
        }
    }

    #[test]
    fn what_is_left_always_fits() {
        // Exhaustive over small spools: ages 0/1/2 x sizes x limits.
        for code in 0..3u32.pow(5) {
            let digit = |i: u32| u64::from(code / 3u32.pow(i) % 3);
            let all: Vec<Stored> =
                (0..5).map(|i| stored(1000 - 60 * digit(i), 150 * (1 + digit(4 - i)))).collect();
            let gone: Vec<usize> = select(&all, &LIMITS, 1000).into_iter().map(|(i, _)| i).collect();
            let left: Vec<&Stored> = (0..5).filter(|i| !gone.contains(i)).map(|i| &all[i]).collect();
            assert!(left.len() <= LIMITS.max_reports);
            assert!(left.iter().map(|s| s.bytes).sum::<u64>() <= LIMITS.max_bytes);
            assert!(left.iter().all(|s| 1000 - s.since_ms < LIMITS.max_age_ms));
            let oldest_left = left.iter().map(|s| s.since_ms).min().unwrap_or(u64::MAX);
            assert!(gone.iter().all(|&i| all[i].since_ms <= oldest_left), "{all:?} {gone:?}");
        }
    }
}
