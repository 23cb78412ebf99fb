//! Secret memory, as the handler knows it: for minimal records.
//!
//! Reached by handlers: nothing here allocates, locks or calls user code.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// As many as the blackbox takes.
const COUNT: usize = 64;

/// Address and end of each; an end of 0: none.
static RANGES: [[AtomicU64; 2]; COUNT] = [const { [AtomicU64::new(0), AtomicU64::new(0)] }; COUNT];

/// From now on what lies in these ranges, and in no others, goes into no record.
pub(crate) fn set_secret_ranges(ranges: &[Range<u64>]) {
    for (index, [start, end]) in RANGES.iter().enumerate() {
        let range = ranges.get(index).cloned().unwrap_or_default();
        // A handler that runs in between sees too much of memory as secret, not too little.
        start.store(range.start.min(start.load(Ordering::Relaxed)), Ordering::Release);
        end.store(range.end, Ordering::Release);
        start.store(range.start, Ordering::Release);
    }
}

/// Whether the word at `address` touches one.
pub(super) fn holds(address: u64) -> bool {
    let end = address.saturating_add(8);
    RANGES
        .iter()
        .any(|[start, last]| address < last.load(Ordering::Acquire) && start.load(Ordering::Acquire) < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_touch_a_range() {
        let far = 0x7100_0000_0000;
        set_secret_ranges(&[far..far + 3, far + 0x100..far + 0x110]);
        let touching = [far - 7, far, far + 2, far + 0xf9, far + 0x10f].map(holds);
        let beside = [far - 8, far + 3, far + 0xf8, far + 0x110].map(holds);
        assert_eq!((touching, beside), ([true; 5], [false; 4]));
        set_secret_ranges(&[]);
        assert!(!holds(far));
    }
}
