//! The search for what must not be there: every window of eight bytes of every value, in one pass.
//!
//! In the wide encodings windows begin where characters do: one that begins within a character holds no more than the
//! others, but its ends are halves, which anything can be.
//!
//! One exception: eight bytes of UTF-16 are four characters, of UTF-32 two, and four decimal digits are no piece of
//! anybody's card number, but a piece of any inode's number ("socket:[257812]"), and two are a pair of small integers. So
//! where a window of fewer than eight characters has digits only, the search is for the whole eight characters
//! around it instead: windows of 16 or 32 bytes.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

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
                needles.begins[usize::from(u16::from_le_bytes([window[0], window[1]]))] = true;
                let digits = window.iter().all(|&byte| byte == 0 || byte.is_ascii_digit());
                let length = if digits { WINDOW * unit } else { WINDOW };
                // Nearer to the value's end there are not eight characters more: an earlier window has them all.
                if let Some(whole) = bytes.get(offset..offset + length) {
                    let entry = needles.windows.entry(number(window)).or_default();
                    entry.push((needles.labels.len(), whole.to_vec()));
                }
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

fn number(window: &[u8]) -> u64 {
    u64::from_le_bytes(window.try_into().unwrap())
}
