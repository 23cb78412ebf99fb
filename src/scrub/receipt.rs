//! What was removed, where and by which rule; never the text itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The proof that goes with a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of the rules.
    pub engine: u32,
    /// Every change, in the order it was made.
    pub entries: Vec<Entry>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it was.
    pub place: Place,
    /// The rule: "email", "known-value", "argv-envp", "vector-state".
    pub rule: String,
    /// "utf-8", "utf-16le", "utf-16be", "utf-32le", or "binary".
    pub encoding: String,
    /// Byte offset: into the dump, or into the text for attributes, breadcrumbs and the reason.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Where in a report something stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Place {
    /// A CPU context.
    Registers,
    /// The exception's parameters.
    Exception,
    /// A thread's stack.
    Stack,
    /// Other memory.
    Heap,
    /// A thread's name.
    ThreadName,
    /// A module's path.
    ModulePath,
    /// A text stream of /proc or /etc, or another string in the dump.
    TextStream,
    /// The environment or command line.
    Environment,
    /// A stream that is not known, or bytes between streams.
    Unclaimed,
    /// An attribute.
    Attribute,
    /// A breadcrumb.
    Breadcrumb,
    /// The panic message or the words given to `capture`.
    Reason,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registers => "registers",
            Self::Exception => "exception",
            Self::Stack => "stack",
            Self::Heap => "heap",
            Self::ThreadName => "thread name",
            Self::ModulePath => "module path",
            Self::TextStream => "text stream",
            Self::Environment => "environment",
            Self::Unclaimed => "unclaimed",
            Self::Attribute => "attribute",
            Self::Breadcrumb => "breadcrumb",
            Self::Reason => "reason",
        })
    }
}
