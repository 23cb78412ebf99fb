//! The other side: a process that survives the application and turns its last message into a report.
//!
//! Three kinds of process, all made from the application's own image or a helper's. The *supervisor* owns the sockets and sleeps;
//! a *worker* (a forked child, made in advance) looks at one dying process and makes one report; the *uploader*
//! (started anew, detached) is the only one that uses the network.
#![forbid(unsafe_code)]

mod application;
mod captured;
mod confinement;
mod delivery;
mod hang;
mod inspection;
mod job;
mod launch;
mod leftover;
mod leftovers;
mod life;
mod log;
mod outcome;
mod pmodules;
mod program;
mod rehearsal;
mod replay;
mod role;
mod session;
mod share;
mod stages;
mod supervisor;
#[cfg(feature = "upload")]
mod uploader;
mod veil;
mod wishes;
mod worker;

pub(crate) use launch::launch;
pub use replay::{Replay, Replayed, replay};
pub(crate) use role::become_role;
pub use role::{monitor_entry, monitor_entry_with};
pub(crate) use session::told as forget_session;
pub(crate) use share::join;
