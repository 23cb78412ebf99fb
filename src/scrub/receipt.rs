//! What was removed, where and by which rule; never the text itself.
#![forbid(unsafe_code)]

mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::aliases::is_alias;
use crate::error::{Error, Result};

/// The proof that goes with a report.
///
/// For a dump it is exact: see [`Receipt::discrepancy`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of the rules.
    pub engine: u32,
    /// What was asked for: levels and own rules, as the first 16 digits of a SHA-256 in hexadecimal. The same for the same
    /// settings, said in the same way (a level that is set to its default gives another); known values have no part in it.
    #[serde(default)]
    pub policy: String,
    /// The dump that this is about, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<Scrubbed>,
    /// Every change, in the order it was made.
    pub entries: Vec<Entry>,
}

/// A dump or core file as it left scrubbing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Bytes.
    pub length: u64,
    /// SHA-256 of all of them, in hexadecimal.
    pub sha256: String,
    /// How many of the entries are about it: the first ones. Others are about texts of the report.
    pub entries: usize,
}

/// One change: these bytes are now fill (`*` in the entry's encoding, zeros for "binary", 0xfe for "word"; zeros, too, where more was
/// blanked later), but for an alias. The first and the last character (for "binary": byte; for "word": 8 bytes) were something else
/// before; between them there may be some that were fill already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it was.
    pub place: Place,
    /// The rule: "email", "known-value", "argv-envp", "vector-state".
    pub rule: String,
    /// "utf-8", "utf-16le", "utf-16be", "utf-32le", "utf-32be", "word", or "binary".
    pub encoding: String,
    /// Byte offset: into the dump, or into the text for attributes, breadcrumbs, annotations and the reason.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// What stands over the fill, from its start on: `[email#317]`, or `[#317]` where there is no more room or the rule is none of
    /// the built-in ones. Equal values have the same number within one report, and no two different ones; it means nothing
    /// outside. None for what is no text, is in UTF-32, has fewer than 6 characters, or overlaps another change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
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
    /// An attachment.
    Attachment,
    /// The tail of a log.
    LogTail,
    /// A header or field of an upload.
    UploadHeader,
}

impl Receipt {
    /// Adds an entry; zeros and words that go on where the last ones ended are one entry with them.
    pub(super) fn push(&mut self, entry: Entry) {
        if let Some(last) = self.entries.last_mut()
            && last.offset.checked_add(last.length) == Some(entry.offset)
            && matches!(entry.encoding.as_str(), "binary" | "word")
            && (last.place, &last.rule, &last.encoding) == (entry.place, &entry.rule, &entry.encoding)
        {
            last.length = last.length.saturating_add(entry.length);
            return;
        }
        self.entries.push(entry);
    }

    /// Names the dump that it is about, as it will leave: length, SHA-256, and that the first `entries` entries are about it. Without it
    /// there is nothing to [`verify`](Self::verify); [`scrub::dump`](crate::scrub::dump) does not call it, as more may be blanked afterwards.
    pub fn describe(&mut self, dump: &[u8], entries: usize) {
        let sha256 = hexadecimal(&Sha256::digest(dump));
        self.dump = Some(Scrubbed { length: dump.len() as u64, sha256, entries });
    }

    /// The same for a file, all entries being about it.
    ///
    /// # Errors
    /// [`Error::System`] if it cannot be read.
    pub fn describe_file(&mut self, file: &File) -> Result<()> {
        let (length, sha256) = digest(file)?;
        self.dump = Some(Scrubbed { length, sha256, entries: self.entries.len() });
        Ok(())
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
    /// Exact means: every byte that differs lies in an entry, every byte of an entry is fill or its alias now, and every entry
    /// begins and ends with a changed character (for "binary": byte; for "word": 8 bytes).
    pub fn discrepancy(&self, before: &[u8], after: &[u8]) -> Option<usize> {
        if before.len() != after.len() {
            return Some(before.len().min(after.len()));
        }
        let mut covered = vec![false; before.len()];
        for entry in &self.entries {
            let unit = match entry.encoding.as_str() {
                "utf-16le" | "utf-16be" => 2,
                "utf-32le" | "utf-32be" => 4,
                "word" => 8,
                _ => 1,
            };
            let start = usize::try_from(entry.offset).unwrap_or(usize::MAX);
            let length = usize::try_from(entry.length).unwrap_or(usize::MAX);
            let Some(end) = start.checked_add(length).filter(|&end| end <= before.len() && end > start)
            else {
                return Some(start);
            };
            if let Some(wrong) = entry.first_left(&after[start..end], 0) {
                return Some(start + wrong);
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

impl Entry {
    /// The first byte of `bytes`, `from` bytes into what this is about, that is neither fill nor the alias's.
    fn first_left(&self, bytes: &[u8], from: u64) -> Option<usize> {
        let (unit, lead) = match self.encoding.as_str() {
            "utf-16le" => (2, 0),
            "utf-16be" => (2, 1),
            "utf-32le" => (4, 0),
            "utf-32be" => (4, 3),
            _ => (1, 0),
        };
        let is_text = !matches!(self.encoding.as_str(), "binary" | "word");
        // Whatever a receipt says, nothing else is taken for one.
        let alias = self.alias.as_deref().filter(|alias| is_alias(alias) && is_text);
        let alias = alias.unwrap_or_default().as_bytes();
        let of_alias = |at: usize, byte: u8| {
            let at = from.saturating_add(at as u64);
            at % unit == lead && alias.get((at / unit) as usize) == Some(&byte)
        };
        let is_fill = |byte: u8| match self.encoding.as_str() {
            "word" => byte == WORD_FILL || byte == 0,
            _ => byte == 0 || (byte == b'*' && is_text),
        };
        bytes.iter().enumerate().position(|(at, &byte)| !is_fill(byte) && !of_alias(at, byte))
    }
}

/// What a word of a 64-bit stack becomes that is neither address nor small number: no byte of UTF-8 (RFC 3629, section 1), and eight
/// of it are no canonical address. Zero would end a stackwalk where a frame pointer was saved.
pub(super) const WORD_FILL: u8 = 0xfe;

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;

/// As many of `length` bytes at `at` as are read at once; never none.
fn read(file: &File, at: u64, length: u64) -> Result<Vec<u8>> {
    let mut piece = vec![0; length.min(PIECE) as usize];
    file.read_exact_at(&mut piece, at).map_err(|source| Error::System { call: "pread", source })?;
    Ok(piece)
}

/// Length and SHA-256.
fn digest(file: &File) -> Result<(u64, String)> {
    let length = file.metadata().map_err(|source| Error::System { call: "fstat", source })?.len();
    let (mut hash, mut at) = (Sha256::new(), 0);
    while at < length {
        let piece = read(file, at, length - at)?;
        hash.update(&piece);
        at += piece.len() as u64;
    }
    Ok((length, hexadecimal(&hash.finalize())))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FromStr for Place {
    type Err = Error;

    /// By the name that receipts have: "thread-name".
    fn from_str(name: &str) -> Result<Self> {
        serde_json::from_value(serde_json::Value::from(name)).map_err(|_| Error::InvalidConfig {
            field: "level",
            reason: "a place is registers, exception, stack, heap, thread-name, module-path, text-stream, environment, \
                     unclaimed, attribute, breadcrumb, reason, annotation, attachment, log-tail or upload-header"
                .to_owned(),
        })
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
            Self::Attachment => "attachment",
            Self::LogTail => "log tail",
            Self::UploadHeader => "upload header",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(encoding: &str, offset: u64, length: u64) -> Entry {
        Entry {
            place: Place::Heap,
            rule: "email".into(),
            encoding: encoding.into(),
            offset,
            length,
            alias: None,
        }
    }

    #[test]
    fn a_receipt_survives_json_and_is_counted() {
        let mut receipt = Receipt {
            engine: 1,
            entries: vec![entry("utf-8", 3, 5), entry("utf-16le", 20, 10)],
            ..Receipt::default()
        };
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
    fn the_page_about_receipts_shows_one_and_names_every_place() {
        let page = include_str!("../../docs/receipt.md");
        let (_, example) = page.split_once("```json\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let receipt: Receipt = serde_json::from_str(example).unwrap();
        // Nothing in it is unknown, and nothing has another form.
        let shown: serde_json::Value = serde_json::from_str(example).unwrap();
        assert_eq!(serde_json::to_value(&receipt).unwrap(), shown);
        assert_eq!(receipt.engine, crate::scrub::ENGINE);
        assert!(receipt.entries.iter().all(|entry| entry.alias.as_deref().is_none_or(is_alias)));
        // Those that there are, as the message of a wrong one lists them.
        let places = "".parse::<Place>().unwrap_err().to_string();
        let (_, places) = places.split_once("a place is ").unwrap();
        let places: Vec<&str> = places.split([',', ' ']).filter(|name| !matches!(*name, "" | "or")).collect();
        assert_eq!(places.len(), 16);
        for place in places {
            assert!(place.parse::<Place>().is_ok() && page.contains(&format!("`{place}`")), "{place}");
        }
    }

    #[test]
    fn a_discrepancy_is_found() {
        let before = b"abcdefgh\0\0\0\0";
        let after = b"ab***fgh\0\0\0\0";
        let check = |entries| Receipt { engine: 1, entries, ..Receipt::default() }.discrepancy(before, after);
        assert_eq!(check(vec![entry("utf-8", 2, 3)]), None);
        assert_eq!(check(vec![]), Some(2), "unlisted change");
        assert_eq!(check(vec![entry("utf-8", 2, 2)]), Some(4), "half a change");
        assert_eq!(check(vec![entry("utf-8", 2, 4)]), Some(5), "listed, not filled");
        assert_eq!(check(vec![entry("binary", 2, 3)]), Some(2), "filled with something else");
        assert_eq!(check(vec![entry("utf-8", 2, 3), entry("binary", 8, 2)]), Some(8), "listed, not changed");
        assert_eq!(check(vec![entry("utf-8", 2, 300)]), Some(2), "outside");
        assert_eq!(check(vec![entry("word", 2, 3)]), Some(2), "no word's fill");
        let words = Receipt { entries: vec![entry("word", 0, 16)], ..Receipt::default() };
        let (filled, zeroed) = ([WORD_FILL; 16], [[WORD_FILL; 8], [0; 8]].concat());
        assert_eq!(words.discrepancy(&[1; 16], &filled), None);
        assert_eq!(words.discrepancy(&[1; 16], &zeroed), None, "blanked once more");
        assert_eq!(words.discrepancy(&[1; 16], &[b'*'; 16]), Some(0), "filled with something else");
        assert_eq!(Receipt::default().discrepancy(b"a", b"ab"), Some(1), "another length");
    }
}
