//! The C interface of Cenotaph. The header is `include/cenotaph.h`; `examples/c` holds a program that uses it.
//!
//! This package exports the only symbols that there are (all begin with `cenotaph_`) and uses the public Rust
//! interface alone. Conventions: a status is returned and 0 is success; handles are opaque; setters copy; a NULL that
//! is not allowed and text that is no UTF-8 are errors with a status of their own; no panic crosses the border.
//!
//! A program that links the static library on Linux also needs what Rust's standard library needs:
//!
//! ```text
//! cc game.c -Iinclude libcenotaph_ffi.a -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// Types carry the names that the header gives them.
#![allow(non_camel_case_types)]

pub mod client;
mod handle;
pub mod memory;
pub mod options;
mod panic;
pub mod status;
mod text;
pub mod watch;
