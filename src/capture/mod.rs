//! Noticing that something went wrong, inside the application.
//!
//! Handler-reachable code is in [`signal_safe`] and [`handler`] alone: no allocation, no lock, no user
//! code, only the system calls listed there. Everything else here runs in ordinary context.

mod alt_stack;
pub(crate) mod context;
mod handler;
pub(crate) mod panic_hook;
mod signal_safe;
mod signals;

pub(crate) use alt_stack::protect_thread;
pub(crate) use handler::{Armament, allow_monitor, expect_abort, is_armed};
pub(crate) use signals::{arm, disarm};
