//! What a process says about its own end.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// What the process itself says about its end, beyond the signal. Texts are scrubbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// `abort` was called, in C or by `std::process::abort`, and nothing says why.
    Abort,
    /// `assert` of C.
    Assertion {
        /// The C library's message.
        message: String,
    },
    /// The stack protector found its guard overwritten.
    StackSmashing {
        /// The C library's message.
        message: String,
    },
    /// A checked function of the C library (`_FORTIFY_SOURCE`) refused.
    Fortify {
        /// The C library's message.
        message: String,
    },
    /// malloc found its heap damaged, or a block freed twice.
    HeapCorruption {
        /// The C library's message.
        message: String,
    },
    /// The C library ended the process with another message.
    LibraryMessage {
        /// It.
        message: String,
    },
    /// `std::terminate` of C++ because of an exception.
    CxxException {
        /// Its type, readable: `game::Refused`.
        type_name: String,
        /// `what()`, for those derived from `std::runtime_error` and `std::logic_error`; the text, for `const char *`.
        what: Option<String>,
    },
    /// `std::terminate` of C++ without an exception.
    CxxTerminate,
    /// Rust's allocator had no memory (`handle_alloc_error`).
    OutOfMemory {
        /// The bytes that were asked for, if the application's allocator is a
        /// [`WatchedAllocator`](crate::WatchedAllocator).
        bytes: Option<u64>,
    },
}

impl Origin {
    /// "abort", "assertion", "cxx-exception": never holds user text.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Assertion { .. } => "assertion",
            Self::StackSmashing { .. } => "stack-smashing",
            Self::Fortify { .. } => "fortify",
            Self::HeapCorruption { .. } => "heap-corruption",
            Self::LibraryMessage { .. } => "library-message",
            Self::CxxException { .. } => "cxx-exception",
            Self::CxxTerminate => "cxx-terminate",
            Self::OutOfMemory { .. } => "out-of-memory",
        }
    }

    /// Its text, if it has one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Assertion { message }
            | Self::StackSmashing { message }
            | Self::Fortify { message }
            | Self::HeapCorruption { message }
            | Self::LibraryMessage { message } => Some(message),
            Self::CxxException { what, .. } => what.as_deref(),
            Self::Abort | Self::CxxTerminate | Self::OutOfMemory { .. } => None,
        }
    }

    /// For the scrubber.
    pub(crate) fn text_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Assertion { message }
            | Self::StackSmashing { message }
            | Self::Fortify { message }
            | Self::HeapCorruption { message }
            | Self::LibraryMessage { message } => Some(message),
            Self::CxxException { what, .. } => what.as_mut(),
            Self::Abort | Self::CxxTerminate | Self::OutOfMemory { .. } => None,
        }
    }
}
