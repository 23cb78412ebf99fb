//! Memory that the application registered as secret: addresses and lengths, never what is there.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout;
use crate::error::{Error, Result};

/// Ranges that can be registered at once.
pub(super) const COUNT: usize = 64;
/// Each: address, length. A length of 0 says that there is none.
const SLOT: usize = 2;
pub(super) const WORDS: usize = COUNT * SLOT;

/// Only one caller at a time (the blackbox's lock). One that is there already stays as it is.
pub(super) fn add(memory: &[AtomicU64], range: &Range<u64>) -> Result<()> {
    if read(memory).contains(range) {
        return Ok(());
    }
    let free = (0..COUNT).find(|&slot| words(memory, slot)[1].load(Ordering::Relaxed) == 0);
    let slot = free.ok_or(Error::Limit { what: "the number of secret ranges", limit: COUNT })?;
    let [start, length] = words(memory, slot);
    start.store(range.start, Ordering::Relaxed);
    length.store(range.end - range.start, Ordering::Release);
    Ok(())
}

/// Only one caller at a time.
pub(super) fn remove(memory: &[AtomicU64], range: &Range<u64>) {
    for slot in 0..COUNT {
        let [start, length] = words(memory, slot);
        let is_it = start.load(Ordering::Relaxed) == range.start
            && length.load(Ordering::Relaxed) == range.end - range.start;
        if is_it {
            length.store(0, Ordering::Release);
        }
    }
}

/// Any words may be there: whoever wrote them may have been dying.
pub(super) fn read(memory: &[AtomicU64]) -> Vec<Range<u64>> {
    let slots = (0..COUNT).map(|slot| {
        let length = words(memory, slot)[1].load(Ordering::Acquire);
        let start = words(memory, slot)[0].load(Ordering::Relaxed);
        start..start.saturating_add(length)
    });
    slots.filter(|range| range.start < range.end).collect()
}

fn words(memory: &[AtomicU64], slot: usize) -> [&AtomicU64; SLOT] {
    let start = layout::SECRET_RANGES + slot % COUNT * SLOT;
    [&memory[start], &memory[start + 1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_and_go() {
        let memory: Vec<AtomicU64> = (0..layout::WORDS).map(|_| AtomicU64::new(0)).collect();
        add(&memory, &(10..20)).unwrap();
        add(&memory, &(10..20)).unwrap();
        add(&memory, &(30..31)).unwrap();
        assert_eq!(read(&memory), [10..20, 30..31]);
        remove(&memory, &(10..21));
        remove(&memory, &(10..20));
        assert_eq!(read(&memory), [30..31]);
        for start in 100..100 + COUNT as u64 - 1 {
            add(&memory, &(start..start + 1)).unwrap();
        }
        assert!(matches!(add(&memory, &(1..2)), Err(Error::Limit { .. })));
        // A dying process wrote over it.
        words(&memory, 0)[0].store(u64::MAX - 1, Ordering::Relaxed);
        words(&memory, 0)[1].store(u64::MAX, Ordering::Relaxed);
        assert!(read(&memory).contains(&(u64::MAX - 1..u64::MAX)));
    }
}
