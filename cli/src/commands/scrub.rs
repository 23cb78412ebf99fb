//! `cenotaph scrub`: removes personal data from a minidump that somebody else wrote, or from an ELF core file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use cenotaph::dump::Layout;
use cenotaph::scrub::{self, Place, Policy, Receipt, Rule};
use lexopt::prelude::*;

use super::unfinished::Unfinished;
use super::{missing, read_minidump, take, write_json};
use crate::failure::{Failure, Result};
use crate::output;

pub(crate) fn scrub(mut arguments: lexopt::Parser) -> Result<()> {
    let (mut input, mut to, mut receipt_to, mut policy) = (None, None, None, Policy::default());
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('o') | Long("output") => to = Some(PathBuf::from(arguments.value()?)),
            Long("receipt") => receipt_to = Some(PathBuf::from(arguments.value()?)),
            Long("known") => policy.known.push(arguments.value()?.string()?),
            Long("level") => level(&arguments.value()?.string()?, &mut policy)?,
            Long("rules") => policy.rules.extend(rules(&PathBuf::from(arguments.value()?))?),
            Value(value) => take(&mut input, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let input: PathBuf = input.ok_or_else(|| missing("scrub", "IN"))?;
    let to = to.ok_or_else(|| missing("scrub", "-o OUT"))?;
    let mut receipt = Receipt::default();
    let failed = |e: cenotaph::Error| {
        Failure::Failed(format!(
            "{}: {e}; nothing was written, as it could not be scrubbed whole",
            input.display()
        ))
    };
    let scrubbed = Unfinished::create(&to)?;
    if is_elf(&input)? {
        let core = File::open(&input).map_err(|e| Failure::file(&input, "read", e))?;
        scrub::core_file(&core, &scrubbed.file, &policy, &mut receipt).map_err(failed)?;
    } else {
        let mut bytes = read_minidump(&input)?;
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

fn rules(path: &Path) -> Result<Vec<Rule>> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, "read", e))?;
    scrub::rules_from_toml(&text, path).map_err(|e| Failure::Failed(e.to_string()))
}

/// Whether a file begins as an ELF file does.
fn is_elf(path: &Path) -> Result<bool> {
    let failed = |e: std::io::Error| Failure::file(path, "read", e);
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(false);
    }
    let mut magic = Vec::new();
    file.take(4).read_to_end(&mut magic).map_err(failed)?;
    Ok(magic == b"\x7fELF")
}
