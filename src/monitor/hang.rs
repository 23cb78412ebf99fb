//! Watched threads, as the supervisor sees them: looked at only while there are any.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::blackbox::Watched;

/// A thread is looked at so often within its limit.
const LOOKS: u32 = 4;
/// A shorter pause between two looks makes no sense.
const SHORTEST: Duration = Duration::from_millis(5);

/// A thread that has been silent for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hung {
    /// Its id in the application's pid namespace.
    pub(super) thread: u32,
    /// Its limit.
    pub(super) limit_ms: u64,
}

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Hangs {
    seen: Vec<Seen>,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    watched: Watched,
    /// How long it has been silent while both it and we could run.
    silent: Duration,
    /// Once a hang.
    reported: bool,
}

impl Hangs {
    /// When to look again; `None` while nothing is watched.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let pause = self.seen.iter().map(|seen| pause(&seen.watched)).min()?;
        Some(self.last? + pause)
    }

    /// Looks. `is_stopped` says whether the application stands still by job control or in a debugger, which is no hang.
    pub(super) fn look(
        &mut self,
        watched: Vec<Watched>,
        now: Instant,
        is_stopped: impl FnOnce() -> bool,
    ) -> Vec<Hung> {
        let passed = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        let before = std::mem::take(&mut self.seen);
        self.seen = watched
            .into_iter()
            .map(|watched| match before.iter().find(|seen| seen.watched == watched) {
                // We may have slept longer than we wanted, because the whole machine stood still: then the thread could
                // not beat.
                Some(seen) => {
                    let silent = seen.silent + passed.min(pause(&watched) * 2);
                    Seen { watched, silent, reported: seen.reported }
                }
                None => Seen { watched, silent: Duration::ZERO, reported: false },
            })
            .collect();
        let is_late = |seen: &Seen| !seen.reported && seen.silent >= limit(&seen.watched);
        if !self.seen.iter().any(is_late) {
            return Vec::new();
        }
        if is_stopped() {
            self.seen.iter_mut().for_each(|seen| seen.silent = Duration::ZERO);
            return Vec::new();
        }
        let late = self.seen.iter_mut().filter(|seen| is_late(seen));
        late.map(|seen| {
            seen.reported = true;
            Hung { thread: seen.watched.thread(), limit_ms: seen.watched.limit_ms }
        })
        .collect()
    }
}

fn limit(watched: &Watched) -> Duration {
    Duration::from_millis(watched.limit_ms)
}

fn pause(watched: &Watched) -> Duration {
    (limit(watched) / LOOKS).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(beats: u64) -> Watched {
        Watched { slot: 0, who: 1 << 32 | 7, limit_ms: 100, beats }
    }

    #[test]
    fn a_silent_thread_is_told_once_until_it_beats_again() {
        let start = Instant::now();
        let mut hangs = Hangs::default();
        let mut at = 0;
        let mut look = |passed: u64, beats: u64, stopped: bool| {
            at += passed;
            hangs.look(vec![watched(beats)], start + Duration::from_millis(at), || stopped).len()
        };
        assert_eq!(look(0, 0, false), 0);
        assert_eq!([25, 25, 25].map(|passed| look(passed, 0, false)), [0, 0, 0]);
        assert_eq!(look(25, 0, false), 1);
        assert_eq!(look(25, 0, false), 0, "once");
        assert_eq!(look(25, 1, false), 0, "it lives");
        assert_eq!([25, 25, 25, 25].map(|passed| look(passed, 1, false)), [0, 0, 0, 1]);
        // The machine slept: that counts as two looks.
        assert_eq!(look(25, 2, false), 0);
        assert_eq!(look(3_600_000, 2, false), 0);
        assert_eq!(look(50, 2, true), 0, "stopped by a debugger");
        assert_eq!(look(50, 2, false), 0);
        assert_eq!(look(50, 2, false), 1);
    }

    #[test]
    fn sleeps_for_ever_while_nothing_is_watched() {
        let start = Instant::now();
        let mut hangs = Hangs::default();
        assert_eq!(hangs.next_time(), None);
        hangs.look(vec![watched(0)], start, || false);
        assert_eq!(hangs.next_time(), Some(start + Duration::from_millis(25)));
        hangs.look(Vec::new(), start, || false);
        assert_eq!(hangs.next_time(), None);
    }

    #[test]
    fn another_watch_in_the_same_slot_begins_anew() {
        let start = Instant::now();
        let mut hangs = Hangs::default();
        hangs.look(vec![watched(0)], start, || false);
        for (step, who) in [(1, 1u64), (2, 2), (3, 2)] {
            let watched = Watched { who: who << 32 | 7, ..watched(0) };
            assert_eq!(hangs.look(vec![watched], start + Duration::from_millis(50 * step), || false), []);
        }
    }
}
