//! Registers: what an unwinder needs stays, what may be text goes.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::edit::{Addresses, Editor};
use super::finder::{self, Edges};
use super::known::Known;
use super::places::DROPPED;
use super::receipt::Place;
use super::{Level, pointers, runs};
use crate::error::{Error, Result};

/// Registers up to this magnitude are counters, descriptors, error numbers.
pub(super) const SMALL: u64 = 4096;

/// A CPU context's layout, as offsets into it.
pub(super) struct Cpu {
    /// Bytes of a register and of a word on the stack: 4 or 8.
    pub(super) width: usize,
    pub(super) set: InstructionSet,
    /// Where registers stand that may be frame pointers.
    frame_pointers: &'static [usize],
    /// The general registers among those that unwinding starts from: frame pointer, return address.
    needed: &'static [usize],
    /// Bytes of the structure. More are its extended state.
    length: usize,
    /// Where the stack pointer stands.
    stack_pointer: usize,
    /// General registers, in the order of the calling convention's arguments first: of a string that was passed or
    /// returned in two of them the halves are neighbours.
    general: &'static [usize],
    /// Everything that is neither a kept nor a general register.
    debug: &'static [(usize, usize)],
    /// Floating-point and vector registers, which `memcpy` and `strlen` fill with text.
    vector: &'static [(usize, usize)],
}

/// How call instructions look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstructionSet {
    X86,
    Arm,
    Arm64,
}

/// `CONTEXT` of winnt.h for x86-64 (`CONTEXT_AMD64` of minidump-common). RDI RSI RDX RCX R8 R9, RAX, RBX, RBP, R10 to
/// R15 (System V ABI); RIP, RSP, flags and selectors stay. RBP is a general register too: it stays because it is
/// mapped whenever it is a frame pointer.
const AMD64: Cpu = Cpu {
    width: 8,
    set: InstructionSet::X86,
    frame_pointers: &[160],
    needed: &[160],
    length: 1232,
    stack_pointer: 152,
    general: &[176, 168, 136, 128, 184, 192, 120, 144, 160, 200, 208, 216, 224, 232, 240],
    debug: &[(0, 48), (72, 120)],
    vector: &[(256, 1232)],
};

/// `CONTEXT` of winnt.h for ARM64 (`CONTEXT_ARM64`). X0 to X28, FP, LR; SP, PC and flags stay.
const ARM64: Cpu = Cpu {
    width: 8,
    set: InstructionSet::Arm64,
    frame_pointers: &[240],
    needed: &[240, 248],
    length: 912,
    stack_pointer: 256,
    general: &X_REGISTERS,
    debug: &[(792, 912)],
    vector: &[(272, 792)],
};

/// Breakpad's older context for ARM64 (`CONTEXT_ARM64_OLD`): its header happens to be as long.
const ARM64_OLD: Cpu = Cpu {
    width: 8,
    set: InstructionSet::Arm64,
    frame_pointers: &[240],
    needed: &[240, 248],
    length: 796,
    stack_pointer: 256,
    general: &X_REGISTERS,
    debug: &[],
    vector: &[(276, 796)],
};

/// `CONTEXT` of winnt.h for x86 (`CONTEXT_X86`). EAX EDX ECX, EBX, ESI, EDI, EBP; EIP, ESP, flags and selectors stay.
const X86: Cpu = Cpu {
    width: 4,
    set: InstructionSet::X86,
    frame_pointers: &[180],
    needed: &[180],
    length: 716,
    stack_pointer: 196,
    general: &[176, 168, 172, 164, 160, 156, 180],
    debug: &[(4, 28)],
    vector: &[(28, 140), (204, 716)],
};

/// Breakpad's context for ARM (`CONTEXT_ARM`). R0 to R12, LR; SP, PC and flags stay. R7 is the frame pointer of Thumb code, R11
/// of other code.
const ARM: Cpu = Cpu {
    width: 4,
    set: InstructionSet::Arm,
    frame_pointers: &[32, 48],
    needed: &[32, 48, 60],
    length: 368,
    stack_pointer: 56,
    general: &[4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 60],
    debug: &[],
    vector: &[(72, 368)],
};

/// X0 to X28, FP and LR follow each other from offset 8 on.
const X_REGISTERS: [usize; 31] = {
    let (mut offsets, mut at) = ([0; 31], 0);
    while at < 31 {
        offsets[at] = 8 + at * 8;
        at += 1;
    }
    offsets
};

/// Where in a context of `processor` a register lies that may be blanked. Only amd64's have names here.
pub(super) fn register(processor: u16, name: &str) -> Option<Range<usize>> {
    /// In the order of their offsets; RSP and RBP stay.
    const GENERAL: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "", "", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
        "r15",
    ];
    /// `Rax`, and `FltSave.XmmRegisters`.
    const FIRST: usize = 120;
    const FIRST_XMM: usize = 256 + 160;
    if processor != 9 || name.is_empty() {
        return None;
    }
    if let Some(number) = GENERAL.iter().position(|general| *general == name) {
        let start = FIRST + number * 8;
        return Some(start..start + 8);
    }
    let number: usize = name.strip_prefix("xmm")?.parse().ok().filter(|&number| number < 16)?;
    let start = FIRST_XMM + number * 16;
    Some(start..start + 16)
}

impl Cpu {
    /// The layout for a `processor_architecture`.
    ///
    /// # Errors
    /// For one whose registers could not be told apart.
    pub(super) fn new(processor: u16) -> Result<&'static Self> {
        match processor {
            0 => Ok(&X86),
            5 => Ok(&ARM),
            9 => Ok(&AMD64),
            12 => Ok(&ARM64),
            0x8003 => Ok(&ARM64_OLD),
            other => Err(Error::malformed(
                "minidump",
                format!("processor architecture {other:#x}: its registers cannot be scrubbed"),
            )),
        }
    }

    /// The stack pointer of a context, if that is whole.
    pub(super) fn stack_pointer(&self, bytes: &[u8], context: &Range<usize>) -> Option<u64> {
        self.register(bytes, context, self.stack_pointer)
    }

    /// What may be frame pointers of a context.
    pub(super) fn frame_pointers(&self, bytes: &[u8], context: &Range<usize>) -> impl Iterator<Item = u64> {
        self.frame_pointers.iter().filter_map(|&offset| self.register(bytes, context, offset))
    }

    fn register(&self, bytes: &[u8], context: &Range<usize>, offset: usize) -> Option<u64> {
        let start = context.start.checked_add(offset)?;
        (context.len() >= self.length)
            .then(|| value(bytes.get(start..start + self.width).unwrap_or_default()))
    }

    /// The bits of an address where pointers may be authenticated: as many as the highest address below `end` needs, as
    /// unwinders take them (Armv8.3-A puts the code into the bits above those that translate addresses).
    pub(super) fn address_mask(&self, end: u64) -> u64 {
        match self.set {
            InstructionSet::Arm64 => {
                end.checked_next_power_of_two().map_or(u64::MAX, |power| power.max(1 << 39) - 1)
            }
            InstructionSet::X86 | InstructionSet::Arm => u64::MAX,
        }
    }

    /// Scrubs a CPU context. An empty one is left alone.
    ///
    /// # Errors
    /// If it is shorter than its structure.
    pub(super) fn scrub(
        &self,
        editor: &mut Editor<'_>,
        context: &Range<usize>,
        mapped: &Addresses,
        known: &Known,
        level: Level,
    ) -> Result<()> {
        if context.is_empty() {
            return Ok(());
        }
        if context.len() < self.length {
            return Err(Error::malformed(
                "minidump",
                format!("CPU context at {:#x} has {} bytes", context.start, context.len()),
            ));
        }
        let here = |(start, end): &(usize, usize)| context.start + start..context.start + end;
        // Unwinding starts from these, whatever else goes.
        let needed = |offset: &&usize| level < Level::Drop || !self.needed.contains(offset);
        let general: Vec<usize> =
            self.general.iter().filter(needed).map(|offset| context.start + offset).collect();
        words(editor, &general, self.width, Place::Registers, mapped, known, level);
        if level == Level::Keep {
            return Ok(());
        }
        for range in self.debug {
            editor.zero(here(range), Place::Registers, "debug-registers");
        }
        for range in self.vector {
            editor.zero(here(range), Place::Registers, "vector-state");
        }
        editor.zero(context.start + self.length..context.end, Place::Registers, "vector-state");
        Ok(())
    }
}

/// Scrubs words of `width` bytes at `offsets` as registers: those that are small or mapped stay; the others are searched as one
/// string, and blanked if something is found in them or if they are printable. With 4 bytes a mapped one that is printable counts
/// as text, too.
pub(super) fn words(
    editor: &mut Editor<'_>,
    offsets: &[usize],
    width: usize,
    place: Place,
    mapped: &Addresses,
    known: &Known,
    level: Level,
) {
    let kept = |word: &[u8]| {
        let value = value(word);
        is_small(value, width) || (mapped.contains(value) && (width > 4 || !is_printable(word)))
    };
    let (mut text, mut owners) = (Vec::new(), Vec::new());
    for &offset in offsets {
        let word = editor.bytes().get(offset..offset + width).unwrap_or_default();
        if !kept(word) {
            text.extend(word);
            owners.push(offset);
        }
    }
    if level == Level::Drop {
        offsets.iter().for_each(|&offset| blank(editor, offset..offset + width, place, DROPPED));
        return;
    }
    let mut found = Vec::new();
    match level {
        Level::Keep => known.find(&text, &mut found),
        _ => found = finder::in_memory(&text, Edges::Whole, known),
    }
    for (at, &offset) in owners.iter().enumerate() {
        let bytes = at * width..at * width + width;
        let hit = found.iter().find(|f| f.range.start < bytes.end && bytes.start < f.range.end);
        let word = offset..offset + width;
        if let Some(hit) = hit {
            blank(editor, word, place, hit.rule);
        } else if level == Level::Pointers {
            blank(editor, word, place, pointers::RULE);
        } else if level == Level::Pattern && is_printable(&text[bytes]) {
            blank(editor, word, place, "printable-word");
        }
    }
}

/// One may be the frame pointer, and zero would end a stackwalk; on 32 bit nothing but zero is no address.
fn blank(editor: &mut Editor<'_>, word: Range<usize>, place: Place, rule: &str) {
    match (word.len(), place) {
        (8, Place::Registers) => editor.fill_word(word, place, rule),
        _ => editor.zero(word, place, rule),
    }
}

/// Whether a word of `width` bytes (4 or 8) is a small integer of either sign.
pub(super) fn is_small(value: u64, width: usize) -> bool {
    let signed = match width {
        4 => i64::from((value as u32).cast_signed()),
        _ => value.cast_signed(),
    };
    signed.unsigned_abs() <= SMALL
}

/// Whether a word is more likely text than a number: it has two or more bytes that are not zero, and more than half of
/// those are printable ASCII or belong to well-formed UTF-8. (Zero bytes do not count: UTF-16, UTF-32 and the end of a
/// string have them.)
pub(super) fn is_printable(word: &[u8]) -> bool {
    let non_zero = word.iter().filter(|&&byte| byte != 0).count();
    let plain = word.iter().filter(|&&byte| runs::is_text(byte)).count();
    let other: usize = word
        .utf8_chunks()
        .flat_map(|c| c.valid().chars())
        .filter(|c| !c.is_ascii())
        .map(char::len_utf8)
        .sum();
    non_zero >= 2 && (plain + other) * 2 > non_zero
}

/// The value of a word of 4 or 8 bytes.
pub(super) fn value(word: &[u8]) -> u64 {
    word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The word at `offset`; 0 outside.
pub(super) fn word(bytes: &[u8], offset: usize) -> u64 {
    let word =
        offset.checked_add(8).and_then(|end| bytes.get(offset..end)).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
