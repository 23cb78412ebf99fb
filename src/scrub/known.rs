//! Values that are known to be personal, wherever they stand.
#![forbid(unsafe_code)]

mod search;

use std::ops::Range;

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
/// Shorter values match only as a whole path segment or field.
const SHORT: usize = 5;

/// Values that are too common to be matched inside other words.
const COMMON: &[&str] = &[
    "root",
    "user",
    "test",
    "home",
    "host",
    "game",
    "main",
    "admin",
    "administrator",
    "android",
    "build",
    "builder",
    "client",
    "container",
    "daemon",
    "debian",
    "default",
    "desktop",
    "developer",
    "docker",
    "fedora",
    "guest",
    "linux",
    "local",
    "localdomain",
    "localhost",
    "macbook",
    "master",
    "mobile",
    "nobody",
    "phone",
    "player",
    "public",
    "runner",
    "server",
    "service",
    "shared",
    "system",
    "testing",
    "tester",
    "ubuntu",
    "unknown",
    "users",
    "vagrant",
    "windows",
    "worker",
    "/home",
    "/root",
    "/users",
];

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
}

#[derive(Debug, Clone, Copy)]
struct Needle {
    encoding: Encoding,
    bounds: Bounds,
}

/// Where a value may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bounds {
    /// Anywhere.
    None,
    /// Between delimiters or non-text.
    Field,
    /// Between delimiters or non-text; beside white space only if the other side is a separator: "the root cause".
    Word,
    /// Between delimiters or non-text, with a path separator on one side at least: one or two letters are found
    /// everywhere in memory.
    Segment,
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
            let bounds = bounds_of(value.as_bytes());
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
        })
    }

    /// The values of an environment and a command line (both as the kernel keeps them: separated by zero bytes) that may be
    /// secrets: programs copy them into their heap. `None` if there are none.
    ///
    /// # Errors
    /// As [`Known::new`].
    pub(super) fn copies(environment: &[u8], arguments: &[u8]) -> Result<Option<Self>> {
        let variables = environment.split(|&byte| byte == 0).filter_map(|variable| {
            let equals = variable.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (&variable[..equals], &variable[equals + 1..]);
            (!is_harmless_variable(name)).then_some(value)
        });
        let arguments = arguments.split(|&byte| byte == 0).map(|argument| {
            let option = argument.starts_with(b"-");
            let equals = argument.iter().position(|&byte| byte == b'=').filter(|_| option);
            equals.map_or(argument, |equals| &argument[equals + 1..])
        });
        let values = variables.chain(arguments).filter(|value| is_secret_like(value));
        let values: Vec<String> =
            values.filter_map(|value| String::from_utf8(value.to_vec()).ok()).take(MOST).collect();
        if values.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { rule: COPIES, ..Self::new(&values)? }))
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
        if starts.is_empty() || !starts.iter().any(|start| self.begins.begins(line, start)) {
            return;
        }
        let utf8 = Encoding::Utf8;
        let mut last: Option<Range<usize>> = None;
        automaton.longest(line, |pattern, range| {
            let is_value = allowed(line, &range, Needle { encoding: utf8, bounds: self.bounds[pattern] });
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
            if !allowed(bytes, &range, needle) {
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
                    && bounds_of(value) == Bounds::None
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

/// Variables whose values are the same on many machines and mean something to a developer.
fn is_harmless_variable(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"TERM",
        b"COLORTERM",
        b"LANG",
        b"LANGUAGE",
        b"SHELL",
        b"PATH",
        b"TZ",
        b"LS_COLORS",
        b"RUST_LOG",
        b"RUST_BACKTRACE",
        b"LD_LIBRARY_PATH",
        b"LD_PRELOAD",
        b"DESKTOP_SESSION",
    ];
    NAMES.contains(&name) || name.starts_with(b"LC_") || name.starts_with(b"XDG_")
}

/// Long enough, letters and digits, and no path: paths are for the rules, and blanking the directories that a module and
/// a variable share would hide where libraries come from.
fn is_secret_like(value: &[u8]) -> bool {
    (8..=LONGEST).contains(&value.len())
        && !value.starts_with(b"/")
        && value.iter().any(u8::is_ascii_digit)
        && value.iter().any(u8::is_ascii_alphabetic)
}

fn bounds_of(value: &[u8]) -> Bounds {
    if value.len() < SHORT - 2 {
        Bounds::Segment
    } else if COMMON.iter().any(|common| value.eq_ignore_ascii_case(common.as_bytes())) {
        Bounds::Word
    } else if value.len() < SHORT {
        Bounds::Field
    } else {
        Bounds::None
    }
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

/// Bytes that bound a path segment or a field.
fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\' | 0 | b'"' | b'\'' | b'=' | b':' | b',' | b';') || byte.is_ascii_whitespace()
}

fn allowed(bytes: &[u8], range: &Range<usize>, needle: Needle) -> bool {
    if needle.bounds == Bounds::None {
        return true;
    }
    let stride = needle.encoding.stride();
    // The neighbour as a character; `None` is the edge of the text.
    let unit = |start: Option<usize>| {
        let unit = bytes.get(start?..start? + stride)?;
        let lead = needle.encoding.lead();
        let plain = unit.iter().enumerate().all(|(at, &byte)| at == lead || byte == 0);
        (plain && (unit[lead] == 0 || runs::is_text(unit[lead]))).then_some(unit[lead])
    };
    let sides = [unit(range.start.checked_sub(stride)), unit(Some(range.end))];
    let separated = sides.iter().any(|side| matches!(side, Some(b'/' | b'\\')));
    let assigned = sides.iter().any(|side| matches!(side, Some(b'=' | b':')));
    let spaced = sides.iter().any(|side| side.is_some_and(|byte| byte.is_ascii_whitespace()));
    sides.iter().all(|side| side.is_none_or(is_delimiter))
        && match needle.bounds {
            Bounds::None | Bounds::Field => true,
            Bounds::Word => separated || assigned || !spaced,
            Bounds::Segment => separated,
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
