//! `cenotaph receipt verify`: whether a dump is the one that a receipt is about, and was scrubbed as it says.

use std::fs::File;
use std::path::{Path, PathBuf};

use cenotaph::scrub::{Entry, Receipt};
use lexopt::prelude::*;
use serde::Deserialize;

use super::{missing, read_at_most};
use crate::failure::{Failure, Result};
use crate::output::{self, printable};

/// The longest receipt: as many entries as scrubbing makes at most, 4 Mi, each of as many bytes as the longest names take.
const LONGEST: u64 = (4 << 20) * 320;
/// Characters of a message about what somebody else wrote, at most.
const LONGEST_MESSAGE: usize = 200;

pub(crate) fn receipt(mut arguments: lexopt::Parser) -> Result<()> {
    match arguments.next()? {
        Some(Value(command)) if command == "verify" => verify(arguments),
        Some(Value(command)) => Err(Failure::Usage(format!("unknown command receipt {}", command.display()))),
        Some(other) => Err(other.unexpected().into()),
        None => Err(missing("receipt", "the command (verify)")),
    }
}

fn verify(mut arguments: lexopt::Parser) -> Result<()> {
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(value) if paths.len() < 2 => paths.push(PathBuf::from(value)),
            other => return Err(other.unexpected().into()),
        }
    }
    let [dump, path] = paths.as_slice() else { return Err(missing("receipt verify", "DUMP RECEIPT")) };
    let receipt = parse(&read_at_most(path, LONGEST)?)
        .map_err(|why| Failure::Failed(format!("{}: {}", path.display(), quoted(&why))))?;
    let file = File::open(dump).map_err(|e| Failure::file(dump, "read", e))?;
    receipt.verify(&file).map_err(|error| disagreement(&receipt, &file, dump, path, &error))?;
    let described = receipt.dump.as_ref();
    output::line(format_args!(
        "{}: verified: {} changes, SHA-256 {}, engine {}, policy {}",
        dump.display(),
        described.map_or(0, |dump| dump.entries),
        described.map_or("", |dump| &dump.sha256),
        receipt.engine,
        receipt.policy,
    ))
}

/// What was said of a receipt, with words of its own in it that may be anything.
fn quoted(why: &str) -> String {
    let (mut said, more) = match why.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => (printable(&why[..end]), "..."),
        None => (printable(why), ""),
    };
    said.push_str(more);
    said
}

/// What travels beside a dump: the receipt and more.
#[derive(Deserialize)]
struct Delivered {
    receipt: Receipt,
}

/// A receipt, or `cenotaph.json` with one in it; or why it is none.
fn parse(text: &[u8]) -> Result<Receipt, String> {
    let receipt = match serde_json::from_slice::<Receipt>(text) {
        Ok(receipt) => receipt,
        // The names that are missing, or wrong, say which of both it was to be.
        Err(error) => match serde_json::from_slice::<Delivered>(text) {
            Ok(delivered) => delivered.receipt,
            Err(_) if error.is_syntax() || error.is_eof() => {
                return Err(format!("not a receipt: no JSON: {error}"));
            }
            Err(within) if within.to_string().contains("missing field `receipt`") => {
                return Err(format!("not a receipt: {error}"));
            }
            Err(within) => return Err(format!("not a receipt: {within}")),
        },
    };
    check_head(&receipt).map_err(|why| format!("no valid receipt: {why}"))?;
    for (number, entry) in receipt.entries.iter().enumerate() {
        check(entry).map_err(|why| format!("no valid receipt: its entry {} {why}", number + 1))?;
    }
    Ok(receipt)
}

/// Whether what is printed of a receipt has the form that docs/receipt.md gives it.
fn check_head(receipt: &Receipt) -> Result<(), String> {
    let is_hexadecimal =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    // Older versions had none.
    if !matches!(receipt.policy.len(), 0 | 16) || !is_hexadecimal(&receipt.policy) {
        return Err(format!("its policy is not 16 lower-case hexadecimal digits: {:?}", receipt.policy));
    }
    match receipt.dump.as_ref().map(|dump| &dump.sha256) {
        Some(sha256) if sha256.len() != 64 || !is_hexadecimal(sha256) => {
            Err(format!("its SHA-256 is not 64 lower-case hexadecimal digits: {sha256:?}"))
        }
        _ => Ok(()),
    }
}

/// Whether an entry has the form that docs/receipt.md gives it.
fn check(entry: &Entry) -> Result<(), String> {
    let is_text =
        matches!(entry.encoding.as_str(), "utf-8" | "utf-16le" | "utf-16be" | "utf-32le" | "utf-32be");
    if !is_text && !matches!(entry.encoding.as_str(), "binary" | "word") {
        return Err(format!("has an unknown encoding: {:?}", entry.encoding));
    }
    if entry.length == 0 {
        return Err(format!("at {:#x} has the length 0; 1 is the least", entry.offset));
    }
    match &entry.alias {
        Some(alias) if !is_text => {
            Err(format!("has an alias, {alias:?}, and the encoding {}", entry.encoding))
        }
        Some(alias) if !is_alias(alias) => Err(format!("has an alias that is none: {alias:?}")),
        _ => Ok(()),
    }
}

/// `[RULE#N]` or `[#N]`, N being 1 to 99999. That RULE is one of the built-in ones the library checks.
fn is_alias(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.and_then(|text| text.split_once('#')).is_some_and(|(rule, number)| {
        rule.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && (1..=5).contains(&number.len())
            && !number.starts_with('0')
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Why a dump is not verified: it is another one, or what the receipt says of it is not so.
fn disagreement(
    receipt: &Receipt,
    file: &File,
    dump: &Path,
    path: &Path,
    error: &cenotaph::Error,
) -> Failure {
    let mut found = Receipt::default();
    let described = found.describe_file(file).ok().and(found.dump).zip(receipt.dump.as_ref());
    Failure::Failed(match described {
        Some((is, says)) if (is.length, &is.sha256) != (says.length, &says.sha256) => format!(
            "{} is not the dump that {} is about: it has {} bytes and the SHA-256 {}, and not {} bytes and {}",
            dump.display(),
            path.display(),
            is.length,
            is.sha256,
            says.length,
            says.sha256,
        ),
        _ => format!("{}: not verified with {}: {error}", dump.display(), path.display()),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const ENTRY: &str =
        r#"{"place":"heap","rule":"email","encoding":"utf-8","offset":9,"length":17,"alias":"[email#317]"}"#;

    #[test]
    fn what_is_no_receipt_is_refused_with_its_reason() {
        let receipt = |entry: &str| format!(r#"{{"engine":4,"policy":"","entries":[{entry}]}}"#);
        let good = receipt(ENTRY);
        assert_eq!(parse(good.as_bytes()).unwrap().entries.len(), 1);
        let delivered = format!(r#"{{"report":{{}},"receipt":{good}}}"#);
        assert_eq!(parse(delivered.as_bytes()), parse(good.as_bytes()), "cenotaph.json");
        for (from, to, reason) in [
            ("utf-8", "utf-7", "entry 1 has an unknown encoding"),
            ("utf-8", "", "unknown encoding"),
            ("17", "0", "at 0x9 has the length 0"),
            ("utf-8", "binary", "the encoding binary"),
            ("[email#317]", "a@b.cd", "alias that is none"),
            ("[email#317]", "[email#017]", "alias that is none"),
            ("[email#317]", "[#]", "alias that is none"),
            ("[email#317]", "[#123456]", "alias that is none"),
            ("[email#317]", "[A B#12]", "alias that is none"),
            ("heap", "moon", "not a receipt"),
            ("\"\"", "\"5f2d7a0c91be446\"", "policy is not 16"),
            ("\"\"", "\"5F2D7A0C91BE4463\"", "policy is not 16"),
            ("\"\"", "\"\\u001b[31m5f2d7a0c91b\"", "policy is not 16"),
        ] {
            let why = parse(good.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(why.contains(reason), "{to}: {why}");
        }
        let described =
            good.replace("\"entries\"", r#""dump":{"length":1,"sha256":"\u001b[31m","entries":1},"entries""#);
        assert!(parse(described.as_bytes()).unwrap_err().contains("SHA-256 is not 64"));
        assert_eq!(parse(good.replace("\"\"", "\"5f2d7a0c91be4463\"").as_bytes()).unwrap().entries.len(), 1);
        let hostile = parse(good.replace("heap", "\\u001b]0;title\\u0007").as_bytes()).unwrap_err();
        assert!(hostile.contains('\u{1b}') && !quoted(&hostile).contains(char::is_control), "{hostile:?}");
        assert!(quoted(&"x".repeat(1 << 20)).len() < 300);
        assert!(parse(br#"{"receipt":{"engine":4}}"#).unwrap_err().contains("missing field `entries`"));
        assert!(parse(br#"{"receipt":[]}"#).is_err() && parse(b"[]").is_err());
        assert!(parse(b"MDMP").unwrap_err().contains("no JSON"));
        assert!(parse(br#"{"receipt":7}"#).unwrap_err().contains("not a receipt"));
    }
}
