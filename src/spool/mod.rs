//! Sealed reports on disk: one container file a report, state = directory, nothing lost by a power cut.
//!
//! `spool` is the only module that writes report files.
#![forbid(unsafe_code)]

mod claim;
pub mod container;
pub mod file;
pub mod key;
mod name;
pub mod quota;
pub(crate) mod records;
mod seal;
pub mod signatures;
mod unfinished;

pub use claim::Claim;
pub use file::{Committed, Item, Spool, State, Tally};
pub use key::LocalKey;
pub use quota::Limits;

use serde::{Deserialize, Serialize};

/// One separately sealed part of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Its bytes, uncompressed.
    pub bytes: Vec<u8>,
}

/// The kinds of parts; each can be dropped without opening the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
#[non_exhaustive]
pub enum PartKind {
    /// [`Report`](crate::report::Report) as JSON.
    Report = 1,
    /// [`Receipt`](crate::scrub::Receipt) as JSON.
    Receipt = 2,
    /// The stack trace as a synthetic minidump.
    StackTrace = 3,
    /// The scrubbed minidump with its memory reduced to pointers.
    Pointers = 4,
    /// The scrubbed minidump.
    Minidump = 5,
}

impl PartKind {
    /// The kind with that number in a container.
    fn from_number(number: u8) -> Option<Self> {
        let kinds = [Self::Report, Self::Receipt, Self::StackTrace, Self::Pointers, Self::Minidump];
        kinds.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// For fuzz targets: a file name, read and written anew.
#[cfg(fuzzing)]
pub(crate) fn rewritten_name(text: &str) -> Option<String> {
    text.parse::<name::Name>().ok().map(|name| name.to_string())
}
