//! A dump with pmodules: they look while the process stands still, and change what goes into it.
#![forbid(unsafe_code)]

use std::time::Instant;

use zeroize::Zeroize;

use crate::blackbox::Snapshot;
use crate::dump::binaries::{FileBinaries, MemoryBinaries};
use crate::dump::linux_writer::{Limits, Taken, Taking};
use crate::dump::{self, Layout};
use crate::error::Result;
use crate::pmodule::runner::{Ran, Scene, Session};
use crate::pmodule::{RegionEvent, plan};
use crate::report::{Reason, StackTrace};
use crate::target::{Target, UnwindTables};

/// A dump, and what pmodules had to say.
#[derive(Default)]
pub(super) struct Inspected {
    pub(super) taken: Taken,
    pub(super) ran: Vec<Ran>,
    /// The frames, if they are known already.
    pub(super) trace: Option<StackTrace>,
}

/// Stops at nothing but a failure to make the dump itself. The pmodules of `session` have until `until`. The process goes
/// on when this returns.
pub(super) fn inspect(
    mut target: Target,
    limits: Limits,
    session: &mut Session<'_>,
    reason: &Reason,
    snapshot: &Snapshot,
    until: Instant,
) -> Result<Inspected> {
    let mut taking = Taking::read(&mut target, limits);
    let mut dump = Vec::new();
    let mut trace = None;
    if session.needs_frames() {
        match taking.dump(&target).and_then(|dump| Ok((unwind(&dump, taking.tables())?, dump))) {
            Ok((frames, bytes)) => (trace, dump) = (Some(frames), bytes),
            Err(error) => target.notes.push(format!("pmodules saw no frames: {error}")),
        }
    }
    let mut scene = Scene {
        regions: taking.pieces(&target).into_iter().map(region).collect(),
        trace: trace.as_ref(),
        reason,
        attributes: snapshot.attributes.clone(),
        breadcrumbs: &snapshot.breadcrumbs,
    };
    let ran = session.inspect(&mut target, &mut scene, until);
    drop(scene);
    let edits = plan::dump_edits(&ran);
    taking.add(&mut target, &edits.add, &edits.keep);
    target.release();

    let changed = edits != plan::DumpEdits::default();
    if !edits.drop.is_empty() && trace.is_none() {
        // Frames are known by their stack: so before that goes.
        let mut whole = taking.dump(&target)?;
        trace = unwind(&whole, taking.tables()).ok();
        whole.zeroize();
    }
    taking.drop_stacks(&target, &edits.drop);
    if changed || dump.is_empty() {
        dump.zeroize();
        dump = taking.dump(&target)?;
    }
    Ok(Inspected { taken: taking.finish(dump, &mut target), ran, trace })
}

fn unwind(dump: &[u8], tables: &[UnwindTables]) -> Result<StackTrace> {
    let layout = Layout::parse(dump)?;
    let files = FileBinaries::new();
    dump::unwind::stack_trace(dump, &layout, &MemoryBinaries::new(tables, &files))
}

fn region(piece: dump::linux_writer::Piece<'_>) -> RegionEvent<'_> {
    RegionEvent { address: piece.address, bytes: piece.bytes, stack_of: piece.stack_of }
}
