//! A crash without a process: what pmodules do to a core file, through the stages that a crash takes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::captured::{Captured, Meta, text};
use super::inspection::{self, Inspected};
use super::outcome::Effort;
use super::stages::{self, Finished};
use crate::blackbox::Snapshot;
use crate::capture::context::is_fault;
use crate::config::Config;
use crate::dump::linux_writer::{self, Taken};
use crate::error::Result;
use crate::origin;
use crate::pmodule::measure::{Cost, Meter};
use crate::pmodule::runner::{Ran, Session};
use crate::pmodule::{Limits, Registered, plan};
use crate::report::{Detail, Reason, Report, ReportId};
use crate::scrub::Receipt;
use crate::sys::process;
use crate::target::Target;

/// No directory can be there: nothing is stored, and nobody consented.
const NO_SPOOL: &str = "/dev/null/cenotaph";

/// What a pmodule did to a dead process's report, and what that cost.
#[derive(Debug)]
#[non_exhaustive]
pub struct Replay {
    /// What it asked for while it looked at the process, or why that is missing. `None` if it wants no such event.
    pub inspected: Option<Ran>,
    /// Counted in its own process.
    pub cost: Cost,
    /// What came of it.
    pub outcome: Replayed,
}

/// What a replay came to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Replayed {
    /// The report that would have been stored.
    Report {
        /// With all texts scrubbed.
        report: Box<Report>,
        /// What was removed.
        receipt: Receipt,
        /// The minidump, scrubbed, if the report has one.
        dump: Option<Vec<u8>>,
    },
    /// It did not want a report.
    Vetoed {
        /// In its words.
        reason: String,
    },
}

/// Has `pmodule` see all of its events on the process that `core` was, in a confined child as on a crash. Attributes and
/// breadcrumbs are not known of a core file; arguments and environment are, if it has that part of the stack. What the pmodule writes to
/// its standard output and standard error goes to the standard error of this process.
///
/// Call it while the process has a single thread, since it forks.
///
/// # Errors
/// If no dump can be made of it. What the pmodule does wrong is no error of this call.
pub fn replay(mut core: Target, pmodule: &Registered, limits: Limits) -> Result<Replay> {
    let config = Config::new("replay", "0").spool(NO_SPOOL).validate()?;
    let meter = Meter::new()?;
    meter.watch(&mut core);
    let registered = [meter.around(pmodule)];
    let mut session = Session::new(&registered, limits, &[]).aloud();
    let reason = reason(&core);
    let (snapshot, thread) = (Snapshot::default(), core.tid);
    let instruction =
        core.crashed().and_then(|thread| thread.registers.as_ref()).map_or(0, |registers| registers.rip);
    let dump_limits = linux_writer::Limits { indirect: config.indirect_budget, ..Default::default() };
    // Nobody waits: only the limits of the pmodules themselves hold.
    let until = Instant::now() + Duration::from_secs(3600);
    let Inspected { taken, ran, trace, blanked, .. } =
        inspection::inspect(core, dump_limits, &mut session, &reason, &snapshot, until)?;
    let inspected = ran.first().cloned();
    if let Some((_, veto)) = plan::plan(&ran).veto {
        let outcome = Replayed::Vetoed { reason: veto.reason };
        return Ok(Replay { inspected, cost: meter.read(), outcome });
    }
    let Taken { dump, start_up, notes, tables } = taken;
    let meta = Meta {
        id: ReportId::random()?,
        sequence: 0,
        time_ms: process::unix_ms(),
        monotonic_ns: process::monotonic_ns(),
        thread: thread.unsigned_abs(),
        instruction,
        reason,
        found: origin::Found::default(),
        snapshot,
        arguments: start_up.as_ref().map(|strings| strings.addresses.clone()),
        argument_strings: text(start_up.as_ref().map(|strings| &strings.arguments)),
        environment_strings: text(start_up.as_ref().map(|strings| &strings.environment)),
        ran,
        version: None,
        trace,
        blanked,
        secret: Vec::new(),
        tentative: false,
        notes,
        stages_ms: BTreeMap::new(),
        stages_bytes: BTreeMap::new(),
    };
    let mut captured = Captured { meta, dump, tables };
    let outcome = match stages::finish(&mut captured, Effort::Full, &mut session, &config) {
        Finished::Vetoed { reason, .. } => Replayed::Vetoed { reason },
        Finished::Report(report, receipt) => {
            let dump = (report.detail > Detail::StackTrace).then(|| std::mem::take(&mut captured.dump));
            Replayed::Report { report, receipt, dump }
        }
    };
    drop(session);
    Ok(Replay { inspected, cost: meter.read(), outcome })
}

fn reason(core: &Target) -> Reason {
    let signal = core.crash.as_ref().map(|crash| &crash.siginfo);
    let number = signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok()).filter(|&number| number > 0);
    match (signal, number) {
        (Some(signal), Some(number)) => {
            let code = signal.ssi_code;
            Reason::Signal { number, code, address: is_fault(number, code).then_some(signal.ssi_addr) }
        }
        _ => Reason::Requested { reason: "a core file without a signal".to_owned() },
    }
}
