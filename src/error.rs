//! The one error type of the library.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Short for a result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, as far as a caller can act on it.
///
/// A message names the thing, the cause and the way out. It never holds attribute values, report
/// contents or key material, so it may be logged as it is.
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be used. `field` is the name of the [`Config`](crate::Config) setter.
    InvalidConfig {
        /// The setter.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A file or directory of the spool, or a file named in the configuration, cannot be used.
    File {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb: "create", "read".
        action: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// No monitor process can be started here; the reason says why and what to do.
    MonitorUnavailable(String),
    /// [`Config::install`](crate::Config::install) was called twice in one process.
    AlreadyInstalled,
    /// The call needs an installed Cenotaph.
    NotInstalled,
    /// A system call failed where it should not.
    System {
        /// The call's name.
        call: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Bytes from elsewhere (a dump, a container, a message, a reply) are not what they claim to be.
    Malformed {
        /// "minidump", "container", "message".
        what: &'static str,
        /// Where and why.
        reason: String,
    },
    /// Two things do not belong together: a dump, and a receipt of another one. Each may be as it should be.
    Mismatch(String),
    /// A container cannot be opened: wrong key, or its bytes were changed.
    Unsealed(&'static str),
    /// A stated limit was exceeded: too many attributes, too long a name.
    Limit {
        /// What was counted or measured.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Consent does not allow it.
    ConsentRefused(&'static str),
    /// A pmodule did not want the report; the monitor's log says which and why.
    Vetoed,
    /// Nobody answered before the deadline.
    Timeout(&'static str),
    /// The server could not be reached safely or did not accept. The report stays in the spool.
    Upload(String),
}

impl Error {
    /// A failed file operation.
    pub(crate) fn file(path: impl AsRef<Path>, action: &'static str, source: io::Error) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), action, source }
    }

    /// The last system call's failure (`errno`).
    pub(crate) fn last_os(call: &'static str) -> Self {
        Self::System { call, source: io::Error::last_os_error() }
    }

    /// Bytes that are not what they should be.
    pub(crate) fn malformed(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { what, reason: reason.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidConfig { field, reason } => write!(f, "configuration `{field}`: {reason}"),
            Self::File { path, action, source } => {
                write!(f, "cannot {action} {}: {source}{}", path.display(), way_out(source))
            }
            Self::MonitorUnavailable(reason) => write!(f, "no monitor process: {reason}"),
            Self::AlreadyInstalled => {
                f.write_str("Cenotaph is already installed in this process; keep the first Guard")
            }
            Self::NotInstalled => f.write_str("Cenotaph is not installed; call Config::install() first"),
            Self::System { call, source } => write!(f, "system call {call} failed: {source}"),
            Self::Malformed { what, reason } => write!(f, "malformed {what}: {reason}"),
            Self::Mismatch(reason) => write!(f, "this is not the receipt of this dump: {reason}"),
            Self::Unsealed(why) => write!(f, "container cannot be opened: {why}"),
            Self::Limit { what, limit } => write!(f, "{what} exceeds the limit of {limit}"),
            Self::ConsentRefused(stage) => {
                write!(f, "consent does not allow {stage}; it takes consent().grant() first")
            }
            Self::Vetoed => f.write_str("a pmodule did not want the report; the monitor's log says why"),
            Self::Timeout(what) => write!(f, "no answer in time from {what}"),
            Self::Upload(reason) => write!(f, "upload: {reason}"),
        }
    }
}

/// The same words: `main` may return this error, and prints it so.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hint for the causes that a user can do something about.
fn way_out(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (choose a directory that this user owns)",
        io::ErrorKind::NotFound => " (create it first, or choose another path)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            " (free some space; reports already committed are safe)"
        }
        io::ErrorKind::NotADirectory => " (choose another path)",
        io::ErrorKind::ReadOnlyFilesystem => " (choose a path on a writable file system)",
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}
