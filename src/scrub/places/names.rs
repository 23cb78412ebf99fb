//! Strings that structures of a dump point to: names of threads and binaries, annotations.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ops::Range;

use super::{Means, blank};
use crate::dump::Layout;
use crate::dump::layout::utf16;
use crate::scrub::echoes::Echoes;
use crate::scrub::edit::{Editor, Encoding, Finding};
use crate::scrub::receipt::Place;
use crate::scrub::{Level, cut_off, finder};

/// Strings in UTF-16LE, annotations, and file names in CodeView records.
pub(super) fn scrub(editor: &mut Editor<'_>, layout: &Layout, means: &Means<'_>) {
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

/// Bytes of a build id: linkers make 16 to 32 (ld(1), `--build-id`), hashes have 64 at most.
const LONGEST_BUILD_ID: usize = 64;

/// Where a path's base name begins.
pub(in crate::scrub) fn base_name(path: &[u8]) -> usize {
    path.iter().rposition(|&byte| byte == b'/' || byte == b'\\').map_or(0, |at| at + 1)
}

/// `findings`, without what lies from `base` on: symbols are found by base names, and those are the developer's words.
pub(in crate::scrub) fn outside(mut findings: Vec<Finding>, base: usize) -> Vec<Finding> {
    findings.retain_mut(|finding| {
        finding.range.end = finding.range.end.min(base);
        !finding.range.is_empty()
    });
    findings
}

/// Linux cuts names to 15 bytes.
pub(in crate::scrub) const THREAD_NAME: usize = 15;

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
pub(super) fn pieces(bytes: &[u8], layout: &Layout, echoes: &Echoes) -> Vec<(usize, Vec<Finding>, Place)> {
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
