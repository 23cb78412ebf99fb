//! Which monitor is the application's: a word in the blackbox, by which one that does not answer is given up for another
//! without both of them telling of the same crash.
//!
//! The upper half counts monitors, the lower half the requests that the present one has in hand. A request says for which
//! monitor it is; that one takes it on only while the count is still its own. The application moves on only while nothing is
//! in hand. Both are one compare-and-swap on the same word, so one of them comes first.
//!
//! Handlers reach this file: it makes no system call. The word lies in memory that a broken application may have written to:
//! then the monitor refuses, and another one is started.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

const IN_HAND: u64 = 0xffff_ffff;

/// The number of the present monitor.
pub(crate) fn current(word: &AtomicU64) -> u32 {
    (word.load(Ordering::Acquire) >> 32) as u32
}

/// The monitor takes on a request that is for number `monitor`; `false` if that was given up.
pub(crate) fn take_on(word: &AtomicU64, monitor: u32) -> bool {
    change(word, |number, in_hand| (number == monitor && in_hand < IN_HAND).then_some((number, in_hand + 1)))
}

/// The monitor is done with a request that it [took on](take_on).
pub(crate) fn done(word: &AtomicU64, monitor: u32) {
    change(word, |number, in_hand| (number == monitor && in_hand > 0).then(|| (number, in_hand - 1)));
}

/// The application moves on to another monitor, unless this one has something in hand.
pub(crate) fn give_up(word: &AtomicU64) -> bool {
    change(word, |number, in_hand| (in_hand == 0).then_some((number.wrapping_add(1), 0)))
}

/// The application moves on from a monitor that is gone.
pub(crate) fn replace(word: &AtomicU64) {
    change(word, |number, _| Some((number.wrapping_add(1), 0)));
}

fn change(word: &AtomicU64, to: impl Fn(u32, u64) -> Option<(u32, u64)>) -> bool {
    let changed = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| {
        let (number, in_hand) = to((value >> 32) as u32, value & IN_HAND)?;
        Some(u64::from(number) << 32 | in_hand)
    });
    changed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_them_comes_first() {
        let word = AtomicU64::new(0);
        assert!(take_on(&word, 0) && take_on(&word, 0));
        assert!(!give_up(&word), "it is at it");
        done(&word, 0);
        assert!(!give_up(&word));
        done(&word, 0);
        done(&word, 0);
        assert_eq!(word.load(Ordering::Relaxed), 0, "no more than was taken on");
        assert!(give_up(&word));
        assert_eq!(current(&word), 1);
        assert!(!take_on(&word, 0), "too late");
        assert!(take_on(&word, 1));
        done(&word, 0);
        assert!(!give_up(&word), "another one's");
        replace(&word);
        assert_eq!(word.load(Ordering::Relaxed), 2 << 32);
    }

    #[test]
    fn any_word_is_borne() {
        let word = AtomicU64::new(u64::MAX);
        assert_eq!(current(&word), u32::MAX);
        assert!(!take_on(&word, 0) && !take_on(&word, u32::MAX) && !give_up(&word));
        replace(&word);
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }
}
