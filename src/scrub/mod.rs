//! Removing personal data from a parsed dump and from text, in place and at the same length.
#![forbid(unsafe_code)]

pub mod receipt;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use receipt::{Entry, Place, Receipt};

use crate::dump::Layout;
use crate::error::Result;
use crate::report::Report;

/// What is to be removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Policy {
    /// How much memory stays.
    pub level: Level,
    /// Values that must not leave: user name, home directory, host name, what the application registered.
    pub known: Vec<String>,
    /// Addresses of the argv and envp strings at the top of the main thread's stack
    /// (`arg_start`..`env_end` of `/proc/PID/stat`), when known.
    pub arguments: Option<Range<u64>>,
}

/// What happens to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Patterns and known values are blanked.
    #[default]
    Pattern,
    /// Besides, stack words that point neither into a module nor into a stack and are no small integers are blanked,
    /// and so is all memory that is not a stack.
    Pointers,
}

/// Scrubs a dump in place. The length stays; the result still parses and unwinds the same.
///
/// # Errors
/// Anything that could not be scrubbed with certainty (an unknown CPU, a stream that does not parse). The bytes must
/// then not be used: the caller steps down to a stack trace.
pub fn dump(_bytes: &mut [u8], _layout: &Layout, _policy: &Policy, _receipt: &mut Receipt) -> Result<()> {
    Ok(())
}

/// Scrubs every text of a report: attributes, breadcrumbs, panic message, reason, thread names.
pub fn report(_report: &mut Report, _policy: &Policy, _receipt: &mut Receipt) {
    
}
