//! One guarded entry: a sequence number that is odd while its words are being written.
//!
//! The classic sequence lock, over atomic words so that a reader in another process is never undefined
//! behaviour (H.-J. Boehm, "Can seqlocks get along with programming language memory models?", 2012). A reader
//! never waits: the writer may have died in the middle.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A table of equal entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    /// First word.
    pub(super) start: usize,
    /// Number of entries.
    pub(super) count: usize,
    /// Words of the first text.
    pub(super) first: usize,
    /// Words of the second text.
    pub(super) second: usize,
}

/// The plain contents of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// What it is; 0 = empty.
    pub(super) kind: u8,
    /// Meaning depends on the table.
    pub(super) flags: u8,
    /// A number.
    pub(super) number: u64,
    /// First text (attribute key, breadcrumb category, secret).
    pub(super) first: Vec<u8>,
    /// Second text (attribute value, breadcrumb message).
    pub(super) second: Vec<u8>,
}

/// An entry about to be written; borrowed, because writing must not allocate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft<'a> {
    /// As in [`Contents`].
    pub(super) kind: u8,
    /// As in [`Contents`].
    pub(super) flags: u8,
    /// As in [`Contents`].
    pub(super) number: u64,
    /// As in [`Contents`].
    pub(super) first: &'a [u8],
    /// As in [`Contents`].
    pub(super) second: &'a [u8],
}

/// What a reader found.
pub(super) enum Read {
    Empty,
    Torn,
    Whole(Contents),
}

const FIXED_WORDS: usize = 3;
/// A live writer finishes within nanoseconds; a dead one never does.
const TRIES: usize = 64;

impl Slots {
    const fn words(&self) -> usize {
        FIXED_WORDS + self.first + self.second
    }

    pub(super) const fn end(&self) -> usize {
        self.start + self.count * self.words()
    }

    fn slot<'a>(&self, memory: &'a [AtomicU64], index: usize) -> &'a [AtomicU64] {
        let start = self.start + (index % self.count) * self.words();
        &memory[start..start + self.words()]
    }

    /// Writes an entry. Only one writer at a time (the blackbox's lock). Texts longer than their room are cut.
    pub(super) fn write(&self, memory: &[AtomicU64], index: usize, draft: Draft<'_>) {
        let slot = self.slot(memory, index);
        let (first, second) = (self.fit(draft.first, self.first), self.fit(draft.second, self.second));
        let before = slot[0].load(Ordering::Relaxed);
        // Odd, whatever was there: an entry that a dead writer left odd is written afresh.
        slot[0].store(before | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let lengths = u64::from(draft.kind)
            | u64::from(draft.flags) << 8
            | (first.len() as u64) << 16
            | (second.len() as u64) << 32;
        slot[1].store(lengths, Ordering::Relaxed);
        slot[2].store(draft.number, Ordering::Relaxed);
        store(&slot[FIXED_WORDS..FIXED_WORDS + self.first], first);
        store(&slot[FIXED_WORDS + self.first..], second);
        slot[0].store((before | 1).wrapping_add(1), Ordering::Release);
    }

    /// Reads an entry without ever waiting for its writer.
    pub(super) fn read(&self, memory: &[AtomicU64], index: usize) -> Read {
        let slot = self.slot(memory, index);
        for _ in 0..TRIES {
            let before = slot[0].load(Ordering::Acquire);
            if before % 2 == 1 {
                std::hint::spin_loop();
                continue;
            }
            let lengths = slot[1].load(Ordering::Relaxed);
            let number = slot[2].load(Ordering::Relaxed);
            // Lengths come from memory that a dying process may have overwritten.
            let first = load(&slot[FIXED_WORDS..FIXED_WORDS + self.first], lengths >> 16 & 0xffff);
            let second = load(&slot[FIXED_WORDS + self.first..], lengths >> 32 & 0xffff);
            fence(Ordering::Acquire);
            if slot[0].load(Ordering::Relaxed) == before {
                let [kind, flags, ..] = lengths.to_le_bytes();
                return if kind == 0 {
                    Read::Empty
                } else {
                    Read::Whole(Contents { kind, flags, number, first, second })
                };
            }
        }
        Read::Torn
    }

    /// Whether the entry is in use and its first text is `text`; for the writer, who needs no guard and no copy.
    pub(super) fn is(&self, memory: &[AtomicU64], index: usize, text: &[u8]) -> bool {
        let slot = self.slot(memory, index);
        let [kind, _, low, high, ..] = slot[1].load(Ordering::Relaxed).to_le_bytes();
        kind != 0
            && usize::from(u16::from_le_bytes([low, high])) == text.len()
            && text
                .chunks(8)
                .zip(&slot[FIXED_WORDS..FIXED_WORDS + self.first])
                .all(|(chunk, word)| word.load(Ordering::Relaxed).to_le_bytes().starts_with(chunk))
    }

    /// Whether the entry may be taken: never used, removed, or left torn.
    pub(super) fn is_free(&self, memory: &[AtomicU64], index: usize) -> bool {
        let slot = self.slot(memory, index);
        slot[0].load(Ordering::Relaxed) % 2 == 1 || slot[1].load(Ordering::Relaxed) & 0xff == 0
    }

    fn fit<'a>(&self, text: &'a [u8], words: usize) -> &'a [u8] {
        &text[..text.len().min(words * 8)]
    }
}

fn store(words: &[AtomicU64], bytes: &[u8]) {
    for (word, chunk) in words.iter().zip(bytes.chunks(8)) {
        let mut full = [0; 8];
        full[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_le_bytes(full), Ordering::Relaxed);
    }
    // What an earlier, longer text left behind is wiped: it may be the secret that was just removed.
    for word in words.iter().skip(bytes.len().div_ceil(8)) {
        word.store(0, Ordering::Relaxed);
    }
}

fn load(words: &[AtomicU64], length: u64) -> Vec<u8> {
    let length = usize::try_from(length).unwrap_or(0).min(words.len() * 8);
    let mut bytes: Vec<u8> =
        words.iter().take(length.div_ceil(8)).flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: Slots = Slots { start: 1, count: 2, first: 2, second: 3 };

    fn draft(text: &str) -> Draft<'_> {
        Draft { kind: 1, flags: 2, number: 3, first: b"key", second: text.as_bytes() }
    }

    fn contents(text: &str) -> Contents {
        Contents { kind: 1, flags: 2, number: 3, first: b"key".to_vec(), second: text.as_bytes().to_vec() }
    }

    fn memory() -> Vec<AtomicU64> {
        (0..SLOTS.end()).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn reads_what_was_written_and_wipes_the_rest() {
        let memory = memory();
        assert!(matches!(SLOTS.read(&memory, 0), Read::Empty));
        SLOTS.write(&memory, 0, draft("a long secret text"));
        SLOTS.write(&memory, 0, draft("x"));
        let Read::Whole(read) = SLOTS.read(&memory, 0) else { panic!() };
        assert_eq!(read, contents("x"));
        let all: Vec<u8> = memory.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
        assert!(!all.windows(6).any(|w| w == b"secret"));
    }

    #[test]
    fn a_half_written_entry_is_torn_and_can_be_written_again() {
        let memory = memory();
        SLOTS.write(&memory, 1, draft("x"));
        let sequence = SLOTS.slot(&memory, 1)[0].fetch_or(1, Ordering::Relaxed);
        assert!(matches!(SLOTS.read(&memory, 1), Read::Torn), "{sequence}");
        SLOTS.write(&memory, 1, draft("y"));
        assert!(matches!(SLOTS.read(&memory, 1), Read::Whole(c) if c == contents("y")));
    }

    #[test]
    fn hostile_lengths_stay_inside() {
        let memory = memory();
        for word in &memory {
            word.store(u64::MAX - 1, Ordering::Relaxed);
        }
        let Read::Whole(read) = SLOTS.read(&memory, 0) else { panic!() };
        assert_eq!((read.first.len(), read.second.len()), (16, 24));
    }
}
