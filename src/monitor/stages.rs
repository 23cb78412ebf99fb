//! The stages after the application was released: unwind, scrub, compress and seal, spool, with the gate between.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use zeroize::Zeroize;

use super::captured::{Captured, Meta};
use super::outcome::{Effort, Outcome};
use crate::blackbox::Blackbox;
use crate::config::ValidConfig;
use crate::consent_record;
use crate::dump::binaries::{FileBinaries, MemoryBinaries};
use crate::dump::{self, Layout};
use crate::error::{Error, Result};
use crate::privacy::{self, Audience, Consent, Stage, Verdict, identity};
use crate::report::{Detail, Frame, Report, StackTrace, Thread, Trust};
use crate::scrub::{self, Level, Receipt};
use crate::spool::file::Spool;
use crate::spool::key::LocalKey;
use crate::spool::quota::Limits;
use crate::spool::{Part, PartKind, container};
use crate::sys::process;

/// How a note begins when a stage failed and the level of detail was lowered.
pub(super) const STEPPED_DOWN: &str = "stepped down";

/// Asks the gate, with the consent record read afresh.
pub(super) fn ask(stage: Stage, config: &ValidConfig, blackbox: &Blackbox) -> Verdict {
    privacy::gate(stage, config.consent_policy, consent_record::read(&config.spool), blackbox.mirror())
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
    captured.meta.bytes("dump", captured.dump.len());
    let (layout, trace) = unwind(&mut captured, effort);
    captured.meta.stage("unwind");
    let (mut report, receipt) = scrubbed(&mut captured, layout, trace, effort, config);
    captured.meta.stage("scrub");
    if report.detail > Detail::StackTrace {
        captured.meta.bytes("scrub", captured.dump.len());
    }
    report.stages_ms = captured.meta.stages_ms.clone();
    report.stages_bytes = captured.meta.stages_bytes.clone();
    store(captured, &report, &receipt, blackbox, config)
}

/// The dump's structure, and the frames of all threads; at worst the one that the handler saw.
fn unwind(captured: &mut Captured, effort: Effort) -> (Result<Layout>, StackTrace) {
    let layout = match effort {
        Effort::RegistersOnly => Err(Error::malformed("minidump", "workers died over it")),
        Effort::StackTrace | Effort::Full => Layout::parse(&captured.dump),
    };
    let files = FileBinaries::new();
    let binaries = MemoryBinaries::new(&captured.tables, &files);
    let trace = match &layout {
        Ok(layout) => dump::unwind::stack_trace(&captured.dump, layout, &binaries).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let trace = trace.unwrap_or_else(|error| {
        captured.meta.notes.push(format!("frames could not be unwound: {error}"));
        registers_only(&captured.meta)
    });
    (layout, trace)
}

/// The report with all its texts scrubbed, and the dump scrubbed in place. A dump that cannot be scrubbed is not used:
/// the report then says `StackTrace`.
fn scrubbed(
    captured: &mut Captured,
    layout: Result<Layout>,
    trace: StackTrace,
    effort: Effort,
    config: &ValidConfig,
) -> (Report, Receipt) {
    let mut report = report(&captured.meta, config.detail, trace, config);
    let policy = policy(&captured.meta, config.detail, config);
    let scrub_dump = |dump: &mut [u8], report: &mut Report, receipt: &mut Receipt| -> Result<()> {
        if effort < Effort::Full {
            return Err(Error::malformed("minidump", "workers died over it"));
        }
        let mut engine = scrub::Engine::new(&policy)?;
        engine.learn(report);
        engine.dump(dump, &layout?, receipt)?;
        engine.report(report, receipt);
        Ok(())
    };
    let mut receipt = Receipt::default();
    let result = match config.detail {
        Detail::StackTrace => Ok(false),
        Detail::Pointers | Detail::Minidump => {
            scrub_dump(&mut captured.dump, &mut report, &mut receipt).map(|()| true)
        }
    };
    match result {
        Ok(true) => {}
        other => {
            // Nothing of what was begun is used: neither the bytes nor the receipt about them.
            captured.dump.zeroize();
            receipt = Receipt::default();
            report.detail = Detail::StackTrace;
            if let Err(error) = other {
                let note = format!("{STEPPED_DOWN} to {}: {error}", report.detail);
                captured.meta.notes.push(note.clone());
                report.notes.push(note);
            }
            scrub::report(&mut report, &policy, &mut receipt);
        }
    }
    (report, receipt)
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
    scrub::Policy {
        level,
        known,
        arguments: meta.arguments.clone(),
        argument_strings: meta.argument_strings.clone(),
        environment_strings: meta.environment_strings.clone(),
    }
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
        origin: meta.found.settle(&meta.reason, &stack_trace),
        reason: meta.reason.clone(),
        detail,
        attributes: meta.snapshot.attributes.clone(),
        breadcrumbs,
        fingerprint: dump::fingerprint::fingerprint(meta.reason.name(), &stack_trace),
        stack_trace,
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
    Ok(vec![
        Part { kind: PartKind::Report, bytes: json(serde_json::to_vec(report))? },
        Part { kind: PartKind::Receipt, bytes: json(serde_json::to_vec(receipt))? },
        Part {
            kind: PartKind::StackTrace,
            bytes: dump::synthetic::write(&report.stack_trace, &report.reason, report.time_ms)?,
        },
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
