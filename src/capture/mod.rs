//! Noticing that something went wrong, inside the application.
//!
//! Handler-reachable code is in [`signal_safe`], [`handler`], [`last_words`], [`own_stack`], [`module_table`], [`secret_ranges`],
//! [`relaunch`] and [`memory_server`] alone: no allocation, no lock, no user code (but for [`signals::is_crash_to_earlier`], if the
//! application asks for it), only the system calls listed there. Everything else here runs in ordinary context.

mod alt_stack;
pub(crate) mod context;
mod handler;
mod last_words;
mod limits;
mod memory_server;
mod module_scan;
mod module_table;
mod own_stack;
pub(crate) mod panic_hook;
mod record_folder;
mod relaunch;
mod relaunch_kit;
mod secret_ranges;
mod signal_safe;
mod signals;

pub(crate) use alt_stack::protect_thread;
pub(crate) use handler::{
    Armament, allow_monitor, expect_abort, expect_no_abort, is_armed, record_panic, serve, while_readable,
    withdraw_record,
};
pub(crate) use last_words::Constants;
pub(crate) use memory_server::start_apart as tell_memory;
pub(crate) use module_scan::{hide as hide_modules, refresh as refresh_modules};
pub(crate) use record_folder::{forbid_records, keep_records};
pub(crate) use relaunch_kit::{Kit, equip, unequip};
pub(crate) use secret_ranges::set_secret_ranges;
pub(crate) use signals::{ALL as ALL_SIGNALS, arm, disarm};
