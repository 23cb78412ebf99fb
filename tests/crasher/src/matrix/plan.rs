//! Which cases there are, how often each is run, and in which order.

use super::expected::{Ending, Expected, Level, expected};
use super::options::Options;
use super::table::Tally;
use crate::lockdown::{self, Lockdown};
use crate::monitor_state::State;
use crate::ways::Way;

const REPEAT: usize = 200;
const REPEAT_LOCKED: usize = 20;
const DEADLINE_MS: u64 = 10_000;
const DEADLINE_STOPPED_MS: u64 = 1000;
/// In every victim; an application has threads.
const THREADS: usize = 16;
/// Where a worker is to be caught while it is attached: attaching takes long enough then to be seen.
const THREADS_ATTACHED: usize = 512;
const LOCKED_WAYS: [&str; 3] = ["null", "abort", "stack-overflow-thread"];
const LOCKED_STATES: [State; 2] = [State::Alive, State::Killed];

/// A case: a row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    pub(crate) way: Way,
    pub(crate) state: State,
    pub(crate) lockdown: Option<Lockdown>,
    pub(crate) expected: Expected,
    /// How often it is run: 0 if it is not applicable.
    pub(crate) repeat: usize,
    pub(crate) deadline_ms: u64,
    pub(crate) threads: usize,
    /// What the death takes without Cenotaph; measured.
    pub(crate) own_ms: f64,
    /// How a lock-down is made where this machine does not have it.
    pub(crate) label: Option<&'static str>,
}

/// All cases that were asked for. A way that nothing is expected of is a mistake in the table, and shows as one.
pub(crate) fn cases(options: &Options) -> Vec<Case> {
    let ways = || {
        Way::ALL.into_iter().filter(|way| *way != Way::None).filter(|way| match &options.only {
            Some(only) => only.contains(way),
            None => true,
        })
    };
    let mut cases = Vec::new();
    for way in ways() {
        cases.extend(options.states.iter().map(|state| case(options, way, *state, None)));
    }
    for &lockdown in &options.lockdowns {
        for way in ways().filter(|way| options.only.is_some() || LOCKED_WAYS.contains(&way.name())) {
            cases.extend(LOCKED_STATES.map(|state| case(options, way, state, Some(lockdown))));
        }
    }
    cases
}

/// Every run that is still to be made as the index of its case, in an order that depends on these and the seed alone.
pub(crate) fn runs(cases: &[Case], made: &[Tally], seed: u64) -> Vec<usize> {
    let left = |(case, tally): (&Case, &Tally)| case.repeat.saturating_sub(tally.runs);
    let left = cases.iter().zip(made).map(left);
    let mut runs: Vec<usize> =
        left.enumerate().flat_map(|(index, left)| std::iter::repeat_n(index, left)).collect();
    let mut state = seed;
    for last in (1..runs.len()).rev() {
        let other = (split_mix(&mut state) % (last as u64 + 1)) as usize;
        runs.swap(last, other);
    }
    runs
}

fn case(options: &Options, way: Way, state: State, lockdown: Option<Lockdown>) -> Case {
    let unknown =
        Expected::Report { reports: 1, level: Level::Minidump, ending: Ending::LivesOn, cause: None };
    let mut expected = expected(way.name(), state, lockdown).unwrap_or(unknown);
    let mut label = None;
    match lockdown.map(lockdown::possible) {
        Some(Err(why)) => expected = Expected::NotApplicable(why),
        Some(Ok(how)) => label = how,
        None => {}
    }
    let default_repeat = if lockdown.is_some() { REPEAT_LOCKED } else { REPEAT };
    let is_applicable = !matches!(expected, Expected::NotApplicable(_));
    let is_stopped = matches!(state, State::Stopped | State::StoppedAttached);
    Case {
        way,
        state,
        lockdown,
        expected,
        repeat: if is_applicable { options.repeat.unwrap_or(default_repeat) } else { 0 },
        deadline_ms: options.deadline_ms.unwrap_or(if is_stopped {
            DEADLINE_STOPPED_MS
        } else {
            DEADLINE_MS
        }),
        threads: if state.is_attached() { THREADS_ATTACHED } else { THREADS },
        own_ms: 0.0,
        label,
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cases_are_there_once() {
        let cases = cases(&Options::default());
        let unlocked = cases.iter().filter(|case| case.lockdown.is_none()).count();
        assert_eq!(unlocked, (Way::ALL.len() - 1) * State::ALL.len());
        assert_eq!(cases.len() - unlocked, Lockdown::ALL.len() * 3 * 2);
        for case in &cases {
            let applicable = !matches!(case.expected, Expected::NotApplicable(_));
            let repeat = if case.lockdown.is_some() { 20 } else { 200 };
            assert_eq!(case.repeat, if applicable { repeat } else { 0 });
        }
        let stopped = cases.iter().find(|case| case.state == State::Stopped).unwrap();
        assert_eq!(stopped.deadline_ms, 1000);
    }

    #[test]
    fn options_select() {
        let options = Options {
            only: Some(vec![Way::Fpe]),
            states: vec![State::Alive],
            lockdowns: vec![Lockdown::Nnp],
            repeat: Some(3),
            deadline_ms: Some(77),
            ..Options::default()
        };
        let cases = cases(&options);
        assert_eq!(cases.len(), 3);
        assert!(cases.iter().all(|case| case.repeat == 3 && case.deadline_ms == 77));
    }

    #[test]
    fn the_order_is_the_seeds() {
        let cases = cases(&Options { repeat: Some(2), lockdowns: Vec::new(), ..Options::default() });
        let none = vec![Tally::default(); cases.len()];
        let runs = |seed| runs(&cases, &none, seed);
        let (one, same, other) = (runs(1), runs(1), runs(2));
        assert_eq!(one, same);
        assert_ne!(one, other);
        let mut sorted = one.clone();
        sorted.sort_unstable();
        let mut expected = runs(3);
        expected.sort_unstable();
        assert_eq!(sorted, expected);
    }
}
