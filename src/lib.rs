//! Crash reports without the person: capture, dump, scrub, seal, spool and deliver, on the device.
//!
//! When a program that links this crate crashes, panics or asks for it, a second process takes a minidump of it, removes
//! personal data from it, seals it before a byte is written, and delivers it over TLS, if and only if the person's
//! consent allows that. It is for developers who need the frames and must not have the person: games, tools and services,
//! applications for children among them.
//!
//! ```no_run
//! use cenotaph::privacy::{Basis, ConsentPolicy};
//! use cenotaph::report::Level;
//! use cenotaph::{Config, Destination};
//!
//! fn main() -> Result<(), cenotaph::Error> {
//!     // First of all: the monitor is this program, started again. It does not get past this line.
//!     cenotaph::monitor_entry();
//!
//!     let _cenotaph = Config::new("skyforge", env!("CARGO_PKG_VERSION"))
//!         .destination(Destination::crashpad("https://crashes.example.org/submit")?)
//!         .consent(ConsentPolicy::AskFirst) // hold sealed and send nothing until the person agrees
//!         .install()?;
//!
//!     // When the person has said yes, and only then:
//!     cenotaph::consent()?.grant(Basis::Person)?;
//!
//!     cenotaph::set_attribute("level", "castle")?;
//!     cenotaph::add_breadcrumb(Level::Info, "game", "the gate opened")?;
//!     cenotaph::register_secret("the account name that this player typed")?;
//!
//!     // A report without dying:
//!     cenotaph::capture("the save game did not load")?;
//!     Ok(())
//! }
//! ```
//!
//! # Where to begin
//!
//! [`Config`] has every setting, [`Config::install`] starts it all, the returned [`Guard`] keeps it. [`consent()`] is what
//! the person said. [`status`] tells what happened so far.
//!
//! [`dump`], [`scrub`], [`spool`] and `upload` are the stages behind, usable on their own by tools; [`report`] is the
//! value that travels through them, [`privacy`] the decision that is asked on the way.
//!
//! The repository's pages say the rest: `README.md` (commands, limits, platforms), `PRIVACY.md` (every field that is
//! collected, what is removed, what stays), `ARCHITECTURE.md` (processes, formats, invariants), `SECURITY.md`.
//!
//! # What it promises the application
//!
//! * It never makes a healthy application fail: every call returns an error, and the application may go on without.
//! * A crash ends as it would have: the same signal with the same `siginfo`, after the handlers that were there before; a
//!   panic takes its ordinary course.
//! * Nothing that runs in a signal handler allocates, locks, panics or calls user code.
//! * By default nothing is stored and nobody is contacted before [`ConsentHandle::grant`].
//! * All functions may be called from any thread; `monitor_entry` belongs at the top of `main`. None may be called from a
//!   signal handler.
//!
//! # Platforms and features
//!
//! Linux x86_64 with glibc, 5.9 or newer; nothing else builds yet. The feature `upload` (default) is the delivery;
//! without it the crate links no HTTP or TLS code.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(not(all(cenotaph_linux, cenotaph_x86_64)))]
compile_error!(
    "Cenotaph captures crashes on Linux x86_64 so far. Other systems follow; until then leave the dependency out with \
     [target.'cfg(all(target_os = \"linux\", target_arch = \"x86_64\"))'.dependencies]."
);

mod allocator;
mod blackbox;
mod capture;
mod client;
mod config;
mod consent_record;
pub mod dump;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod generation;
mod memory_protocol;
mod minimal_record;
mod monitor;
mod origin;
pub mod pmodule;
pub mod privacy;
mod private_file;
mod protocol;
#[cfg(feature = "raw-tap")]
mod raw_tap;
pub mod report;
pub mod scrub;
pub mod spool;
mod start_ups;
mod sys;
pub mod target;
#[cfg(feature = "upload")]
pub mod upload;

pub use allocator::WatchedAllocator;
pub use client::{
    ConsentHandle, Guard, Monitor, Status, Watch, add_breadcrumb, capture, consent, note_loaded_modules,
    protect_thread, register_secret, register_secret_range, remove_attribute, set_attribute, share_monitor,
    status, unregister_secret_range, watch_thread,
};
pub use config::{Config, Destination, Protocol, ReleaseAt, ValidConfig};
pub use error::{Error, Result};
pub use monitor::{Replay, Replayed, monitor_entry, monitor_entry_with, replay};
