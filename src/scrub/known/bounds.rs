//! Where a known value may stand: a short or common one is no word of others' texts.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::scrub::edit::Encoding;
use crate::scrub::runs;

/// Where a value may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounds {
    /// Anywhere.
    None,
    /// Between delimiters or non-text.
    Field,
    /// Between delimiters or non-text; beside white space only if the other side is a separator: "the root cause".
    Word,
    /// Between delimiters or non-text, with a path separator on one side at least: one or two letters are found
    /// everywhere in memory.
    Segment,
}

impl Bounds {
    /// Those of `value`.
    pub(super) fn of(value: &[u8]) -> Self {
        if value.len() < SHORT - 2 {
            Self::Segment
        } else if COMMON.iter().any(|common| value.eq_ignore_ascii_case(common.as_bytes())) {
            Self::Word
        } else if value.len() < SHORT {
            Self::Field
        } else {
            Self::None
        }
    }
}

/// A value as it stands in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needle {
    pub(super) encoding: Encoding,
    pub(super) bounds: Bounds,
}

impl Needle {
    /// Whether it may stand at `range` of `bytes`, by its neighbours.
    pub(super) fn may_stand(self, bytes: &[u8], range: &Range<usize>) -> bool {
        if self.bounds == Bounds::None {
            return true;
        }
        let stride = self.encoding.stride();
        // The neighbour as a character; `None` is the edge of the text.
        let unit = |start: Option<usize>| {
            let unit = bytes.get(start?..start? + stride)?;
            let lead = self.encoding.lead();
            let plain = unit.iter().enumerate().all(|(at, &byte)| at == lead || byte == 0);
            (plain && (unit[lead] == 0 || runs::is_text(unit[lead]))).then_some(unit[lead])
        };
        let sides = [unit(range.start.checked_sub(stride)), unit(Some(range.end))];
        let separated = sides.iter().any(|side| matches!(side, Some(b'/' | b'\\')));
        let assigned = sides.iter().any(|side| matches!(side, Some(b'=' | b':')));
        let spaced = sides.iter().any(|side| side.is_some_and(|byte| byte.is_ascii_whitespace()));
        sides.iter().all(|side| side.is_none_or(is_delimiter))
            && match self.bounds {
                Bounds::None | Bounds::Field => true,
                Bounds::Word => separated || assigned || !spaced,
                Bounds::Segment => separated,
            }
    }
}

/// Bytes that bound a path segment or a field.
pub(super) fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\' | 0 | b'"' | b'\'' | b'=' | b':' | b',' | b';') || byte.is_ascii_whitespace()
}

/// Shorter values match only as a whole path segment or field.
const SHORT: usize = 5;

/// Values that are too common to be matched inside other words.
const COMMON: &[&str] = &[
    "root",
    "user",
    "test",
    "home",
    "host",
    "game",
    "main",
    "admin",
    "administrator",
    "android",
    "build",
    "builder",
    "client",
    "container",
    "daemon",
    "debian",
    "default",
    "desktop",
    "developer",
    "docker",
    "fedora",
    "guest",
    "linux",
    "local",
    "localdomain",
    "localhost",
    "macbook",
    "master",
    "mobile",
    "nobody",
    "phone",
    "player",
    "public",
    "runner",
    "server",
    "service",
    "shared",
    "system",
    "testing",
    "tester",
    "ubuntu",
    "unknown",
    "users",
    "vagrant",
    "windows",
    "worker",
    "/home",
    "/root",
    "/users",
];
