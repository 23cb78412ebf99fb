//! What others want blanked, besides what is found here: memory by its address, registers by name, stacks.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::contexts;
use super::edit::Editor;
use super::receipt::{Entry, Place, Receipt};
use super::runs;
use crate::dump::Layout;
use crate::dump::layout::ThreadEntry;
use crate::dump::ranges::merged;

/// Something to be blanked in a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Memory, by its address in the process.
    Memory(Range<u64>),
    /// A register of a thread, by the processor's name of it: "rax", "xmm0".
    Register {
        /// The thread's id.
        thread: u32,
        /// Its name.
        register: String,
    },
    /// All memory of a thread's stack.
    Stack(u32),
}

/// Values in blanked memory that are sought elsewhere, at most, and bytes of each.
const MOST_VALUES: usize = 256;
const LONGEST_VALUE: usize = 4096;
/// In memory up to this size shorter texts count too: a field, not a page.
const FIELD: u64 = 4096;
/// Characters of such a text.
const SHORTEST: usize = 4;

/// Blanks what of `wishes` the dump has. Returns the first that it has not, or not whole.
pub(super) fn apply(editor: &mut Editor<'_>, layout: &Layout, rule: &str, wishes: &[Wish]) -> Option<Wish> {
    let held = merged(layout.memory.iter().map(|entry| entry.addresses()).collect());
    let threads: HashMap<u32, &ThreadEntry> =
        layout.threads.iter().map(|thread| (thread.id, thread)).collect();
    let mut absent = None;
    let mut ranges = Vec::new();
    for wish in wishes {
        let is_there = match wish {
            Wish::Memory(range) => {
                ranges.push(range.clone());
                covers(&held, range)
            }
            Wish::Stack(thread) => {
                let stack = threads.get(thread);
                ranges.extend(stack.map(|entry| entry.stack.addresses()));
                stack.is_some()
            }
            Wish::Register { thread, register } => {
                blank_register(editor, layout, rule, threads.get(thread).copied(), register)
            }
        };
        if !is_there {
            absent = absent.or(Some(wish.clone()));
        }
    }
    let stacks = stacks(layout);
    for (bytes, range) in overlaps(layout, &merged(ranges)) {
        let whole = (bytes.start, bytes.end);
        let place = if stacks.binary_search(&whole).is_ok() { Place::Stack } else { Place::Heap };
        editor.zero(range, place, rule);
    }
    absent
}

/// Enters into the receipt what of `ranges` the dump has, which was zeroed when it was read.
pub(super) fn hidden(layout: &Layout, rule: &str, ranges: &[Range<u64>], receipt: &mut Receipt) {
    let stacks = stacks(layout);
    for (bytes, range) in overlaps(layout, &merged(ranges.to_vec())) {
        let on_stack = stacks.binary_search(&(bytes.start, bytes.end)).is_ok();
        receipt.entries.push(Entry {
            place: if on_stack { Place::Stack } else { Place::Heap },
            rule: rule.to_owned(),
            encoding: "binary".to_owned(),
            offset: range.start as u64,
            length: range.len() as u64,
            alias: None,
        });
    }
}

/// The texts in memory: values whose copies must go too. At most 256; the second value tells whether those are all.
pub(super) fn texts<'a>(memory: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    let mut found = Vec::new();
    let mut scratch = runs::Scratch::default();
    for bytes in memory {
        runs::scan(bytes, runs::LEAST, &mut scratch, |_, text| push(&mut found, text));
        if bytes.len() as u64 <= FIELD {
            bytes.split(|&byte| byte == 0).for_each(|text| push(&mut found, text));
        }
        // Sorting now and then keeps this short, however much is blanked.
        if found.len() > 4 * MOST_VALUES {
            found.sort_unstable();
            found.dedup();
            if found.len() > 4 * MOST_VALUES {
                break;
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    let all = found.len() <= MOST_VALUES;
    found.truncate(MOST_VALUES);
    (found, all)
}

fn push(found: &mut Vec<String>, text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let text = text.trim();
    let plain = text.chars().all(|c| !c.is_control() || c.is_whitespace());
    if plain && text.chars().count() >= SHORTEST && found.len() <= 8 * MOST_VALUES {
        found.push(text[..text.floor_char_boundary(LONGEST_VALUE)].to_owned());
    }
}

fn blank_register(
    editor: &mut Editor<'_>,
    layout: &Layout,
    rule: &str,
    thread: Option<&ThreadEntry>,
    register: &str,
) -> bool {
    let (Some(place), Some(thread)) = (contexts::register(layout.processor, register), thread) else {
        return false;
    };
    let exception = layout.exception.iter().filter(|exception| exception.thread_id == thread.id);
    for context in [&thread.context].into_iter().chain(exception.map(|exception| &exception.context)) {
        let range = context.start.saturating_add(place.start)..context.start.saturating_add(place.end);
        if range.end <= context.end {
            editor.zero(range, Place::Registers, rule);
        }
    }
    true
}

/// Where in the file the addresses of `wanted` (merged) lie: the whole piece of memory, and the part.
fn overlaps(layout: &Layout, wanted: &[Range<u64>]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut found = Vec::new();
    for entry in &layout.memory {
        let span = entry.addresses();
        let first = wanted.partition_point(|range| range.end <= span.start);
        for range in wanted.iter().skip(first).take_while(|range| range.start < span.end) {
            // Both lie in the entry, whose length is that of a slice.
            let offset = |address: u64| entry.bytes.start + (address - span.start) as usize;
            let part = offset(range.start.max(span.start))..offset(range.end.min(span.end));
            found.push((entry.bytes.clone(), part));
        }
    }
    found
}

fn stacks(layout: &Layout) -> Vec<(usize, usize)> {
    let stacks = layout.threads.iter().map(|thread| (thread.stack.bytes.start, thread.stack.bytes.end));
    let mut stacks: Vec<_> = stacks.collect();
    stacks.sort_unstable();
    stacks
}

fn covers(held: &[Range<u64>], range: &Range<u64>) -> bool {
    let behind = held.partition_point(|held| held.end <= range.start);
    held.get(behind).is_some_and(|held| held.start <= range.start && range.end <= held.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::layout::{ExceptionEntry, MemoryEntry};

    /// A context of amd64 at 0, a stack at 2000, other memory at 3000 and, at the addresses behind it, at 3016.
    fn layout() -> Layout {
        let entry = |address, bytes| MemoryEntry { address, bytes };
        let stack = entry(0x1000, 2000..2016);
        Layout {
            processor: 9,
            threads: vec![ThreadEntry { id: 7, context: 0..1232, stack: stack.clone() }],
            memory: vec![stack, entry(0x2000, 3000..3016), entry(0x2010, 3016..3032)],
            exception: Some(ExceptionEntry {
                thread_id: 7,
                code: 11,
                flags: 1,
                address: 0,
                parameters: 0..0,
                context: 0..1232,
            }),
            ..Layout::default()
        }
    }

    #[test]
    fn what_is_there_is_blanked_and_the_rest_named() {
        let register = |thread, register: &str| Wish::Register { thread, register: register.into() };
        let cases: [(Wish, &[Range<usize>], bool); 10] = [
            (Wish::Memory(0x2004..0x2008), &[3004..3008], true),
            (Wish::Memory(0x2008..0x2018), &[3008..3016, 3016..3024], true),
            (Wish::Memory(0x2018..0x2028), &[3024..3032], false),
            (Wish::Memory(0x5000..0x5001), &[], false),
            (Wish::Stack(7), &[2000..2016], true),
            (Wish::Stack(8), &[], false),
            (register(7, "rax"), &[120..128], true),
            (register(7, "xmm1"), &[432..448], true),
            (register(7, "rsp"), &[], false),
            (register(8, "rax"), &[], false),
        ];
        for (wish, blanked, whole) in cases {
            let before = vec![1; 3032];
            let (mut after, mut receipt) = (before.clone(), Receipt::default());
            let mut editor = Editor::new(&mut after, &mut receipt);
            let absent = apply(&mut editor, &layout(), "pmodule:x", std::slice::from_ref(&wish));
            assert_eq!(absent.is_none(), whole, "{wish:?}");
            super::super::byte_diff::assert_equals_receipt("a wish", &before, &after, &receipt);
            let mut expected = before.clone();
            blanked.iter().for_each(|range| expected[range.clone()].fill(0));
            assert!(after == expected, "{wish:?}: {:?}", receipt.entries);
            assert!(receipt.entries.iter().all(|entry| entry.rule == "pmodule:x"));
        }
    }

    #[test]
    fn words_that_are_filled_already_may_be_blanked_once_more() {
        let before = vec![1; 3032];
        let (mut after, mut receipt) = (before.clone(), Receipt::default());
        let mut editor = Editor::new(&mut after, &mut receipt);
        [2000..2008, 2008..2016]
            .into_iter()
            .for_each(|word| editor.fill_word(word, Place::Stack, "pointers"));
        assert_eq!(apply(&mut editor, &layout(), "pmodule:x", &[Wish::Memory(0x1004..0x1010)]), None);
        super::super::byte_diff::assert_equals_receipt("a wish", &before, &after, &receipt);
        assert_eq!(receipt.discrepancy(&before, &after), None);
        assert!(after[2004..2016].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn hidden_memory_is_in_the_receipt() {
        let mut receipt = Receipt::default();
        hidden(&layout(), "secret-range", &[0x1008..0x100c, 0x200c..0x2014, 0x9000..0x9001], &mut receipt);
        let entries: Vec<_> = receipt.entries.iter().map(|e| (e.place, e.offset, e.length)).collect();
        assert_eq!(entries, [(Place::Stack, 2008, 4), (Place::Heap, 3012, 4), (Place::Heap, 3016, 4)]);
    }

    #[test]
    fn texts_of_a_field_are_values() {
        let mut dump = vec![0; 3032];
        dump[3000..3007].copy_from_slice(b"hunter2");
        dump[3010..3016].copy_from_slice(b"ab\0sw\xff");
        dump[3016..3032].copy_from_slice(b"w\0i\0d\0e\0 \0o\0n\0e\0");
        let (mut texts, all) = texts([&dump[3000..3016], &dump[3016..3032]].into_iter());
        texts.sort();
        assert_eq!((texts, all), (vec!["hunter2".to_owned(), "wide one".to_owned()], true));
    }
}
