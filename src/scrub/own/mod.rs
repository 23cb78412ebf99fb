//! Rules of the application's own, with what the built-in ones have: a pattern, context, checks, a limit on time.
//!
//! A pattern is a regular expression over one byte a character, without Unicode: in text of any encoding a character of ASCII is
//! itself, any other one or more bytes from 0x80 on. What a pattern may match is bounded in length, so that time is linear
//! whatever the text: each search ends at most that far behind what it finds.
#![forbid(unsafe_code)]

mod check;
mod cost;
mod file;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_syntax::hir::Hir;
use serde::{Deserialize, Serialize};

pub use check::Check;
pub use file::{parse as rules_from_toml, read as rules_from_file};

use super::aliases::KINDS;
use super::rules::{self, Hit};
use crate::error::{Error, Result};

/// Rules of one application, at most.
const MOST: usize = 64;
/// Bytes of a pattern, and of a name.
const LONGEST_PATTERN: usize = 1024;
const LONGEST_NAME: usize = 32;
/// Characters that a pattern matches, at least and at most.
const SHORTEST_MATCH: usize = 3;
const LONGEST_MATCH: usize = 512;
/// Bytes of a pattern's automaton, and of the tables that a search may fill.
const MOST_STATES: usize = 256 << 10;
const MOST_TABLE: usize = 1 << 20;
/// Words and prefixes of a rule, and bytes of each.
const MOST_WORDS: usize = 32;
const LONGEST_WORD: usize = 64;
/// Characters before a match in which one of its context words must stand.
const CONTEXT: usize = 40;
/// The way out for a pattern that costs too much.
const CHEAPER: &str = ": have it begin with fixed characters, shorten repetitions of nearly everything such as .{1,250}, or leave \
                       out of them what the pattern begins with (docs/rules.md has examples)";
/// Names that this process has met, at most: they are kept as long as it lives.
const MOST_NAMES: usize = 4096;
/// Rules of the engine itself, whose names in receipts mean something else, besides [`KINDS`].
const RESERVED: [&str; 20] = [
    "argv-envp",
    "client-id",
    "command-line",
    "cpu-serial",
    "cut-off",
    "debug-registers",
    "dropped",
    "echo",
    "environment",
    "environment-value",
    "gap",
    "known-value",
    "pointers",
    "printable-word",
    "secret-range",
    "section-headers",
    "unknown-note",
    "unknown-record",
    "unknown-stream",
    "vector-state",
];

/// A rule of the application's own.
///
/// Limits: 64 rules; a pattern of 1024 bytes of ASCII that matches 3 to 512 characters, nests 32 deep, compiles to 256 KiB and takes 2048 steps a character at worst; 32
/// context words and 32 prefixes of 1 to 64 characters of ASCII each; 4096 names in the life of a process. `docs/rules.md` has the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    name: String,
    pattern: String,
    #[serde(default)]
    context: Vec<String>,
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    check: Vec<Check>,
    /// Bits per character, at least.
    #[serde(default)]
    entropy: Option<f64>,
}

impl Rule {
    /// A rule by the name that receipts give (1 to 32 lower-case letters, digits and dashes, a letter first) and a regular expression
    /// in the syntax of the crate `regex`, without Unicode; `^` and `$` are the ends of a line of text. If it has a group, only what
    /// the first one matches is removed. Names of the built-in rules are taken.
    ///
    /// It is checked when it is used: by [`Config::validate`](crate::Config::validate), [`Engine::new`](super::Engine::new).
    pub fn new(name: impl Into<String>, pattern: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            pattern: pattern.into(),
            context: Vec::new(),
            prefixes: Vec::new(),
            check: Vec::new(),
            entropy: None,
        }
    }

    /// Words one of which must stand in the 40 characters before a match, in ASCII and in any case.
    pub fn context<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.context.extend(words.into_iter().map(Into::into));
        self
    }

    /// What is removed must begin with one of these.
    pub fn prefixes<T: Into<String>>(mut self, prefixes: impl IntoIterator<Item = T>) -> Self {
        self.prefixes.extend(prefixes.into_iter().map(Into::into));
        self
    }

    /// What is removed must pass this check. More than one: each of them.
    pub fn check(mut self, check: Check) -> Self {
        self.check.push(check);
        self
    }

    /// What is removed must have at least so many bits of Shannon entropy per character (0 to 8).
    pub fn entropy(mut self, bits: f64) -> Self {
        self.entropy = Some(bits);
        self
    }

    /// The name that receipts give.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Rules, compiled.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnRules(Arc<[Compiled]>);

#[derive(Debug)]
struct Compiled {
    name: &'static str,
    regex: Regex,
    has_group: bool,
    /// Of a search, in steps a character.
    cost: usize,
    rule: Rule,
}

/// What was compiled last: a monitor compiles its rules when it starts, and finds them here during a crash.
static LAST: Mutex<Option<(Vec<Rule>, OwnRules)>> = Mutex::new(None);

impl OwnRules {
    /// Compiles `rules`, or finds them compiled.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] names the rule and what is wrong with it; [`Error::Limit`] for too many.
    pub(super) fn new(rules: &[Rule]) -> Result<Self> {
        if rules.is_empty() {
            return Ok(Self::default());
        }
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, compiled)) = last.as_ref().filter(|(same, _)| same == rules) {
            return Ok(compiled.clone());
        }
        if rules.len() > MOST {
            return Err(Error::Limit { what: "the number of own rules", limit: MOST });
        }
        let compiled = Self(rules.iter().map(compile).collect::<Result<Vec<_>>>()?.into());
        let cost = compiled.0.iter().fold(0, |sum: usize, rule| sum.saturating_add(rule.cost));
        if cost > cost::MOST_OF_ALL {
            let (dear, most) = compiled
                .0
                .iter()
                .map(|rule| (rule.name, rule.cost))
                .max_by_key(|rule| rule.1)
                .unwrap_or_default();
            return Err(Error::InvalidConfig {
                field: "rule",
                reason: format!(
                    "searches for all rules may take {cost} steps a character, and {} are the most; {dear} takes {most} of them{CHEAPER}",
                    cost::MOST_OF_ALL
                ),
            });
        }
        *last = Some((rules.to_vec(), compiled.clone()));
        Ok(compiled)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they find in a line of one byte a character.
    pub(super) fn find(&self, line: &[u8], hits: &mut Vec<Hit>) {
        for compiled in self.0.iter() {
            if compiled.has_group {
                for captures in compiled.regex.captures_iter(line) {
                    let whole = captures.get_match().map_or(0, |found| found.start());
                    if let Some(group) = captures.get_group(1) {
                        compiled.accept(line, whole, group.range(), hits);
                    }
                }
            } else {
                for found in compiled.regex.find_iter(line) {
                    compiled.accept(line, found.start(), found.range(), hits);
                }
            }
        }
    }
}

impl Compiled {
    fn accept(&self, line: &[u8], start: usize, range: std::ops::Range<usize>, hits: &mut Vec<Hit>) {
        let text = line.get(range.clone()).unwrap_or_default();
        let rule = &self.rule;
        let words: Vec<&str> = rule.context.iter().map(String::as_str).collect();
        let accepted = !text.is_empty()
            && (words.is_empty() || rules::preceded_by(line, start, CONTEXT, &words))
            && (rule.prefixes.is_empty()
                || rule.prefixes.iter().any(|prefix| text.starts_with(prefix.as_bytes())))
            && rule.check.iter().all(|check| check.passes(text))
            && rule.entropy.is_none_or(|bits| check::entropy(text) >= bits);
        if accepted {
            hits.push(Hit { range, rule: self.name });
        }
    }
}

/// Checks rules without using them.
///
/// # Errors
/// As for using them: [`Error::InvalidConfig`] names the rule and what is wrong with it.
pub(crate) fn validate(rules: &[Rule]) -> Result<()> {
    OwnRules::new(rules).map(drop)
}

fn compile(rule: &Rule) -> Result<Compiled> {
    let invalid = |reason: String| Error::InvalidConfig {
        field: "rule",
        reason: format!("{}: {reason}", rule.name.chars().take(LONGEST_NAME).collect::<String>()),
    };
    check_texts(rule).map_err(invalid)?;
    let hir = parse(&rule.pattern).map_err(invalid)?;
    let has_group = hir.properties().explicit_captures_len() > 0;
    let config = Regex::config()
        .nfa_size_limit(Some(MOST_STATES))
        .onepass_size_limit(Some(MOST_STATES))
        .hybrid_cache_capacity(MOST_TABLE)
        .dfa(false)
        .utf8_empty(false);
    let regex = Regex::builder().configure(config).build_from_hir(&hir);
    let regex = regex.map_err(|error| {
        invalid(match error.size_limit() {
            Some(limit) => format!("the pattern needs more than {limit} bytes; make its repetitions shorter"),
            None => error.to_string(),
        })
    })?;
    let length = hir.properties();
    let cost =
        cost::of(&hir, length.minimum_len().unwrap_or(0), length.maximum_len().unwrap_or(LONGEST_MATCH));
    match cost.unwrap_or(usize::MAX) {
        cost if cost > cost::MOST => Err(invalid(format!(
            "a search for the pattern may take {cost} steps a character, and {} are the most{CHEAPER}",
            cost::MOST
        ))),
        cost => Ok(Compiled { name: interned(&rule.name)?, regex, has_group, cost, rule: rule.clone() }),
    }
}

fn check_texts(rule: &Rule) -> Result<(), String> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let starts = rule.name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if !starts || rule.name.len() > LONGEST_NAME || !rule.name.bytes().all(is_name) {
        return Err(format!(
            "a name takes 1 to {LONGEST_NAME} lower-case letters, digits and dashes, a letter first"
        ));
    }
    if RESERVED.iter().chain(KINDS).any(|reserved| *reserved == rule.name) {
        return Err(
            "this name is one of the engine's own, and receipts would mix them up; take another".to_owned()
        );
    }
    let words = || rule.context.iter().chain(&rule.prefixes);
    if rule.context.len().max(rule.prefixes.len()) > MOST_WORDS {
        return Err(format!("{MOST_WORDS} context words and {MOST_WORDS} prefixes at most"));
    }
    if words().any(|word| word.is_empty() || word.len() > LONGEST_WORD || !word.is_ascii()) {
        return Err(format!("context words and prefixes take 1 to {LONGEST_WORD} characters of ASCII"));
    }
    if rule.entropy.is_some_and(|bits| !(0.0..=8.0).contains(&bits)) {
        return Err("entropy is 0 to 8 bits per character".to_owned());
    }
    Ok(())
}

/// A pattern that is neither too long nor may match too much or too little.
fn parse(pattern: &str) -> Result<Hir, String> {
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!("the pattern is longer than {LONGEST_PATTERN} bytes"));
    }
    if let Some(other) = pattern.chars().find(|c| !c.is_ascii()) {
        return Err(format!("{other:?} is not ASCII; in a pattern other characters are [\\x80-\\xff]"));
    }
    let config = syntax::Config::new().unicode(false).utf8(false).multi_line(true).nest_limit(32);
    let hir = syntax::parse_with(pattern, &config).map_err(|error| error.to_string())?;
    let properties = hir.properties();
    match (properties.minimum_len(), properties.maximum_len()) {
        (Some(least), Some(most)) if most <= LONGEST_MATCH => match least < SHORTEST_MATCH {
            true => Err(format!("the pattern may match {least} characters; {SHORTEST_MATCH} are the least")),
            false => Ok(hir),
        },
        (Some(_), _) => Err(format!(
            "the pattern may match more than {LONGEST_MATCH} characters; give its repetitions an upper bound, as in [0-9]{{4,20}}"
        )),
        (None, _) => Err("the pattern can match nothing".to_owned()),
    }
}

/// The name for as long as the process lives.
fn interned(name: &str) -> Result<&'static str> {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return Ok(known);
    }
    if names.len() >= MOST_NAMES {
        return Err(Error::Limit { what: "the number of names of own rules", limit: MOST_NAMES });
    }
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(name);
    Ok(name)
}

#[cfg(test)]
mod tests;
