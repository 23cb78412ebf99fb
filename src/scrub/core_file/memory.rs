//! The segments of a core file, piece by piece.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::{AT_SYSINFO_EHDR, Job, is_zero, sparse};
use crate::error::{Error, Result};
use crate::scrub::Level;
use crate::scrub::echoes::Echoes;
use crate::scrub::edit::{Addresses, Editor, Finding, Guard};
use crate::scrub::finder::{self, Edges};
use crate::scrub::places;
use crate::scrub::pointers;
use crate::scrub::receipt::{Place, Receipt};
use crate::target::core_file::segments::{Load, malformed};

/// Zeros that no text goes across, in any encoding.
const GAP: usize = 16;
/// A page, in which a binary's headers and build id lie.
const HEADERS: u64 = 4096;
const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;

/// Scrubs all segments, then looks through what was written for pieces of the values that were found.
pub(super) fn scrub(job: &Job<'_>, echoes: &mut Echoes, receipt: &mut Receipt) -> Result<()> {
    let reduction = Reduction::new(job);
    for load in &job.core.loads {
        let place = place(job, load);
        let is_binary = is_binary(job, load);
        let end = load.offset.saturating_add(load.held);
        let mut rest = load.offset..end;
        while let Some(piece) = sparse::next_piece(&job.input, &rest) {
            let at = piece.start;
            let mut bytes = job.read(&piece)?;
            if !is_zero(&bytes) {
                if at + (bytes.len() as u64) < end {
                    bytes.truncate(cut(&bytes));
                }
                let address = load.range.start + (at - load.offset);
                job.edit(&mut bytes, at, receipt, |editor| {
                    arguments(job, editor, address);
                    let level = job.policy.level_of(place);
                    let edges = Edges::Cut { address };
                    let find =
                        |bytes: &[u8]| finder::in_memory_with(bytes, edges, job.known, job.copies.as_ref()).0;
                    if level >= Level::Pointers {
                        // Pieces of what goes may stand in what stays.
                        if !is_binary {
                            finder::learn(echoes, editor.bytes(), &find(editor.bytes()));
                        }
                        reduction.reduce(job, load, place, editor, address);
                    }
                    let mut findings = Vec::new();
                    match level {
                        Level::Keep => job.known.find(editor.bytes(), &mut findings),
                        _ => findings = find(editor.bytes()),
                    }
                    if !is_binary {
                        finder::learn(echoes, editor.bytes(), &findings);
                    }
                    blank(job, editor, address, findings, place);
                    Ok(())
                })?;
                job.write(&bytes, at)?;
            }
            rest.start = at + bytes.len() as u64;
        }
    }
    if echoes.is_empty() { Ok(()) } else { repeated(job, echoes, receipt) }
}

/// A segment with a thread's stack pointer in it is a stack.
fn place(job: &Job<'_>, load: &Load) -> Place {
    if job.facts.stack_pointer(&load.range).is_some() { Place::Stack } else { Place::Heap }
}

/// Whether a segment is of a mapped file, as it is there: nobody left pieces of values in it, and what rules find in it is the
/// developer's own text.
fn is_binary(job: &Job<'_>, load: &Load) -> bool {
    load.flags & WRITABLE == 0 && job.facts.files.contains(load.range.start)
}

/// Blanks pieces of values in what was written.
fn repeated(job: &Job<'_>, echoes: &Echoes, receipt: &mut Receipt) -> Result<()> {
    let written = job.written()?;
    for load in job.core.loads.iter().filter(|load| !is_binary(job, load)) {
        let place = place(job, load);
        if job.policy.level_of(place) == Level::Keep {
            continue;
        }
        let end = load.offset.saturating_add(load.held);
        let mut rest = load.offset..end;
        while let Some(piece) = sparse::next_piece(&written, &rest) {
            let at = piece.start;
            let bytes = written.exactly(at, piece.end - at);
            let mut bytes = bytes.ok_or_else(|| malformed("what was written cannot be read again"))?;
            if !is_zero(&bytes) {
                if at + (bytes.len() as u64) < end {
                    bytes.truncate(cut(&bytes));
                }
                let address = load.range.start + (at - load.offset);
                let before = bytes.clone();
                job.edit(&mut bytes, at, receipt, |editor| {
                    let findings = finder::echoes_in_unseen(editor.bytes(), echoes);
                    blank(job, editor, address, findings, place);
                    Ok(())
                })?;
                sparse::rewrite(job.output, &before, &bytes, at)
                    .map_err(|source| Error::System { call: "pwrite", source })?;
            }
            rest.start = at + bytes.len() as u64;
        }
    }
    Ok(())
}

/// Where a piece that goes on ends best: among zeros, so that nothing goes across, and the text behind them counts as whole.
/// Else anywhere, and the text there counts as cut off on both sides.
fn cut(bytes: &[u8]) -> usize {
    let whole = bytes.len() & !7;
    let mut end = whole;
    while end > whole / 4 && end >= GAP {
        if bytes[end - GAP..end].iter().all(|&byte| byte == 0) {
            return end - GAP / 2;
        }
        end -= 8;
    }
    whole.max(1)
}

/// The strings of argv and envp, which go whole.
fn arguments(job: &Job<'_>, editor: &mut Editor<'_>, address: u64) {
    if let Some(range) = overlap(&job.arguments, address, editor.bytes().len()) {
        editor.zero(range, Place::Environment, "argv-envp");
    }
}

/// The part of `wanted` that `length` bytes at `address` hold, relative to them.
fn overlap(wanted: &Range<u64>, address: u64, length: usize) -> Option<Range<usize>> {
    let start = wanted.start.max(address);
    let end = wanted.end.min(address.saturating_add(length as u64));
    // Both lie in a slice.
    (start < end).then(|| (start - address) as usize..(end - address) as usize)
}

fn blank(job: &Job<'_>, editor: &mut Editor<'_>, address: u64, findings: Vec<Finding>, place: Place) {
    let guard = Guard::new(&job.mapped, 0, address, 8);
    let findings = job.linker.spare(findings, address);
    places::blank(editor, 0, places::coalesce(findings), place, Some(guard));
}

/// The level `Pointers`: what an unwinder and a debugger need of a core file.
struct Reduction {
    /// Binaries and stacks.
    targets: Addresses,
}

impl Reduction {
    fn new(job: &Job<'_>) -> Self {
        let stacks = job.core.loads.iter().filter(|load| job.facts.stack_pointer(&load.range).is_some());
        let code = job.core.loads.iter().filter(|load| load.flags & EXECUTABLE != 0);
        let files = job.facts.files.all().iter().map(|file| file.start..file.end.saturating_add(1));
        Self { targets: Addresses::new(stacks.chain(code).map(|load| load.range.clone()).chain(files)) }
    }

    fn reduce(&self, job: &Job<'_>, load: &Load, place: Place, editor: &mut Editor<'_>, address: u64) {
        let words = pointers::Words::plain(&self.targets);
        let whole = 0..editor.bytes().len();
        if place == Place::Stack && job.policy.level_of(place) == Level::Drop {
            return editor.zero(whole, place, pointers::RULE);
        }
        if place == Place::Stack {
            // What lies below the lowest stack pointer in it is dead.
            let live = job.facts.stack_pointer(&load.range).unwrap_or(address);
            let changed = editor.changed();
            return words.reduce(editor, whole, address, live, place, &changed);
        }
        // Of the kernel's own binary there is no file; of others a debugger reads the headers and the build id.
        if job.facts.auxv(AT_SYSINFO_EHDR) == Some(load.range.start) {
            return;
        }
        let is_binary = address == load.range.start && editor.bytes().starts_with(b"\x7fELF");
        let from = if is_binary { whole.end.min(HEADERS as usize) } else { 0 };
        let is_file = job.facts.files.contains(load.range.start);
        let changed = editor.changed();
        let mut at = from;
        for kept in job.linker.parts(address, whole.end) {
            let start = kept.start.max(at);
            self.drop_or_reduce(&words, editor, at..start, address, is_file, &changed);
            at = kept.end.max(at);
        }
        self.drop_or_reduce(&words, editor, at..whole.end, address, is_file, &changed);
    }

    /// A binary's own data keeps the words that point into binaries: the linker's tables. Other memory keeps nothing.
    fn drop_or_reduce(
        &self,
        words: &pointers::Words<'_>,
        editor: &mut Editor<'_>,
        range: Range<usize>,
        address: u64,
        is_file: bool,
        changed: &Addresses,
    ) {
        if range.is_empty() {
        } else if is_file {
            let address = address + range.start as u64;
            words.reduce(editor, range, address, address, Place::Heap, changed);
        } else {
            editor.zero(range, Place::Heap, pointers::RULE);
        }
    }
}
