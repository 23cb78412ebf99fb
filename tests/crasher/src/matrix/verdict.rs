//! From what was seen of one victim to what was wrong with it.

use std::fmt;

use super::expected::{Address, Cause, Ending, Level};

/// Beyond the deadline and what the death takes without Cenotaph: a busy machine.
pub(crate) const GRACE_MS: f64 = 500.0;
/// Frames on the crashing thread that make a report usable.
pub(crate) const LEAST_FRAMES: usize = 3;

/// A report that could be opened and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) level: Level,
    /// On the crashing thread, as an independent reader counts them.
    pub(crate) frames: usize,
}

/// The last signal's description, as the kernel or an earlier handler saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) signal: i32,
    pub(crate) code: i32,
    pub(crate) address: u64,
}

/// What was seen of one victim.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// `None` if it had to be ended.
    pub(crate) ending: Option<Ending>,
    /// From just before the death to the end.
    pub(crate) elapsed_ms: Option<f64>,
    /// `None` if nothing could be learnt.
    pub(crate) cause: Option<Seen>,
    /// Each report in the spool, or what is wrong with it.
    pub(crate) reports: Vec<Result<Found, String>>,
    /// What still ran long after the victim's end, and was ended.
    pub(crate) left_running: usize,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Problem {
    Lost,
    Unusable(String),
    Extra(usize),
    WrongEnding(Option<Ending>),
    WrongCause(Seen),
    OverDeadline(f64),
    LeftRunning(usize),
}

/// Compares one victim with what is expected of it; it may take `limit_ms`.
pub(crate) fn judge(
    reports: usize,
    level: Level,
    ending: Ending,
    cause: Option<Cause>,
    limit_ms: f64,
    observed: &Observed,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if observed.reports.len() < reports {
        problems.push(Problem::Lost);
    }
    let unusable = observed.reports.iter().find_map(|report| usable(level, report).err());
    problems.extend(unusable.map(Problem::Unusable));
    if observed.reports.len() > reports {
        problems.push(Problem::Extra(observed.reports.len() - reports));
    }
    problems.extend(judge_end(ending, cause, observed));
    let elapsed = observed.elapsed_ms.unwrap_or(0.0);
    if elapsed > limit_ms + GRACE_MS {
        problems.push(Problem::OverDeadline(elapsed));
    }
    if observed.left_running > 0 {
        problems.push(Problem::LeftRunning(observed.left_running));
    }
    problems
}

/// The part of it that is the same without Cenotaph.
pub(crate) fn judge_end(ending: Ending, cause: Option<Cause>, observed: &Observed) -> Vec<Problem> {
    let mut problems = Vec::new();
    let ended_right = match (ending, observed.ending) {
        (Ending::LivesOn, Some(Ending::Code(0))) => true,
        (expected, Some(ended)) => expected == ended,
        (_, None) => false,
    };
    if !ended_right {
        problems.push(Problem::WrongEnding(observed.ending));
    }
    if let (Some(cause), Some(seen)) = (cause, observed.cause)
        && !is(cause, seen)
    {
        problems.push(Problem::WrongCause(seen));
    }
    problems
}

fn usable(level: Level, report: &Result<Found, String>) -> Result<(), String> {
    let found = report.as_ref().map_err(String::clone)?;
    if found.level < level {
        return Err(format!("{} instead of {level}", found.level));
    }
    if level > Level::NoFrames && found.frames < LEAST_FRAMES {
        return Err(format!("{} frames on the crashing thread", found.frames));
    }
    Ok(())
}

fn is(cause: Cause, seen: Seen) -> bool {
    let address = match cause.address {
        Address::Is(address) => seen.address == address,
        Address::Some => seen.address != 0,
        Address::None => true,
    };
    (cause.signal, cause.code) == (seen.signal, seen.code) && address
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("no report"),
            Self::Unusable(why) => write!(f, "unusable: {why}"),
            Self::Extra(count) => write!(f, "{count} reports too many"),
            Self::WrongEnding(None) => f.write_str("did not end, and was killed"),
            Self::WrongEnding(Some(ending)) => write!(f, "ended by {ending}"),
            Self::WrongCause(Seen { signal, code, address }) => {
                write!(f, "siginfo: signal {signal}, code {code}, address {address:#x}")
            }
            Self::OverDeadline(elapsed) => write!(f, "took {elapsed:.0} ms"),
            Self::LeftRunning(count) => write!(f, "{count} processes of Cenotaph's did not end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGV: Ending = Ending::Signal(libc::SIGSEGV);
    const CAUSE: Cause = Cause { signal: libc::SIGSEGV, code: 1, address: Address::Is(0x10) };

    fn right() -> Observed {
        Observed {
            ending: Some(SEGV),
            elapsed_ms: Some(30.0),
            cause: Some(Seen { signal: libc::SIGSEGV, code: 1, address: 0x10 }),
            reports: vec![Ok(Found { level: Level::Minidump, frames: 12 })],
            left_running: 0,
        }
    }

    fn judged(change: impl FnOnce(&mut Observed)) -> Vec<Problem> {
        let mut observed = right();
        change(&mut observed);
        judge(1, Level::Minidump, SEGV, Some(CAUSE), 1000.0, &observed)
    }

    #[test]
    fn nothing_is_wrong_with_what_is_right() {
        assert_eq!(judged(|_| {}), []);
        assert_eq!(judged(|o| o.cause = None), [], "nothing seen is nothing wrong; it is counted apart");
        assert_eq!(judged(|o| o.elapsed_ms = Some(1499.0)), []);
    }

    #[test]
    fn each_thing_that_can_be_wrong_is_found() {
        let other = Seen { signal: libc::SIGSEGV, code: -6, address: 0x10 };
        let elsewhere = Seen { signal: libc::SIGSEGV, code: 1, address: 0x18 };
        let bad = "damaged".to_owned();
        for (found, wanted) in [
            (judged(|o| o.reports.clear()), Problem::Lost),
            (judged(|o| o.reports = vec![Err(bad.clone())]), Problem::Unusable(bad)),
            (
                judged(|o| o.reports = vec![Ok(Found { level: Level::StackTrace, frames: 12 })]),
                Problem::Unusable("stack-trace instead of minidump".to_owned()),
            ),
            (
                judged(|o| o.reports = vec![Ok(Found { level: Level::Minidump, frames: 2 })]),
                Problem::Unusable("2 frames on the crashing thread".to_owned()),
            ),
            (judged(|o| o.reports.extend(right().reports)), Problem::Extra(1)),
            (judged(|o| o.ending = None), Problem::WrongEnding(None)),
            (judged(|o| o.ending = Some(Ending::Code(1))), Problem::WrongEnding(Some(Ending::Code(1)))),
            (judged(|o| o.cause = Some(other)), Problem::WrongCause(other)),
            (judged(|o| o.cause = Some(elsewhere)), Problem::WrongCause(elsewhere)),
            (judged(|o| o.elapsed_ms = Some(1501.0)), Problem::OverDeadline(1501.0)),
            (judged(|o| o.left_running = 2), Problem::LeftRunning(2)),
        ] {
            assert_eq!(found, [wanted]);
        }
    }

    #[test]
    fn a_death_may_be_worth_two_reports() {
        let mut observed = right();
        let judged = |observed: &Observed| judge(2, Level::Minidump, SEGV, Some(CAUSE), 1000.0, observed);
        assert_eq!(judged(&observed), [Problem::Lost]);
        observed.reports.extend(right().reports);
        assert_eq!(judged(&observed), []);
        observed.reports.extend(right().reports);
        assert_eq!(judged(&observed), [Problem::Extra(1)]);
    }

    #[test]
    fn levels_are_at_least() {
        for (level, frames, expected, is_usable) in [
            (Level::Minidump, 3, Level::StackTrace, true),
            (Level::StackTrace, 3, Level::StackTrace, true),
            (Level::StackTrace, 3, Level::Minidump, false),
            (Level::NoFrames, 0, Level::NoFrames, true),
            (Level::NoFrames, 0, Level::StackTrace, false),
        ] {
            assert_eq!(usable(expected, &Ok(Found { level, frames })).is_ok(), is_usable, "{level}");
        }
    }

    #[test]
    fn living_on_is_a_peaceful_end() {
        let observed = Observed { ending: Some(Ending::Code(0)), cause: None, ..right() };
        assert_eq!(judge(1, Level::Minidump, Ending::LivesOn, None, 1000.0, &observed), []);
        let problems = judge(1, Level::Minidump, Ending::LivesOn, None, 1000.0, &right());
        assert_eq!(problems, [Problem::WrongEnding(Some(SEGV))]);
    }
}
