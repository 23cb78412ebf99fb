//! When to try again: exponential backoff with full jitter, and the server's own wish.
#![forbid(unsafe_code)]

use super::response::{Outcome, RetryAfter};

/// The longest wait before the second try, in milliseconds.
pub const BASE_MS: u64 = 10_000;
/// No wait of our own is longer.
pub const CAP_MS: u64 = 6 * 3_600_000;
/// A server's wish is followed up to here: a wrong header must not silence an installation for ever.
pub const RETRY_AFTER_CAP_MS: u64 = 24 * 3_600_000;

/// What becomes of a report, as far as one destination is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The server has it.
    Done,
    /// Try again, not before this time (milliseconds since the Unix epoch).
    RetryAt(u64),
    /// Never send it there again; keep it on disk for the operator to look at.
    Reject,
}

/// Decides on one try. `attempts` counts the tries so far, this one included; `random` is uniform over all values.
///
/// The wait is uniform in `0..=min(CAP, BASE * 2^(attempts - 1))` ("full jitter": clients that failed together do not
/// come back together; Marc Brooker, "Exponential Backoff and Jitter", AWS 2015). A Retry-After (RFC 9110, section
/// 10.2.3) is added below it, so that the server is never asked before it wished and still sees its clients spread.
pub fn decide(outcome: &Outcome, attempts: u32, now_ms: u64, random: u64) -> Decision {
    match outcome {
        Outcome::Accepted { .. } => Decision::Done,
        // A report leaves the spool only when it was accepted, so these are kept, out of the queue.
        Outcome::Discarded { .. } | Outcome::Rejected { .. } => Decision::Reject,
        Outcome::Later { retry_after, .. } => {
            let wish = retry_after.map_or(0, |wish| wish_ms(wish, now_ms));
            let bound = BASE_MS.saturating_mul(2_u64.saturating_pow(attempts.saturating_sub(1))).min(CAP_MS);
            Decision::RetryAt(now_ms.saturating_add(wish).saturating_add(uniform(random, bound)))
        }
    }
}

/// The server's wish as a wait from now, within its limit. A date in the past is no wait.
fn wish_ms(wish: RetryAfter, now_ms: u64) -> u64 {
    let wait = match wish {
        RetryAfter::Seconds(seconds) => seconds.saturating_mul(1_000),
        RetryAfter::At(unix) => unix.saturating_mul(1_000).saturating_sub(now_ms),
    };
    wait.min(RETRY_AFTER_CAP_MS)
}

/// `random`, uniform over 64 bits, as a value in `0..=bound`.
fn uniform(random: u64, bound: u64) -> u64 {
    let scaled = (u128::from(random) * (u128::from(bound) + 1)) >> 64;
    u64::try_from(scaled).unwrap_or(bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::response::Scope;

    const NOW: u64 = 1_700_000_000_000;

    fn later(retry_after: Option<RetryAfter>) -> Outcome {
        Outcome::Later { reason: "503".into(), retry_after, scope: Scope::Destination }
    }

    #[test]
    fn final_outcomes() {
        let accepted = Outcome::Accepted { server_id: "x".into() };
        assert_eq!(decide(&accepted, 1, NOW, 7), Decision::Done);
        assert_eq!(decide(&Outcome::Discarded { reason: "rule".into() }, 1, NOW, 7), Decision::Reject);
        assert_eq!(decide(&Outcome::Rejected { reason: "400".into() }, 99, NOW, 7), Decision::Reject);
    }

    #[test]
    fn waits_by_attempt() {
        let h = 3_600_000;
        // attempts, wish, lowest, highest wait
        let table = [
            (0, None, 0, 10_000),
            (1, None, 0, 10_000),
            (2, None, 0, 20_000),
            (3, None, 0, 40_000),
            (11, None, 0, 10_240_000),
            (12, None, 0, 20_480_000),
            (13, None, 0, 6 * h),
            (64, None, 0, 6 * h),
            (u32::MAX, None, 0, 6 * h),
            (1, Some(RetryAfter::Seconds(0)), 0, 10_000),
            (1, Some(RetryAfter::Seconds(120)), 120_000, 130_000),
            (2, Some(RetryAfter::Seconds(120)), 120_000, 140_000),
            (1, Some(RetryAfter::Seconds(86_401)), 24 * h, 24 * h + 10_000),
            (1, Some(RetryAfter::Seconds(u64::MAX)), 24 * h, 24 * h + 10_000),
            (1, Some(RetryAfter::At(NOW / 1_000 + 60)), 60_000, 70_000),
            (1, Some(RetryAfter::At(NOW / 1_000 - 60)), 0, 10_000),
            (1, Some(RetryAfter::At(u64::MAX)), 24 * h, 24 * h + 10_000),
        ];
        for (attempts, wish, lowest, highest) in table {
            let at = |random| decide(&later(wish), attempts, NOW, random);
            assert_eq!(at(0), Decision::RetryAt(NOW + lowest), "{attempts} {wish:?}");
            assert_eq!(at(u64::MAX), Decision::RetryAt(NOW + highest), "{attempts} {wish:?}");
            let Decision::RetryAt(middle) = at(u64::MAX / 2) else { panic!() };
            let expected = NOW + lowest + (highest - lowest) / 2;
            assert!(middle.abs_diff(expected) <= 1, "{attempts} {wish:?}: {middle} is not in the middle");
        }
    }

    #[test]
    fn a_clock_at_the_end_of_time_does_not_overflow() {
        let wish = Some(RetryAfter::Seconds(9));
        assert_eq!(decide(&later(wish), 5, u64::MAX, u64::MAX), Decision::RetryAt(u64::MAX));
    }
}
