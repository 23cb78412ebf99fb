//! Memory: stacks and heap.
#![forbid(unsafe_code)]

use super::{Means, blank};
use crate::dump::Layout;
use crate::dump::layout::MemoryEntry;
use crate::scrub::echoes::Echoes;
use crate::scrub::edit::{Addresses, Editor, Finding, Guard};
use crate::scrub::finder::{self, Edges};
use crate::scrub::known::Known;
use crate::scrub::receipt::Place;
use crate::scrub::runs::Blocks;
use crate::scrub::{Level, cut_off};

/// Remembers the values in memory of which little will be left: pieces of them may stand in places that stay.
pub(super) fn learn_from_reduced(
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
pub(super) fn scrub(
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
pub(in crate::scrub) fn coalesce(findings: Vec<Finding>) -> Vec<Finding> {
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
