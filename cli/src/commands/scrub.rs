//! `cenotaph scrub`: removes personal data from a minidump that somebody else wrote.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cenotaph::dump::Layout;
use cenotaph::scrub::{self, Level, Policy, Receipt};
use lexopt::prelude::*;

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
            Long("level") => policy.level = level(&arguments.value()?.string()?)?,
            Value(value) => take(&mut input, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let input: PathBuf = input.ok_or_else(|| missing("scrub", "IN"))?;
    let to = to.ok_or_else(|| missing("scrub", "-o OUT"))?;
    let mut bytes = read_minidump(&input)?;
    let mut receipt = Receipt::default();
    let failed = |e: cenotaph::Error| {
        Failure::Failed(format!(
            "{}: {e}; nothing was written, as it could not be scrubbed whole",
            input.display()
        ))
    };
    let layout = Layout::parse(&bytes).map_err(failed)?;
    scrub::dump(&mut bytes, &layout, &policy, &mut receipt).map_err(failed)?;
    write(&to, &bytes)?;
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

fn level(text: &str) -> Result<Level> {
    match text {
        "pattern" => Ok(Level::Pattern),
        "pointers" => Ok(Level::Pointers),
        other => Err(Failure::Usage(format!("--level {other}: expected pattern or pointers"))),
    }
}

/// Only for this user, and under its name only when it is whole: half a dump should not look like one.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let temporary = path.with_file_name(name);
    let result = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
    result.map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        Failure::file(path, "write", e)
    })
}
