//! What was removed, where and by which rule; never the text itself.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The proof that goes with a report.
///
/// For a dump it is exact: see [`Receipt::discrepancy`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of the rules.
    pub engine: u32,
    /// Every change, in the order it was made.
    pub entries: Vec<Entry>,
}

/// One change: these bytes are now fill (`*` in the entry's encoding, zeros for "binary"). The first and the last
/// character (for "binary": byte) were something else before; between them there may be some that were fill already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it was.
    pub place: Place,
    /// The rule: "email", "known-value", "argv-envp", "vector-state".
    pub rule: String,
    /// "utf-8", "utf-16le", "utf-16be", "utf-32le", "utf-32be", or "binary".
    pub encoding: String,
    /// Byte offset: into the dump, or into the text for attributes, breadcrumbs, annotations and the reason.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Entries of one place and rule, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Where.
    pub place: Place,
    /// By which rule.
    pub rule: String,
    /// Entries.
    pub count: u64,
    /// Bytes in all of them.
    pub bytes: u64,
}

/// Where in a report something stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Place {
    /// A CPU context.
    Registers,
    /// The exception's parameters.
    Exception,
    /// A thread's stack.
    Stack,
    /// Other memory.
    Heap,
    /// A thread's name.
    ThreadName,
    /// A module's path.
    ModulePath,
    /// A text stream of /proc or /etc, or another string in the dump.
    TextStream,
    /// The environment or command line.
    Environment,
    /// A stream that is not known, or bytes between streams.
    Unclaimed,
    /// An attribute.
    Attribute,
    /// A breadcrumb.
    Breadcrumb,
    /// The panic message or the words given to `capture`.
    Reason,
    /// What a pmodule said.
    Annotation,
}

impl Receipt {
    /// Adds an entry; zeros that go on where the last ones ended are one entry with them.
    pub(super) fn push(&mut self, entry: Entry) {
        if let Some(last) = self.entries.last_mut()
            && last.offset.checked_add(last.length) == Some(entry.offset)
            && entry.encoding == "binary"
            && (last.place, &last.rule, &last.encoding) == (entry.place, &entry.rule, &entry.encoding)
        {
            last.length = last.length.saturating_add(entry.length);
            return;
        }
        self.entries.push(entry);
    }

    /// Counts by place and rule, in that order.
    pub fn summary(&self) -> Vec<Tally> {
        let mut tallies = BTreeMap::<(Place, &str), (u64, u64)>::new();
        for entry in &self.entries {
            let (count, bytes) = tallies.entry((entry.place, &entry.rule)).or_default();
            *count += 1;
            *bytes = bytes.saturating_add(entry.length);
        }
        tallies
            .into_iter()
            .map(|((place, rule), (count, bytes))| Tally { place, rule: rule.to_owned(), count, bytes })
            .collect()
    }

    /// Proves this receipt, which is one of [`scrub::dump`](crate::scrub::dump) alone, against the dump before and
    /// after: the offset of the first byte that it does not account for, or `None` if it is exact.
    ///
    /// Exact means: every byte that differs lies in an entry, every byte of an entry is fill now, and every entry
    /// begins and ends with a changed character (for "binary": byte).
    pub fn discrepancy(&self, before: &[u8], after: &[u8]) -> Option<usize> {
        if before.len() != after.len() {
            return Some(before.len().min(after.len()));
        }
        let mut covered = vec![false; before.len()];
        for entry in &self.entries {
            let unit = match entry.encoding.as_str() {
                "utf-16le" | "utf-16be" => 2,
                "utf-32le" | "utf-32be" => 4,
                _ => 1,
            };
            let start = usize::try_from(entry.offset).unwrap_or(usize::MAX);
            let length = usize::try_from(entry.length).unwrap_or(usize::MAX);
            let Some(end) = start.checked_add(length).filter(|&end| end <= before.len() && end > start)
            else {
                return Some(start);
            };
            let fill = |byte: u8| byte == 0 || (byte == b'*' && entry.encoding != "binary");
            if let Some(wrong) = (start..end).find(|&at| !fill(after[at])) {
                return Some(wrong);
            }
            let changed = |range: std::ops::Range<usize>| before[range.clone()] != after[range];
            if !changed(start..end.min(start + unit)) || !changed(start.max(end.saturating_sub(unit))..end) {
                return Some(start);
            }
            covered[start..end].fill(true);
        }
        (0..before.len()).find(|&at| before[at] != after[at] && !covered[at])
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registers => "registers",
            Self::Exception => "exception",
            Self::Stack => "stack",
            Self::Heap => "heap",
            Self::ThreadName => "thread name",
            Self::ModulePath => "module path",
            Self::TextStream => "text stream",
            Self::Environment => "environment",
            Self::Unclaimed => "unclaimed",
            Self::Attribute => "attribute",
            Self::Breadcrumb => "breadcrumb",
            Self::Reason => "reason",
            Self::Annotation => "annotation",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(encoding: &str, offset: u64, length: u64) -> Entry {
        Entry { place: Place::Heap, rule: "email".into(), encoding: encoding.into(), offset, length }
    }

    #[test]
    fn a_receipt_survives_json_and_is_counted() {
        let mut receipt =
            Receipt { engine: 1, entries: vec![entry("utf-8", 3, 5), entry("utf-16le", 20, 10)] };
        receipt.entries.push(Entry { place: Place::Stack, ..entry("utf-8", 40, 1) });
        let json = serde_json::to_string(&receipt).unwrap();
        assert_eq!(serde_json::from_str::<Receipt>(&json).unwrap(), receipt);
        let rows: Vec<_> =
            receipt.summary().into_iter().map(|t| (t.place, t.rule, t.count, t.bytes)).collect();
        assert_eq!(
            rows,
            [(Place::Stack, "email".to_owned(), 1, 1), (Place::Heap, "email".to_owned(), 2, 15)]
        );
    }

    #[test]
    fn a_discrepancy_is_found() {
        let before = b"abcdefgh\0\0\0\0";
        let after = b"ab***fgh\0\0\0\0";
        let check = |entries| Receipt { engine: 1, entries }.discrepancy(before, after);
        assert_eq!(check(vec![entry("utf-8", 2, 3)]), None);
        assert_eq!(check(vec![]), Some(2), "unlisted change");
        assert_eq!(check(vec![entry("utf-8", 2, 2)]), Some(4), "half a change");
        assert_eq!(check(vec![entry("utf-8", 2, 4)]), Some(5), "listed, not filled");
        assert_eq!(check(vec![entry("binary", 2, 3)]), Some(2), "filled with something else");
        assert_eq!(check(vec![entry("utf-8", 2, 3), entry("binary", 8, 2)]), Some(8), "listed, not changed");
        assert_eq!(check(vec![entry("utf-8", 2, 300)]), Some(2), "outside");
        assert_eq!(Receipt::default().discrepancy(b"a", b"ab"), Some(1), "another length");
    }
}
