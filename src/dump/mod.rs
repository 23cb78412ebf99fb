//! Minidumps: writing, looking into, unwinding, and the small synthetic kind.
#![forbid(unsafe_code)]

pub mod binaries;
mod builder;
mod claims;
pub mod crashpad_info;
pub mod fingerprint;
pub mod indirect;
pub mod layout;
pub mod linux_writer;
pub mod memory;
#[cfg(test)]
mod oracle;
mod parse;
pub(crate) mod ranges;
pub(crate) mod recorded;
pub mod synthetic;
pub mod unwind;
pub mod writer;

pub use layout::Layout;
