//! pmodules: small programs of the application's maker that look at a stopped process and say what its report should
//! hold, and what it must not.
//!
//! A [`Pmodule`] sees events in a fixed order and answers with an [edit list](Edits); it changes nothing itself. Each
//! one runs in a child process of its own, forked from the tracer, confined (no files, no network, no other processes), with a
//! deadline and a memory limit. If it crashes, hangs, leaks or lies, only its own result is lost: the report says so and goes its
//! way. One that [redacts](Description::redacts) is another matter: what it would have removed is unknown, so the report steps
//! down to a stack trace.
//!
//! ```
//! use cenotaph::pmodule::{Description, Edits, Event, Failure, Pmodule};
//! use cenotaph::target::Target;
//!
//! /// Notes the level that the player was in.
//! #[derive(Clone)]
//! struct GameState;
//!
//! impl Pmodule for GameState {
//!     fn describe(&self) -> Description {
//!         Description::new("game-state").on(Event::Attach)
//!     }
//!
//!     fn attach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
//!         edits.comment(format!("{} threads", target.threads.len()))
//!     }
//! }
//! ```
//!
//! # Events
//!
//! In this order, those that [`Description::on`] names:
//!
//! | event | when | sees |
//! |---|---|---|
//! | [`attach`](Pmodule::attach) | the process stands still | the [`Target`] |
//! | [`thread`](Pmodule::thread) | for each thread, the crashing one first | registers, name |
//! | [`frame`](Pmodule::frame) | for each frame that a [filter](FrameFilter) takes, innermost first | module, offset, symbol |
//! | [`region`](Pmodule::region) | for each piece of memory that is to go into the dump | its bytes |
//! | [`attributes`](Pmodule::attributes) | once | attributes and breadcrumbs, with what earlier pmodules set |
//! | [`detach`](Pmodule::detach) | last before the process goes on | the [`Target`] |
//! | [`scrub`](Pmodule::scrub) | on the finished, scrubbed dump | the [`DumpView`]; may only blank |
//! | [`verdict`](Pmodule::verdict) | on the finished report | the report as it would leave; may veto it |
//!
//! Every crash meets an instance as it was configured: nothing carries over from an earlier one. If the worker dies between
//! `detach` and `scrub`, the report is resumed and `scrub` and `verdict` are called on a fresh instance that saw no earlier event.
#![deny(unsafe_code)]

#[cfg(feature = "pmodule-plugins")]
#[allow(unsafe_code, reason = "the border to C")]
mod abi;
mod check;
mod child;
mod describe;
mod edit;
mod event;
pub mod measure;
mod message;
pub mod plan;
#[cfg(feature = "pmodule-plugins")]
#[allow(unsafe_code, reason = "the border to C")]
pub mod plugin;
mod registered;
pub mod runner;
mod watch;

pub use check::REGISTERS;
pub use describe::{Description, Event, FrameFilter};
pub use edit::{
    Blank, Blanks, Edit, Edits, Failure, LONGEST_NAME, LONGEST_TEXT, MOST_ADDED, MOST_EDITS, MOST_WORDS, Veto,
};
pub use event::{DumpView, FrameEvent, Noted, RegionEvent};
pub use registered::{Limits, Registered};

pub use crate::report::AnnotationLevel;
use crate::report::Report;
use crate::target::{Target, Thread};

/// A module that looks at a stopped process. See the [module's page](self) for the events and their order.
///
/// All methods run in a confined child process: opening files and sockets fails with EACCES, starting threads with EPERM;
/// starting processes, signals to others and looking at others' memory end it. Returning a [`Failure`] discards all its edits, as a crash would.
pub trait Pmodule {
    /// Name, priority, events. Called in the monitor itself, before any crash: it should only return a constant.
    fn describe(&self) -> Description;

    /// The process stands still.
    ///
    /// # Errors
    /// What it could not do; its edits are then discarded.
    fn attach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        let _ = (target, edits);
        Ok(())
    }

    /// One of its threads.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    fn thread(&mut self, target: &Target, thread: &Thread, edits: &mut Edits) -> Result<(), Failure> {
        let _ = (target, thread, edits);
        Ok(())
    }

    /// A frame of a thread.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    fn frame(&mut self, target: &Target, frame: &FrameEvent<'_>, edits: &mut Edits) -> Result<(), Failure> {
        let _ = (target, frame, edits);
        Ok(())
    }

    /// Memory that is to go into the dump.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    fn region(
        &mut self,
        target: &Target,
        region: &RegionEvent<'_>,
        edits: &mut Edits,
    ) -> Result<(), Failure> {
        let _ = (target, region, edits);
        Ok(())
    }

    /// What the application and earlier pmodules noted.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    fn attributes(&mut self, noted: &Noted<'_>, edits: &mut Edits) -> Result<(), Failure> {
        let _ = (noted, edits);
        Ok(())
    }

    /// The last look.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    fn detach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        let _ = (target, edits);
        Ok(())
    }

    /// The finished dump, after all other scrubbing.
    ///
    /// # Errors
    /// What it could not do; the report then steps down to a stack trace.
    fn scrub(&mut self, dump: &DumpView<'_>, blanks: &mut Blanks) -> Result<(), Failure> {
        let _ = (dump, blanks);
        Ok(())
    }

    /// Whether the report may be stored.
    ///
    /// # Errors
    /// What it could not do; the report is stored, and says so, unless this pmodule [redacts](Description::redacts).
    fn verdict(&mut self, report: &Report) -> Result<Option<Veto>, Failure> {
        let _ = report;
        Ok(None)
    }
}
