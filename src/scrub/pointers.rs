//! The level `Pointers`: memory reduced to what an unwinder needs.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ops::Range;

use super::contexts::{self, Cpu};
use super::edit::{Addresses, Editor};
use super::frames;
use super::receipt::Place;
use super::runs::is_text;
use crate::dump::Layout;

/// The rule's name in receipts.
pub(super) const RULE: &str = "pointers";

/// Small words in a row, each a printable character in UTF-32, that are text.
const TEXT_RUN: usize = 4;

/// Which words of memory stay.
#[derive(Debug)]
pub(super) struct Words<'a> {
    /// Bytes of a word: 4 or 8.
    width: usize,
    /// Binaries and stacks.
    targets: &'a Addresses,
    /// The bits that an address has. Where pointers are authenticated (ARM64), those above hold a code.
    mask: u64,
    /// Addresses of words that are pointers for certain.
    proven: HashSet<u64>,
}

impl<'a> Words<'a> {
    /// Of a 64-bit machine without pointer authentication.
    pub(super) fn plain(targets: &'a Addresses) -> Self {
        Self { width: 8, targets, mask: u64::MAX, proven: HashSet::new() }
    }

    /// Zeroes everything in `bytes`, which stand for memory at `address`, but aligned words that stay; also all below `live`.
    pub(super) fn reduce(
        &self,
        editor: &mut Editor<'_>,
        bytes: Range<usize>,
        address: u64,
        live: u64,
        place: Place,
    ) {
        let Range { start, end } = bytes;
        let first = live.max(address).next_multiple_of(self.width as u64).saturating_sub(address);
        let first = start.saturating_add(usize::try_from(first).unwrap_or(usize::MAX)).min(end);
        editor.zero(start..first, place, RULE);
        let mut at = first;
        // Characters in a row in words that stay: the last bytes of the one before, and words of one character each.
        let (mut carried, mut characters) = (0, 0);
        while end - at >= self.width {
            let here = at..at + self.width;
            let word = &editor.bytes()[here.clone()];
            let value = contexts::value(word);
            let kept = match contexts::is_small(value, self.width) {
                true => true,
                false => self.is_needed(value, word, address.wrapping_add((at - start) as u64)),
            };
            let leading = word.iter().take_while(|&&byte| is_text(byte)).count();
            let trailing = word.iter().rev().take_while(|&&byte| is_text(byte)).count();
            let narrow = self.width == 4;
            characters = if narrow && kept && is_character(value) { characters + 1 } else { 0 };
            // Two halves of a text that look like pointers by themselves.
            let joined = narrow && leading > 0 && carried + leading >= TEXT_RUN;
            carried = if kept && !joined { trailing } else { 0 };
            if characters >= TEXT_RUN {
                let back = if characters == TEXT_RUN { (TEXT_RUN - 1) * self.width } else { 0 };
                editor.zero(at - back..here.end, place, RULE);
                carried = 0;
            } else if !kept || joined {
                editor.zero(here.clone(), place, RULE);
            }
            at = here.end;
        }
        editor.zero(at..end, place, RULE);
    }

    /// Whether the word, at `address`, may be a pointer that an unwinder follows.
    fn is_needed(&self, value: u64, word: &[u8], address: u64) -> bool {
        let proven = || self.proven.contains(&address);
        if self.targets.contains(value) {
            // On 64 bit no text was ever found to be an address.
            self.width == 8 || !may_be_text(word) || proven()
        } else {
            self.targets.contains(value & self.mask) && (!contexts::is_printable(word) || proven())
        }
    }
}

/// Whether a 32-bit word may be text: one character in it is enough, wherever it stands.
fn may_be_text(word: &[u8]) -> bool {
    let mut other = word.iter().filter(|&&byte| byte != 0);
    contexts::is_printable(word)
        || (other.next().is_some_and(|&byte| is_text(byte)) && other.next().is_none())
}

/// A printable character of UTF-32 that is a small integer, too.
fn is_character(value: u64) -> bool {
    matches!(value, 0x20..=0x7e | 0xa0..=contexts::SMALL)
}

/// What becomes of memory that is no stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Kept,
    Reduced,
    Dropped,
}

/// Zeroes of the stacks (if `stacks`) everything that is not a word that points into a module or a stack, or a small integer;
/// also everything below the stack pointer. Other memory is left, reduced to the same words, or zeroed.
///
/// On a 32-bit machine, where text may look like a pointer, a word that is printable stays only if it follows a call
/// instruction that the dump holds, or frame pointers lead to it.
pub(super) fn reduce(editor: &mut Editor<'_>, layout: &Layout, cpu: &Cpu, stacks: bool, rest: Rest) {
    let modules = Addresses::new(layout.modules.iter().map(|module| {
        // A return address may lie just behind a module whose last instruction calls what never returns.
        module.base..module.base.saturating_add(module.size).saturating_add(1)
    }));
    let of_threads = layout.threads.iter().map(|thread| thread.stack.addresses());
    let targets = Addresses::new(modules.all().iter().cloned().chain(of_threads));
    let mask = cpu.address_mask(targets.end());
    let proven = frames::proven(editor.bytes(), layout, cpu, &modules, mask);
    let words = Words { width: cpu.width, targets: &targets, mask, proven };
    for entry in &layout.memory {
        let thread = layout.threads.iter().find(|thread| thread.stack.bytes == entry.bytes);
        let Some(thread) = thread else {
            match rest {
                Rest::Kept => {}
                Rest::Reduced => {
                    words.reduce(editor, entry.bytes.clone(), entry.address, entry.address, Place::Heap);
                }
                Rest::Dropped => editor.zero(entry.bytes.clone(), Place::Heap, RULE),
            }
            continue;
        };
        if !stacks {
            continue;
        }
        // The crashing thread's registers stand in the exception stream too, and there may differ.
        let exception = layout.exception.as_ref().filter(|exception| exception.thread_id == thread.id);
        let live = [Some(&thread.context), exception.map(|exception| &exception.context)]
            .into_iter()
            .flatten()
            .filter_map(|context| cpu.stack_pointer(editor.bytes(), context))
            .filter(|pointer| entry.addresses().contains(pointer))
            .min()
            .unwrap_or(entry.address);
        words.reduce(editor, entry.bytes.clone(), entry.address, live, Place::Stack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::layout::{MemoryEntry, ModuleEntry, ThreadEntry};
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
        reduce(
            &mut Editor::new(&mut bytes, &mut receipt),
            &layout,
            Cpu::new(9).unwrap(),
            true,
            Rest::Dropped,
        );
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
