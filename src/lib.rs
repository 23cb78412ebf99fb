//! Cenotaph
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod config;
pub mod dump;
mod error;
pub mod privacy;
mod private_file;
pub mod report;
pub mod scrub;
pub mod spool;
#[cfg(feature = "upload")]
pub mod upload;

pub use config::{Config, Destination, Protocol, ReleaseAt, ValidConfig};
pub use error::{Error, Result};
