//! Where in a dump what is done: streams, strings, memory.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::aliases::masked;
use super::contexts::{self, Cpu};
use super::echoes::Echoes;
use super::edit::{Addresses, Editor, Encoding, Finding, Guard};
use super::finder::{self, Edges};
use super::frames;
use super::known::Known;
use super::maps;
use super::pointers;
use super::receipt::Place;
use super::runs::Blocks;
use super::{Level, Policy, wishes};
use crate::dump::Layout;
use crate::dump::layout::{MemoryEntry, utf16};
use crate::error::Result;

/// What is done with a stream's own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// Numbers and offsets; what they point to is looked at by itself.
    Structure,
    /// UTF-8 text, or a structure with text in it: known values and rules.
    Text,
    /// /proc/cpuinfo: text whose `Serial` line names the machine.
    CpuInfo,
    /// /proc/PID/maps: names behind numbers.
    Maps,
    /// Nothing of it may stay.
    Blank,
}

/// The streams that may stay, by `MINIDUMP_STREAM_TYPE` (minidumpapiset.h; Breakpad's minidump_format.h; Mozilla's
/// extensions in minidump-common). Every other kind is dropped: what is not understood cannot be scrubbed.
const STREAMS: &[(u32, Stream)] = &[
    (3, Stream::Structure),           // ThreadListStream
    (4, Stream::Structure),           // ModuleListStream
    (5, Stream::Structure),           // MemoryListStream
    (6, Stream::Structure),           // ExceptionStream
    (7, Stream::Structure),           // SystemInfoStream
    (9, Stream::Structure),           // Memory64ListStream
    (12, Stream::Structure),          // HandleDataStream
    (14, Stream::Structure),          // UnloadedModuleListStream
    (15, Stream::Text),               // MiscInfoStream
    (16, Stream::Structure),          // MemoryInfoListStream
    (24, Stream::Structure),          // ThreadNamesStream
    (0x4350_0001, Stream::Structure), // CrashpadInfo
    (0x4767_0003, Stream::CpuInfo),   // LinuxCpuInfo
    (0x4767_0004, Stream::Text),      // LinuxProcStatus
    (0x4767_0005, Stream::Text),      // LinuxLsbRelease
    (COMMAND_LINE, Stream::Blank),
    (ENVIRONMENT, Stream::Blank),
    (0x4767_0008, Stream::Structure), // LinuxAuxv
    (0x4767_0009, Stream::Maps),      // LinuxMaps
    (0x4767_000a, Stream::Structure), // LinuxDsoDebug
    (0x4d7a_0003, Stream::Text),      // MozLinuxLimits
    (0x4d7a_0004, Stream::Text),      // MozSoftErrors
];

/// LinuxCmdLine.
const COMMAND_LINE: u32 = 0x4767_0006;
/// LinuxEnviron.
const ENVIRONMENT: u32 = 0x4767_0007;

/// Scrubs a dump: first what goes whatever it holds, then everything else by known values and rules. These two see the
/// same bytes, so that neither hides half of a value from the other.
pub(super) fn scrub(
    editor: &mut Editor<'_>,
    layout: &Layout,
    policy: &Policy,
    known: &Known,
    echoes: &mut Echoes,
) -> Result<()> {
    let cpu = Cpu::new(layout.processor)?;
    let layout = &*frames::with_stacks(editor.bytes(), layout, cpu);
    let copies = copies(editor.bytes(), layout, policy)?;
    for (rule, wishes) in &policy.wishes {
        // What the dump has not need not be blanked in it.
        let _ = wishes::apply(editor, layout, rule, wishes);
    }
    unclaimed(editor, layout);
    arguments(editor, layout, policy, known, echoes);
    pointers::reduce(editor, layout, cpu, policy.level_of(Place::Stack), policy.level_of(Place::Heap));
    let mapped = mapped(layout);
    let means = Means { policy, known };
    memory(editor, layout, &mapped, cpu.width, &means, &copies, echoes);
    let registers = policy.level_of(Place::Registers);
    for thread in &layout.threads {
        cpu.scrub(editor, &thread.context, &mapped, known, registers)?;
    }
    if let Some(exception) = &layout.exception {
        cpu.scrub(editor, &exception.context, &mapped, known, registers)?;
        let parameters: Vec<usize> = exception.parameters.clone().step_by(8).collect();
        let level = policy.level_of(Place::Exception);
        contexts::words(editor, &parameters, 8, Place::Exception, &mapped, known, level);
    }
    let pieces = pieces_of_names(editor.bytes(), layout, echoes);
    streams(editor, layout, &means);
    strings(editor, layout, &means);
    for (start, findings, place) in pieces {
        blank(editor, start, findings, place, None);
    }
    editor.finish(&mapped, cpu.width);
    Ok(())
}

/// What is sought in text, and how much of it stays.
struct Means<'a> {
    policy: &'a Policy,
    known: &'a Known,
}

impl Means<'_> {
    /// Known values in bytes of any content.
    fn values(&self, bytes: &[u8]) -> Vec<Finding> {
        let mut found = Vec::new();
        self.known.find(bytes, &mut found);
        found
    }

    /// What is to be blanked in a text, which stands whole in one byte a character.
    fn in_text(&self, bytes: &[u8], place: Place) -> Vec<Finding> {
        match self.policy.level_of(place) {
            Level::Keep => self.values(bytes),
            Level::Pattern => finder::in_memory(bytes, Edges::Whole, self.known),
            Level::Pointers | Level::Drop => whole(bytes, Encoding::Utf8, DROPPED),
        }
    }

    /// The same in UTF-16LE.
    fn in_utf16(&self, text: &[u8], place: Place) -> Vec<Finding> {
        match self.policy.level_of(place) {
            Level::Keep => {
                let mut found = self.values(text);
                found.retain(|finding| finding.encoding == Encoding::Utf16Le && finding.range.start % 2 == 0);
                found
            }
            Level::Pattern => finder::in_utf16(text, self.known),
            Level::Pointers | Level::Drop => whole(text, Encoding::Utf16Le, DROPPED),
        }
    }
}

/// The rule of what goes because of its place's level.
pub(super) const DROPPED: &str = "dropped";

fn whole(bytes: &[u8], encoding: Encoding, rule: &'static str) -> Vec<Finding> {
    vec![Finding { range: 0..bytes.len(), encoding, rule }]
}

/// What the environment and the command line hold may stand elsewhere too, whether the dump has streams of them or not.
fn copies(bytes: &[u8], layout: &Layout, policy: &Policy) -> Result<Known> {
    let stream = |kind: u32, beside: &str| {
        let stream = layout.streams.iter().find(|stream| stream.kind == kind);
        let stream = stream.map_or(&[][..], |stream| &bytes[stream.bytes.clone()]);
        [stream, beside.as_bytes()].join(&0)
    };
    Known::copies(
        &stream(ENVIRONMENT, &masked(&policy.environment_strings)),
        &stream(COMMAND_LINE, &masked(&policy.argument_strings)),
    )
}

/// Everything that a pointer of the process may point to.
fn mapped(layout: &Layout) -> Addresses {
    // A return address may lie just behind a module.
    let modules = layout.modules.iter().map(|m| m.base..m.base.saturating_add(m.size).saturating_add(1));
    let memory = layout.memory.iter().map(|entry| span(entry.address, &entry.bytes));
    let regions = layout.mapped.iter().map(|(range, _)| range.clone());
    Addresses::new(modules.chain(memory).chain(regions))
}

fn span(address: u64, bytes: &Range<usize>) -> Range<u64> {
    address..address.saturating_add(bytes.len() as u64)
}

/// Unknown streams with their directory entries, and what no stream claims.
fn unclaimed(editor: &mut Editor<'_>, layout: &Layout) {
    for stream in &layout.streams {
        if stream.kind != 0 && treatment(stream.kind).is_none() {
            editor.zero(stream.bytes.clone(), Place::Unclaimed, "unknown-stream");
            editor.zero(stream.entry.clone(), Place::Unclaimed, "unknown-stream");
        }
    }
    for gap in &layout.gaps {
        editor.zero(gap.clone(), Place::Unclaimed, "gap");
    }
}

fn treatment(kind: u32) -> Option<Stream> {
    STREAMS.iter().find(|(known, _)| *known == kind).map(|(_, treatment)| *treatment)
}

/// The strings of argv and envp at the top of the main thread's stack, in whatever memory holds them.
///
/// They go whole, but the values that are found in them are remembered: a program copies its environment about.
fn arguments(editor: &mut Editor<'_>, layout: &Layout, policy: &Policy, known: &Known, echoes: &mut Echoes) {
    for strings in [&policy.argument_strings, &policy.environment_strings] {
        let strings = masked(strings);
        let bytes = strings.as_bytes();
        finder::learn(echoes, bytes, &finder::in_memory(bytes, Edges::Whole, known));
    }
    let Some(arguments) = &policy.arguments else { return };
    for entry in &layout.memory {
        let span = span(entry.address, &entry.bytes);
        let (first, last) = (arguments.start.max(span.start), arguments.end.min(span.end));
        // Both lie in the entry, whose length is that of a slice.
        let offset = |address: u64| entry.bytes.start + (address - span.start) as usize;
        if first < last {
            let block = offset(first)..offset(last);
            let bytes = &editor.bytes()[block.clone()];
            finder::learn(echoes, bytes, &finder::in_memory(bytes, Edges::Whole, known));
            editor.zero(block, Place::Environment, "argv-envp");
        }
    }
}

/// Twice over: what is found in one region is also looked for, in pieces, in all the others.
fn memory(
    editor: &mut Editor<'_>,
    layout: &Layout,
    mapped: &Addresses,
    width: usize,
    means: &Means<'_>,
    copies: &Known,
    echoes: &mut Echoes,
) {
    let mut stacks: Vec<_> = layout.threads.iter().map(|thread| &thread.stack.bytes).collect();
    stacks.sort_unstable_by_key(|range| (range.start, range.end));
    let place = |entry: &MemoryEntry| {
        let stack = stacks.binary_search_by_key(&(entry.bytes.start, entry.bytes.end), |s| (s.start, s.end));
        if stack.is_ok() { Place::Stack } else { Place::Heap }
    };
    let found: Vec<(Vec<Finding>, Blocks)> = layout
        .memory
        .iter()
        .map(|entry| {
            let bytes = &editor.bytes()[entry.bytes.clone()];
            if means.policy.level_of(place(entry)) == Level::Keep {
                return (means.values(bytes), Blocks::default());
            }
            let edges = Edges::Cut { address: entry.address };
            let (findings, blocks) = finder::in_memory_with(bytes, edges, means.known, Some(copies));
            finder::learn(echoes, bytes, &findings);
            (findings, blocks)
        })
        .collect();
    for (entry, (mut findings, blocks)) in layout.memory.iter().zip(found) {
        let place = place(entry);
        let guard = Guard::new(mapped, entry.bytes.start, entry.address, width);
        if means.policy.level_of(place) > Level::Keep {
            let bytes = &editor.bytes()[entry.bytes.clone()];
            findings.extend(finder::echoes_in_memory(bytes, &blocks, echoes));
        }
        let findings = coalesce(findings);
        blank(editor, entry.bytes.start, findings, place, Some(guard));
    }
}

/// Findings of one piece of memory from which on they are joined.
const MANY: usize = 1 << 15;
/// Bytes between two of many findings that go with them.
const BETWEEN: usize = 64;

/// Joins neighbours if there are very many: a receipt should not be larger than the dump.
pub(super) fn coalesce(findings: Vec<Finding>) -> Vec<Finding> {
    if findings.len() < MANY {
        return findings;
    }
    let mut joined = Vec::<Finding>::new();
    let mut sorted = findings;
    sorted.sort_by_key(|finding| (finding.rule, finding.encoding.stride(), finding.range.start));
    for finding in sorted {
        match joined.last_mut() {
            Some(last)
                if last.rule == finding.rule
                    && last.encoding == finding.encoding
                    && finding.range.start <= last.range.end.saturating_add(BETWEEN)
                    && finding
                        .range
                        .start
                        .abs_diff(last.range.start)
                        .is_multiple_of(last.encoding.stride()) =>
            {
                last.range.end = last.range.end.max(finding.range.end);
            }
            _ => joined.push(finding),
        }
    }
    joined
}

fn streams(editor: &mut Editor<'_>, layout: &Layout, means: &Means<'_>) {
    for stream in &layout.streams {
        let bytes = stream.bytes.clone();
        match treatment(stream.kind) {
            Some(Stream::Text) => text(editor, bytes, means),
            Some(Stream::CpuInfo) => {
                serial(editor, bytes.clone());
                text(editor, bytes, means);
            }
            Some(Stream::Maps) => {
                let text = &editor.bytes()[bytes.clone()];
                let findings = match means.policy.level_of(Place::TextStream) {
                    Level::Pattern => maps::find(text, means.known),
                    _ => means.in_text(text, Place::TextStream),
                };
                blank(editor, bytes.start, findings, Place::TextStream, None);
            }
            Some(Stream::Blank) => {
                let rule = if stream.kind == COMMAND_LINE { "command-line" } else { "environment" };
                let findings = match means.policy.level_of(Place::Environment) {
                    Level::Drop => whole(&editor.bytes()[bytes.clone()], Encoding::Utf8, rule),
                    _ => means.in_text(&editor.bytes()[bytes.clone()], Place::Environment),
                };
                blank(editor, bytes.start, findings, Place::Environment, None);
            }
            Some(Stream::Structure) | None => {}
        }
    }
}

fn text(editor: &mut Editor<'_>, bytes: Range<usize>, means: &Means<'_>) {
    let findings = means.in_text(&editor.bytes()[bytes.clone()], Place::TextStream);
    blank(editor, bytes.start, findings, Place::TextStream, None);
}

/// The value of `Serial : 00000000abcdef` lines, which boards with ARM processors have.
fn serial(editor: &mut Editor<'_>, bytes: Range<usize>) {
    let mut found = Vec::new();
    let mut at = bytes.start;
    for line in editor.bytes()[bytes].split_inclusive(|&byte| byte == b'\n') {
        if line.get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"serial"))
            && let Some(colon) = line.iter().position(|&byte| byte == b':')
        {
            let end = line.trim_ascii_end().len();
            let start =
                colon + 1 + line[colon + 1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            found.push(at + start.min(end)..at + end);
        }
        at += line.len();
    }
    for range in found {
        let finding = Finding { range, encoding: Encoding::Utf8, rule: "cpu-serial" };
        let identity = editor.identity(&finding);
        editor.blank(&finding, identity, Place::TextStream, None);
    }
}

/// Strings in UTF-16LE, annotations, and file names in CodeView records.
fn strings(editor: &mut Editor<'_>, layout: &Layout, means: &Means<'_>) {
    for (_, name) in &layout.thread_names {
        thread_name(editor, name, means);
    }
    for (_, string) in &layout.strings {
        let findings = means.in_utf16(&editor.bytes()[string.clone()], Place::TextStream);
        blank(editor, string.start, findings, Place::TextStream, None);
    }
    for text in &layout.annotations {
        let findings = means.in_text(&editor.bytes()[text.clone()], Place::TextStream);
        blank(editor, text.start, findings, Place::TextStream, None);
    }
    if let Some(id) = &layout.client_id {
        editor.zero(id.clone(), Place::TextStream, "client-id");
    }
    for module in &layout.modules {
        let name = &editor.bytes()[module.name.clone()];
        let base = base_name(&finder::narrow(name)) * 2;
        let findings = outside(means.in_utf16(name, Place::ModulePath), base);
        blank(editor, module.name.start, findings, Place::ModulePath, None);
        let file = &editor.bytes()[module.debug_file.clone()];
        let findings = outside(means.in_text(file, Place::ModulePath), base_name(file));
        blank(editor, module.debug_file.start, findings, Place::ModulePath, None);
        // What is neither a build id nor a file name is a fixed header. A record of an unknown kind is not understood.
        if module.build_id.is_empty() && module.debug_file.is_empty() {
            editor.zero(module.codeview.clone(), Place::Unclaimed, "unknown-record");
        }
    }
}

/// Where a path's base name begins.
pub(super) fn base_name(path: &[u8]) -> usize {
    path.iter().rposition(|&byte| byte == b'/' || byte == b'\\').map_or(0, |at| at + 1)
}

/// `findings`, without what lies from `base` on: symbols are found by base names, and those are the developer's words.
pub(super) fn outside(mut findings: Vec<Finding>, base: usize) -> Vec<Finding> {
    findings.retain_mut(|finding| {
        finding.range.end = finding.range.end.min(base);
        !finding.range.is_empty()
    });
    findings
}

/// Linux cuts names to 15 bytes.
pub(super) const THREAD_NAME: usize = 15;

fn thread_name(editor: &mut Editor<'_>, name: &Range<usize>, means: &Means<'_>) {
    let text = &editor.bytes()[name.clone()];
    let line = utf16(text);
    // The cut may have gone through a character.
    let whole = line.trim_end_matches(char::REPLACEMENT_CHARACTER);
    let findings = if line.len() >= THREAD_NAME
        && means.policy.level_of(Place::ThreadName) == Level::Pattern
        && finder::is_cut_value(whole.as_bytes(), means.known)
    {
        vec![Finding { range: 0..text.len(), encoding: Encoding::Utf16Le, rule: "cut-off" }]
    } else {
        means.in_utf16(text, Place::ThreadName)
    };
    blank(editor, name.start, findings, Place::ThreadName, None);
}

/// Pieces of values that were found elsewhere in names of threads, which the report has too: with where those names begin.
/// /proc/PID/status has the main thread's.
fn pieces_of_names(bytes: &[u8], layout: &Layout, echoes: &Echoes) -> Vec<(usize, Vec<Finding>, Place)> {
    const STATUS: u32 = 0x4767_0004;
    let names = layout.thread_names.iter().map(|(_, name)| {
        (name.start, finder::echoes_in_utf16(&bytes[name.clone()], echoes), Place::ThreadName)
    });
    let status = layout.streams.iter().filter(|stream| stream.kind == STATUS).map(|stream| {
        let findings = finder::echoes_in_unseen(&bytes[stream.bytes.clone()], echoes);
        (stream.bytes.start, findings, Place::TextStream)
    });
    names.chain(status).collect()
}

pub(super) fn blank(
    editor: &mut Editor<'_>,
    start: usize,
    findings: Vec<Finding>,
    place: Place,
    guard: Option<Guard<'_>>,
) {
    let at = |finding: Finding| Finding {
        range: start + finding.range.start..start + finding.range.end,
        ..finding
    };
    // All of them before the first is blanked: they may overlap.
    let findings: Vec<_> =
        findings.into_iter().map(at).map(|finding| (editor.identity(&finding), finding)).collect();
    for (identity, finding) in findings {
        editor.blank(&finding, identity, place, guard);
    }
}
