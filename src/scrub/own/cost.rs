//! What a search for a pattern costs at worst, told from the pattern alone: whoever writes a rule learns of it when it is read, and not
//! by a report that steps down at its deadline.
//!
//! A search takes a step a character while the automaton's sets of states are few enough to be remembered (the table of the lazy
//! automaton in `regex-automata`); else one for each state that is alive, as a simulation does. Whether they are few is told by making them;
//! how many states may be alive, by a text that is drawn up against the pattern, character for character.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use regex_automata::nfa::thompson::{Compiler, NFA, State, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::Hir;

use super::MOST_TABLE;

/// States that are looked at for a pattern, at most: what needs more has too many sets.
const MOST_WORK: usize = 2 << 20;
/// Bytes that the table takes for a set besides its transitions, which have four each, and its states, which have two.
const SET: usize = 64;
/// What a state that is alive costs beside a step of the table.
const ALIVE: usize = 8;
/// What a state costs, and those that lead to it, that is looked at for a group.
const LOOKED_AT: usize = 4;
/// So few are of patterns that never have two states to go on from.
const FEW: usize = 6;
/// Steps a character of a rule, and of all rules of an application, at most.
pub(super) const MOST: usize = 2048;
pub(super) const MOST_OF_ALL: usize = 4 * MOST;

/// Steps a character, at most, of a search for `hir` that finds matches of `least` to `most` characters; none if the pattern is too large.
///
/// A match is known when the longest one that might have been has ended: from one to the next, characters are looked at as
/// many times as the longest match is longer than the shortest.
pub(super) fn of(hir: &Hir, least: usize, most: usize) -> Option<usize> {
    let again = most.div_ceil(least.max(1));
    let alive = [Direction::Forward, Direction::Reverse].into_iter().try_fold(0, |alive, direction| {
        let mut search = Search::new(hir, direction)?;
        Some(if search.fits() { alive } else { search.most_alive(2 * most).compared.max(alive) })
    })?;
    let group = match hir.properties().explicit_captures_len() {
        0 => 0,
        // Where a group is in a match is found out without the table.
        _ => Search::new(hir, Direction::Anchored)?.most_alive(2 * most).looked_at,
    };
    Some(again.saturating_mul(1 + ALIVE * alive).saturating_add(LOOKED_AT * group.saturating_sub(FEW)))
}

/// The states of a set that a character leads to, in the order of their right to match; and the character before, if the pattern asks for it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set {
    states: Vec<StateID>,
    before: Option<u8>,
}

/// Where a search begins, and where to it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Anywhere.
    Forward,
    /// At a match's start.
    Anchored,
    /// At a match's end, for all that end there.
    Reverse,
}

/// States, at most, for a character.
#[derive(Default)]
struct Count {
    /// Of those that were looked at, those that were compared with it.
    compared: usize,
    looked_at: usize,
}

struct Search {
    automaton: NFA,
    /// One byte of each class.
    bytes: Vec<u8>,
    /// Characters from the start, at least, for each state.
    depths: Vec<usize>,
    /// Whether it is a match, for each state, or leads to one without a character.
    ends: Vec<bool>,
    direction: Direction,
    /// For each state when it was last looked at, and when it was last led to.
    looked: Vec<usize>,
    led: Vec<usize>,
    now: usize,
    /// States that were looked at.
    work: usize,
}

impl Search {
    fn new(hir: &Hir, direction: Direction) -> Option<Self> {
        let config = NFA::config()
            .utf8(false)
            .reverse(direction == Direction::Reverse)
            .nfa_size_limit(Some(super::MOST_STATES))
            .which_captures(WhichCaptures::None);
        let automaton = Compiler::new().configure(config).build_from_hir(hir).ok()?;
        let bytes = automaton.byte_classes().representatives(..).filter_map(|unit| unit.as_u8()).collect();
        let none = vec![0; automaton.states().len()];
        let (depths, ends) = (depths(&automaton), ends(&automaton));
        Some(Self {
            automaton,
            bytes,
            depths,
            ends,
            direction,
            looked: none.clone(),
            led: none,
            now: 0,
            work: 0,
        })
    }

    fn start(&self) -> Set {
        let start = match self.direction {
            Direction::Forward => self.automaton.start_unanchored(),
            Direction::Anchored | Direction::Reverse => self.automaton.start_anchored(),
        };
        Set { states: vec![start], before: None }
    }

    /// Where `byte` leads from `set`, and how many states took part.
    fn step(&mut self, set: &Set, byte: u8) -> (Set, Count) {
        let looks = !self.automaton.look_set_any().is_empty();
        let (text, at) = match set.before {
            Some(before) => ([before, byte], 1),
            None => ([byte, byte], 0),
        };
        self.now += 1;
        let (mut next, mut stack, mut count) = (Vec::new(), Vec::new(), Count::default());
        'set: for &start in &set.states {
            stack.push(start);
            while let Some(id) = stack.pop() {
                if std::mem::replace(&mut self.looked[id], self.now) == self.now {
                    continue;
                }
                count.looked_at += 1;
                let state = self.automaton.state(id);
                count.compared += usize::from(!state.is_epsilon());
                let to = match state {
                    State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
                    State::Sparse(sparse) => sparse.matches_byte(byte),
                    State::Dense(dense) => dense.matches_byte(byte),
                    State::Look { look, next } => {
                        if self.automaton.look_matcher().matches(*look, &text, at) {
                            stack.push(*next);
                        }
                        None
                    }
                    State::Union { alternates } => {
                        stack.extend(alternates.iter().rev());
                        None
                    }
                    State::BinaryUnion { alt1, alt2 } => {
                        stack.extend([*alt2, *alt1]);
                        None
                    }
                    State::Capture { next, .. } => {
                        stack.push(*next);
                        None
                    }
                    State::Fail => None,
                    // What has less right to match is given up.
                    State::Match { .. } if self.direction != Direction::Reverse => break 'set,
                    State::Match { .. } => None,
                };
                if let Some(to) = to.filter(|&to| self.led[to] != self.now) {
                    self.led[to] = self.now;
                    next.push(to);
                }
            }
        }
        self.work += count.looked_at;
        (Set { states: next, before: looks.then_some(byte) }, count)
    }

    /// Whether all sets that a text can lead to fit into the table.
    fn fits(&mut self) -> bool {
        let stride = (self.bytes.len() + 1).next_power_of_two();
        let size = |set: &Set| 4 * stride + SET + 2 * set.states.len();
        // A search begins behind a match, too.
        let behind: &[u8] = if self.automaton.look_set_any().is_empty() { &[] } else { &self.bytes };
        let starts = std::iter::once(None).chain(behind.iter().copied().map(Some));
        let mut open: Vec<Set> = starts.map(|before| Set { before, ..self.start() }).collect();
        let mut known: HashSet<Set> = open.iter().cloned().collect();
        // Besides the sets, which states one holds that is being made, twice.
        let mut table = 16 * self.looked.len() + open.iter().map(size).sum::<usize>();
        while let Some(set) = open.pop() {
            for byte in self.bytes.clone() {
                let (next, _) = self.step(&set, byte);
                if self.work > MOST_WORK {
                    return false;
                }
                if !next.states.is_empty() && !known.contains(&next) {
                    table += size(&next);
                    if table > MOST_TABLE {
                        return false;
                    }
                    known.insert(next.clone());
                    open.push(next);
                }
            }
        }
        true
    }

    /// How many states take part for a character, at most, in texts of so many that keep as many of them alive as they can: without a
    /// match, which ends all that have less right to one, or with.
    fn most_alive(&mut self, length: usize) -> Count {
        let (with, without) = (self.most_alive_in(length, false), self.most_alive_in(length, true));
        Count {
            compared: with.compared.max(without.compared),
            looked_at: with.looked_at.max(without.looked_at),
        }
    }

    fn most_alive_in(&mut self, length: usize, unmatched: bool) -> Count {
        let limit = self.work.saturating_add(4 * MOST_WORK);
        let (mut set, mut most) = (self.start(), Count::default());
        for _ in 0..length {
            let mut best: Option<((bool, usize, usize), Set)> = None;
            for byte in self.bytes.clone() {
                let (next, count) = self.step(&set, byte);
                most.compared = most.compared.max(count.compared);
                most.looked_at = most.looked_at.max(count.looked_at);
                let of = |id: &StateID| self.depths.get(id.as_usize()).copied().unwrap_or(0);
                let ends = next.states.iter().any(|&id| self.ends[id]);
                let rank = (!(ends && unmatched), next.states.len(), next.states.iter().map(of).sum());
                if best.as_ref().is_none_or(|(least, _)| rank > *least) {
                    best = Some((rank, next));
                }
            }
            // It is refused whatever follows.
            if most.compared > MOST / ALIVE {
                return most;
            }
            if self.work > limit {
                let all = self.looked.len();
                return Count { compared: all, looked_at: all };
            }
            match best {
                Some((_, next)) if !next.states.is_empty() => set = next,
                _ => set = self.start(),
            }
        }
        most
    }
}

/// The states that a match is reached from without a character, wherever that may be.
fn ends(automaton: &NFA) -> Vec<bool> {
    let mut ends = vec![false; automaton.states().len()];
    // In few rounds, as the compiler has states lead to earlier ones mostly; in as many as there are at most.
    loop {
        let mut found = false;
        for at in 0..ends.len() {
            let end = !ends[at]
                && match &automaton.states()[at] {
                    State::Match { .. } => true,
                    State::Look { next, .. } | State::Capture { next, .. } => ends[*next],
                    State::Union { alternates } => alternates.iter().any(|&to| ends[to]),
                    State::BinaryUnion { alt1, alt2 } => ends[*alt1] || ends[*alt2],
                    State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Fail => false,
                };
            found |= end;
            ends[at] |= end;
        }
        if !found {
            return ends;
        }
    }
}

/// Characters from the start to each state, at least.
fn depths(automaton: &NFA) -> Vec<usize> {
    let mut depths = vec![usize::MAX; automaton.states().len()];
    let (mut level, mut depth) = (vec![automaton.start_anchored()], 0);
    while !level.is_empty() {
        let mut next = Vec::new();
        while let Some(id) = level.pop() {
            if depths[id] != usize::MAX {
                continue;
            }
            depths[id] = depth;
            match automaton.state(id) {
                State::ByteRange { trans } => next.push(trans.next),
                State::Sparse(sparse) => next.extend(sparse.transitions.iter().map(|trans| trans.next)),
                State::Dense(dense) => next.extend(dense.transitions.iter().copied()),
                State::Look { next, .. } | State::Capture { next, .. } => level.push(*next),
                State::Union { alternates } => level.extend(alternates.iter().copied()),
                State::BinaryUnion { alt1, alt2 } => level.extend([*alt1, *alt2]),
                State::Fail | State::Match { .. } => {}
            }
        }
        (level, depth) = (next, depth + 1);
    }
    depths.iter().map(|&depth| if depth == usize::MAX { 0 } else { depth }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(pattern: &str) -> usize {
        let hir = super::super::parse(pattern).unwrap();
        let length = hir.properties();
        of(&hir, length.minimum_len().unwrap(), length.maximum_len().unwrap()).unwrap()
    }

    #[test]
    fn patterns_of_rules_cost_little() {
        for (pattern, most) in [
            ("PLR-([0-9]{8,16})", 2),
            (r"\b[0-9]{16}\b", 1),
            (r"EMP-\d{6}", 1),
            ("^b player$", 1),
            ("[a-z0-9]{12}", 1),
            ("[a-z]{3,400}[0-9]", 101),
            ("(?:a{0,100}){0,4}bcd", 135),
            ("(?s).{3,512}", 171),
            ("abc(?:[a-z]{500}Z)?", 168),
            (r"[A-Z]{2}\d{6,10}[A-Z]?", 2),
            (r"\w{1,20}-\w{1,20}", 14),
            (r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", 1),
            (r"(?i)(?:account|kunde|client)[\s:=#]{1,5}([A-Z0-9-]{5,30})", 4),
            (r#""user": ?"([^"]{1,64})""#, 8),
            (r"<name>[^<]{1,100}</name>", 9),
            (r"[a-z]{1,30}\.[a-z]{1,30}@[a-z]{1,30}\.example", 8),
            (r"\d{1,3}(?:,\d{3}){1,4}", 4),
            ("[ab]{20}a[ab]{30}c", MOST),
            ("name: .{1,60};", MOST),
            ("(?i)customer.{0,40}([0-9]{6,10})", MOST),
            (r"[\w .]{3,64}@corp", MOST),
        ] {
            let cost = cost(pattern);
            assert!(cost <= most, "{pattern}: {cost}");
        }
    }

    #[test]
    fn the_costs_on_the_page_about_rules_are_those() {
        let page = include_str!("../../../docs/rules.md");
        let mut rows = 0;
        for row in page.lines().filter(|row| row.ends_with(" steps |")) {
            let [pattern, steps] = row.split(" | ").collect::<Vec<_>>()[..] else { panic!("{row}") };
            let steps = steps.trim_end_matches(" steps |").parse::<usize>().unwrap();
            assert_eq!(cost(pattern.trim_start_matches("| ").trim_matches('`')), steps, "{row}");
            rows += 1;
        }
        assert!(rows >= 7, "{rows}");
    }

    #[test]
    fn what_keeps_many_states_alive_costs_much() {
        for pattern in [
            "[a-z].{1,250}[b-z].{1,250}~",
            "[a-z].{250}[b-z].{250}~",
            "~.{1,250}[b-z].{1,250}[a-z]",
            "(?:x[^y]{0,200}y|z[^w]{0,200}w)[0-9]{3}",
            "[ab]{1,200}a[ab]{200}Z",
            "(?:[a-z]{500}Z)?abc",
            "abc(?:[a-z].{1,70}[b-z].{1,70}~)?",
            r"\b[\w .]{3,64}@corp",
            "(?:a{0,100}){0,4}b(cd)",
        ] {
            let cost = cost(pattern);
            assert!(cost > MOST, "{pattern}: {cost}");
        }
    }

    #[test]
    fn states_that_are_alive_are_counted() {
        let most = |pattern: &str| {
            let mut search = Search::new(&super::super::parse(pattern).unwrap(), Direction::Forward).unwrap();
            search.most_alive(1024).compared
        };
        // Two for each place that one may have been begun at.
        for (pattern, least, up_to) in
            [("abcdef", 3, 6), ("[a-z]{100}Z", 100, 210), ("abc(?:[a-z].{1,70}[b-z].{1,70}~)?", 70, 90)]
        {
            let most = most(pattern);
            assert!((least..up_to).contains(&most), "{pattern}: {most}");
        }
    }
}
