//! Where in a dump what is done: streams, strings, memory.
#![forbid(unsafe_code)]

use std::collections::HashSet;
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
use super::{Level, Policy, arguments, cut_off, saved_registers, structures, wishes};
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
    let mapped = mapped(layout);
    arguments::scrub(editor, layout, cpu, policy, known, echoes);
    structures::scrub(editor, layout, cpu, &mapped, known);
    saved_registers::scrub(editor, layout, policy, &mapped, known);
    let means = Means { policy, known };
    learn_from_reduced(editor, layout, &means, copies.as_ref(), echoes);
    pointers::reduce(editor, layout, cpu, policy.level_of(Place::Stack), policy.level_of(Place::Heap));
    memory(editor, layout, &mapped, cpu.width, &means, copies.as_ref(), echoes);
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
pub(super) struct Means<'a> {
    pub(super) policy: &'a Policy,
    pub(super) known: &'a Known,
}

impl Means<'_> {
    /// Known values in bytes of any content.
    fn values(&self, bytes: &[u8]) -> Vec<Finding> {
        let mut found = Vec::new();
        self.known.find(bytes, &mut found);
        found
    }

    /// What is to be blanked in a text, which stands whole in one byte a character.
    pub(super) fn in_text(&self, bytes: &[u8], place: Place) -> Vec<Finding> {
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
fn copies(bytes: &[u8], layout: &Layout, policy: &Policy) -> Result<Option<Known>> {
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

/// Of regions that nobody may read (winnt.h): tools reserve terabytes so.
const PAGE_NOACCESS: u32 = 1;

/// Everything that a pointer of the process may point to.
fn mapped(layout: &Layout) -> Addresses {
    // A return address may lie just behind a module.
    let modules = layout.modules.iter().map(|m| m.base..m.base.saturating_add(m.size).saturating_add(1));
    let memory = layout.memory.iter().map(|entry| span(entry.address, &entry.bytes));
    let readable = layout.mapped.iter().filter(|(_, protection)| protection & PAGE_NOACCESS == 0);
    let regions = readable.map(|(range, _)| range.clone());
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

/// Remembers the values in memory of which little will be left: pieces of them may stand in places that stay.
fn learn_from_reduced(
    editor: &Editor<'_>,
    layout: &Layout,
    means: &Means<'_>,
    copies: Option<&Known>,
    echoes: &mut Echoes,
) {
    if [Place::Stack, Place::Heap].iter().all(|place| means.policy.level_of(*place) < Level::Pointers) {
        return;
    }
    for entry in &layout.memory {
        let bytes = &editor.bytes()[entry.bytes.clone()];
        let edges = Edges::Cut { address: entry.address };
        let (findings, _) = finder::in_memory_with(bytes, edges, means.known, copies);
        finder::learn(echoes, bytes, &findings);
    }
}

/// Twice over: what is found in one region is also looked for, in pieces, in all the others.
fn memory(
    editor: &mut Editor<'_>,
    layout: &Layout,
    mapped: &Addresses,
    width: usize,
    means: &Means<'_>,
    copies: Option<&Known>,
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
            let (findings, blocks) = finder::in_memory_with(bytes, edges, means.known, copies);
            finder::learn(echoes, bytes, &findings);
            (findings, blocks)
        })
        .collect();
    let mut changed = Vec::new();
    for (entry, (mut findings, blocks)) in layout.memory.iter().zip(found) {
        let place = place(entry);
        let guard = Guard::new(mapped, entry.bytes.start, entry.address, width);
        if means.policy.level_of(place) > Level::Keep {
            let bytes = &editor.bytes()[entry.bytes.clone()];
            findings.extend(finder::echoes_in_memory(bytes, &blocks, echoes));
            if !findings.is_empty() {
                changed.push(entry);
            }
        }
        let findings = coalesce(findings);
        blank(editor, entry.bytes.start, findings, place, Some(guard));
    }
    // What is blanked at an edge may leave less of a text there, and may make a text of what was none.
    let least = finder::shortest_run(means.known, copies);
    for entry in changed {
        let guard = Guard::new(mapped, entry.bytes.start, entry.address, width);
        for _ in 0..ROUNDS {
            let findings = cut_off::now(&editor.bytes()[entry.bytes.clone()], means.known, least);
            if !blank(editor, entry.bytes.start, findings, place(entry), Some(guard)) {
                break;
            }
        }
    }
}

/// How often what an edge cuts off is looked for anew, each time with something more that was blanked.
const ROUNDS: usize = 16;

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
/// Bytes of a build id: linkers make 16 to 32 (ld(1), `--build-id`), hashes have 64 at most.
const LONGEST_BUILD_ID: usize = 64;

fn strings(editor: &mut Editor<'_>, layout: &Layout, means: &Means<'_>) {
    // Many may name the same string.
    let mut seen = HashSet::new();
    let mut is_new = |range: &Range<usize>| seen.insert((range.start, range.end));
    for (_, name) in &layout.thread_names {
        if is_new(name) {
            thread_name(editor, name, means);
        }
    }
    for (_, string) in &layout.strings {
        if !is_new(string) {
            continue;
        }
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
        if is_new(&module.name) {
            let name = &editor.bytes()[module.name.clone()];
            let base = base_name(&finder::narrow(name)) * 2;
            let findings = outside(means.in_utf16(name, Place::ModulePath), base);
            blank(editor, module.name.start, findings, Place::ModulePath, None);
        }
        if is_new(&module.debug_file) {
            let file = &editor.bytes()[module.debug_file.clone()];
            let findings = outside(means.in_text(file, Place::ModulePath), base_name(file));
            blank(editor, module.debug_file.start, findings, Place::ModulePath, None);
        }
        // Behind the file's name and its zero nothing belongs to the record.
        let behind = module.debug_file.end.saturating_add(1);
        if !module.debug_file.is_empty() && behind < module.codeview.end {
            editor.zero(behind..module.codeview.end, Place::Unclaimed, "gap");
        }
        if module.build_id.len() > LONGEST_BUILD_ID {
            editor.zero(module.build_id.clone(), Place::Unclaimed, "unknown-record");
        }
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
        && cut_off::is_cut_value(whole.as_bytes(), means.known)
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
    let mut seen = HashSet::new();
    let names = layout.thread_names.iter().filter(|(_, name)| seen.insert((name.start, name.end)));
    let names = names.map(|(_, name)| {
        (name.start, finder::echoes_in_utf16(&bytes[name.clone()], echoes), Place::ThreadName)
    });
    let status = layout.streams.iter().filter(|stream| stream.kind == STATUS).map(|stream| {
        let findings = finder::echoes_in_unseen(&bytes[stream.bytes.clone()], echoes);
        (stream.bytes.start, findings, Place::TextStream)
    });
    names.chain(status).collect()
}

/// Blanks `findings` in what begins at `start`; whether anything changed.
pub(super) fn blank(
    editor: &mut Editor<'_>,
    start: usize,
    findings: Vec<Finding>,
    place: Place,
    guard: Option<Guard<'_>>,
) -> bool {
    let at = |finding: Finding| Finding {
        range: start + finding.range.start..start + finding.range.end,
        ..finding
    };
    // All of them before the first is blanked: they may overlap.
    let findings: Vec<_> =
        findings.into_iter().map(at).map(|finding| (editor.identity(&finding), finding)).collect();
    let mut changed = false;
    for (identity, finding) in findings {
        changed |= editor.blank(&finding, identity, place, guard);
    }
    changed
}
