//! Reading what a victim left in its spool: opened with the spool's key as `cenotaph open` does, its dump read and its
//! stack walked by rust-minidump, which shares no code with the library.

use std::fs;
use std::path::{Path, PathBuf};

use cenotaph::report::{Detail, Report};
use cenotaph::spool::key::LocalKey;
use cenotaph::spool::{PartKind, container};
use minidump::{Minidump, MinidumpModuleList, MinidumpSystemInfo};
use minidump_unwind::MultiSymbolProvider;
use minidump_unwind::debuginfo::DebugInfoSymbolProvider;

use super::expected::Level;
use super::verdict::Found;

/// Where reports stand (ARCHITECTURE.md, "spool").
const STATES: [&str; 3] = ["pending", "sending", "rejected"];

/// Every report of a spool, or what is wrong with it.
pub(crate) fn all(spool: &Path) -> Vec<Result<Found, String>> {
    let files = files(spool);
    if files.is_empty() {
        return Vec::new();
    }
    let key = LocalKey::from_file(&spool.join("key")).map_err(|e| e.to_string());
    files.iter().map(|file| read(file, key.as_ref().map_err(String::clone)?)).collect()
}

/// Its report files.
pub(crate) fn files(spool: &Path) -> Vec<PathBuf> {
    let folders = STATES.iter().filter_map(|state| fs::read_dir(spool.join(state)).ok());
    let files = folders.flatten().filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "ceno")).collect()
}

fn read(file: &Path, key: &LocalKey) -> Result<Found, String> {
    let bytes = fs::read(file).map_err(|e| e.to_string())?;
    let parts = container::open(&bytes, key).map_err(|e| e.to_string())?;
    let part = |kind| parts.iter().find(|part| part.kind == kind).map(|part| part.bytes.as_slice());
    let report = part(PartKind::Report).ok_or("the report part is missing")?;
    let report: Report = serde_json::from_slice(report).map_err(|e| format!("the report part: {e}"))?;
    let (level, kind) = match report.detail {
        Detail::Minidump => (Level::Minidump, PartKind::Minidump),
        Detail::Pointers => (Level::Pointers, PartKind::Pointers),
        Detail::StackTrace => (Level::StackTrace, PartKind::StackTrace),
    };
    let named: usize = report.stack_trace.threads.iter().map(|thread| thread.frames.len()).sum();
    if level == Level::StackTrace && named == 0 {
        return Ok(Found { level: Level::NoFrames, frames: 0 });
    }
    let dump = part(kind).ok_or_else(|| format!("the {level} part is missing"))?;
    Ok(Found { level, frames: frames(dump)? })
}

/// The frames of the crashing (or requesting) thread.
fn frames(dump: &[u8]) -> Result<usize, String> {
    let dump = Minidump::read(dump).map_err(|e| format!("the dump: {e}"))?;
    let system = dump.get_stream::<MinidumpSystemInfo>().map_err(|e| format!("the dump's system: {e}"))?;
    let modules = dump.get_stream::<MinidumpModuleList>().map_err(|e| format!("the dump's modules: {e}"))?;
    let mut provider = MultiSymbolProvider::new();
    provider.add(Box::new(pollster::block_on(DebugInfoSymbolProvider::new(&system, &modules))));
    let state = pollster::block_on(minidump_processor::process_minidump(&dump, &provider))
        .map_err(|e| format!("the dump cannot be processed: {e}"))?;
    let thread = state.requesting_thread.ok_or("the dump names no crashing thread")?;
    Ok(state.threads.get(thread).map_or(0, |thread| thread.frames.len()))
}
