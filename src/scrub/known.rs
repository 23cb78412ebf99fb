//! Values that are known to be personal, wherever they stand.
#![forbid(unsafe_code)]

mod bounds;
mod copies;
mod search;

use std::ops::Range;

use self::bounds::{Bounds, Needle, is_delimiter};
use self::search::{Automaton, overlap};
use super::edit::{Encoding, Finding};
use super::own::OwnRules;
use super::rules::{self, Hit, Starts};
use super::runs::{self, Run};
use super::trigrams::Trigrams;
use crate::error::{Error, Result};

/// The rule's name in receipts.
const RULE: &str = "known-value";
/// The rule of [`Known::copies`].
pub(super) const COPIES: &str = "environment-value";

/// Most values of one policy.
const MOST: usize = 1024;
/// Longest value, in bytes of UTF-8.
const LONGEST: usize = 4096;
/// Known values in all encodings, compiled.
#[derive(Debug, Clone)]
pub(super) struct Known {
    rule: &'static str,
    /// Every value in UTF-8, for lines of one byte a character.
    lines: Option<Automaton>,
    /// For each of its patterns.
    bounds: Vec<Bounds>,
    /// What every value begins with.
    begins: Trigrams,
    /// The same, and what rules begin with.
    looked_for: Trigrams,
    /// Values that runs of ASCII do not hold whole, in every encoding, for memory as it is.
    automaton: Option<Automaton>,
    /// For each of its patterns.
    needles: Vec<Needle>,
    /// Values with white space or quotes: those of which a cut-off token is not all that is left.
    phrases: Vec<Vec<u8>>,
    /// All values.
    values: Vec<Vec<u8>>,
    /// The application's own rules, which are sought wherever its values are.
    own: OwnRules,
    /// See [`Known::shortest_run`].
    shortest: usize,
    /// See [`Known::shortest_value`].
    shortest_value: usize,
    /// See [`Known::has_foreign`].
    foreign: bool,
}

impl Known {
    /// Compiles `values`. Those without a letter or digit are ignored.
    ///
    /// # Errors
    /// [`Error::Limit`] for too many or too long values.
    pub(super) fn new(values: &[String]) -> Result<Self> {
        if values.len() > MOST {
            return Err(Error::Limit { what: "the number of known values", limit: MOST });
        }
        let (mut patterns, mut needles, mut phrases) = (Vec::new(), Vec::new(), Vec::new());
        let (mut texts, mut all_bounds, mut begins) = (Vec::new(), Vec::new(), Trigrams::new());
        let mut values: Vec<&str> = values.iter().map(|value| value.trim()).collect();
        values.sort_unstable();
        values.dedup();
        for &value in &values {
            if value.len() > LONGEST {
                return Err(Error::Limit { what: "the length of a known value", limit: LONGEST });
            }
            if !value.chars().any(char::is_alphanumeric) {
                continue;
            }
            let bounds = Bounds::of(value.as_bytes());
            texts.push(value.as_bytes());
            all_bounds.push(bounds);
            begins.insert(value.as_bytes());
            // Runs of wide text are found by their ASCII characters, and short ones by three of them.
            if value.len() < runs::LEAST - 1 || !value.bytes().all(runs::is_text) {
                for encoding in ENCODINGS {
                    patterns.push(encode(value, encoding));
                    needles.push(Needle { encoding, bounds });
                }
            }
            if value.bytes().any(is_delimiter) {
                phrases.push(value.as_bytes().to_vec());
            }
        }
        let in_runs = texts.iter().filter(|value| value.iter().copied().all(runs::is_text));
        let shortest = in_runs.map(|value| value.len()).min().unwrap_or(runs::SHORTEST);
        let shortest = shortest.clamp(runs::LEAST, runs::SHORTEST);
        let shortest_value = texts.iter().map(|value| value.len()).min().unwrap_or(usize::MAX);
        let foreign = texts.iter().any(|value| !value.is_ascii());
        let automaton = compile(&patterns)?;
        let lines = compile(&texts)?;
        let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        let mut looked_for = begins.clone();
        looked_for.unite(rules::begins());
        Ok(Self {
            rule: RULE,
            lines,
            bounds: all_bounds,
            begins,
            looked_for,
            automaton,
            needles,
            phrases,
            values,
            own: OwnRules::default(),
            shortest,
            shortest_value,
            foreign,
        })
    }

    /// The same values, and own rules with them.
    pub(super) fn with(self, own: OwnRules) -> Self {
        Self { own, ..self }
    }

    /// What own rules find in a line of one byte a character.
    pub(super) fn find_own(&self, line: &[u8], hits: &mut Vec<Hit>) {
        if !self.own.is_empty() {
            self.own.find(line, hits);
        }
    }

    /// Whether there is no value to find.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The shortest run that may hold a value: [`runs::LEAST`] to [`runs::SHORTEST`].
    pub(super) fn shortest_run(&self) -> usize {
        self.shortest
    }

    /// Bytes of the shortest value, in UTF-8; without any, the most.
    pub(super) fn shortest_value(&self) -> usize {
        self.shortest_value
    }

    /// Whether there is a value that is not all ASCII.
    pub(super) fn has_foreign(&self) -> bool {
        self.foreign
    }

    /// Every occurrence in `bytes`. Overlapping ones of one encoding are given as one.
    pub(super) fn find(&self, bytes: &[u8], found: &mut Vec<Finding>) {
        if self.is_empty() {
            return;
        }
        let mut looked = rules::Line::default();
        runs::scan(bytes, self.shortest, &mut runs::Scratch::default(), |run, line| {
            looked.look(line, &self.looked_for);
            self.find_in_run(run, line, &looked.starts, bytes, found);
        });
        self.find_raw(bytes, found);
    }

    /// What these values and rules begin with: for [`rules::Line::look`].
    pub(super) fn looked_for(&self) -> &Trigrams {
        &self.looked_for
    }

    /// Every occurrence in a run of `bytes`, whose text is `line`; `starts` are where a value may begin.
    pub(super) fn find_in_run(
        &self,
        run: &Run,
        line: &[u8],
        starts: &Starts,
        bytes: &[u8],
        found: &mut Vec<Finding>,
    ) {
        self.find_in_line(line, starts, |chars| {
            let finding = |run: &Run| Finding {
                range: run.bytes(&chars, bytes),
                encoding: run.encoding,
                rule: self.rule,
            };
            found.push(finding(run));
            found.extend(run.twin(bytes).map(|twin| finding(&twin)));
        });
    }

    /// Every occurrence in a line of one byte a character; overlapping ones as one.
    /// `starts` are where one may begin.
    pub(super) fn find_in_line(&self, line: &[u8], starts: &Starts, mut found: impl FnMut(Range<usize>)) {
        let Some(automaton) = &self.lines else { return };
        // A single character begins everywhere.
        let may_begin = |start| self.begins.begins(line, start);
        if self.shortest_value > 1 && !starts.iter().any(may_begin) {
            return;
        }
        let utf8 = Encoding::Utf8;
        let mut last: Option<Range<usize>> = None;
        automaton.longest(line, |pattern, range| {
            let is_value = Needle { encoding: utf8, bounds: self.bounds[pattern] }.may_stand(line, &range);
            if is_value {
                // They come in the order of their ends.
                last = Some(match last.take() {
                    Some(open) if open.end >= range.start => open.start.min(range.start)..range.end,
                    Some(open) => {
                        found(open);
                        range
                    }
                    None => range,
                });
            }
            is_value
        });
        if let Some(open) = last {
            found(open);
        }
    }

    /// Every occurrence in `bytes` of the values that are found in no run.
    pub(super) fn find_raw(&self, bytes: &[u8], found: &mut Vec<Finding>) {
        if self.automaton.is_some() {
            for part in non_zero_parts(bytes) {
                self.find_in(bytes, part, found);
            }
        }
    }

    /// The rule that its findings are of.
    pub(super) fn rule(&self) -> &'static str {
        self.rule
    }

    fn find_in(&self, bytes: &[u8], part: Range<usize>, found: &mut Vec<Finding>) {
        let Some(automaton) = &self.automaton else { return };
        let first = found.len();
        automaton.longest(&bytes[part.clone()], |pattern, range| {
            let needle = self.needles[pattern];
            let mut range = part.start + range.start..part.start + range.end;
            if !needle.may_stand(bytes, &range) {
                return false;
            }
            // They come in the order of their ends, so those that overlap this one are the last ones.
            while let Some(last) = found[first..].last()
                && last.encoding == needle.encoding
                && last.range.end >= range.start
                && (range.start.abs_diff(last.range.start)).is_multiple_of(needle.encoding.stride())
            {
                range = range.start.min(last.range.start)..range.end.max(last.range.end);
                found.pop();
            }
            found.push(Finding { range, encoding: needle.encoding, rule: self.rule });
            true
        });
    }

    /// Whether some four characters in a row of `name` begin a value that goes on to the end of `name`.
    pub(super) fn begins_with(&self, name: &[u8]) -> bool {
        (0..name.len().saturating_sub(3)).any(|start| {
            let rest = &name[start..];
            self.values.iter().any(|value| {
                let shared = rest.len().min(value.len());
                shared >= 4
                    && Bounds::of(value) == Bounds::None
                    && rest[..shared].eq_ignore_ascii_case(&value[..shared])
            })
        })
    }

    /// Where a value begins in `line` that its end cuts off; the line's length if none does. Only for values with
    /// white space or quotes in them.
    pub(super) fn cut_at_end(&self, line: &[u8]) -> usize {
        line.len() - self.phrases.iter().map(|value| overlap(line, value)).max().unwrap_or(0)
    }

    /// Where a value ends in `line` that its start cuts off; 0 if none does.
    pub(super) fn cut_at_start(&self, line: &[u8]) -> usize {
        self.phrases.iter().map(|value| overlap(value, line)).max().unwrap_or(0)
    }
}

const ENCODINGS: [Encoding; 5] =
    [Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be, Encoding::Utf32Le, Encoding::Utf32Be];

fn compile<P: AsRef<[u8]>>(patterns: &[P]) -> Result<Option<Automaton>> {
    let what = "the size of all known values";
    Automaton::new(patterns).map_err(|_| Error::Limit { what, limit: MOST * LONGEST })
}

fn encode(value: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Utf8 => value.as_bytes().to_vec(),
        Encoding::Utf16Le => value.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Encoding::Utf16Be => value.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        Encoding::Utf32Le => value.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
        Encoding::Utf32Be => value.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
    }
}

/// The parts of `bytes` between long series of zeros, which no value holds (an encoded character has at most 3 zeros at
/// either side). Most of a stack is zeros, and an automaton takes them one by one.
fn non_zero_parts(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    const GAP: usize = 32;
    let mut at = 0;
    std::iter::from_fn(move || {
        while bytes.get(at..at + GAP).is_some_and(|block| block.iter().all(|&byte| byte == 0)) {
            at += GAP;
        }
        if at >= bytes.len() {
            return None;
        }
        let start = at;
        while at < bytes.len()
            && !bytes.get(at..at + GAP).is_some_and(|block| block.iter().all(|&byte| byte == 0))
        {
            at += GAP;
        }
        at = at.min(bytes.len());
        // Neighbouring zeros belong to the first character of a big-endian value.
        Some(start.saturating_sub(3)..at.saturating_add(3).min(bytes.len()))
    })
}

#[cfg(test)]
mod tests;
