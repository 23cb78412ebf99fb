//! Rules in a TOML file.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::{Check, MOST, Rule, compile};
use crate::error::{Error, Result};

/// The longest file.
const LONGEST: usize = 1 << 20;

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
    #[serde(default)]
    context: Vec<String>,
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    check: Vec<Check>,
    entropy: Option<f64>,
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
/// without bound or nothing, or is too large.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Rule>> {
    let invalid = |at: usize, reason: &str| {
        let before = text.as_bytes().get(..at.min(text.len())).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Error::InvalidConfig { field: "rules_file", reason: format!("{}:{line}: {reason}", path.display()) }
    };
    if text.len() > LONGEST {
        return Err(invalid(0, &format!("the file is longer than {LONGEST} bytes")));
    }
    let file: File = toml::from_str(text)
        .map_err(|error| invalid(error.span().map_or(0, |span| span.start), error.message().trim_end()))?;
    if file.rule.len() > MOST {
        return Err(invalid(0, &format!("{MOST} rules at most")));
    }
    let mut rules = Vec::new();
    for entry in file.rule {
        let start = entry.span().start;
        let Entry { name, pattern, context, prefixes, check, entropy } = entry.into_inner();
        let at = pattern.span().start.max(start);
        let (name, pattern) = (name.into_inner(), pattern.into_inner());
        let rule = Rule { name, pattern, context, prefixes, check, entropy };
        compile(&rule).map_err(|error| match error {
            Error::InvalidConfig { reason, .. } => invalid(at, &reason),
            other => other,
        })?;
        rules.push(rule);
    }
    Ok(rules)
}
