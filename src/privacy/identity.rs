//! The device identifier: none, per session, or rotating; never from hardware.

use serde::{Deserialize, Serialize};

/// How long one identifier lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The field is absent. Always so for child-directed applications.
    Off,
    /// One per start of the application; nothing is stored.
    Session,
    /// Rotates after this many days, from 32 random bytes in the application's own 0600 file.
    Epoch {
        /// Days; 30 is usual.
        days: u32,
    },
}

impl Default for Identity {
    fn default() -> Self {
        Self::Epoch { days: 30 }
    }
}
