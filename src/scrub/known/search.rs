//! Searching for many values at once, in time that does not depend on how they overlap.
#![forbid(unsafe_code)]

use std::ops::Range;

use aho_corasick::automaton::StateID;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, BuildError, MatchKind, dfa};

/// Bytes of all patterns up to which a table is made: the fastest way, if it does not become too large.
const TABLE: usize = 1 << 14;

/// Patterns, without regard to the case of ASCII letters.
#[derive(Debug, Clone)]
pub(super) enum Automaton {
    /// A row for each state.
    Table(dfa::DFA),
    /// What is the same in many states is kept once.
    Linked(NFA),
}

impl Automaton {
    /// Of no patterns there is none.
    pub(super) fn new<P: AsRef<[u8]>>(patterns: &[P]) -> Result<Option<Self>, BuildError> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let small = patterns.iter().map(|pattern| pattern.as_ref().len()).sum::<usize>() < TABLE;
        let standard = MatchKind::Standard;
        let built = match small {
            true => Self::Table(
                dfa::Builder::new().match_kind(standard).ascii_case_insensitive(true).build(patterns)?,
            ),
            false => {
                let mut builder = NFA::builder();
                Self::Linked(builder.match_kind(standard).ascii_case_insensitive(true).build(patterns)?)
            }
        };
        Ok(Some(built))
    }

    /// For each place where patterns end, these and where they stand, from the longest on, until `takes` takes one: those that
    /// end in the same place lie within it. Values that are nested a thousandfold cost no more than one does.
    pub(super) fn longest(&self, bytes: &[u8], takes: impl FnMut(usize, Range<usize>) -> bool) {
        match self {
            Self::Table(table) => longest(table, bytes, takes),
            Self::Linked(linked) => longest(linked, bytes, takes),
        }
    }
}

fn longest<A: aho_corasick::automaton::Automaton>(
    automaton: &A,
    bytes: &[u8],
    mut takes: impl FnMut(usize, Range<usize>) -> bool,
) {
    // It is built for searches that begin anywhere.
    let Ok(mut state) = automaton.start_state(Anchored::No) else { return };
    for (at, &byte) in bytes.iter().enumerate() {
        state = automaton.next_state(Anchored::No, state, byte);
        if automaton.is_special(state) && automaton.is_match(state) {
            ending(automaton, state)
                .take_while(|&(pattern, length)| !takes(pattern, at + 1 - length..at + 1))
                .for_each(drop);
        }
    }
}

/// Pattern and length of what ends in a state. A state has its own pattern first, then those of the state that it falls back
/// to, which is of a shorter text.
fn ending<A: aho_corasick::automaton::Automaton>(
    automaton: &A,
    state: StateID,
) -> impl Iterator<Item = (usize, usize)> {
    (0..automaton.match_len(state)).map(move |index| {
        let pattern = automaton.match_pattern(state, index);
        (pattern.as_usize(), automaton.pattern_len(pattern))
    })
}

/// How many bytes at the end of `left` are the first ones of `right`, without regard to the case of ASCII letters. Linear in the
/// length of `right` (Knuth, Morris, Pratt, "Fast Pattern Matching in Strings", 1977).
pub(super) fn overlap(left: &[u8], right: &[u8]) -> usize {
    let right = &right[..right.len().min(left.len())];
    let left = &left[left.len() - right.len()..];
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b);
    // For each length of a beginning of `right`: the longest shorter one that it ends in.
    let mut shorter = vec![0_usize; right.len() + 1];
    let step = |shorter: &[usize], mut length: usize, byte: u8| {
        while length > 0 && (length == right.len() || !same(right[length], byte)) {
            length = shorter[length];
        }
        if right.get(length).is_some_and(|&next| same(next, byte)) { length + 1 } else { 0 }
    };
    for at in 1..right.len() {
        shorter[at + 1] = step(&shorter, shorter[at], right[at]);
    }
    left.iter().fold(0, |length, &byte| step(&shorter, length, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of few letters, of which there is a lot in each other.
    fn random(state: &mut u64, least: usize, most: usize) -> Vec<u8> {
        let mut next = || {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *state as usize
        };
        let length = least + next() % (most - least + 1);
        (0..length).map(|_| b"abAB"[next() % 4]).collect()
    }

    #[test]
    fn the_longest_come_first_and_all_of_them() {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for round in 0..400 {
            let mut patterns: Vec<Vec<u8>> = (0..12).map(|_| random(&mut state, 1, 9)).collect();
            if round % 2 == 1 {
                // Too many for a table.
                patterns.push(vec![b'x'; TABLE]);
            }
            let automaton = Automaton::new(&patterns).unwrap().unwrap();
            assert_eq!(matches!(automaton, Automaton::Table(_)), round % 2 == 0);
            let text = random(&mut state, 20, 40);
            let (mut found, mut first) = (Vec::new(), Vec::new());
            automaton.longest(&text, |pattern, range| {
                found.push((range.end, range.len(), pattern));
                false
            });
            automaton.longest(&text, |_, range| {
                first.push(range);
                true
            });
            let lengths: Vec<(usize, usize)> =
                found.windows(2).filter(|two| two[0].0 == two[1].0).map(|two| (two[0].1, two[1].1)).collect();
            assert!(lengths.iter().all(|(before, after)| before >= after), "{lengths:?}");
            let mut expected = Vec::new();
            for (index, pattern) in patterns.iter().enumerate() {
                for at in 0..(text.len() + 1).saturating_sub(pattern.len()) {
                    if text[at..at + pattern.len()].eq_ignore_ascii_case(pattern) {
                        expected.push((at + pattern.len(), pattern.len(), index));
                    }
                }
            }
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
            for range in &first {
                let longest =
                    expected.iter().filter(|(end, ..)| *end == range.end).map(|(_, length, _)| *length).max();
                assert_eq!(longest, Some(range.len()));
            }
        }
        assert!(Automaton::new::<Vec<u8>>(&[]).unwrap().is_none());
    }

    #[test]
    fn overlaps_are_the_longest_ones() {
        let mut state = 0x2545_f491_4f6c_dd1d;
        for _ in 0..4000 {
            let (left, right) = (random(&mut state, 0, 12), random(&mut state, 0, 12));
            let naive = (0..=left.len().min(right.len()))
                .rev()
                .find(|&length| left[left.len() - length..].eq_ignore_ascii_case(&right[..length]));
            assert_eq!(Some(overlap(&left, &right)), naive, "{left:?} {right:?}");
        }
        assert_eq!(overlap(b"call Jane Q", b"jane q. public"), 6);
        assert_eq!(overlap(&[b'a'; 1 << 20], &[b'a'; 1 << 20]), 1 << 20);
    }

    /// A value of the environment may be whatever somebody likes: here each is the end of the next.
    #[test]
    fn nested_values_are_asked_about_once_a_place() {
        let values: Vec<Vec<u8>> = (8..1032).map(|length| vec![b'a'; length]).collect();
        let (mut asked, mut covered) = (0, 0..0);
        Automaton::new(&values).unwrap().unwrap().longest(&vec![b'a'; 100_000], |_, range| {
            asked += 1;
            covered = range.start.min(covered.start)..range.end;
            true
        });
        assert_eq!((asked, covered), (100_000 - 7, 0..100_000));
    }
}
