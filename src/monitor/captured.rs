//! The stage while the application waits: its memory and notes are copied, and nothing else.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::inspection::{self, Inspected};
use super::outcome::{monitors_share, time_to_read};
use super::pmodules::Pmodules;
use super::stages::{STEPPED_DOWN, ask};
use super::veil;
use crate::blackbox::{Blackbox, Snapshot};
use crate::capture::context::is_fault;
use crate::config::ValidConfig;
use crate::dump::{
    self,
    linux_writer::{self, Limits, Taken},
};
use crate::error::{Error, Result};
use crate::origin;
use crate::pmodule::runner::{self, Ran, Session};
use crate::pmodule::{Veto, plan};
use crate::privacy::{Stage, Verdict};
use crate::protocol::{CaptureRequest, Cause};
use crate::report::{Detail, Reason, ReportId, StackTrace};
use crate::spool::records;
use crate::sys::socket::Socket;
use crate::sys::{memory, process, procfs, remote};
use crate::target::{self, Target, UnwindTables};

/// Who takes the dump.
#[derive(Debug)]
pub(super) enum Writer {
    /// Our own, over a [`Target`]; `minidump-writer` should it fail.
    Ours,
    /// The same, but for how memory is read: the way that waits for nobody.
    Patient,
    /// `minidump-writer` at once.
    Fallback,
    /// Our own, over what a copy of the process tells at the other end of this socket.
    Told(Socket),
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
    /// What an aborting process says.
    #[serde(default)]
    pub(super) found: origin::Found,
    pub(super) snapshot: Snapshot,
    pub(super) arguments: Option<Range<u64>>,
    /// For the scrubber, as [`Policy`](crate::scrub::Policy) has them.
    pub(super) argument_strings: String,
    pub(super) environment_strings: String,
    /// What pmodules want, or why that is missing.
    #[serde(default)]
    pub(super) ran: Vec<Ran>,
    /// The application's, if it is not the present one's.
    #[serde(default)]
    pub(super) version: Option<String>,
    /// The frames, if they were wanted while the process stood still.
    #[serde(default)]
    pub(super) trace: Option<StackTrace>,
    /// Texts in memory that pmodules want blanked: their copies go too.
    #[serde(default)]
    pub(super) blanked: Vec<String>,
    /// Memory that the application registered as secret: addresses only.
    #[serde(default)]
    pub(super) secret: Vec<Range<u64>>,
    /// Of a panic that may be no event of its own.
    #[serde(default)]
    pub(super) tentative: bool,
    pub(super) notes: Vec<String>,
    pub(super) stages_ms: BTreeMap<String, f64>,
    pub(super) stages_bytes: BTreeMap<String, u64>,
}

/// What became of a process that waits.
pub(super) enum Capture {
    /// Everything needed was copied. The process, if it stands still even now.
    Taken(Box<Captured>, Option<Box<Target>>),
    /// Consent does not allow it; nothing was looked at.
    Refused,
    /// Its memory may not be read.
    OutOfReach(Error),
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
    let told = matches!(writer, Writer::Told(_));
    if pid == 0 && !told {
        return Ok(Capture::OutOfReach(Error::malformed("message", "a process of another pid namespace")));
    }
    let crashed = matches!(request.cause, Cause::Signal | Cause::Panic { .. });
    // Another of its threads may end the process while it waits. What it sent is all that is left of the crash then.
    let is_gone =
        || crashed && !told && process::ends_within(pid, PARTING) && !records::is_one_of(&config.spool, pid);
    let thread = procfs::thread_id(pid, request.context.tid);
    let thread = thread.or_else(|| (told || is_gone()).then_some(request.context.tid));
    let thread =
        thread.ok_or_else(|| Error::malformed("message", "a thread that its process does not have"))?;
    let mut context = request.context.clone();
    (context.pid, context.tid) = (pid, thread);
    let reason = reason(&request.cause, &context.siginfo);
    let instruction = context.context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    // What ends anyway may stand still until it is let go. Not with pmodules, for which this process forks later.
    let dies = matches!(request.cause, Cause::Signal) && pmodules.registered.is_empty();
    // Before the process is looked at only if somebody wants to see it then.
    let early = session.inspects().then(|| blackbox.snapshot());
    let share = monitors_share(Duration::from_millis(config.deadline_ms));
    let waited = Duration::from_nanos(process::monotonic_ns().saturating_sub(request.monotonic_ns));
    let deaths = u32::from(matches!(writer, Writer::Patient));
    let time = time_to_read(deaths, share.saturating_sub(waited)).unwrap_or_default();
    let until = runner::latest(process::monotonic_ns(), time);
    let aborted = matches!(reason, Reason::Signal { number: libc::SIGABRT, .. });
    let context = (!matches!(request.cause, Cause::Hang { .. })).then_some(context);
    let mut found = origin::Found::default();
    let secret = blackbox.secret_ranges();
    let is_again = matches!(request.cause, Cause::Panic { again: true, .. });
    let asked = target::Request {
        image: blackbox.image(),
        never_wait: matches!(writer, Writer::Patient),
        ..target::Request::new(pid, thread, context)
    };
    let taken = take(asked, writer, config, &secret, |mut target, limits| {
        if aborted {
            found = origin(&target, blackbox);
        }
        match &early {
            Some(snapshot) => inspection::inspect(target, limits, session, &reason, snapshot, until),
            None if dies => {
                let taken = linux_writer::write_standing(&mut target, limits)?;
                Ok(Inspected { taken, standing: Some(Box::new(target)), ..Inspected::default() })
            }
            None => Ok(Inspected { taken: linux_writer::write(target, limits)?, ..Inspected::default() }),
        }
    });
    // The application has more to tell than the one frame that is known here: by a copy of it, or by its own record.
    let taken = match (taken, &request.cause) {
        (
            Err(error @ Error::System { call: OUT_OF_REACH, .. }),
            Cause::Signal | Cause::Panic { .. } | Cause::Requested(_),
        ) => return Ok(Capture::OutOfReach(error)),
        (Err(error), _) if crashed && !is_gone() => return Err(error),
        (taken, _) => taken,
    };
    let Inspected { taken, ran, trace, blanked, standing } = taken.unwrap_or_else(|error| {
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
        found,
        snapshot,
        arguments: strings.as_ref().map(|s| s.addresses.clone()).or_else(|| procfs::arguments(pid)),
        argument_strings: text(strings.as_ref().map(|strings| &strings.arguments)),
        environment_strings: text(strings.as_ref().map(|strings| &strings.environment)),
        ran,
        version: None,
        trace,
        blanked,
        secret,
        tentative: is_again,
        notes,
        stages_ms: BTreeMap::new(),
        stages_bytes: BTreeMap::new(),
    };
    tap(meta.id, &dump);
    meta.stage("dump");
    Ok(Capture::Taken(Box::new(Captured { meta, dump, tables }), standing))
}

/// The dump by our own writer (`ours`, once the process stands still), with the strings that it leaves out; by
/// `minidump-writer`, which leaves them in and which no pmodule sees, should that fail.
fn take(
    request: target::Request,
    writer: Writer,
    config: &ValidConfig,
    secret: &[Range<u64>],
    ours: impl FnOnce(Target, Limits) -> Result<Inspected>,
) -> Result<Inspected> {
    let (pid, tid, context, image) = (request.pid, request.tid, request.context.clone(), request.image);
    // Only a dump with memory in it has use for what stacks point to.
    let indirect = if config.detail == Detail::Minidump { config.indirect_budget } else { 0 };
    let limits = Limits { indirect, ..Limits::default() };
    let stack =
        context.as_ref().map(|context| context.context.uc_mcontext.gregs[libc::REG_RSP as usize] as u64);
    let ours = |mut target: Target, limits| {
        let texts = veil::draw(&mut target, secret);
        let mut inspected = ours(target, limits)?;
        inspected.blanked.extend(texts);
        Ok(inspected)
    };
    let ours = match writer {
        Writer::Ours | Writer::Patient => match Target::stop(request) {
            // What may not be read cannot be read by another writer either, which would try for long.
            Ok(target) if stack.is_some_and(|stack| is_out_of_reach(&target, stack)) => {
                return Err(out_of_reach());
            }
            Err(error) if is_refusal(&error) => return Err(out_of_reach()),
            stopped => stopped.and_then(|target| ours(target, limits)),
        },
        // What cannot be told that way cannot be had at all.
        Writer::Told(socket) => return Target::told(request, socket).and_then(|target| ours(target, limits)),
        Writer::Fallback => Err(Error::malformed("target", "a worker died over it")),
    };
    match ours {
        Ok(inspected) => Ok(inspected),
        Err(_) if !target::is_still(pid, image) => {
            Err(Error::malformed("target", "the process has gone on to another program"))
        }
        Err(error) => {
            let notes = vec![format!("the dump is one of minidump-writer: {error}")];
            let dump = dump::writer::write(dump::writer::Request::new(pid, tid, context))?;
            let mappings = procfs::mappings(pid).into_iter().filter(|m| m.readable && !m.device);
            let readable: Vec<Range<u64>> = mappings.map(|mapping| mapping.range).collect();
            let dump = dump::writer::with_indirect(dump, indirect, &readable, &mut |address, buffer| {
                remote::read_memory(pid, address, buffer)
            })?;
            let dump = veil::without(dump, secret)?;
            Ok(Inspected { taken: Taken { dump, notes, ..Taken::default() }, ..Inspected::default() })
        }
    }
}

/// What an aborting process says, with what it told in advance.
fn origin(target: &Target, blackbox: &Blackbox) -> origin::Found {
    let (exception_globals, refused_memory) = blackbox.places();
    origin::read(target, origin::Hints { exception_globals, refused_memory })
}

/// Whether nothing of its memory can be read: neither a binary's head nor the stack, which may have overflowed. (What is known
/// of binaries may be from an earlier look, at what was told.)
fn is_out_of_reach(target: &Target, stack: u64) -> bool {
    let is_readable = |address: u64| !target.memory().read(address, 8).is_empty();
    !is_readable(stack & !7) && !target.modules.first().is_some_and(|module| is_readable(module.range.start))
}

/// Whether not even its mappings may be seen: it runs as another user.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::System { source, .. } if source.raw_os_error() == Some(libc::EPERM))
}

/// How long the end of a process takes that has begun to end.
const PARTING: Duration = Duration::from_millis(100);

/// How it is told from other failures.
const OUT_OF_REACH: &str = "ptrace(2) and process_vm_readv";

fn out_of_reach() -> Error {
    Error::System { call: OUT_OF_REACH, source: std::io::Error::from_raw_os_error(libc::EPERM) }
}

pub(super) fn text(bytes: Option<&Vec<u8>>) -> String {
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
    /// Of a process that is no more: what it noted, and no frames.
    pub(super) fn of_the_dead(reason: Reason, snapshot: Snapshot) -> Result<Self> {
        let meta = Meta {
            id: ReportId::random()?,
            sequence: 0,
            time_ms: process::unix_ms(),
            monotonic_ns: process::monotonic_ns(),
            thread: 0,
            instruction: 0,
            reason,
            found: origin::Found::default(),
            snapshot,
            arguments: None,
            argument_strings: String::new(),
            environment_strings: String::new(),
            ran: Vec::new(),
            version: None,
            trace: Some(StackTrace::default()),
            blanked: Vec::new(),
            secret: Vec::new(),
            tentative: false,
            notes: Vec::new(),
            stages_ms: BTreeMap::new(),
            stages_bytes: BTreeMap::new(),
        };
        Ok(Self { meta, dump: Vec::new(), tables: Vec::new() })
    }

    /// Of an earlier session.
    pub(super) fn of_session(mut self, version: &str, started_ms: u64) -> Self {
        if !version.is_empty() {
            self.meta.version = Some(version.to_owned());
        }
        self.meta.notes.push(format!("the session began at {started_ms} ms since the Unix epoch"));
        self
    }

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
        Cause::Panic { message, location, thread, .. } => {
            let (message, location, thread) = (message.clone(), location.clone(), thread.clone());
            Reason::Panic { message, location, thread }
        }
        Cause::Requested(reason) => Reason::Requested { reason: reason.clone() },
        Cause::Hang { limit_ms } => Reason::Hang { limit_ms: *limit_ms },
    }
}

/// In a test build: the unscrubbed dump goes to an inherited pipe.
#[cfg(feature = "raw-tap")]
fn tap(id: ReportId, dump: &[u8]) {
    crate::raw_tap::write(id, dump);
}

#[cfg(not(feature = "raw-tap"))]
fn tap(_: ReportId, _: &[u8]) {}

#[cfg(test)]
mod tests;
