//! The search for what must not be there: every window of eight bytes of every value, in one pass.
//!
//! In the wide encodings windows begin where characters do: one that begins within a character holds no more than the
//! others, but its ends are halves, which anything can be.
//!
//! Eight bytes of UTF-16 are four characters, of UTF-32 two, and some of these are no piece of anything: four decimal
//! digits are in the number of any inode ("socket:[257812]"), and two characters of UTF-32 are two small integers,
//! such as the size of a heap block (0x61, `a`) behind somebody's last byte, or what is left of an address of the program
//! (0x55, `U`) behind the second byte of a thread's id. [`length`] says where a window is longer for that reason; every
//! character of every value is still in windows.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;

/// Bytes of a window. Eight characters of UTF-8, four of UTF-16, two of UTF-32.
pub(crate) const WINDOW: usize = 8;

/// All windows of some values.
pub(crate) struct Needles {
    /// The window as a number; the number of the value it is of, and the whole of what must stand there.
    windows: HashMap<u64, Vec<(usize, Vec<u8>)>>,
    /// Whether any window begins with these two bytes: nearly all of a haystack is passed over by this.
    begins: Vec<bool>,
    labels: Vec<String>,
}

/// A window that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it begins.
    pub(crate) offset: usize,
    /// Which value it is a piece of (one of them, if several have it).
    pub(crate) label: String,
}

impl Needles {
    /// Every window of every value, whose characters take `unit` bytes each. A value shorter than
    /// a window has none, so that is refused.
    pub(crate) fn new(values: impl IntoIterator<Item = (String, Vec<u8>, usize)>) -> Self {
        let mut needles = Self { windows: HashMap::new(), begins: vec![false; 1 << 16], labels: Vec::new() };
        for (label, bytes, unit) in values {
            assert!(bytes.len() >= WINDOW * unit, "{label} is shorter than a window");
            for (offset, window) in bytes.windows(WINDOW).enumerate().step_by(unit) {
                // At the value's end there are not so many characters left: then its last ones.
                let length = length(window, unit);
                let start = offset.min(bytes.len() - length);
                let whole = &bytes[start..start + length];
                let begins = u16::from_le_bytes([whole[0], whole[1]]);
                needles.begins[usize::from(begins)] = true;
                let entry = needles.windows.entry(number(&whole[..WINDOW])).or_default();
                entry.push((needles.labels.len(), whole.to_vec()));
            }
            needles.labels.push(label);
        }
        needles
    }

    /// Every place in `bytes` where a window begins.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        for (offset, window) in bytes.windows(WINDOW).enumerate() {
            if self.begins[usize::from(u16::from_le_bytes([window[0], window[1]]))]
                && let Some(values) = self.windows.get(&number(window))
                && let Some((value, _)) = values.iter().find(|(_, whole)| bytes[offset..].starts_with(whole))
            {
                found.push(Found { offset, label: self.labels[*value].clone() });
            }
        }
        found
    }

    /// How many different windows there are.
    pub(crate) fn count(&self) -> usize {
        self.windows.len()
    }
}

/// Bytes that are searched for from where `window` begins, whose characters take `unit` bytes each.
fn length(window: &[u8], unit: usize) -> usize {
    let mut characters = window.iter().step_by(unit);
    if unit > 1 && characters.clone().all(u8::is_ascii_digit) {
        return 8 * unit;
    }
    // Heap blocks have multiples of 16 bytes, and a flag in the lowest bit (malloc(3), glibc's malloc_chunk).
    let size_like = |byte: u8| !byte.is_ascii_alphabetic() || byte % 16 <= 1;
    // Position-independent programs lie at two thirds of the address space and up to 2^40 above (the kernel's ELF_ET_DYN_BASE).
    let address_like = |byte: u8| matches!(byte, 0x55 | 0x56);
    let number_like = |&byte: &u8| size_like(byte) || address_like(byte);
    if unit == 4 && characters.any(number_like) { 4 * unit } else { WINDOW }
}

fn number(window: &[u8]) -> u64 {
    u64::from_le_bytes(window.try_into().unwrap())
}
