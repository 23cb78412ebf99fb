//! Why a command ended badly, and with which exit code.

use std::fmt::Display;
use std::path::Path;

/// Short for a result with [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A message for standard error: the file or thing, what is wrong, the way out.
#[derive(Debug)]
pub enum Failure {
    /// The command line cannot be understood. Exit code 2.
    Usage(String),
    /// The thing asked for failed. Exit code 1.
    Failed(String),
}

impl Failure {
    /// A failed operation on a file: "FILE: cannot VERB: cause".
    pub(crate) fn file(path: &Path, verb: &str, cause: impl Display) -> Self {
        Self::Failed(format!("{}: cannot {verb}: {cause}", path.display()))
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(text) => write!(f, "{text}\nTry 'cenotaph --help'."),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<cenotaph::Error> for Failure {
    fn from(error: cenotaph::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
