//! The level `Pointers`: memory reduced to what an unwinder needs.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::contexts::{self, Cpu};
use super::edit::{Addresses, Editor};
use super::receipt::Place;
use super::runs::is_text;
use super::{Level, frames};
use crate::dump::Layout;

/// The rule's name in receipts.
pub(super) const RULE: &str = "pointers";

/// CS, GS, FS and SS of every 64-bit process on Linux, as signal frames hold them (`struct sigcontext` of asm/sigcontext.h).
/// Stackwalkers that do not know signal frames take them for an address.
const SELECTORS: u64 = 0x002b_0000_0000_0033;

/// `MemoryProtection` bits of memory that can be executed: winnt.h PAGE_EXECUTE, _READ, _READWRITE, _WRITECOPY.
const EXECUTABLE: u32 = 0x10 | 0x20 | 0x40 | 0x80;

/// Small words in a row, each a printable character in UTF-32, that are text.
const TEXT_RUN: usize = 4;

/// Which words of memory stay.
#[derive(Debug)]
pub(super) struct Words<'a> {
    /// Bytes of a word: 4 or 8.
    width: usize,
    /// Code and stacks.
    targets: &'a Addresses,
    /// The bits that an address has. Where pointers are authenticated (ARM64), those above hold a code.
    mask: u64,
    /// Addresses of words that are pointers for certain.
    proven: HashSet<u64>,
    /// Whether words of stacks are filled instead of zeroed: see [`WORD_FILL`](super::receipt::WORD_FILL).
    fills: bool,
}

impl<'a> Words<'a> {
    /// Of a 64-bit machine without pointer authentication, in a core file: there a debugger also reads the C library's lists of
    /// threads, which must end.
    pub(super) fn plain(targets: &'a Addresses) -> Self {
        Self { width: 8, targets, mask: u64::MAX, proven: HashSet::new(), fills: false }
    }

    /// Blanks everything in `bytes`, which stand for memory at `address`, but aligned words that stay; also all below `live`.
    /// `changed` are the offsets that were changed before.
    pub(super) fn reduce(
        &self,
        editor: &mut Editor<'_>,
        bytes: Range<usize>,
        address: u64,
        live: u64,
        place: Place,
        changed: &Addresses,
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
            let joined = narrow
                && carried > 0
                && leading > 0
                && carried + leading >= TEXT_RUN
                && !self.proven.contains(&address.wrapping_add((at - start) as u64));
            carried = if kept && !joined { trailing } else { 0 };
            if characters >= TEXT_RUN {
                let back = if characters == TEXT_RUN { (TEXT_RUN - 1) * self.width } else { 0 };
                editor.zero(at - back..here.end, place, RULE);
                carried = 0;
            } else if !kept || joined {
                self.blank(editor, here.clone(), place, changed);
            }
            at = here.end;
        }
        editor.zero(at..end, place, RULE);
    }

    /// Of a word of which a part was zeroed before (it is `changed`) the rest is zeroed, too.
    fn blank(&self, editor: &mut Editor<'_>, word: Range<usize>, place: Place, changed: &Addresses) {
        let is_whole = changed.within(&(word.start as u64..word.end as u64)).is_empty();
        match self.fills && place == Place::Stack && is_whole {
            true => editor.fill_word(word, place, RULE),
            false => editor.zero(word, place, RULE),
        }
    }

    /// Whether the word, at `address`, may be a pointer that an unwinder follows.
    fn is_needed(&self, value: u64, word: &[u8], address: u64) -> bool {
        if self.width == 8 && value == SELECTORS {
            return true;
        }
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

/// At [`Level::Pointers`] blanks everything in memory that is not a word that points into code or a stack, or a small integer,
/// and of stacks also everything below the stack pointer; at [`Level::Drop`] everything.
///
/// On a 32-bit machine, where text may look like a pointer, a word that is printable stays only if it follows a call
/// instruction that the dump holds, or frame pointers lead to it.
pub(super) fn reduce(editor: &mut Editor<'_>, layout: &Layout, cpu: &Cpu, stacks: Level, rest: Level) {
    if stacks.max(rest) < Level::Pointers {
        return;
    }
    let modules = Addresses::new(layout.modules.iter().map(|module| {
        // A return address may lie just behind a module whose last instruction calls what never returns.
        module.base..module.base.saturating_add(module.size).saturating_add(1)
    }));
    let of_threads = layout.threads.iter().map(|thread| thread.stack.addresses());
    // Code that was made at run time. On 32 bit, where more words look like addresses, only what modules have.
    let of_nobody =
        layout.mapped.iter().filter(|(_, protection)| cpu.width == 8 && protection & EXECUTABLE != 0);
    let of_nobody = of_nobody.map(|(range, _)| range.start..range.end.saturating_add(1));
    let targets = Addresses::new(modules.all().iter().cloned().chain(of_threads).chain(of_nobody));
    let mask = cpu.address_mask(targets.end());
    let proven = frames::proven(editor.bytes(), layout, cpu, &modules, mask);
    let words = Words { width: cpu.width, targets: &targets, mask, proven, fills: cpu.width == 8 };
    let changed = editor.changed();
    let live = live(editor.bytes(), layout, cpu);
    for entry in &layout.memory {
        let Some(live) = live.get(&(entry.bytes.start, entry.bytes.end)) else {
            if rest == Level::Pointers {
                let start = entry.address;
                words.reduce(editor, entry.bytes.clone(), start, start, Place::Heap, &changed);
            } else if rest == Level::Drop {
                editor.zero(entry.bytes.clone(), Place::Heap, RULE);
            }
            continue;
        };
        if stacks == Level::Drop {
            editor.zero(entry.bytes.clone(), Place::Stack, RULE);
        }
        if stacks != Level::Pointers {
            continue;
        }
        words.reduce(editor, entry.bytes.clone(), entry.address, *live, Place::Stack, &changed);
    }
}

/// For each stack, by its bytes, the lowest address that is in use: of several threads that have the same one, the lowest of
/// all.
fn live(bytes: &[u8], layout: &Layout, cpu: &Cpu) -> HashMap<(usize, usize), u64> {
    let mut lowest = HashMap::new();
    for thread in &layout.threads {
        // The crashing thread's registers stand in the exception stream too, and there may differ.
        let exception = layout.exception.as_ref().filter(|exception| exception.thread_id == thread.id);
        let live = [Some(&thread.context), exception.map(|exception| &exception.context)]
            .into_iter()
            .flatten()
            .filter_map(|context| cpu.stack_pointer(bytes, context))
            .filter(|pointer| thread.stack.addresses().contains(pointer))
            .min()
            .unwrap_or(thread.stack.address);
        let known = lowest.entry((thread.stack.bytes.start, thread.stack.bytes.end)).or_insert(live);
        *known = live.min(*known);
    }
    lowest
}

#[cfg(test)]
mod tests;
