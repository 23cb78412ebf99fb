//! Where everything lies in the shared memory, in 8-byte words.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::Slots;
use crate::privacy::Mirror;

/// "CENOTAPH" read as a little-endian word, then the layout's version and size.
const MAGIC: u64 = u64::from_le_bytes(*b"CENOTAPH");
const VERSION: u64 = 2 << 32 | WORDS as u64;

const HEADER_WORDS: usize = 64;
const MAGIC_WORD: usize = 0;
const VERSION_WORD: usize = 1;
const MIRROR_WORD: usize = 2;
const STATE_WORD: usize = 3;
pub(super) const NEXT_BREADCRUMB_WORD: usize = 4;
const EXCEPTION_GLOBALS_WORD: usize = 5;
const REFUSED_MEMORY_WORD: usize = 6;
const END_WORD: usize = 7;
const GENERATION_WORD: usize = 8;
const SUPERSEDED_WORD: usize = 9;
const IMAGE_WORD: usize = 10;
const FIRST_COUNTER: usize = 16;

/// Each entry: a sequence word, a word of lengths and flags, a word for a number, then two texts.
pub(super) const ATTRIBUTES: Slots = Slots { start: HEADER_WORDS, count: 128, first: 8, second: 128 };
pub(super) const BREADCRUMBS: Slots = Slots { start: ATTRIBUTES.end(), count: 128, first: 4, second: 56 };
pub(super) const SECRETS: Slots = Slots { start: BREADCRUMBS.end(), count: 64, first: 32, second: 0 };

/// Watched threads.
pub(super) const WATCHES: usize = SECRETS.end();

/// Secret memory.
pub(super) const SECRET_RANGES: usize = WATCHES + super::watches::WORDS;

/// The whole.
pub(super) const WORDS: usize = SECRET_RANGES + super::secret_ranges::WORDS;

/// How far the monitor is, as it wrote it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MonitorState {
    /// Not yet there.
    Starting,
    /// Waiting for crashes.
    Ready,
    /// The re-executed program reached `install()` with more than one thread and gave up.
    RefusedThreads,
    /// The helper is of another version than the application's library, and gave up.
    OtherVersion,
}

/// What the application says of its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing: it is not over.
    Running,
    /// It shuts Cenotaph down, or leaves by exit(3).
    Clean,
    /// The abort that follows has its report.
    Reported,
}

/// Outcomes that are counted by the monitor for the application to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Reports committed to the spool.
    Spooled,
    /// Reports accepted by a server.
    Delivered,
    /// Reports refused by a server for good; they stay in `rejected/`.
    Rejected,
    /// Attempts to deliver that will be repeated.
    Deferred,
    /// Crashes of which nothing was kept because consent does not allow it.
    RefusedByConsent,
    /// Reports that could not be made or stored.
    Failed,
    /// Reports whose level of detail was lowered because a stage failed.
    SteppedDown,
    /// Reports removed to stay within age, count and size limits.
    Expired,
    /// Crashes of which a pmodule did not want a report.
    Vetoed,
    /// Crashes that were counted and not stored, because there were many like them.
    Repeated,
}

/// The first words.
pub(super) struct Header<'a>(pub(super) &'a [AtomicU64]);

impl<'a> Header<'a> {
    pub(super) fn generation(&self) -> &'a AtomicU64 {
        &self.0[GENERATION_WORD]
    }

    pub(super) fn initialise(&self) {
        self.0[VERSION_WORD].store(VERSION, Ordering::Relaxed);
        self.0[MAGIC_WORD].store(MAGIC, Ordering::Release);
    }

    pub(super) fn is_ours(&self) -> bool {
        self.0[MAGIC_WORD].load(Ordering::Acquire) == MAGIC
            && self.0[VERSION_WORD].load(Ordering::Relaxed) == VERSION
    }

    /// Anything but 0 refuses: a damaged word must not read as permission.
    pub(super) fn mirror(&self) -> Mirror {
        match self.0[MIRROR_WORD].load(Ordering::Acquire) {
            0 => Mirror::Silent,
            _ => Mirror::Refuses,
        }
    }

    pub(super) fn set_mirror(&self, mirror: Mirror) {
        self.0[MIRROR_WORD].store(u64::from(mirror == Mirror::Refuses), Ordering::Release);
    }

    pub(super) fn monitor_state(&self) -> MonitorState {
        match self.0[STATE_WORD].load(Ordering::Acquire) {
            1 => MonitorState::Ready,
            2 => MonitorState::RefusedThreads,
            3 => MonitorState::OtherVersion,
            _ => MonitorState::Starting,
        }
    }

    pub(super) fn end(&self) -> End {
        match self.0[END_WORD].load(Ordering::Acquire) {
            1 => End::Clean,
            2 => End::Reported,
            _ => End::Running,
        }
    }

    pub(super) fn set_end(&self, end: End) {
        let value = match end {
            End::Running => 0,
            End::Clean => 1,
            End::Reported => 2,
        };
        self.0[END_WORD].store(value, Ordering::Release);
    }

    pub(super) fn set_monitor_state(&self, state: MonitorState) {
        let value = match state {
            MonitorState::Starting => 0,
            MonitorState::Ready => 1,
            MonitorState::RefusedThreads => 2,
            MonitorState::OtherVersion => 3,
        };
        self.0[STATE_WORD].store(value, Ordering::Release);
    }

    /// When a panic happened that was no event of its own; 0: none.
    pub(super) fn superseded(&self) -> u64 {
        self.0[SUPERSEDED_WORD].load(Ordering::Acquire)
    }

    pub(super) fn set_superseded(&self, monotonic_ns: u64) {
        self.0[SUPERSEDED_WORD].store(monotonic_ns, Ordering::Release);
    }

    /// Where things are in the application; 0: unknown.
    pub(super) fn set_places(&self, exception_globals: Option<i64>, refused_memory: u64) {
        let offset = exception_globals.unwrap_or(0).cast_unsigned();
        self.0[EXCEPTION_GLOBALS_WORD].store(offset, Ordering::Release);
        self.0[REFUSED_MEMORY_WORD].store(refused_memory, Ordering::Release);
    }

    pub(super) fn places(&self) -> (Option<i64>, Option<u64>) {
        let word = |index: usize| Some(self.0[index].load(Ordering::Acquire)).filter(|&word| word != 0);
        (word(EXCEPTION_GLOBALS_WORD).map(u64::cast_signed), word(REFUSED_MEMORY_WORD))
    }

    pub(super) fn image(&self) -> &'a AtomicU64 {
        &self.0[IMAGE_WORD]
    }

    pub(super) fn counter(&self, counter: Counter) -> &AtomicU64 {
        &self.0[FIRST_COUNTER + counter as usize]
    }
}
