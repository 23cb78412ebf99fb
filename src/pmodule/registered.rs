//! A pmodule as the monitor keeps it until a crash: its description, and how to make an instance.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Description, Failure, Pmodule};

/// How much a pmodule may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// For all events of one pmodule while the process stands still. Default 250 ms.
    pub inspect: Duration,
    /// For [`scrub`](Pmodule::scrub), and again for [`verdict`](Pmodule::verdict). Default 2 s.
    pub scrub: Duration,
    /// For all pmodules together while the process stands still. Default 1 s; what has not run by then counts as failed.
    pub all: Duration,
    /// Bytes of memory that a pmodule may have besides what it starts with. Default 64 MiB.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inspect: Duration::from_millis(250),
            scrub: Duration::from_secs(2),
            all: Duration::from_secs(1),
            memory: 64 << 20,
        }
    }
}

/// A pmodule that waits for a crash.
#[derive(Clone)]
pub struct Registered {
    /// What it said about itself.
    pub description: Description,
    /// What to call its code: a shared object's file name.
    pub(super) label: Option<String>,
    make: Arc<Make>,
}

type Make = dyn Fn() -> Result<Box<dyn Pmodule>, Failure> + Send + Sync;

impl Registered {
    /// A pmodule in Rust. Each crash meets a clone of it.
    pub fn of<P: Pmodule + Clone + Send + Sync + 'static>(pmodule: P) -> Self {
        Self::new(pmodule.describe(), move || Ok(Box::new(pmodule.clone())))
    }

    /// One that is made when it is needed, in its own process and before that is confined.
    pub fn new(
        description: Description,
        make: impl Fn() -> Result<Box<dyn Pmodule>, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self { description, label: None, make: Arc::new(make) }
    }

    /// The same, with a name for its code.
    pub(super) fn labelled(self, label: Option<String>) -> Self {
        Self { label, ..self }
    }

    /// An instance for one crash.
    ///
    /// # Errors
    /// If it cannot be made: a shared object that is gone or of another ABI.
    pub fn make(&self) -> Result<Box<dyn Pmodule>, Failure> {
        (self.make)()
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.description).finish()
    }
}
