//! Whether a dump is the one that a receipt is about, and holds no more than the receipt says.
#![forbid(unsafe_code)]

use std::fs::File;

use super::{Entry, PIECE, Receipt, digest};
use crate::error::{Error, Result};
use crate::scrub::aliases::is_alias;

impl Receipt {
    /// Checks that `file` is the dump that this receipt is about, and that what it names was removed from it: the hash, and that
    /// every byte of every entry is fill or its alias. (That nothing else was changed only [`discrepancy`](Self::discrepancy) can show, with the
    /// dump before.) Time is linear in the file's length, and but for a sort in the number of entries, however they overlap; 64 KiB
    /// of the file are held at a time. All of it is read for the hash, and what entries name again: it must not change meanwhile.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the dump is another one than the receipt's, or that is about none; [`Error::Malformed`] if the receipt is wrong, and where;
    /// [`Error::System`] if the file cannot be read.
    pub fn verify(&self, file: &File) -> Result<()> {
        let Some(dump) = &self.dump else {
            return Err(Error::Mismatch(
                "the receipt is about no dump: the report has none, or it comes from an older version"
                    .to_owned(),
            ));
        };
        let Some(entries) = self.entries.get(..dump.entries) else {
            return wrong(format!("{} of {} entries are about the dump", dump.entries, self.entries.len()));
        };
        let (length, sha256) = digest(file)?;
        if length != dump.length {
            return Err(Error::Mismatch(format!(
                "the dump has {length} bytes, and the one that the receipt is about {}",
                dump.length
            )));
        }
        if sha256 != dump.sha256 {
            // What a receipt has there may be anything.
            return Err(Error::Mismatch(format!("the dump's SHA-256 is {sha256}, and not the receipt's")));
        }
        if let Some(entry) =
            entries.iter().find(|entry| entry.end().is_none_or(|end| end > length || end == entry.offset))
        {
            return wrong(format!("its entry at {:#x} lies outside the dump", entry.offset));
        }
        beginnings(entries, file, length)?;
        ["binary", "word", TEXT].into_iter().try_for_each(|fill| rests(entries, fill, file, length))
    }
}

/// All encodings of text have one fill.
const TEXT: &str = "utf-8";

fn wrong<T>(reason: String) -> Result<T> {
    Err(Error::malformed("receipt", reason))
}

fn not_blank<T>(at: u64, entry: &Entry) -> Result<T> {
    wrong(format!("{at:#x} in the dump is not blank, as its entry at {:#x} says", entry.offset))
}

impl Entry {
    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }

    /// Where its alias ends, which is as short as aliases are.
    fn behind_alias(&self) -> u64 {
        let unit = match self.encoding.as_str() {
            "utf-16le" | "utf-16be" => 2,
            "utf-32le" | "utf-32be" => 4,
            _ => 1,
        };
        let alias = self.alias.as_deref().filter(|alias| is_alias(alias)).map_or(0, str::len) as u64;
        self.offset.saturating_add((alias * unit).min(self.length))
    }

    fn fill(&self) -> &str {
        if matches!(self.encoding.as_str(), "binary" | "word") { &self.encoding } else { TEXT }
    }
}

/// Checks the bytes of each entry at which its alias may stand.
fn beginnings(entries: &[Entry], file: &File, length: u64) -> Result<()> {
    let mut aliased: Vec<&Entry> =
        entries.iter().filter(|entry| entry.behind_alias() > entry.offset).collect();
    aliased.sort_unstable_by_key(|entry| entry.offset);
    let mut window = Window::new(file, length);
    for entry in aliased {
        let (mut at, end) = (entry.offset, entry.behind_alias());
        while at < end {
            let piece = window.at(at, end)?;
            if let Some(left) = entry.first_left(piece, at - entry.offset) {
                return not_blank(at + left as u64, entry);
            }
            at += piece.len() as u64;
        }
    }
    Ok(())
}

/// Checks what follows the aliases in entries of one fill: each byte once, however many entries it lies in.
fn rests(entries: &[Entry], fill: &str, file: &File, length: u64) -> Result<()> {
    let range = |entry: &Entry| (entry.behind_alias(), entry.end().unwrap_or(length));
    let same = || entries.iter().filter(|entry| entry.fill() == fill);
    let mut ranges: Vec<(u64, u64)> = same().map(range).collect();
    ranges.sort_unstable();
    let Some(plain) = same().next().map(|entry| Entry { alias: None, ..entry.clone() }) else {
        return Ok(());
    };
    let (mut window, mut at) = (Window::new(file, length), 0);
    for (start, end) in ranges {
        at = start.max(at);
        while at < end {
            let piece = window.at(at, end)?;
            if let Some(left) = plain.first_left(piece, 0) {
                let at = at + left as u64;
                let holds = |entry: &&Entry| (range(entry).0..range(entry).1).contains(&at);
                return not_blank(at, same().find(holds).unwrap_or(&plain));
            }
            at += piece.len() as u64;
        }
    }
    Ok(())
}

/// A piece of a file, for one that is read from its start to its end.
struct Window<'a> {
    file: &'a File,
    /// The file's.
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, length: u64) -> Self {
        Self { file, length, start: 0, bytes: Vec::new() }
    }

    /// What is held of the bytes from `at` to `end`, both within the file; never none.
    fn at(&mut self, at: u64, end: u64) -> Result<&[u8]> {
        if !(self.start..self.start + self.bytes.len() as u64).contains(&at) {
            self.bytes = super::read(self.file, at, self.length.saturating_sub(at).min(PIECE))?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        let length = usize::try_from(end - at).unwrap_or(usize::MAX);
        let to = from.saturating_add(length).min(self.bytes.len());
        Ok(self.bytes.get(from..to).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::super::Place;
    use super::*;

    fn entry(encoding: &str, offset: u64, length: u64) -> Entry {
        let (place, rule, encoding) = (Place::Heap, "email".into(), encoding.into());
        Entry { place, rule, encoding, offset, length, alias: None }
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn verified(bytes: &[u8], entries: Vec<Entry>) -> Result<()> {
        let mut receipt = Receipt { entries, ..Receipt::default() };
        receipt.describe(bytes, receipt.entries.len());
        receipt.verify(&file(bytes))
    }

    #[test]
    fn a_receipt_is_verified_against_its_dump() {
        let after = b"ab***fgh\0\0\0\0";
        let mut receipt =
            Receipt { entries: vec![entry("utf-8", 2, 3), entry("binary", 8, 4)], ..Receipt::default() };
        let of_texts = entry("utf-8", 500, 9);
        receipt.describe(after, 2);
        receipt.entries.push(of_texts);
        receipt.verify(&file(after)).unwrap();
        let mut by_file = receipt.clone();
        by_file.entries.pop();
        by_file.describe_file(&file(after)).unwrap();
        assert_eq!(by_file.dump, receipt.dump);
        let said = |receipt: &Receipt, bytes: &[u8]| receipt.verify(&file(bytes)).unwrap_err().to_string();
        // Such a receipt is as it should be.
        for (receipt, bytes, reason) in [
            (&receipt, &b"ab***fgx\0\0\0\0"[..], "SHA-256"),
            (&receipt, b"ab***fgh\0", "9 bytes"),
            (&Receipt::default(), after, "no dump"),
        ] {
            let said = said(receipt, bytes);
            assert!(said.contains(reason) && !said.contains("malformed"), "{said}");
        }
        for (wrong, reason) in [
            (entry("utf-8", 1, 3), "0x1 in the dump is not blank"),
            (entry("binary", 2, 3), "0x2 in the dump"),
            (entry("utf-8", 8, 5), "outside"),
            (entry("utf-8", u64::MAX, 5), "outside"),
            (entry("utf-8", 2, 0), "outside"),
        ] {
            let said = verified(after, vec![wrong]).unwrap_err().to_string();
            assert!(said.contains(reason) && said.contains("malformed receipt"), "{said}");
        }
        receipt.describe(after, 9);
        assert!(said(&receipt, after).contains("9 of 3"));
    }

    #[test]
    fn entries_may_overlap_and_each_is_checked() {
        let text = b"ab[email#317]**\0\0\0\0x";
        let aliased =
            |offset, length| Entry { alias: Some("[email#317]".into()), ..entry("utf-8", offset, length) };
        for (entries, expected) in [
            (vec![aliased(2, 15)], None),
            (vec![aliased(2, 17), entry("binary", 15, 4), entry("utf-8", 13, 4)], None),
            (vec![aliased(2, 18)], Some("0x13 in the dump is not blank, as its entry at 0x2")),
            // Behind the alias of one, before that of another.
            (
                vec![aliased(2, 15), entry("utf-8", 3, 4)],
                Some("0x3 in the dump is not blank, as its entry at 0x3"),
            ),
            (vec![aliased(1, 15)], Some("0x1 in the dump is not blank")),
            (
                vec![entry("binary", 15, 4), aliased(2, 15), entry("binary", 14, 3)],
                Some("0xe in the dump is not blank, as its entry at 0xe"),
            ),
            (vec![entry("word", 15, 4), entry("word", 14, 2)], Some("0xe in the dump")),
        ] {
            let said = verified(text, entries.clone()).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(said, None, "{entries:?}"),
                Some(reason) => assert!(said.as_ref().is_some_and(|said| said.contains(reason)), "{said:?}"),
            }
        }
        // Longer than what is held of a file, and an alias over the edge of that.
        let edge = PIECE as usize - 5;
        let mut long = vec![0; 2 * PIECE as usize];
        long[edge..edge + 11].copy_from_slice(b"[email#317]");
        let start = edge as u64;
        verified(
            &long,
            vec![aliased(start, 20), entry("binary", 0, 9), entry("binary", start + 11, PIECE - 6)],
        )
        .unwrap();
        assert!(verified(&long, vec![entry("binary", 0, PIECE)]).is_err());
    }

    /// As many times as there are entries it would be read for a day.
    #[test]
    fn what_entries_name_together_is_read_once() {
        let bytes = vec![0; 4 << 20];
        let whole = |number: u64| entry("binary", number, bytes.len() as u64 - number);
        verified(&bytes, (0..100_000).map(whole).collect()).unwrap();
    }
}
