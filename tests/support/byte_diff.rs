//! What scrubbing changed, byte by byte, against what its receipt says: every test that has a dump or core file before and after
//! asks here. Works on the receipt's JSON, as a stranger would who was sent it.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::ops::Range;

use serde_json::Value;

/// Panics unless the bytes that differ are exactly those that `receipt` names. Inside of an entry bytes may have been fill before; at
/// both of its ends there is a character (for "binary" a byte, for "word" eight) that was not.
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
    name: String,
}

impl Entry {
    pub(crate) fn new(json: &Value) -> Self {
        let number = |field: &str| usize::try_from(json[field].as_u64().unwrap()).unwrap();
        let start = number("offset");
        Self {
            range: start..start.checked_add(number("length")).unwrap(),
            encoding: json["encoding"].as_str().unwrap().to_owned(),
            name: json.to_string(),
        }
    }

    /// What stands there now, and how many bytes a character has.
    fn fill(&self) -> (&'static [u8], usize) {
        match self.encoding.as_str() {
            "utf-8" => (b"*\0", 1),
            "utf-16le" | "utf-16be" => (b"*\0", 2),
            "utf-32le" | "utf-32be" => (b"*\0", 4),
            "word" => (b"\xfe", 8),
            "binary" => (b"\0", 1),
            other => panic!("a receipt has the encoding {other}"),
        }
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
        if let Some(at) = now.iter().position(|byte| !fill.contains(byte)) {
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
