//! What is kept on disk about the application's life: the record of its session, and how often in a row it crashed soon
//! after its start.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::application::Ended;
use super::log::Log;
use super::session::{self, Found, Session, Unfinished};
use crate::config::ValidConfig;
use crate::start_ups;

/// Between the first two looks at other sessions' records; each further time twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Looks are given up beyond it: whoever holds a record for so long will tell of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Below it, the monitor of an application that has ended waits for the next look.
const SHORT_PAUSE: Duration = Duration::from_secs(2);

/// The supervisor's view of it.
pub(super) struct Life {
    config: ValidConfig,
    log: Log,
    pid: libc::pid_t,
    session: Option<Session>,
    first: bool,
    /// When the start counts as one that went well; `None` if that changes nothing, or is past.
    well: Option<Instant>,
    /// A crash before is a crash at the start.
    window_ends: Instant,
    crashes: u32,
    /// How it ended was said.
    known: bool,
    /// When other sessions' records are to be looked at again, and the pause until then.
    again: Option<(Instant, Duration)>,
    /// Processes that told of their own end.
    recorded: BTreeSet<libc::pid_t>,
}

impl Life {
    /// Of an application that begins, unless this is not its `first` monitor. Nothing is written before it is said what
    /// [consent](Self::consent_changed) allows.
    pub(super) fn new(config: &ValidConfig, log: Log, pid: libc::pid_t, first: bool) -> Self {
        let window = if first { Duration::from_millis(config.start_up_ms) } else { Duration::ZERO };
        let window_ends = Instant::now() + window;
        let crashes = start_ups::crashes_in_a_row(&config.spool);
        let well = (crashes > 0).then_some(window_ends);
        let config = config.clone();
        Self {
            config,
            log,
            pid,
            session: None,
            first,
            well,
            window_ends,
            crashes,
            known: false,
            again: None,
            recorded: BTreeSet::new(),
        }
    }

    /// Sessions before this one that nobody ended, and that none of the processes in `recorded` was. Some may be
    /// [left for another look](Self::looks_again).
    pub(super) fn unfinished(&mut self, recorded: &[libc::pid_t]) -> Vec<Unfinished> {
        // What a process has recorded is a report, and the record gone, by the time of another look.
        self.recorded.extend(recorded);
        let Found { mut unfinished, undecided } = session::look(&self.config);
        unfinished.retain(|session| !self.recorded.contains(&session.pid));
        let pause = next_pause(self.again.map(|(_, pause)| pause)).filter(|_| undecided);
        self.again = pause.map(|pause| (Instant::now() + pause, pause));
        unfinished
    }

    /// Consent does not let us tell of them any more.
    pub(super) fn look_no_more(&mut self) {
        self.again = None;
    }

    /// When it is time for another look at [unfinished](Self::unfinished) sessions.
    pub(super) fn looks_again(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }

    /// Whether that is so soon that the monitor's end waits for it.
    pub(super) fn looks_again_soon(&self) -> bool {
        self.again.is_some_and(|(_, pause)| pause <= SHORT_PAUSE)
    }

    /// Begins or removes the record. None is begun where there is no spool directory yet: installing writes nothing before
    /// something was granted or stored.
    pub(super) fn consent_changed(&mut self, allowed: bool) {
        if !allowed {
            self.take_back();
            session::forget(&self.config.spool);
            let _ = start_ups::forget(&self.config.spool);
        } else if self.session.is_none() && self.pid > 0 && self.config.spool.is_dir() {
            match Session::begin(&self.config, self.pid) {
                Ok(session) => self.session = Some(session),
                Err(error) => self.log.event("supervisor", "no-session-record", error),
            }
        }
    }

    /// Removes the record: the session's end is told by somebody else.
    pub(super) fn take_back(&mut self) {
        if let Some(session) = self.session.take() {
            session.end();
        }
    }

    /// When [`look`](Self::look) has something to do.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.well
    }

    /// The start went well, if it is time to say so.
    pub(super) fn look(&mut self) {
        if self.well.is_some_and(|well| well <= Instant::now()) {
            self.count(0);
        }
    }

    /// The application has ended. `allowed`: consent lets us note it.
    pub(super) fn ended(&mut self, ended: &Ended, allowed: bool) {
        self.known = true;
        let at_start = Instant::now() < self.window_ends;
        match ended {
            Ended::Reported | Ended::Uncleanly { .. } if at_start => {
                if allowed {
                    self.count(self.crashes.saturating_add(1));
                }
            }
            _ => self.count(0),
        }
    }

    /// Everything about the end is told. One that said good-bye is not waited for.
    pub(super) fn over(&mut self) {
        if !self.known {
            self.ended(&Ended::Cleanly, true);
        }
        match self.session.take() {
            Some(session) => session.end(),
            // The monitor before this one may hold the record, and be stopped.
            None if !self.first => session::told(&self.config),
            None => {}
        }
    }

    fn count(&mut self, crashes: u32) {
        self.well = None;
        if crashes != self.crashes {
            self.crashes = crashes;
            if let Err(error) = start_ups::set_crashes_in_a_row(&self.config.spool, crashes) {
                self.log.event("supervisor", "no-start-up-record", error);
            }
        }
    }
}

fn next_pause(last: Option<Duration>) -> Option<Duration> {
    last.map_or(Some(FIRST_PAUSE), |last| Some(last * 2).filter(|next| *next <= LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_grow_rare_and_end() {
        let pauses: Vec<_> =
            std::iter::successors(next_pause(None), |last| next_pause(Some(*last))).collect();
        assert_eq!((pauses[0], pauses.len()), (FIRST_PAUSE, 10));
        assert!(pauses.iter().sum::<Duration>() < LONGEST_PAUSE * 2);
        let short: Duration = pauses.iter().filter(|pause| **pause <= SHORT_PAUSE).sum();
        assert!(short < SHORT_PAUSE * 2, "{short:?}");
    }
}
