//! The level `Pointers`: memory reduced to what an unwinder needs.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::contexts::{self, Cpu};
use super::edit::{Addresses, Editor};
use super::receipt::Place;
use crate::dump::Layout;
use crate::dump::layout::MemoryEntry;

const RULE: &str = "pointers";

/// Zeroes all memory that is no stack, and of the stacks everything that is not a word that points into a module or a
/// stack, or a small integer; also everything below the stack pointer.
pub(super) fn reduce(editor: &mut Editor<'_>, layout: &Layout, cpu: &Cpu) {
    let addresses =
        |entry: &MemoryEntry| entry.address..entry.address.saturating_add(entry.bytes.len() as u64);
    // A return address may lie just behind a module whose last instruction calls what never returns.
    let modules = layout.modules.iter().map(|m| m.base..m.base.saturating_add(m.size).saturating_add(1));
    let targets = Addresses::new(modules.chain(layout.threads.iter().map(|thread| addresses(&thread.stack))));
    for entry in &layout.memory {
        let thread = layout.threads.iter().find(|thread| thread.stack.bytes == entry.bytes);
        let Some(thread) = thread else {
            editor.zero(entry.bytes.clone(), Place::Heap, RULE);
            continue;
        };
        // The crashing thread's registers stand in the exception stream too, and there may differ.
        let exception = layout.exception.as_ref().filter(|exception| exception.thread_id == thread.id);
        let live = [Some(&thread.context), exception.map(|exception| &exception.context)]
            .into_iter()
            .flatten()
            .filter_map(|context| cpu.stack_pointer(editor.bytes(), context))
            .filter(|pointer| addresses(entry).contains(pointer))
            .min()
            .unwrap_or(entry.address);
        reduce_stack(editor, entry, live, &targets);
    }
}

fn reduce_stack(editor: &mut Editor<'_>, entry: &MemoryEntry, live: u64, targets: &Addresses) {
    let Range { start, end } = entry.bytes;
    // Whole words at aligned addresses at or above the stack pointer may stay.
    let first = usize::try_from(live.next_multiple_of(8).saturating_sub(entry.address)).unwrap_or(usize::MAX);
    let first = start.saturating_add(first).min(end);
    editor.zero(start..first, Place::Stack, RULE);
    let mut at = first;
    while end - at >= 8 {
        let value = contexts::word(editor.bytes(), at);
        if !contexts::is_small(value) && !targets.contains(value) {
            editor.zero(at..at + 8, Place::Stack, RULE);
        }
        at += 8;
    }
    editor.zero(at..end, Place::Stack, RULE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::layout::{ModuleEntry, ThreadEntry};
    use crate::scrub::Receipt;

    #[test]
    fn stacks_keep_pointers_and_small_integers_above_the_stack_pointer() {
        let mut bytes = vec![0; 1232];
        bytes[152..160].copy_from_slice(&0x7000_0013_u64.to_le_bytes());
        let stack = bytes.len();
        bytes.extend(b"xyz");
        for word in [
            0x40_1000,
            0x40_1000,
            0x40_1000,
            u64::from_le_bytes(*b"alice@ex"),
            0x7000_0010,
            4096,
            (-4096i64).cast_unsigned(),
            4097,
            0x50_0000,
            0x50_0001,
        ] {
            bytes.extend(u64::to_le_bytes(word));
        }
        bytes.extend(b"tail");
        let heap = bytes.len();
        bytes.extend(b"heap");
        let entry = MemoryEntry { address: 0x7000_0005, bytes: stack..heap };
        let layout = Layout {
            memory: vec![entry.clone(), MemoryEntry { address: 0x9000, bytes: heap..heap + 4 }],
            threads: vec![ThreadEntry { id: 1, context: 0..1232, stack: entry }],
            modules: vec![ModuleEntry {
                base: 0x40_0000,
                size: 0x10_0000,
                name: 0..0,
                codeview: 0..0,
                debug_file: 0..0,
                build_id: 0..0,
            }],
            ..Layout::default()
        };
        let before = bytes.clone();
        let mut receipt = Receipt::default();
        reduce(&mut Editor::new(&mut bytes, &mut receipt), &layout, Cpu::new(9).unwrap());
        assert_eq!(receipt.discrepancy(&before, &bytes), None);
        let words: Vec<u64> = bytes[stack + 3..heap - 4]
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(
            words,
            [0, 0, 0x40_1000, 0, 0x7000_0010, 4096, (-4096i64).cast_unsigned(), 0, 0x50_0000, 0]
        );
        assert_eq!((&bytes[stack..stack + 3], &bytes[heap - 4..]), (&[0; 3][..], &[0; 8][..]));
    }
}
