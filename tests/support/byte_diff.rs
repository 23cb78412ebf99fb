//! What scrubbing changed, byte by byte, against what its receipt says: every test that has a dump or core file before and after
//! asks here. Works on the receipt's JSON, as a stranger would who was sent it.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::ops::Range;

use serde_json::Value;

/// Panics unless the bytes that differ are exactly those that `receipt` names. Inside of an entry bytes may have been fill before; at
/// both of its ends there is a character (for "binary" a byte, for "word" eight) that was not. What is there now is fill, or the
/// alias that the entry names.
pub(crate) fn assert_equals_receipt(
    what: &str,
    before: &[u8],
    after: &[u8],
    receipt: &impl serde::Serialize,
) {
    let receipt = serde_json::to_value(receipt).unwrap();
    let entries: Vec<Entry> = receipt["entries"].as_array().unwrap().iter().map(Entry::new).collect();
    if let Err(difference) = compare(before, after, &entries) {
        panic!("{what}: the byte diff is not the receipt: {difference}");
    }
}

/// One change that a receipt names.
pub(crate) struct Entry {
    range: Range<usize>,
    encoding: String,
    alias: String,
    name: String,
}

impl Entry {
    pub(crate) fn new(json: &Value) -> Self {
        let number = |field: &str| usize::try_from(json[field].as_u64().unwrap()).unwrap();
        let start = number("offset");
        Self {
            range: start..start.checked_add(number("length")).unwrap(),
            encoding: json["encoding"].as_str().unwrap().to_owned(),
            alias: json["alias"].as_str().unwrap_or_default().to_owned(),
            name: json.to_string(),
        }
    }

    /// What stands there now, and how many bytes a character has.
    fn fill(&self) -> (&'static [u8], usize) {
        match self.encoding.as_str() {
            "utf-8" => (b"*\0", 1),
            "utf-16le" | "utf-16be" => (b"*\0", 2),
            "utf-32le" | "utf-32be" => (b"*\0", 4),
            // Zeros where somebody else blanked it once more.
            "word" => (b"\xfe\0", 8),
            "binary" => (b"\0", 1),
            other => panic!("a receipt has the encoding {other}"),
        }
    }

    /// The fill with the alias over it, if there is one and it has the form that docs/receipt.md gives.
    fn aliased(&self) -> Option<Vec<u8>> {
        let (name, number) = self.alias.strip_prefix('[')?.strip_suffix(']')?.split_once('#')?;
        let is_name = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        let is_number = (3..=5).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        let character = |byte: u8| match self.encoding.as_str() {
            "utf-8" => Some(vec![byte]),
            "utf-16le" => Some(vec![byte, 0]),
            "utf-16be" => Some(vec![0, byte]),
            // None has one in another.
            _ => None,
        };
        let bytes: Option<Vec<_>> = self.alias.bytes().map(character).collect();
        bytes.filter(|_| is_name && is_number).map(|bytes| bytes.concat())
    }
}

/// The first thing that does not agree.
pub(crate) fn compare(before: &[u8], after: &[u8], entries: &[Entry]) -> Result<(), String> {
    if before.len() != after.len() {
        return Err(format!("{} bytes became {}", before.len(), after.len()));
    }
    let mut named = vec![false; before.len()];
    for entry in entries {
        let Range { start, end } = entry.range;
        let (fill, unit) = entry.fill();
        let Some(now) = after.get(start..end).filter(|now| !now.is_empty()) else {
            return Err(format!("outside of the {} bytes, or empty: {}", after.len(), entry.name));
        };
        let alias = entry.aliased().filter(|alias| alias.len() <= now.len());
        if !entry.alias.is_empty() && alias.is_none() {
            return Err(format!("has no alias that may stand there: {}", entry.name));
        }
        // Of an alias that something was blanked over, all may be gone or a part.
        let alias = alias.unwrap_or_default();
        let is_left = |(at, byte): (usize, &u8)| !fill.contains(byte) && alias.get(at) != Some(byte);
        if let Some(at) = now.iter().enumerate().position(is_left) {
            return Err(format!("{:#x} is not blank: {}", start + at, entry.name));
        }
        let changed = |range: Range<usize>| before[range.clone()] != after[range];
        if !changed(start..end.min(start + unit)) || !changed(start.max(end.saturating_sub(unit))..end) {
            return Err(format!("begins or ends with what did not change: {}", entry.name));
        }
        named[start..end].fill(true);
    }
    let differs = (0..before.len()).filter(|&at| before[at] != after[at]);
    match differs.into_iter().find(|&at| !named[at]) {
        Some(at) => Err(format!(
            "{at:#x} changed from {:#04x} to {:#04x}, and no entry says so",
            before[at], after[at]
        )),
        None => Ok(()),
    }
}
