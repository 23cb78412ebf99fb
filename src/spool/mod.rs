//! Sealed reports on disk: one container file a report, state = directory, nothing lost by a power cut.
//!
//! `spool` is the only module that writes report files.

pub mod container;
pub mod file;
pub mod key;
pub mod quota;
pub mod seal;

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
