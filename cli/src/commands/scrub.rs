//! `cenotaph scrub`: removes personal data from a minidump that somebody else wrote, or from an ELF core file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use cenotaph::dump::Layout;
use cenotaph::scrub::{self, Level, Place, Policy, Receipt};
use lexopt::prelude::*;

use super::unfinished::{Unfinished, is_same};
use super::{check_writable, is_elf, missing, read_minidump, take, write_json};
use crate::failure::{Failure, Result};
use crate::output;

const HELP: &str = "\
Usage: cenotaph scrub IN -o OUT [--level [PLACE=]LEVEL].. [--known VALUE].. [--rules FILE].. [--receipt FILE]

Removes personal data from IN, a minidump or an ELF core file of a 64-bit x86 process, and writes OUT, which has the same
length and unwinds to the same frames. Prints what was removed: place, rule, changes, bytes. IN stays.

  -o OUT           the scrubbed file, for this user alone. A file of that name is replaced when OUT is whole
  --level LEVEL    how much of memory stays: of stacks, and with 'pointers' or 'drop' of the heap too
  --level PLACE=LEVEL
                   how much of one place stays
  --known VALUE    a value that must go, wherever and in whatever encoding: a name, an account. One of fewer than 5 bytes,
                   or a common word ('admin'), counts only as a whole field or path segment. This machine's login and
                   host names are not known to this command, as IN may be from elsewhere: give them if it is from here
  --rules FILE     rules of your own, in TOML (docs/rules.md):
                       [[rule]]
                       name = \"player-id\"
                       pattern = 'PLR-[0-9]{8}'
  --receipt FILE   every change as JSON: place, rule, offset, length, never the text ('-': standard output). For
                   'cenotaph receipt verify OUT FILE'; its form is in docs/receipt.md

LEVEL, each of which removes what those before it remove:
  keep             only known values go
  pattern          what the rules find goes, too, the built-in ones and yours (default)
  pointers         of memory only words that point to a module or a stack, and small integers, stay
  drop             everything goes; of a module's path not the base name, of registers not what unwinding starts from

PLACE and its default, if it differs:
  stack, heap                            as LEVEL
  registers, exception, thread-name,
  module-path, text-stream               pattern
  environment                            drop
Vector registers and the command line's place on the stack go at every level. What nobody understands (unclaimed) is always
dropped. The other places that receipts name (attribute, breadcrumb, reason, annotation, attachment, log-tail,
upload-header) are of reports, not of dumps.
";

pub(crate) fn scrub(mut arguments: lexopt::Parser) -> Result<()> {
    let (mut input, mut to, mut receipt_to, mut policy) = (None, None, None, Policy::default());
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('o') | Long("output") => to = Some(PathBuf::from(arguments.value()?)),
            Long("receipt") => receipt_to = Some(PathBuf::from(arguments.value()?)),
            Long("known") => policy.known.push(arguments.value()?.string()?),
            Long("level") => level(&arguments.value()?.string()?, &mut policy)?,
            Long("rules") => policy.rules.extend(scrub::rules_from_file(&PathBuf::from(arguments.value()?))?),
            Long("help") | Short('h') => return output::line(HELP.trim_end()),
            Value(value) => take(&mut input, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let input: PathBuf = input.ok_or_else(|| missing("scrub", "IN"))?;
    let to = to.ok_or_else(|| missing("scrub", "-o OUT"))?;
    files_differ(&input, &to, receipt_to.as_deref())?;
    policy.places.iter().try_for_each(|(place, level)| has_effect(*place, *level))?;
    let is_core = is_elf(&input)?;
    receipt_to.as_deref().map_or(Ok(()), check_writable)?;
    let mut receipt = Receipt::default();
    let failed = |e: cenotaph::Error| {
        Failure::Failed(format!(
            "{}: {e}; nothing was written, as it could not be scrubbed whole",
            input.display()
        ))
    };
    let read = |path: &Path| read_minidump(path, "; scrub takes a minidump or an ELF core file");
    let mut bytes = if is_core { Vec::new() } else { read(&input)? };
    let scrubbed = Unfinished::create(&to)?;
    if is_core {
        let core = File::open(&input).map_err(|e| Failure::file(&input, "read", e))?;
        scrub::core_file(&core, &scrubbed.file, &policy, &mut receipt).map_err(failed)?;
    } else {
        let layout = Layout::parse(&bytes).map_err(failed)?;
        scrub::dump(&mut bytes, &layout, &policy, &mut receipt).map_err(failed)?;
        (&scrubbed.file).write_all(&bytes).map_err(|e| Failure::file(&to, "write", e))?;
    }
    receipt.describe_file(&scrubbed.file).map_err(failed)?;
    scrubbed.finish()?;
    if let Some(path) = &receipt_to {
        write_json(path, &receipt)?;
    }
    if receipt_to.as_deref() == Some(Path::new("-")) {
        return Ok(());
    }
    let mut counts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for entry in &receipt.entries {
        let count = counts.entry((entry.place.to_string(), entry.rule.clone())).or_default();
        count.0 += 1;
        count.1 = count.1.saturating_add(entry.length);
    }
    let rows: Vec<Vec<String>> = counts
        .into_iter()
        .map(|((place, rule), (count, length))| vec![place, rule, count.to_string(), length.to_string()])
        .collect();
    output::table(&["place", "rule", "changes", "bytes"], &rows)
}

/// The three must be three files: one that is written would take another's place.
fn files_differ(input: &Path, to: &Path, receipt: Option<&Path>) -> Result<()> {
    let stdout = Path::new("-");
    if to == stdout {
        return Err(Failure::Usage(
            "scrub: -o - is no file: a dump is read once more when it is written, so it needs one; name it (./- if it is called so)"
                .to_owned(),
        ));
    }
    let receipt = receipt.filter(|path| *path != stdout);
    let pairs = [(Some(to), input), (receipt, input), (receipt, to)];
    match pairs.into_iter().find_map(|(a, b)| a.filter(|a| is_same(a, b)).map(|a| (a, b))) {
        None => Ok(()),
        Some((a, b)) => Err(Failure::Usage(format!(
            "scrub: {} is {}, which would be lost; name another file",
            a.display(),
            b.display()
        ))),
    }
}

/// Refuses what would be taken for done and is not: levels of places that neither dumps nor core files have.
fn has_effect(place: Place, level: Level) -> Result<()> {
    let usage =
        |reason: &str| Err(Failure::Usage(format!("--level {}={}: {reason}", name(&place), name(&level))));
    match place {
        Place::Registers | Place::Exception | Place::Stack | Place::Heap => Ok(()),
        Place::Unclaimed if level == Level::Drop => Ok(()),
        Place::Unclaimed => usage("what nobody understands is always dropped"),
        Place::ThreadName | Place::ModulePath | Place::TextStream | Place::Environment => Ok(()),
        _ => {
            usage("a dump has no such place: it is one of reports, which applications set with Config::level")
        }
    }
}

/// As the command line has it.
fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// "pointers" for memory, or "thread-name=drop" for a place.
fn level(text: &str, policy: &mut Policy) -> Result<()> {
    let usage = |e: &dyn std::fmt::Display| Failure::Usage(format!("--level {text}: {e}"));
    match text.split_once('=') {
        None => policy.level = text.parse().map_err(|e: cenotaph::Error| usage(&e))?,
        Some((place, level)) => {
            let place: Place = place.parse().map_err(|e: cenotaph::Error| usage(&e))?;
            policy.places.insert(place, level.parse().map_err(|e: cenotaph::Error| usage(&e))?);
        }
    }
    Ok(())
}
