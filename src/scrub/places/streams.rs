//! Streams with texts of their own, and what no stream claims.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::{Means, blank, whole};
use crate::dump::Layout;
use crate::scrub::edit::{Editor, Encoding, Finding};
use crate::scrub::receipt::Place;
use crate::scrub::{Level, maps};

/// Each stream as its kind wants it.
pub(super) fn scrub(editor: &mut Editor<'_>, layout: &Layout, means: &Means<'_>) {
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

/// Unknown streams with their directory entries, and what no stream claims.
pub(super) fn unclaimed(editor: &mut Editor<'_>, layout: &Layout) {
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
pub(super) const COMMAND_LINE: u32 = 0x4767_0006;
/// LinuxEnviron.
pub(super) const ENVIRONMENT: u32 = 0x4767_0007;

fn treatment(kind: u32) -> Option<Stream> {
    STREAMS.iter().find(|(known, _)| *known == kind).map(|(_, treatment)| *treatment)
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
