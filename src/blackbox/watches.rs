//! Threads that promised to beat, and their beats.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::layout;
use crate::error::{Error, Result};

/// Threads that can be watched at once.
pub(super) const COUNT: usize = 32;
/// Each: who, limit, beats.
const SLOT: usize = 3;
pub(super) const WORDS: usize = COUNT * SLOT;

/// A watched thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) slot: usize,
    /// Its id in the application's pid namespace (low half), and how often the slot was taken (high half).
    pub(crate) who: u64,
    /// How long it may be silent, in milliseconds.
    pub(crate) limit_ms: u64,
    /// How often it has beaten.
    pub(crate) beats: u64,
}

impl Watched {
    pub(crate) fn thread(&self) -> u32 {
        self.who as u32
    }
}

/// Only one caller at a time (the blackbox's lock).
pub(super) fn add(memory: &[AtomicU64], thread: u32, limit_ms: u64) -> Result<usize> {
    let free = (0..COUNT).find(|&slot| words(memory, slot)[0].load(Ordering::Acquire) as u32 == 0);
    let slot = free.ok_or(Error::Limit { what: "the number of watched threads", limit: COUNT })?;
    let words = words(memory, slot);
    let taken = (words[0].load(Ordering::Relaxed) >> 32).wrapping_add(1) << 32;
    words[1].store(limit_ms, Ordering::Relaxed);
    words[2].store(0, Ordering::Relaxed);
    words[0].store(taken | u64::from(thread), Ordering::Release);
    Ok(slot)
}

pub(super) fn remove(memory: &[AtomicU64], slot: usize) {
    let who = &words(memory, slot)[0];
    who.store(who.load(Ordering::Relaxed) >> 32 << 32, Ordering::Release);
}

pub(super) fn beat(memory: &[AtomicU64], slot: usize) {
    // One thread writes it, so a plain load and store will do.
    let beats = &words(memory, slot)[2];
    beats.store(beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

pub(super) fn read(memory: &[AtomicU64]) -> Vec<Watched> {
    let slots = (0..COUNT).map(|slot| {
        let [who, limit_ms, beats] = [0, 1, 2].map(|i| words(memory, slot)[i].load(Ordering::Acquire));
        Watched { slot, who, limit_ms, beats }
    });
    slots.filter(|watched| watched.thread() != 0).collect()
}

fn words(memory: &[AtomicU64], slot: usize) -> &[AtomicU64] {
    let start = layout::WATCHES + slot % COUNT * SLOT;
    &memory[start..start + SLOT]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_beaten_and_given_back() {
        let memory: Vec<AtomicU64> = (0..layout::WORDS).map(|_| AtomicU64::new(0)).collect();
        let first = add(&memory, 7, 100).unwrap();
        let second = add(&memory, 8, 200).unwrap();
        beat(&memory, second);
        beat(&memory, second);
        let seen: Vec<_> = read(&memory).iter().map(|w| (w.thread(), w.limit_ms, w.beats)).collect();
        assert_eq!(seen, [(7, 100, 0), (8, 200, 2)]);
        let before = read(&memory)[0].who;
        remove(&memory, first);
        assert_eq!(read(&memory).len(), 1);
        assert_eq!(add(&memory, 7, 100).unwrap(), first);
        assert_ne!(read(&memory)[0].who, before, "another watch, though of the same thread");
        for _ in 2..COUNT {
            add(&memory, 9, 1).unwrap();
        }
        assert!(matches!(add(&memory, 9, 1), Err(Error::Limit { .. })));
    }
}
