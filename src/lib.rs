//! Cenotaph
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(not(all(cenotaph_linux, cenotaph_x86_64)))]
compile_error!(
    "Cenotaph captures crashes on Linux x86_64 so far. Other systems follow; until then leave the dependency out with \
     [target.'cfg(all(target_os = \"linux\", target_arch = \"x86_64\"))'.dependencies]."
);

mod blackbox;
mod capture;
mod client;
mod config;
mod consent_record;
pub mod dump;
mod error;
mod monitor;
pub mod privacy;
mod private_file;
mod protocol;
#[cfg(feature = "raw-tap")]
mod raw_tap;
pub mod report;
pub mod scrub;
pub mod spool;
mod sys;
#[cfg(feature = "upload")]
pub mod upload;

pub use client::{
    ConsentHandle, Guard, Monitor, Status, add_breadcrumb, capture, consent, protect_thread, register_secret,
    remove_attribute, set_attribute, status,
};
pub use config::{Config, Destination, Protocol, ReleaseAt, ValidConfig};
pub use error::{Error, Result};
pub use monitor::monitor_entry;
