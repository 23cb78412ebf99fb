//! The story on standard output.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use cenotaph::report::Reason;

use super::{Story, planted};
use crate::commands::write_json;
use crate::failure::Result;
use crate::output::{self, bold, line};

/// The stages in the order in which they end.
const STAGES: [(&str, &str); 5] = [
    ("dump", "memory read, victim released"),
    ("unwind", "frames found"),
    ("scrub", "personal data removed"),
    ("seal", "compressed and sealed"),
    ("spool", "committed to disk"),
];

pub(super) fn story(story: &Story) -> Result<()> {
    line(bold("A crash"))?;
    let address = match &story.report.reason {
        Reason::Signal { address: Some(address), .. } => format!(" at address {address:#x}"),
        _ => String::new(),
    };
    line(format_args!(
        "{}{address} in {} {}",
        story.report.reason.name(),
        story.report.application,
        story.report.version
    ))?;
    line(format_args!(
        "the victim ended by signal {}, as it would have without Cenotaph",
        story.ending.signal().unwrap_or(0)
    ))?;
    story.frames.iter().try_for_each(line)?;
    line("")?;
    line(bold("What was removed"))?;
    let rows: Vec<Vec<String>> = story
        .receipt
        .summary()
        .into_iter()
        .map(|t| vec![t.rule, t.place.to_string(), t.count.to_string(), t.bytes.to_string()])
        .collect();
    output::table(&["kind", "place", "times", "bytes"], &rows)?;
    line("")?;
    line(bold("Sizes and times"))?;
    let rows: Vec<Vec<String>> = STAGES
        .iter()
        .map(|(stage, what)| {
            let time =
                story.spooled.stages_ms.get(*stage).map_or_else(String::new, |ms| format!("{ms:.2} ms"));
            let bytes =
                story.spooled.stages_bytes.get(*stage).map_or_else(String::new, |n| format!("{n} bytes"));
            vec![(*stage).to_owned(), time, bytes, (*what).to_owned()]
        })
        .collect();
    output::table(&["stage", "since the crash", "result", ""], &rows)?;
    if let Some(compressed) = story.spooled.stages_bytes.get("compress") {
        line(format_args!("all parts compressed: {compressed} bytes"))?;
    }
    line("")?;
    line(bold("Consent"))?;
    line(format_args!("connections to the collector before the person agreed: {}", story.before_consent))?;
    line("after: the held report was delivered over TLS and deleted from the spool")?;
    line("")?;
    line(bold("The report"))?;
    line(story.folder.display())?;
    let program = std::env::current_exe().map_or_else(|_| "cenotaph".to_owned(), |p| p.display().to_string());
    line(format_args!("{program} inspect {}", story.dump.display()))?;
    line("(this folder stays; delete it when you are done)")?;
    line("")?;
    search(story)
}

fn search(story: &Story) -> Result<()> {
    let bytes: usize = story.searched.iter().map(|source| source.bytes.len()).sum();
    line(bold("Search"))?;
    line(format_args!(
        "{} files, among them the sealed report while it was held, and its opened parts ({bytes} bytes: all that was \
         written or received) for {} planted values, and for every 8 characters in a row of each, as UTF-8, UTF-16 \
         and UTF-32:",
        story.searched.len(),
        planted::ALL.len(),
    ))?;
    let rows: Vec<Vec<String>> = planted::ALL
        .iter()
        .map(|planted| {
            let found: Vec<String> = story
                .leaks
                .iter()
                .filter(|leak| std::ptr::eq(leak.planted, *planted))
                .map(|leak| format!("{} ({})", leak.source, leak.encoding.name()))
                .collect();
            let result = if found.is_empty() {
                "not found".to_owned()
            } else {
                format!("FOUND in {}", found.join(", "))
            };
            vec![
                planted.kind.to_owned(),
                planted.place.to_owned(),
                planted.encoding.name().to_owned(),
                result,
            ]
        })
        .collect();
    output::table(&["planted", "in", "as", "result"], &rows)
}

/// The figures, for machines.
pub(super) fn json(story: &Story, path: &Path) -> Result<()> {
    let receipt: Vec<_> = story.receipt.summary();
    let found: BTreeMap<String, usize> = planted::ALL
        .iter()
        .map(|p| {
            let count = story.leaks.iter().filter(|leak| std::ptr::eq(leak.planted, *p)).count();
            (format!("{} in {}", p.kind, p.place), count)
        })
        .collect();
    let value = serde_json::json!({
        "report": story.report.id,
        "reason": story.report.reason,
        "ended_by_signal": story.ending.signal(),
        "connections_before_consent": story.before_consent,
        "stages_ms": story.spooled.stages_ms,
        "stages_bytes": story.spooled.stages_bytes,
        "receipt": receipt,
        "folder": story.folder,
        "searched_bytes": story.searched.iter().map(|source| source.bytes.len()).sum::<usize>(),
        "found": found,
    });
    write_json(path, &value)
}
