//! Everything that a worker does between a crash and its report, done once before, with the worker itself as the target.
//!
//! A forked process starts with an empty page table: each page of code, of the heap and of tables is a fault when it is
//! first used, which is a third of a small crash's time. Nothing of a rehearsal is stored or leaves the process. Of
//! the application it looks at the list of mapped files alone, and at these.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::captured::{Captured, Meta};
use super::stages;
use crate::blackbox::Blackbox;
use crate::config::ValidConfig;
use crate::dump::linux_writer::{self, Limits};
use crate::error::{Error, Result};
use crate::origin;
use crate::privacy::identity::Identity;
use crate::privacy::{Stage, Verdict};
use crate::report::{Reason, ReportId};
use crate::sys::{process, procfs};
use crate::target::{self, Target};

/// Goes through all steps but the commit, then reads what the files say that `application` has mapped, if consent allows a
/// dump of it. Between the steps `is_wanted` is asked, and ends it when there is a real crash.
///
/// # Errors
/// What a step says; then the worker is as good as one without a rehearsal.
pub(super) fn rehearse(
    config: &ValidConfig,
    blackbox: &Blackbox,
    application: libc::pid_t,
    is_wanted: impl Fn() -> bool,
) -> Result<()> {
    itself(config, blackbox, &is_wanted)?;
    if application > 0 && !is_wanted() && stages::ask(Stage::Dump, config, blackbox) == Verdict::Proceed {
        target::known_modules::learn_of(application, &is_wanted);
    }
    process::touch_heap(HEADROOM);
    Ok(())
}

/// A crash takes more of the heap than the rehearsal: other programs have more modules, more mappings, longer stacks.
const HEADROOM: usize = 1 << 20;

fn itself(config: &ValidConfig, blackbox: &Blackbox, is_wanted: impl Fn() -> bool) -> Result<()> {
    // Nothing is to be made on disk, which an identifier's first use does.
    let config = ValidConfig { identity: Identity::Off, ..config.clone() };
    let captured = capture(&config, blackbox)?;
    if is_wanted() {
        return Ok(());
    }
    drop(captured.bundle()?);
    if is_wanted() {
        return Ok(());
    }
    stages::rehearse(captured, &config, is_wanted)
}

fn capture(config: &ValidConfig, blackbox: &Blackbox) -> Result<Captured> {
    let pid = std::process::id().cast_signed();
    let _ = (stages::ask(Stage::Dump, config, blackbox), procfs::thread_id(pid, pid));
    let target = Target::rehearsal().ok_or_else(|| Error::malformed("target", "no context"))?;
    let taken = linux_writer::write(target, Limits::default())?;
    let mut meta = Meta {
        id: ReportId::random()?,
        sequence: 0,
        time_ms: process::unix_ms(),
        monotonic_ns: process::monotonic_ns(),
        thread: pid.unsigned_abs(),
        instruction: 0,
        reason: Reason::Requested { reason: String::new() },
        found: origin::Found::default(),
        snapshot: blackbox.snapshot(),
        arguments: None,
        argument_strings: String::new(),
        environment_strings: String::new(),
        ran: Vec::new(),
        version: None,
        trace: None,
        blanked: Vec::new(),
        secret: Vec::new(),
        tentative: false,
        notes: taken.notes,
        stages_ms: BTreeMap::new(),
        stages_bytes: BTreeMap::new(),
    };
    meta.stage("dump");
    Ok(Captured { meta, dump: taken.dump, tables: taken.tables })
}
