//! The stages after the application was released: unwind, scrub, compress and seal, spool, with the gate between.
#![forbid(unsafe_code)]

mod rehearsed;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

pub(super) use rehearsed::rehearse;
use zeroize::{Zeroize, Zeroizing};

use super::captured::{Captured, Meta};
use super::outcome::{Effort, Outcome};
use super::session;
use super::wishes::{self, Remark, Ruling};
use crate::blackbox::Blackbox;
use crate::config::ValidConfig;
use crate::consent_record;
use crate::dump::binaries::{FileBinaries, MemoryBinaries};
use crate::dump::{self, Layout};
use crate::error::{Error, Result};
use crate::pmodule::plan;
use crate::pmodule::runner::Session;
use crate::privacy::{self, Audience, Consent, Stage, Verdict, identity};
use crate::report::{Detail, Fingerprint, Frame, Reason, Report, StackTrace, Thread, Trust};
use crate::scrub::{self, Level, Receipt};
use crate::spool::file::Spool;
use crate::spool::key::LocalKey;
use crate::spool::quota::Limits;
use crate::spool::signatures::{self, Admission};
use crate::spool::{Part, PartKind, container};
use crate::sys::process;
use crate::target::UnwindTables;

/// Unwind sections that the rehearsal has read: the worker is the application's program, with most of its libraries.
static BINARIES: Mutex<Option<FileBinaries>> = Mutex::new(None);

/// How a note begins when a stage failed and the level of detail was lowered.
pub(super) const STEPPED_DOWN: &str = "stepped down";

/// Asks the gate, with the consent record read afresh.
pub(super) fn ask(stage: Stage, config: &ValidConfig, blackbox: &Blackbox) -> Verdict {
    privacy::gate(stage, config.consent_policy, consent_record::read(&config.spool), blackbox.mirror())
}

/// Unwinds, scrubs, seals and commits. `effort` limits what is done with the dump; `session` are the pmodules.
///
/// # Errors
/// If the report could not be stored. What fails before steps the level of detail down instead.
pub(super) fn complete(
    mut captured: Captured,
    effort: Effort,
    mut session: Session<'_>,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Result<Outcome> {
    if ask(Stage::Spool, config, blackbox) == Verdict::Drop {
        return Ok(Outcome::RefusedByConsent);
    }
    let finished = finish(&mut captured, effort, &mut session, config);
    drop(session);
    match finished {
        Finished::Report(report, receipt) => admit(captured, *report, &receipt, blackbox, config),
        Finished::Vetoed { pmodule, reason } => Ok(Outcome::Vetoed { pmodule, reason }),
    }
}

/// A report as it may leave; its dump, if its detail has one, is the captured one, scrubbed.
pub(super) enum Finished {
    /// With the receipt about all of it.
    Report(Box<Report>, Receipt),
    /// A pmodule does not want it.
    Vetoed { pmodule: String, reason: String },
}

/// Unwinds, scrubs and asks for verdicts: what comes before a report is sealed.
pub(super) fn finish(
    captured: &mut Captured,
    effort: Effort,
    session: &mut Session<'_>,
    config: &ValidConfig,
) -> Finished {
    captured.meta.bytes("dump", captured.dump.len());
    let mut scrubbed = unwound_and_scrubbed(captured, effort, session, config);
    let Scrubbed { report, receipt, policy, .. } = &mut scrubbed;
    match wishes::verdict(session, report, &mut captured.meta, policy, receipt) {
        Ruling::Go => {}
        Ruling::StepDown(remark) => scrubbed.step_down(captured, remark),
        Ruling::Veto { pmodule, reason } => return Finished::Vetoed { pmodule, reason },
    }
    let Scrubbed { mut report, mut receipt, about_dump, .. } = scrubbed;
    captured.meta.stage("scrub");
    if report.detail > Detail::StackTrace {
        captured.meta.bytes("scrub", captured.dump.len());
        if let Err(error) = annotate(&mut captured.dump, &report) {
            report.notes.push(format!("attributes are not in the dump: {error}"));
        }
        receipt.describe(&captured.dump, about_dump);
    }
    report.stages_ms = captured.meta.stages_ms.clone();
    report.stages_bytes = captured.meta.stages_bytes.clone();
    Finished::Report(Box::new(report), receipt)
}

/// Scrubs, seals and commits a report of which there is no more than `trace`. `adjust` may say otherwise than the
/// configuration what application it was.
///
/// # Errors
/// If the report could not be stored.
pub(super) fn complete_trace(
    mut captured: Captured,
    trace: StackTrace,
    adjust: impl FnOnce(&mut Report),
    mut session: Session<'_>,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Result<Outcome> {
    let mut receipt = Receipt::default();
    let policy = policy(&captured.meta, Detail::StackTrace, config);
    let mut report = report(&captured.meta, Detail::StackTrace, config);
    report.fingerprint = dump::fingerprint::fingerprint(captured.meta.reason.name(), &trace);
    report.stack_trace = trace;
    adjust(&mut report);
    scrub::report(&mut report, &policy, &mut receipt);
    let mut remarks = wishes::failures(&captured.meta.ran, &policy, &mut receipt);
    match wishes::verdict(&mut session, &mut report, &mut captured.meta, &policy, &mut receipt) {
        Ruling::Go => {}
        // There is nothing to leave out.
        Ruling::StepDown(remark) => remarks.push(remark),
        Ruling::Veto { pmodule, reason } => return Ok(Outcome::Vetoed { pmodule, reason }),
    }
    remarks.into_iter().for_each(|remark| remark.note(&mut report, &mut captured.meta));
    admit(captured, report, &receipt, blackbox, config)
}

/// A report whose texts are scrubbed.
struct Scrubbed {
    report: Report,
    receipt: Receipt,
    /// Entries of the receipt that are about the dump: the first ones.
    about_dump: usize,
    policy: scrub::Policy,
}

impl Scrubbed {
    /// Leaves the dump out after all.
    fn step_down(&mut self, captured: &mut Captured, remark: Remark) {
        captured.dump.zeroize();
        self.receipt.entries.drain(..self.about_dump);
        self.about_dump = 0;
        self.report.detail = Detail::StackTrace;
        let before = format!("{STEPPED_DOWN} to {}: ", self.report.detail);
        remark.behind(&before).note(&mut self.report, &mut captured.meta);
    }
}

/// The report with the frames of all threads and with all its texts scrubbed, and the dump scrubbed in place. A dump that
/// cannot be scrubbed is not used: the report then says `StackTrace`.
fn unwound_and_scrubbed(
    captured: &mut Captured,
    effort: Effort,
    session: &mut Session<'_>,
    config: &ValidConfig,
) -> Scrubbed {
    let layout = match effort {
        Effort::RegistersOnly => Err(Error::malformed("minidump", "workers died over it")),
        Effort::StackTrace | Effort::Full => Layout::parse(&captured.dump),
    };
    let plan = plan::plan(&captured.meta.ran);
    // A process that is no more has no memory.
    let gone = matches!(captured.meta.reason, Reason::UncleanExit { .. });
    let most = if gone { Detail::StackTrace } else { config.detail };
    let (detail, who) = plan.detail.as_ref().map_or((most, ""), |(allowed, who)| ((*allowed).min(most), who));
    if detail < most {
        captured.meta.notes.push(format!("pmodule {who} lowered the detail to {detail}"));
    }
    let mut policy = policy(&captured.meta, detail, config);
    let meta = &mut captured.meta;
    wishes::add_to_policy(&mut policy, &plan, &meta.blanked);
    let mut report = report(&captured.meta, detail, config);
    wishes::add_to_report(&mut report, &plan);
    let (mut receipt, mut words) = (Receipt::default(), Receipt::default());
    let mut about_dump = 0;
    let remarks = wishes::failures(&captured.meta.ran, &policy, &mut words);
    let closed = wishes::stepped_down(&captured.meta.ran, &policy, &mut words);

    let scrubs = closed.is_none() && detail > Detail::StackTrace && effort == Effort::Full;
    let (trace, begun) = match &layout {
        Ok(layout) => beside(captured, layout, |dump| {
            scrubs.then(|| scrub_memory(dump, layout, &policy, &report, &mut receipt))
        }),
        Err(error) => (captured.meta.trace.take().ok_or_else(|| error.to_string()), None),
    };
    report.stack_trace = trace.unwrap_or_else(|error| {
        let note = format!("frames could not be unwound: {error}");
        captured.meta.notes.push(note.clone());
        report.notes.push(note);
        registers_only(&captured.meta)
    });
    report.origin = captured.meta.found.settle(&report.reason, &report.stack_trace);
    let fingerprint = dump::fingerprint::fingerprint(captured.meta.reason.name(), &report.stack_trace);
    report.fingerprint = dump::fingerprint::refined(fingerprint, &plan.fingerprint);

    let finish = |dump: &mut [u8], report: &mut Report| -> Result<(), Remark> {
        let (layout, Some(engine)) = (layout?, begun) else {
            return Err(Error::malformed("minidump", "workers died over it").into());
        };
        let engine = engine?;
        // These fork, so the other thread must have ended.
        wishes::scrub_hooks(session, dump, &layout, &policy, &mut receipt)?;
        scrub::hidden(&layout, "secret-range", &captured.meta.secret, &mut receipt);
        about_dump = receipt.entries.len();
        engine.report(report, &mut receipt);
        Ok(())
    };
    let result = match (closed, detail) {
        (Some(remark), _) => Err(remark),
        (None, Detail::StackTrace) => Ok(false),
        (None, Detail::Pointers | Detail::Minidump) => finish(&mut captured.dump, &mut report).map(|()| true),
    };
    match result {
        Ok(true) => {}
        other => {
            // Nothing of what was begun is used: neither the bytes nor the receipt about them.
            captured.dump.zeroize();
            (receipt, about_dump) = (Receipt::default(), 0);
            report.detail = Detail::StackTrace;
            if let Err(remark) = other {
                let before = format!("{STEPPED_DOWN} to {}: ", report.detail);
                remark.behind(&before).note(&mut report, &mut captured.meta);
            }
            scrub::report(&mut report, &policy, &mut receipt);
        }
    }
    remarks.into_iter().for_each(|remark| remark.note(&mut report, &mut captured.meta));
    receipt.entries.extend(words.entries);
    Scrubbed { report, receipt, about_dump, policy }
}

/// Threads whose frames are found in less time than another thread takes to begin where a process is just ending, too.
const FEW: usize = 32;

/// Looks for the frames of all threads before `scrub` works on the dump; of many, in a copy of it on a thread of its own
/// meanwhile. That thread has ended when this returns.
fn beside<T>(
    captured: &mut Captured,
    layout: &Layout,
    scrub: impl FnOnce(&mut [u8]) -> T,
) -> (std::result::Result<StackTrace, String>, T) {
    if let Some(known) = captured.meta.trace.take() {
        captured.meta.stage("unwind");
        return (Ok(known), scrub(&mut captured.dump));
    }
    if layout.threads.len() <= FEW {
        let trace = frames(&captured.dump, layout, &captured.tables).map_err(|error| error.to_string());
        captured.meta.stage("unwind");
        return (trace, scrub(&mut captured.dump));
    }
    let unscrubbed = Zeroizing::new(captured.dump.clone());
    let tables = &captured.tables;
    let unwind = || {
        let trace = frames(&unscrubbed, layout, tables);
        (trace.map_err(|error| error.to_string()), process::monotonic_ns())
    };
    let (trace, ended_ns, scrubbed) = std::thread::scope(|scope| {
        let unwinding = std::thread::Builder::new().name("cenotaph".to_owned()).spawn_scoped(scope, unwind);
        let scrubbed = scrub(&mut captured.dump);
        let (trace, ended_ns) = match unwinding {
            // A panic counts as if it had been here: the process ends by it, and another worker does less.
            Ok(unwinding) => unwinding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No thread to be had.
            Err(_) => unwind(),
        };
        (trace, ended_ns, scrubbed)
    });
    captured.meta.stage_at("unwind", ended_ns);
    (trace, scrubbed)
}

/// The frames of all threads.
pub(super) fn frames(dump: &[u8], layout: &Layout, tables: &[UnwindTables]) -> Result<StackTrace> {
    let mut files = BINARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let binaries = MemoryBinaries::new(tables, files.get_or_insert_default());
    dump::unwind::stack_trace(dump, layout, &binaries)
}

/// Scrubs the dump in place; what was learnt from it is in the engine.
fn scrub_memory(
    dump: &mut [u8],
    layout: &Layout,
    policy: &scrub::Policy,
    report: &Report,
    receipt: &mut Receipt,
) -> Result<scrub::Engine> {
    let mut engine = scrub::Engine::new(policy)?;
    engine.learn(report);
    engine.dump(dump, layout, receipt)?;
    Ok(engine)
}

/// Puts the report's attributes, which are scrubbed, into a dump that is, where Crashpad's readers look.
fn annotate(dump: &mut Vec<u8>, report: &Report) -> Result<()> {
    let layout = Layout::parse(dump)?;
    let attributes: Vec<_> =
        report.attributes.iter().map(|attribute| (&attribute.key[..], attribute.value.to_string())).collect();
    let annotations: Vec<_> = attributes.iter().map(|(key, value)| (*key, &value[..])).collect();
    dump::crashpad_info::append(dump, &layout, report.id.0, &annotations)
}

/// Stores a report, or counts it where enough of its like are stored.
fn admit(
    mut captured: Captured,
    mut report: Report,
    receipt: &Receipt,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Result<Outcome> {
    if !matches!(report.reason, Reason::Requested { .. }) {
        let limit = config.reports_per_signature;
        match signatures::admit(&config.spool, report.fingerprint, process::unix_ms(), limit) {
            Ok(Admission::Store(repeats)) => report.repeats = repeats,
            Ok(Admission::Repeated(count)) => return Ok(Outcome::Repeated { count }),
            // Better one too many.
            Err(error) => captured.meta.notes.push(format!("likes of it were not counted: {error}")),
        }
    }
    let crashed = matches!(report.reason, Reason::Signal { .. });
    let stored = store(captured, &report, receipt, blackbox, config);
    match &stored {
        Ok(Outcome::Spooled { .. }) if crashed => session::told(config),
        Ok(Outcome::Spooled { .. }) => {}
        _ => {
            let _ = signatures::give_back(&config.spool, &report.repeats, process::unix_ms());
        }
    }
    stored
}

/// Seals the parts and commits them, if consent still allows it.
fn store(
    mut captured: Captured,
    report: &Report,
    receipt: &Receipt,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Result<Outcome> {
    let kind = match report.detail {
        Detail::StackTrace => None,
        Detail::Pointers => Some(PartKind::Pointers),
        Detail::Minidump => Some(PartKind::Minidump),
    };
    let mut parts = parts(report, receipt)?;
    parts.extend(kind.map(|kind| Part { kind, bytes: std::mem::take(&mut captured.dump) }));
    let key = LocalKey::load_or_create(&config.spool)?;
    let meta = &mut captured.meta;
    let mut detail = report.detail;
    let mut sealed = container::seal(report.id, report.time_ms, &parts, &key);
    if let (Err(Error::Limit { .. }), Some(kind)) = (&sealed, kind) {
        detail = Detail::StackTrace;
        meta.notes.push(format!("{STEPPED_DOWN} to {detail}: the dump is longer than a part may be"));
        let (small, mut large): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| part.kind != kind);
        large.iter_mut().for_each(|part| part.bytes.zeroize());
        parts = small;
        sealed = container::seal(report.id, report.time_ms, &parts, &key);
    }
    parts.iter_mut().for_each(|part| part.bytes.zeroize());
    let sealed = sealed?;
    meta.stage("seal");
    meta.bytes("compress", usize::try_from(sealed.compressed_len).unwrap_or(usize::MAX));
    meta.bytes("seal", sealed.bytes.len());
    let spool = Spool::new(&config.spool).with_limits(limits(config));
    let allowed = || ask(Stage::Spool, config, blackbox) == Verdict::Proceed;
    let committed = match (spool.commit(report.id, &sealed.bytes, allowed), kind) {
        (Err(Error::ConsentRefused(_)), _) => return Ok(Outcome::RefusedByConsent),
        // No room for all of it: the frames take a hundredth.
        (Err(error), Some(kind)) if detail > Detail::StackTrace => {
            detail = Detail::StackTrace;
            meta.notes.push(format!("{STEPPED_DOWN} to {detail}: {error}"));
            spool.commit(report.id, &container::without_part(&sealed.bytes, kind)?, allowed)
        }
        (result, _) => result,
    };
    match committed {
        Err(Error::ConsentRefused(_)) => return Ok(Outcome::RefusedByConsent),
        other => other?,
    };
    meta.stage("spool");
    let tally = spool.take_tally();
    Ok(Outcome::Spooled {
        report: report.id,
        reason: report.reason.name().to_owned(),
        detail,
        stages_ms: std::mem::take(&mut meta.stages_ms),
        stages_bytes: std::mem::take(&mut meta.stages_bytes),
        expired: tally.expired + tally.over_count + tally.over_bytes,
        notes: std::mem::take(&mut meta.notes),
    })
}

fn policy(meta: &Meta, detail: Detail, config: &ValidConfig) -> scrub::Policy {
    let mut known = config.secrets.clone();
    known.extend(meta.snapshot.secrets.iter().cloned());
    known.extend(process::personal_words());
    known.sort();
    known.dedup();
    let level = if detail == Detail::Pointers { Level::Pointers } else { Level::Pattern };
    let mut places = config.levels.clone();
    if config.audience == Audience::ChildDirected {
        let usual = scrub::Policy { level, ..scrub::Policy::default() };
        places.retain(|place, level| *level >= usual.level_of(*place));
    }
    scrub::Policy {
        level,
        places,
        known,
        arguments: meta.arguments.clone(),
        argument_strings: meta.argument_strings.clone(),
        environment_strings: meta.environment_strings.clone(),
        rules: config.rules.clone(),
        wishes: Vec::new(),
    }
}

/// Without the frames, and what follows from them.
fn report(meta: &Meta, detail: Detail, config: &ValidConfig) -> Report {
    let mut breadcrumbs = meta.snapshot.breadcrumbs.clone();
    if config.audience == Audience::ChildDirected {
        // The application side stores none; this holds even if its memory was overwritten.
        breadcrumbs.iter_mut().for_each(|breadcrumb| breadcrumb.message.clear());
    }
    Report {
        id: meta.id,
        time_ms: meta.time_ms,
        application: config.application.clone(),
        version: meta.version.clone().unwrap_or_else(|| config.version.clone()),
        environment: config.environment.clone(),
        origin: meta.found.presumed(),
        reason: meta.reason.clone(),
        detail,
        attributes: meta.snapshot.attributes.clone(),
        breadcrumbs,
        fingerprint: Fingerprint::default(),
        stack_trace: StackTrace { modules: Vec::new(), threads: Vec::new() },
        device_id: device_id(meta, config),
        annotations: Vec::new(),
        classifiers: Vec::new(),
        repeats: Vec::new(),
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
    let json =
        |value: serde_json::Result<Vec<u8>>| value.map_err(|e| Error::malformed("report", e.to_string()));
    let mut stack_trace = dump::synthetic::write(&report.stack_trace, &report.reason, report.time_ms)?;
    annotate(&mut stack_trace, report)?;
    Ok(vec![
        Part { kind: PartKind::Report, bytes: json(serde_json::to_vec(report))? },
        Part { kind: PartKind::Receipt, bytes: json(serde_json::to_vec(receipt))? },
        Part { kind: PartKind::StackTrace, bytes: stack_trace },
    ])
}

pub(super) fn limits(config: &ValidConfig) -> Limits {
    match config.audience {
        Audience::General => Limits::GENERAL,
        Audience::ChildDirected => Limits::CHILD_DIRECTED,
    }
}

/// When there is no dump to unwind: the one frame that the handler saw.
fn registers_only(meta: &Meta) -> StackTrace {
    let frame = Frame { instruction: meta.instruction, module: None, offset: 0, trust: Trust::Context };
    let thread = Thread { id: meta.thread, name: None, crashed: true, frames: vec![frame] };
    StackTrace { modules: Vec::new(), threads: vec![thread] }
}
