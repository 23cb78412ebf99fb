//! A pmodule that leaves the stacks of a third-party library's threads out: of every thread that has a frame in it, but for
//! the one that crashed, whose stack is what the report is for. In C: drop_telemetry.c.
//!
//! A library whose threads have names of their own is known without unwinding, which is quicker: with [`Event::Thread`]
//! and `thread.name`. Core files do not hold the names.

use std::collections::BTreeSet;

use cenotaph::pmodule::{Description, Edit, Edits, Failure, FrameEvent, FrameFilter, Pmodule};
use cenotaph::target::Target;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct DropTelemetry {
    dropped: BTreeSet<i32>,
}

impl Pmodule for DropTelemetry {
    fn describe(&self) -> Description {
        let library = FrameFilter { module: Some("libtelemetry.so".to_owned()), ..FrameFilter::default() };
        Description::new("drop-telemetry").on_frames(library).redacts()
    }

    fn frame(&mut self, _: &Target, frame: &FrameEvent<'_>, edits: &mut Edits) -> Result<(), Failure> {
        if !frame.crashed && self.dropped.insert(frame.thread) {
            edits.push(Edit::DropStack(frame.thread))?;
        }
        Ok(())
    }
}
