//! The stage while the application waits: its memory and notes are copied, and nothing else.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crash_context::CrashContext;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::inspection::{self, Inspected};
use super::pmodules::Pmodules;
use super::stages::{STEPPED_DOWN, ask};
use crate::blackbox::{Blackbox, Snapshot};
use crate::capture::context::is_fault;
use crate::config::ValidConfig;
use crate::dump::{
    self,
    linux_writer::{self, Limits, Taken},
};
use crate::error::{Error, Result};
use crate::pmodule::runner::{self, Ran, Session};
use crate::pmodule::{Veto, plan};
use crate::privacy::{Stage, Verdict};
use crate::protocol::{CaptureRequest, Cause};
use crate::report::{Detail, Reason, ReportId, StackTrace};
use crate::sys::{memory, process, procfs, remote};
use crate::target::{self, Target, UnwindTables};

/// Who takes the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// Our own, over a [`Target`]; `minidump-writer` should it fail.
    Ours,
    /// `minidump-writer` at once.
    Fallback,
}

/// A process's memory and notes, copied; it may die now.
pub(super) struct Captured {
    pub(super) meta: Meta,
    pub(super) dump: Vec<u8>,
    /// Unwind tables that no file has. They are used for the frames and go no further.
    pub(super) tables: Vec<UnwindTables>,
}

/// What goes with the memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) id: ReportId,
    pub(super) sequence: u64,
    pub(super) time_ms: u64,
    /// CLOCK_MONOTONIC when it happened.
    pub(super) monotonic_ns: u64,
    pub(super) thread: u32,
    pub(super) instruction: u64,
    pub(super) reason: Reason,
    pub(super) snapshot: Snapshot,
    pub(super) arguments: Option<Range<u64>>,
    /// For the scrubber, as [`Policy`](crate::scrub::Policy) has them.
    pub(super) argument_strings: String,
    pub(super) environment_strings: String,
    /// What pmodules want, or why that is missing.
    #[serde(default)]
    pub(super) ran: Vec<Ran>,
    /// The frames, if they were wanted while the process stood still.
    #[serde(default)]
    pub(super) trace: Option<StackTrace>,
    pub(super) notes: Vec<String>,
    pub(super) stages_ms: BTreeMap<String, f64>,
    pub(super) stages_bytes: BTreeMap<String, u64>,
}

/// What became of a process that waits.
pub(super) enum Capture {
    /// Everything needed was copied.
    Taken(Captured),
    /// Consent does not allow it; nothing was looked at.
    Refused,
    /// A pmodule does not want a report.
    Vetoed { pmodule: String, reason: String },
}

/// Copies what a report needs from a process that waits.
///
/// # Errors
/// If nothing at all could be had: the process vanished.
pub(super) fn capture(
    request: &CaptureRequest,
    pid: libc::pid_t,
    writer: Writer,
    blackbox: &Blackbox,
    pmodules: &Pmodules,
    session: &mut Session<'_>,
    config: &ValidConfig,
) -> Result<Capture> {
    if ask(Stage::Dump, config, blackbox) != Verdict::Proceed {
        return Ok(Capture::Refused);
    }
    let thread = procfs::thread_id(pid, request.context.tid)
        .ok_or_else(|| Error::malformed("message", "a thread that its process does not have"))?;
    let mut context = request.context.clone();
    (context.pid, context.tid) = (pid, thread);
    let reason = reason(&request.cause, &context.siginfo);
    let instruction = context.context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    // Before the process is looked at only if somebody wants to see it then.
    let early = session.inspects().then(|| blackbox.snapshot());
    let until = runner::latest(request.monotonic_ns, Duration::from_millis(config.deadline_ms));
    let taken = take(pid, thread, context, writer, config, |target, limits| match &early {
        Some(snapshot) => inspection::inspect(target, limits, session, &reason, snapshot, until),
        None => Ok(Inspected { taken: linux_writer::write(target, limits)?, ..Inspected::default() }),
    });
    let Inspected { taken, ran, trace } = taken.unwrap_or_else(|error| {
        let notes = vec![format!("{STEPPED_DOWN} to stack-trace: no dump: {error}")];
        Inspected { taken: Taken { notes, ..Taken::default() }, ..Inspected::default() }
    });
    let unseen =
        if ran.is_empty() { session.unseen("the process could not be looked at") } else { Vec::new() };
    let ran: Vec<Ran> = pmodules.absent.iter().cloned().chain(unseen).chain(ran).collect();
    if let Some((pmodule, Veto { reason })) = plan::plan(&ran).veto {
        return Ok(Capture::Vetoed { pmodule, reason });
    }
    let Taken { dump, start_up: strings, mut notes, tables } = taken;
    process::lock_memory(&dump);
    tap(&dump);
    let snapshot = early.unwrap_or_else(|| blackbox.snapshot());
    if snapshot.torn > 0 {
        notes.push(format!("{} blackbox entries were being written", snapshot.torn));
    }
    let mut meta = Meta {
        id: ReportId::random()?,
        sequence: request.sequence,
        time_ms: process::unix_ms(),
        monotonic_ns: request.monotonic_ns,
        thread: thread.unsigned_abs(),
        instruction,
        reason,
        snapshot,
        arguments: strings.as_ref().map(|s| s.addresses.clone()).or_else(|| procfs::arguments(pid)),
        argument_strings: text(strings.as_ref().map(|strings| &strings.arguments)),
        environment_strings: text(strings.as_ref().map(|strings| &strings.environment)),
        ran,
        trace,
        notes,
        stages_ms: BTreeMap::new(),
        stages_bytes: BTreeMap::new(),
    };
    meta.stage("dump");
    Ok(Capture::Taken(Captured { meta, dump, tables }))
}

/// The dump by our own writer (`ours`, once the process stands still), with the strings that it leaves out; by
/// `minidump-writer`, which leaves them in and which no pmodule sees, should that fail.
fn take(
    pid: libc::pid_t,
    tid: libc::pid_t,
    context: CrashContext,
    writer: Writer,
    config: &ValidConfig,
    ours: impl FnOnce(Target, Limits) -> Result<Inspected>,
) -> Result<Inspected> {
    // Only a dump with memory in it has use for what stacks point to.
    let indirect = if config.detail == Detail::Minidump { config.indirect_budget } else { 0 };
    let limits = Limits { indirect, ..Limits::default() };
    let request = target::Request::new(pid, tid, Some(context.clone()));
    let ours = match writer {
        Writer::Ours => Target::stop(request).and_then(|target| ours(target, limits)),
        Writer::Fallback => Err(Error::malformed("target", "a worker died over it")),
    };
    match ours {
        Ok(inspected) => Ok(inspected),
        Err(error) => {
            let notes = vec![format!("the dump is one of minidump-writer: {error}")];
            let dump = dump::writer::write(dump::writer::Request::new(pid, tid, Some(context)))?;
            let mappings = procfs::mappings(pid).into_iter().filter(|m| m.readable && !m.device);
            let readable: Vec<Range<u64>> = mappings.map(|mapping| mapping.range).collect();
            let dump = dump::writer::with_indirect(dump, indirect, &readable, &mut |address, buffer| {
                remote::read_memory(pid, address, buffer)
            })?;
            Ok(Inspected { taken: Taken { dump, notes, ..Taken::default() }, ..Inspected::default() })
        }
    }
}

fn text(bytes: Option<&Vec<u8>>) -> String {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

impl Meta {
    /// Notes that a stage has ended.
    pub(super) fn stage(&mut self, name: &str) {
        self.stage_at(name, process::monotonic_ns());
    }

    /// Notes when a stage has ended, in CLOCK_MONOTONIC.
    pub(super) fn stage_at(&mut self, name: &str, ended_ns: u64) {
        let elapsed = ended_ns.saturating_sub(self.monotonic_ns);
        self.stages_ms.insert(name.to_owned(), elapsed as f64 / 1e6);
    }

    /// Notes how large something is.
    pub(super) fn bytes(&mut self, name: &str, bytes: usize) {
        self.stages_bytes.insert(name.to_owned(), bytes as u64);
    }
}

impl Captured {
    /// A copy in anonymous memory, for another process to go on with.
    pub(super) fn bundle(&self) -> Result<OwnedFd> {
        let meta = serde_json::to_vec(&self.meta).map_err(|e| Error::malformed("bundle", e.to_string()))?;
        let tables = UnwindTables::encode(&self.tables);
        let lengths = [meta.len(), tables.len()].map(|length| (length as u64).to_le_bytes());
        memory::memfd_with(c"cenotaph-bundle", &[lengths.as_flattened(), &meta, &tables, &self.dump])
    }

    pub(super) fn from_bundle(bytes: &[u8]) -> Result<Self> {
        let malformed = || Error::malformed("bundle", "cut short");
        let length = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).map_err(|_| malformed());
        let (meta, rest) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (tables, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (meta, rest) = rest.split_at_checked(length(meta)?).ok_or_else(malformed)?;
        let (tables, dump) = rest.split_at_checked(length(tables)?).ok_or_else(malformed)?;
        let tables = UnwindTables::decode(tables).ok_or_else(malformed)?;
        let meta = serde_json::from_slice(meta).map_err(|e| Error::malformed("bundle", e.to_string()))?;
        Ok(Self { meta, dump: dump.to_vec(), tables })
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.dump.zeroize();
        self.meta.argument_strings.zeroize();
        self.meta.environment_strings.zeroize();
    }
}

fn reason(cause: &Cause, signal: &libc::signalfd_siginfo) -> Reason {
    match cause {
        Cause::Signal => {
            let (number, code) = (signal.ssi_signo.cast_signed(), signal.ssi_code);
            Reason::Signal { number, code, address: is_fault(number, code).then_some(signal.ssi_addr) }
        }
        Cause::Panic { message, location, thread } => {
            let (message, location, thread) = (message.clone(), location.clone(), thread.clone());
            Reason::Panic { message, location, thread }
        }
        Cause::Requested(reason) => Reason::Requested { reason: reason.clone() },
    }
}

/// In a test build: the unscrubbed dump goes to an inherited pipe.
#[cfg(feature = "raw-tap")]
fn tap(dump: &[u8]) {
    crate::raw_tap::write(dump);
}

#[cfg(not(feature = "raw-tap"))]
fn tap(_: &[u8]) {}
