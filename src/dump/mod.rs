//! Minidumps: writing, looking into, unwinding, and the small synthetic kind.

mod claims;
pub mod fingerprint;
pub mod indirect;
pub mod layout;
mod parse;
pub mod synthetic;
pub mod unwind;
pub mod writer;

pub use layout::Layout;
