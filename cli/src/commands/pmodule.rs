//! `cenotaph pmodule run`: a pmodule over a core file, for whoever writes one.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cenotaph::pmodule::measure::Cost;
use cenotaph::pmodule::runner::Ran;
use cenotaph::pmodule::{Description, Edit, Limits, plugin};
use cenotaph::report::{Detail, Report};
use cenotaph::scrub::Receipt;
use cenotaph::scrub::receipt::Tally;
use cenotaph::target::Target;
use cenotaph::{Replay, Replayed};
use lexopt::prelude::*;
use serde::Serialize;

use super::{missing, unfinished, write_json};
use crate::failure::{Failure, Result};
use crate::output::{self, bold, printable};

const HELP: &str = "\
Usage: cenotaph pmodule run MODULE.so CORE [--json FILE] [--dump FILE] [--debug]

Has a pmodule see a core file as it would see a crash, through the same stages: prints what it asked for, what came of
it, and what it cost. For its developer: what the module itself writes, to stdout or stderr, appears on stderr as it is, unscrubbed.

  --json FILE  the same as JSON ('-': standard output)
  --dump FILE  keeps the scrubbed minidump
  --debug      no limits of time, and the module is loaded without a process of its own, for a debugger:
               gdb -ex 'set follow-fork-mode child' -ex 'set breakpoint pending on' -ex 'break FUNCTION' -ex run \\
                   --args cenotaph pmodule run --debug MODULE.so CORE

A module that dies says where: at MODULE.so+0xOFFSET, for 'addr2line -f -e MODULE.so 0xOFFSET'.
A core file comes from gdb's 'generate-core-file', from gcore, or from the kernel ('ulimit -c unlimited').
";

const HOUR: Duration = Duration::from_secs(3600);
/// Somebody steps through it.
const LONG: Limits = Limits { inspect: HOUR, scrub: HOUR, all: HOUR, memory: 1 << 30 };

/// What `--json` writes.
#[derive(Serialize)]
struct Run {
    module: PathBuf,
    core: PathBuf,
    pmodule: Description,
    /// Why its result is missing.
    failure: Option<String>,
    edits: Vec<Edit>,
    cost: Cost,
    /// From the fork to the answer, while a process would have stood still.
    inspect_us: u64,
    veto: Option<String>,
    report: Option<Outcome>,
}

/// What of the report a pmodule has to do with. The rest is the core file's owner's.
#[derive(Serialize)]
struct Outcome {
    detail: Detail,
    dump_bytes: Option<usize>,
    removed: Vec<Tally>,
    removed_by_pmodule: u64,
    threads: usize,
    notes: Vec<String>,
}

pub(crate) fn pmodule(mut arguments: lexopt::Parser) -> Result<()> {
    match arguments.next()? {
        Some(Value(word)) if word == "run" => run(arguments),
        Some(Long("help") | Short('h')) => output::line(HELP.trim_end()),
        Some(Value(word)) => {
            Err(Failure::Usage(format!("pmodule: unknown word {}; there is 'pmodule run'", word.display())))
        }
        Some(other) => Err(other.unexpected().into()),
        None => Err(missing("pmodule", "the word 'run'")),
    }
}

fn run(mut arguments: lexopt::Parser) -> Result<()> {
    let (mut files, mut json, mut dump, mut debug) = (Vec::new(), None, None, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("json") => json = Some(PathBuf::from(arguments.value()?)),
            Long("help") | Short('h') => return output::line(HELP.trim_end()),
            Long("debug") => debug = true,
            Long("dump") => dump = Some(PathBuf::from(arguments.value()?)),
            Value(value) => files.push(PathBuf::from(value)),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut files = files.into_iter();
    let module = files.next().ok_or_else(|| missing("pmodule run", "MODULE.so"))?;
    let core = files.next().ok_or_else(|| missing("pmodule run", "CORE"))?;
    if let Some(more) = files.next() {
        return Err(Failure::Usage(format!("one argument too many: {}", more.display())));
    }
    for output in json.iter().chain(&dump) {
        if let Some(input) = [&module, &core].into_iter().find(|input| unfinished::is_same(output, input)) {
            return Err(Failure::Usage(format!(
                "pmodule run: {} is {}, which would be lost; name another file",
                output.display(),
                input.display()
            )));
        }
    }
    let absolute = std::path::absolute(&module).map_err(|e| Failure::file(&module, "find", e))?;
    if is_core(&module) {
        return Err(Failure::Usage(format!(
            "{} is a core file: it comes behind MODULE.so",
            module.display()
        )));
    }
    let registered = if debug { plugin::register_here(&absolute)? } else { plugin::register(&absolute)? };
    let description = registered.description.clone();
    // In words about a file that is read: those of the library are about files that are written.
    open(&core).map_err(|e| Failure::file(&core, "read", e))?;
    let target = Target::from_core(&core).map_err(|e| Failure::Failed(format!("{}: {e}", core.display())))?;
    let limits = if debug { LONG } else { Limits::default() };
    let Replay { inspected, cost, outcome, .. } = cenotaph::replay(target, &registered, limits)
        .map_err(|e| Failure::Failed(format!("{}: no dump can be made of it: {e}", core.display())))?;

    let (report, receipt, bytes, veto) = match outcome {
        Replayed::Report { report, receipt, dump } => (Some(report), receipt, dump, None),
        Replayed::Vetoed { reason } => (None, Receipt::default(), None, Some(reason)),
        _ => (None, Receipt::default(), None, None),
    };
    let failure = failure(&description, inspected.as_ref(), report.as_deref());
    let edits = inspected.as_ref().and_then(|ran| ran.result.as_ref().ok());
    let run = Run {
        failure,
        edits: edits.map(|edits| edits.iter().cloned().collect()).unwrap_or_default(),
        inspect_us: inspected.as_ref().map_or(0, |ran| ran.took_us),
        cost,
        veto,
        report: report.map(|report| outcome_of(&report, &receipt, bytes.as_deref(), &description)),
        module,
        core,
        pmodule: description,
    };
    if let Some(json) = &json {
        write_json(json, &run)?;
    }
    if json.as_deref() != Some(Path::new("-")) {
        print(&run, &limits)?;
    }
    match &run.failure {
        None => dump.map_or(Ok(()), |path| keep(&path, bytes.as_deref())),
        Some(why) => Err(Failure::Failed(format!(
            "{}: it failed on {}: {}",
            run.module.display(),
            run.core.display(),
            printable(why)
        ))),
    }
}

/// Opens a file to read it; a pipe that nobody writes to is not waited for.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Whether a file is an ELF core file (`e_type` 4).
fn is_core(path: &Path) -> bool {
    let mut head = [0; 18];
    let read = open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head.starts_with(b"\x7fELF") && head[16..] == [4, 0]
}

/// A failure while it looked is in its result; one of `scrub` or `verdict` is in the report's notes.
fn failure(description: &Description, inspected: Option<&Ran>, report: Option<&Report>) -> Option<String> {
    if let Some(Err(why)) = inspected.map(|ran| &ran.result) {
        return Some(why.text.clone());
    }
    let named = format!("pmodule {}", description.name);
    report?.notes.iter().find(|note| note.contains(&named)).cloned()
}

fn outcome_of(report: &Report, receipt: &Receipt, dump: Option<&[u8]>, description: &Description) -> Outcome {
    let rule = format!("pmodule:{}", description.name);
    let own = receipt.entries.iter().filter(|entry| entry.rule == rule);
    Outcome {
        detail: report.detail,
        dump_bytes: dump.map(<[u8]>::len),
        removed: receipt.summary(),
        removed_by_pmodule: own.map(|entry| entry.length).sum(),
        threads: report.stack_trace.threads.len(),
        notes: report.notes.clone(),
    }
}

/// The dump was scrubbed, but is about somebody's process all the same: for this user alone.
fn keep(path: &Path, dump: Option<&[u8]>) -> Result<()> {
    let Some(dump) = dump else {
        return Err(Failure::Failed(format!(
            "{}: not written: the report has no dump (it was vetoed, or holds no memory)",
            path.display()
        )));
    };
    unfinished::write(path, dump)
}

fn print(run: &Run, limits: &Limits) -> Result<()> {
    let Run { pmodule, cost, .. } = run;
    let closed =
        if pmodule.fails_closed() { ", redacts: a failure leaves no memory in a report" } else { "" };
    output::line(bold(&format!("{} (priority {}{closed})", pmodule.name, pmodule.priority)))?;
    output::line(format_args!(
        "loaded in {}, looked for {} (limit {}), read {} pieces of memory ({} bytes), took {} KiB of memory (limit {})",
        milliseconds(cost.load_us),
        milliseconds(run.inspect_us),
        milliseconds(u64::try_from(limits.inspect.as_micros()).unwrap_or(u64::MAX)),
        cost.reads,
        cost.read_bytes,
        cost.memory_bytes >> 10,
        limits.memory >> 10,
    ))?;
    let events = cost
        .events
        .iter()
        .map(|event| vec![word(&event.event), event.calls.to_string(), milliseconds(event.took_us)]);
    output::line("")?;
    output::table(&["event", "calls", "time"], &events.collect::<Vec<_>>())?;
    if !run.edits.is_empty() {
        output::line("")?;
        output::table(&["asked for", "value"], &run.edits.iter().map(edit).collect::<Vec<_>>())?;
    }
    output::line("")?;
    match (&run.veto, &run.report) {
        (Some(reason), _) => output::line(format_args!("vetoed: {}", printable(reason))),
        (None, Some(outcome)) => result(outcome),
        (None, None) => Ok(()),
    }
}

fn result(outcome: &Outcome) -> Result<()> {
    let dump =
        outcome.dump_bytes.map_or_else(|| "no dump".to_owned(), |bytes| format!("a dump of {bytes} bytes"));
    output::line(format_args!(
        "the report: detail {}, {} threads, {dump}, {} bytes blanked by this pmodule itself",
        outcome.detail, outcome.threads, outcome.removed_by_pmodule
    ))?;
    let removed = outcome.removed.iter().map(|tally| {
        vec![word(&tally.place), tally.rule.clone(), tally.count.to_string(), tally.bytes.to_string()]
    });
    output::table(&["removed from", "rule", "times", "bytes"], &removed.collect::<Vec<_>>())?;
    outcome.notes.iter().try_for_each(|note| output::line(format_args!("note: {}", printable(note))))
}

/// An edit in words: what, and its own values.
fn edit(edit: &Edit) -> Vec<String> {
    let range = |range: &std::ops::Range<u64>| {
        format!("{:#x}, {} bytes", range.start, range.end.saturating_sub(range.start))
    };
    let (what, value) = match edit {
        Edit::Annotate { level, text } => (format!("annotation ({})", word(level)), text.clone()),
        Edit::Attribute { key, value } => ("attribute".to_owned(), format!("{key} = {value}")),
        Edit::Classifier(text) => ("classifier".to_owned(), text.clone()),
        Edit::FingerprintComponent(text) => ("fingerprint component".to_owned(), text.clone()),
        Edit::AddMemory(memory) => ("add memory".to_owned(), range(memory)),
        Edit::BlankMemory(memory) => ("blank memory".to_owned(), range(memory)),
        Edit::BlankRegister { thread, register } => {
            ("blank register".to_owned(), format!("{register} of thread {thread}"))
        }
        Edit::BlankArgument(number) => ("blank argument".to_owned(), number.to_string()),
        Edit::BlankEnvironment(name) => ("blank variable".to_owned(), name.clone()),
        Edit::KeepStack(thread) => ("keep stack".to_owned(), format!("thread {thread}")),
        Edit::DropStack(thread) => ("drop stack".to_owned(), format!("thread {thread}")),
        Edit::LowerDetail(detail) => ("lower detail".to_owned(), detail.to_string()),
        Edit::Veto(veto) => ("veto".to_owned(), veto.reason.clone()),
        other => ("other".to_owned(), format!("{other:?}")),
    };
    vec![what, value]
}

/// A plain value as its JSON has it: "attach", "stack".
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        other => other.map(|value| value.to_string()).unwrap_or_default(),
    }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}
