//! A dump with pmodules: they look while the process stands still, and change what goes into it.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::time::Instant;

use zeroize::Zeroize;

use super::stages;
use crate::blackbox::Snapshot;
use crate::dump::linux_writer::{Limits, Taken, Taking};
use crate::dump::{self, Layout};
use crate::error::Result;
use crate::pmodule::runner::{Ran, Scene, Session};
use crate::pmodule::{RegionEvent, plan};
use crate::report::{Reason, StackTrace};
use crate::scrub;
use crate::target::{Target, UnwindTables};

/// A dump, and what pmodules had to say.
#[derive(Default)]
pub(super) struct Inspected {
    pub(super) taken: Taken,
    pub(super) ran: Vec<Ran>,
    /// The frames, if they are known already.
    pub(super) trace: Option<StackTrace>,
    /// Texts in memory that is to be blanked.
    pub(super) blanked: Vec<String>,
    /// The process, if it stands still even now.
    pub(super) standing: Option<Box<Target>>,
}

/// Bytes that pmodules blank whose texts are sought elsewhere, at most.
const MOST_BLANKED: u64 = 1 << 20;

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
    let blanked = blanked(&mut target, &ran);
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
    Ok(Inspected { taken: taking.finish(dump, &mut target), ran, trace, blanked, standing: None })
}

/// The texts in what pmodules want blanked. The dump need not have that memory to have copies of what is in it.
fn blanked(target: &mut Target, ran: &[Ran]) -> Vec<String> {
    texts_in(target, plan::plan(ran).memory.into_iter().map(|(_, range)| range).collect())
}

/// The texts in memory. A note says if not all of it could be looked at.
pub(super) fn texts_in(target: &mut Target, mut ranges: Vec<Range<u64>>) -> Vec<String> {
    let mut room = MOST_BLANKED;
    let mut whole = true;
    for range in &mut ranges {
        let length = range.end.saturating_sub(range.start).min(room);
        whole &= range.start.saturating_add(length) >= range.end;
        *range = range.start..range.start.saturating_add(length);
        room -= length;
    }
    let mut pieces = target.memory().read_ranges(&ranges);
    let (texts, all) = scrub::texts_of(pieces.iter().map(Vec::as_slice));
    pieces.iter_mut().for_each(Zeroize::zeroize);
    if !(whole && all) {
        target.notes.push(scrub::NOT_ALL_SOUGHT.to_owned());
    }
    texts
}

fn unwind(dump: &[u8], tables: &[UnwindTables]) -> Result<StackTrace> {
    stages::frames(dump, &Layout::parse(dump)?, tables)
}

fn region(piece: dump::linux_writer::Piece<'_>) -> RegionEvent<'_> {
    RegionEvent { address: piece.address, bytes: piece.bytes, stack_of: piece.stack_of }
}
