//! The stages as a [rehearsal](crate::monitor::rehearsal) goes through them.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::PoisonError;

use zeroize::Zeroize;

use super::{BINARIES, Scrubbed, parts, unwound_and_scrubbed};
use crate::config::ValidConfig;
use crate::dump::Layout;
use crate::dump::binaries::Binaries;
use crate::dump::layout::utf16;
use crate::error::Result;
use crate::monitor::captured::Captured;
use crate::monitor::outcome::Effort;
use crate::pmodule;
use crate::pmodule::runner::Session;
use crate::spool::key::LocalKey;
use crate::spool::{Part, PartKind, container};

/// An idle worker does not hold more unwind sections, in bytes.
const MOST_KEPT: usize = 2 << 20;

/// Does with `captured` what [`complete`](super::complete) does, but commits nothing, for a rehearsal.
pub(in crate::monitor) fn rehearse(
    mut captured: Captured,
    config: &ValidConfig,
    is_wanted: impl Fn() -> bool,
) -> Result<()> {
    let mut session = Session::new(&[], pmodule::Limits::default(), &[]);
    read_c_library(&captured);
    let scrubbed = unwound_and_scrubbed(&mut captured, Effort::Full, &mut session, config);
    let mut binaries = BINARIES.lock().unwrap_or_else(PoisonError::into_inner);
    if binaries.as_ref().is_some_and(|binaries| binaries.bytes() > MOST_KEPT) {
        *binaries = None;
    }
    drop(binaries);
    if is_wanted() {
        return Ok(());
    }
    let Scrubbed { report, receipt, .. } = scrubbed;
    let mut parts = parts(&report, &receipt)?;
    parts.push(Part { kind: PartKind::Minidump, bytes: std::mem::take(&mut captured.dump) });
    let sealed = container::seal(report.id, report.time_ms, &parts, &LocalKey::random()?);
    parts.iter_mut().for_each(|part| part.bytes.zeroize());
    sealed.map(drop)
}

/// Reads the unwind sections of the C library, where all stacks begin: a made-up one does not lead there.
fn read_c_library(captured: &Captured) {
    let Ok(layout) = Layout::parse(&captured.dump) else { return };
    let bytes = |range: &Range<usize>| captured.dump.get(range.clone()).unwrap_or_default();
    let mut files = BINARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let files = files.get_or_insert_default();
    for module in &layout.modules {
        let path = utf16(bytes(&module.name));
        if path.rsplit('/').next().is_some_and(|name| name.starts_with("libc.")) {
            files.sections(&path, bytes(&module.build_id), module);
        }
    }
}
