//! Where the stages are wired together: dump, unwind, scrub, compress and seal, spool, with the gate between.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::outcome::{Effort, Outcome};
use crate::blackbox::{Blackbox, Snapshot};
use crate::capture::context::is_fault;
use crate::config::ValidConfig;
use crate::consent_record;
use crate::dump::{self, Layout, binaries::FileBinaries};
use crate::error::{Error, Result};
use crate::privacy::{self, Audience, Consent, Stage, Verdict, identity};
use crate::protocol::{CaptureRequest, Cause};
use crate::report::{Detail, Frame, Reason, Report, ReportId, StackTrace, Thread, Trust};
use crate::scrub::{self, Level, Receipt};
use crate::spool::file::Spool;
use crate::spool::key::LocalKey;
use crate::spool::{Part, PartKind, container};
use crate::sys::{memory, process, procfs, remote};

/// How a note begins when a stage failed and the level of detail was lowered.
pub(super) const STEPPED_DOWN: &str = "stepped down";

/// A process's memory and notes, copied; it may die now.
pub(super) struct Captured {
    pub(super) meta: Meta,
    dump: Vec<u8>,
}

/// What goes with the memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) id: ReportId,
    pub(super) sequence: u64,
    time_ms: u64,
    /// CLOCK_MONOTONIC when it happened.
    monotonic_ns: u64,
    thread: u32,
    instruction: u64,
    reason: Reason,
    snapshot: Snapshot,
    arguments: Option<Range<u64>>,
    notes: Vec<String>,
    stages_ms: BTreeMap<String, f64>,
}

/// Asks the gate, with the consent record read afresh.
pub(super) fn ask(stage: Stage, config: &ValidConfig, blackbox: &Blackbox) -> Verdict {
    privacy::gate(stage, config.consent_policy, consent_record::read(&config.spool), blackbox.mirror())
}

/// Copies what a report needs from a process that waits. `None` if consent does not allow it.
///
/// # Errors
/// If nothing at all could be had: the process vanished.
pub(super) fn capture(
    request: &CaptureRequest,
    pid: libc::pid_t,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Result<Option<Captured>> {
    if ask(Stage::Dump, config, blackbox) != Verdict::Proceed {
        return Ok(None);
    }
    let thread = procfs::thread_id(pid, request.context.tid)
        .ok_or_else(|| Error::malformed("message", "a thread that its process does not have"))?;
    let mut context = request.context.clone();
    (context.pid, context.tid) = (pid, thread);
    let reason = reason(&request.cause, &context.siginfo);
    let instruction = context.context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    let mut notes = Vec::new();
    let dump = dump::writer::write(dump::writer::Request::new(pid, thread, Some(context)));
    let dump = dump.and_then(|dump| {
        let readable: Vec<Range<u64>> =
            procfs::mappings(pid).into_iter().filter(|m| m.readable && !m.device).map(|m| m.range).collect();
        dump::writer::with_indirect(dump, config.indirect_budget, &readable, &mut |address, buffer| {
            remote::read_memory(pid, address, buffer)
        })
    });
    let dump = dump.unwrap_or_else(|error| {
        notes.push(format!("{STEPPED_DOWN} to stack-trace: no dump: {error}"));
        Vec::new()
    });
    process::lock_memory(&dump);
    tap(&dump);
    let snapshot = blackbox.snapshot();
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
        arguments: procfs::arguments(pid),
        notes,
        stages_ms: BTreeMap::new(),
    };
    meta.stage("dump");
    Ok(Some(Captured { meta, dump }))
}

impl Meta {
    /// Notes that a stage has ended.
    fn stage(&mut self, name: &str) {
        let elapsed = process::monotonic_ns().saturating_sub(self.monotonic_ns);
        self.stages_ms.insert(name.to_owned(), elapsed as f64 / 1e6);
    }
}

impl Captured {
    /// A copy in anonymous memory, for another process to go on with.
    pub(super) fn bundle(&self) -> Result<OwnedFd> {
        let meta = serde_json::to_vec(&self.meta).map_err(|e| Error::malformed("bundle", e.to_string()))?;
        let length = (meta.len() as u64).to_le_bytes();
        memory::memfd_with(c"cenotaph-bundle", &[&length, &meta, &self.dump])
    }

    pub(super) fn from_bundle(bytes: &[u8]) -> Result<Self> {
        let malformed = || Error::malformed("bundle", "cut short");
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| malformed())?;
        let (meta, dump) = rest.split_at_checked(length).ok_or_else(malformed)?;
        let meta = serde_json::from_slice(meta).map_err(|e| Error::malformed("bundle", e.to_string()))?;
        Ok(Self { meta, dump: dump.to_vec() })
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.dump.zeroize();
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

/// Unwinds, scrubs, seals and commits. `effort` limits what is done with the dump.
///
/// # Errors
/// If the report could not be stored. What fails before steps the level of detail down instead.
pub(super) fn complete(
    mut captured: Captured,
    effort: Effort,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Result<Outcome> {
    if ask(Stage::Spool, config, blackbox) == Verdict::Drop {
        return Ok(Outcome::RefusedByConsent);
    }
    let mut detail = config.detail;
    if effort < Effort::Full {
        detail = Detail::StackTrace;
        captured.meta.notes.push(format!("{STEPPED_DOWN} to {detail}: workers died over the dump"));
    }
    let mut sizes = BTreeMap::from([("dump".to_owned(), captured.dump.len() as u64)]);
    let layout = match effort {
        Effort::RegistersOnly => Err(Error::malformed("minidump", "workers died over it")),
        Effort::StackTrace | Effort::Full => Layout::parse(&captured.dump),
    };
    let trace = layout
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|layout| {
            dump::unwind::stack_trace(&captured.dump, layout, &FileBinaries::new()).map_err(|e| e.to_string())
        })
        .unwrap_or_else(|error| {
            captured.meta.notes.push(format!("frames could not be unwound: {error}"));
            registers_only(&captured.meta)
        });
    captured.meta.stage("unwind");
    let mut receipt = Receipt::default();
    let policy = policy(&captured.meta, detail, config);
    let scrubbed = match (&layout, detail) {
        (_, Detail::StackTrace) => None,
        (Err(error), _) => Err(error.to_string()).into(),
        (Ok(layout), _) => Some(
            scrub::dump(&mut captured.dump, layout, &policy, &mut receipt).map_err(|e| e.to_string()),
        ),
    };
    if let Some(Err(error)) = &scrubbed {
        if captured.dump.is_empty() {
            captured.meta.notes.push(format!("{STEPPED_DOWN} to stack-trace"));
        } else {
            captured.meta.notes.push(format!("{STEPPED_DOWN} to stack-trace: {error}"));
        }
        detail = Detail::StackTrace;
        receipt = Receipt::default();
    }
    let mut report = report(&captured.meta, detail, trace, config);
    scrub::report(&mut report, &policy, &mut receipt);
    captured.meta.stage("scrub");
    report.stages_ms = captured.meta.stages_ms.clone();
    if detail > Detail::StackTrace {
        sizes.insert("scrub".to_owned(), captured.dump.len() as u64);
    }
    report.stages_bytes = sizes.clone();
    let mut parts = parts(&report, &receipt)?;
    match detail {
        Detail::StackTrace => {}
        Detail::Pointers => parts.push(Part { kind: PartKind::Pointers, bytes: std::mem::take(&mut captured.dump) }),
        Detail::Minidump => parts.push(Part { kind: PartKind::Minidump, bytes: std::mem::take(&mut captured.dump) }),
    }
    let key = LocalKey::load_or_create(&config.spool)?;
    let sealed = container::seal(report.id, report.time_ms, &parts, &key)?;
    parts.iter_mut().for_each(|part| part.bytes.zeroize());
    captured.meta.stage("seal");
    sizes.insert("compress".to_owned(), sealed.compressed_len);
    sizes.insert("seal".to_owned(), sealed.bytes.len() as u64);
    let spool = Spool::new(&config.spool).with_limits(limits(config));
    let allowed = || ask(Stage::Spool, config, blackbox) == Verdict::Proceed;
    match spool.commit(report.id, &sealed.bytes, allowed) {
        Err(Error::ConsentRefused(_)) => return Ok(Outcome::RefusedByConsent),
        other => other?,
    };
    let tally = spool.take_tally();
    captured.meta.stage("spool");
    Ok(Outcome::Spooled {
        report: report.id,
        reason: report.reason.name().to_owned(),
        detail,
        stages_ms: captured.meta.stages_ms.clone(),
        stages_bytes: sizes,
        expired: tally.expired + tally.over_count + tally.over_bytes,
        notes: captured.meta.notes.clone(),
    })
}

fn policy(meta: &Meta, detail: Detail, config: &ValidConfig) -> scrub::Policy {
    let mut known = config.secrets.clone();
    known.extend(meta.snapshot.secrets.iter().cloned());
    known.extend(process::personal_words());
    known.sort();
    known.dedup();
    let level = if detail == Detail::Pointers { Level::Pointers } else { Level::Pattern };
    scrub::Policy { level, known, arguments: meta.arguments.clone() }
}

fn report(meta: &Meta, detail: Detail, stack_trace: StackTrace, config: &ValidConfig) -> Report {
    let mut breadcrumbs = meta.snapshot.breadcrumbs.clone();
    if config.audience == Audience::ChildDirected {
        // The application side stores none; this holds even if its memory was overwritten.
        breadcrumbs.iter_mut().for_each(|breadcrumb| breadcrumb.message.clear());
    }
    Report {
        id: meta.id,
        time_ms: meta.time_ms,
        application: config.application.clone(),
        version: config.version.clone(),
        environment: config.environment.clone(),
        reason: meta.reason.clone(),
        detail,
        attributes: meta.snapshot.attributes.clone(),
        breadcrumbs,
        fingerprint: dump::fingerprint::fingerprint(meta.reason.name(), &stack_trace),
        stack_trace,
        device_id: device_id(meta, config),
        notes: meta.notes.clone(),
        stages_ms: BTreeMap::new(),
        stages_bytes: BTreeMap::new(),
    }
}

/// The identifier, if the configuration has one and the person agreed. A failure leaves the field out.
fn device_id(meta: &Meta, config: &ValidConfig) -> Option<String> {
    if consent_record::read(&config.spool) != Consent::Granted {
        return None;
    }
    let scope = identity::Scope {
        application: &config.application,
        tenant: &config.tenant,
        environment: &config.environment,
    };
    let secret = config.spool.join(consent_record::IDENTITY_FILE);
    identity::identifier(config.identity, &scope, &secret, config.session, meta.time_ms).ok().flatten()
}

fn parts(report: &Report, receipt: &Receipt) -> Result<Vec<Part>> {
    let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|e| Error::malformed("report", e.to_string()));
    Ok(vec![
        Part { kind: PartKind::Report, bytes: json(serde_json::to_vec(report))? },
        Part { kind: PartKind::Receipt, bytes: json(serde_json::to_vec(receipt))? },
        Part {
            kind: PartKind::StackTrace,
            bytes: dump::synthetic::write(&report.stack_trace, &report.reason, report.time_ms)?,
        },
    ])
}

pub(super) fn limits(config: &ValidConfig) -> crate::spool::quota::Limits {
    match config.audience {
        Audience::General => crate::spool::quota::Limits::GENERAL,
        Audience::ChildDirected => crate::spool::quota::Limits::CHILD_DIRECTED,
    }
}

/// When there is no dump to unwind: the one frame that the handler saw.
fn registers_only(meta: &Meta) -> StackTrace {
    let frame = Frame { instruction: meta.instruction, module: None, offset: 0, trust: Trust::Context };
    let thread = Thread { id: meta.thread, name: None, crashed: true, frames: vec![frame] };
    StackTrace { modules: Vec::new(), threads: vec![thread] }
}

/// In a test build: the unscrubbed dump goes to an inherited pipe.
#[cfg(feature = "raw-tap")]
fn tap(dump: &[u8]) {
    crate::raw_tap::write(dump);
}

#[cfg(not(feature = "raw-tap"))]
fn tap(_: &[u8]) {}
