//! Rules in a TOML file.
#![forbid(unsafe_code)]

use std::fs::{self, File as Opened};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::{Check, MOST, Rule, check_texts, compile};
use crate::error::{Error, Result};

/// The longest file.
const LONGEST: usize = 1 << 20;
const TOO_LONG: &str =
    "the file is longer than 1 MiB (1048576 bytes); 64 rules, of which it may have no more, need less";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    pattern: Spanned<String>,
    context: Option<Spanned<Vec<String>>>,
    prefixes: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    check: Vec<Check>,
    entropy: Option<Spanned<f64>>,
}

/// Reads rules from a file, of which [`parse`] has the form.
///
/// # Errors
/// [`Error::InvalidConfig`] as [`parse`], and for what is no regular file (nothing else is opened), is longer than 1 MiB or not UTF-8; [`Error::File`] if it
/// cannot be read.
pub fn read(path: &Path) -> Result<Vec<Rule>> {
    let failed = |source| Error::file(path, "read", source);
    let invalid = |reason: &str| {
        Err(Error::InvalidConfig { field: "rules_file", reason: format!("{}: {reason}", path.display()) })
    };
    // A device has no end, and a pipe may never begin.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return invalid("it is no regular file; write the rules into one");
    }
    let mut bytes = Vec::new();
    Opened::open(path).map_err(failed)?.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, path),
        Err(error) if error.as_bytes().len() > LONGEST => invalid(TOO_LONG),
        Err(_) => invalid("it is not UTF-8"),
    }
}

/// Reads rules from the text of a TOML file:
///
/// ```toml
/// [[rule]]
/// name = "player-id"                  # what receipts call it
/// pattern = 'PLR-([0-9]{8,16})'       # only the first group is removed, if there is one
/// context = ["player", "account"]     # optional: one of them in the 40 characters before
/// prefixes = ["40", "41"]             # optional: how what is removed begins
/// check = ["luhn"]                    # optional: luhn, iban, mod97, verhoeff, mixed
/// entropy = 2.5                       # optional: bits per character, at least
/// ```
///
/// `path` is for the messages.
///
/// # Errors
/// [`Error::InvalidConfig`] names the file, the line and the reason: no TOML, an unknown field, a pattern that is none, may match
/// without bound or nothing, or is too large, a name that a built-in rule has, more than 64 rules or 1 MiB.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Rule>> {
    let invalid = |at: usize, reason: &str| {
        let before = text.as_bytes().get(..at.min(text.len())).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Error::InvalidConfig { field: "rules_file", reason: format!("{}:{line}: {reason}", path.display()) }
    };
    if text.len() > LONGEST {
        return Err(invalid(0, TOO_LONG));
    }
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        invalid(at, &format!("{}{}", error.message().trim_end(), hint(text, at)))
    })?;
    if file.rule.len() > MOST {
        return Err(invalid(0, &format!("{MOST} rules at most")));
    }
    let mut rules = Vec::new();
    for entry in file.rule {
        let start = entry.span().start;
        let Entry { name, pattern, context, prefixes, check, entropy } = entry.into_inner();
        let begin = |key: Option<usize>| key.unwrap_or(start).max(start);
        let spans = Spans {
            name: begin(Some(name.span().start)),
            pattern: begin(Some(pattern.span().start)),
            context: begin(context.as_ref().map(|words| words.span().start)),
            prefixes: begin(prefixes.as_ref().map(|words| words.span().start)),
            entropy: begin(entropy.as_ref().map(|bits| bits.span().start)),
        };
        let words = |words: Option<Spanned<Vec<String>>>| words.map(Spanned::into_inner).unwrap_or_default();
        let rule = Rule {
            name: name.into_inner(),
            pattern: pattern.into_inner(),
            context: words(context),
            prefixes: words(prefixes),
            check,
            entropy: entropy.map(Spanned::into_inner),
        };
        // "\b" is a word's edge in a pattern, and a backspace in a text of TOML.
        if rule.pattern.contains(['\u{8}', '\u{c}']) {
            return Err(invalid(spans.pattern, &format!("the pattern has a control character{QUOTES}")));
        }
        compile(&rule).map_err(|error| match error {
            Error::InvalidConfig { reason, .. } => invalid(spans.of_what_is_wrong(&rule), &reason),
            other => other,
        })?;
        rules.push(rule);
    }
    Ok(rules)
}

/// Where the keys of a rule have their values.
struct Spans {
    name: usize,
    pattern: usize,
    context: usize,
    prefixes: usize,
    entropy: usize,
}

impl Spans {
    /// The first key that cannot stand, if all before it are left.
    fn of_what_is_wrong(&self, rule: &Rule) -> usize {
        let bare = Rule::new(&rule.name, "");
        let keys = [
            (self.name, bare.clone()),
            (self.context, Rule { context: rule.context.clone(), ..bare.clone() }),
            (self.prefixes, Rule { prefixes: rule.prefixes.clone(), ..bare.clone() }),
            (self.entropy, Rule { entropy: rule.entropy, ..bare }),
        ];
        keys.iter().find(|(_, rule)| check_texts(rule).is_err()).map_or(self.pattern, |(at, _)| *at)
    }
}

const QUOTES: &str =
    ": in double quotes a backslash is TOML's own; write patterns in single quotes, as in 'PLR-\\d{8}'";

/// The way out of two mistakes that TOML makes easy.
fn hint(text: &str, at: usize) -> &'static str {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
    if line.trim_start().starts_with("[rule]") {
        return "; a rule begins with [[rule]], in two brackets";
    }
    match line.split_once('"') {
        Some((_, value)) if value.contains('\\') => QUOTES,
        _ => "",
    }
}
