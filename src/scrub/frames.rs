//! Which words of a stack are pointers for certain: those that frame pointers lead to, and addresses behind call
//! instructions that the dump itself holds.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::contexts::{self, Cpu, InstructionSet};
use super::edit::Addresses;
use crate::dump::Layout;
use crate::dump::layout::MemoryEntry;

/// Frames of one thread, at most.
const MOST_FRAMES: usize = 1 << 14;
/// The longest call instruction of x86: FF /2 with SIB and a displacement of 32 bits.
const LONGEST_CALL: u64 = 7;

/// The addresses of such words. Only asked for where text may look like a pointer: on 32 bit, and where pointers are
/// authenticated (`mask` then has the bits of an address).
pub(super) fn proven(
    bytes: &[u8],
    layout: &Layout,
    cpu: &Cpu,
    modules: &Addresses,
    mask: u64,
) -> HashSet<u64> {
    let mut found = HashSet::new();
    if cpu.width == 8 && mask == u64::MAX {
        return found;
    }
    let memory = Memory { bytes, entries: by_address(layout) };
    // Threads may be said to share a stack: what was seen once needs no second look.
    let (mut stacks, mut followed) = (HashSet::new(), HashSet::new());
    for thread in &layout.threads {
        let stack = thread.stack.addresses();
        let exception = layout.exception.as_ref().filter(|exception| exception.thread_id == thread.id);
        let contexts = [Some(&thread.context), exception.map(|exception| &exception.context)];
        for context in contexts.into_iter().flatten() {
            for pointer in cpu.frame_pointers(bytes, context) {
                let mut is_new = |pointer| followed.insert((stack.start, stack.end, pointer));
                chain(&memory, &stack, pointer, &mut is_new, (cpu.width, modules, mask), &mut found);
            }
        }
        if cpu.width == 4 && stacks.insert((stack.start, stack.end)) {
            let first = stack.start.next_multiple_of(4)..stack.end;
            for address in first.step_by(4) {
                let value = memory.word(address, 4).unwrap_or(0);
                if modules.contains(value) && memory.follows_call(value, cpu.set) {
                    found.insert(address);
                }
            }
        }
    }
    found
}

/// The layout with the stacks of threads that name none, as in dumps of all memory (`MiniDumpWithFullMemory`): the memory that
/// their stack pointer points into.
pub(super) fn with_stacks<'a>(bytes: &[u8], layout: &'a Layout, cpu: &Cpu) -> Cow<'a, Layout> {
    if layout.threads.iter().all(|thread| !thread.stack.bytes.is_empty()) {
        return Cow::Borrowed(layout);
    }
    let mut entries: Vec<&MemoryEntry> = layout.memory.iter().collect();
    entries.sort_by_key(|entry| entry.address);
    let mut filled = layout.clone();
    for thread in filled.threads.iter_mut().filter(|thread| thread.stack.bytes.is_empty()) {
        let Some(pointer) = cpu.stack_pointer(bytes, &thread.context) else { continue };
        let after = entries.partition_point(|entry| entry.address <= pointer);
        let entry = after.checked_sub(1).and_then(|last| entries.get(last));
        if let Some(entry) = entry.filter(|entry| entry.addresses().contains(&pointer)) {
            thread.stack = (*entry).clone();
        }
    }
    Cow::Owned(filled)
}

/// Follows frame pointers: each frame has the caller's pointer, then the return address. Ends where another chain came by.
fn chain(
    memory: &Memory<'_>,
    stack: &Range<u64>,
    mut pointer: u64,
    is_new: &mut impl FnMut(u64) -> bool,
    (width, modules, mask): (usize, &Addresses, u64),
    found: &mut HashSet<u64>,
) {
    for _ in 0..MOST_FRAMES {
        if !is_new(pointer) {
            return;
        }
        let slot = pointer.saturating_add(width as u64);
        let (Some(next), Some(back)) = (memory.word(pointer, width), memory.word(slot, width)) else {
            return;
        };
        if !stack.contains(&pointer)
            || !pointer.is_multiple_of(width as u64)
            || !modules.contains(back & mask)
        {
            return;
        }
        found.insert(slot);
        // Stacks grow downwards: callers lie above.
        if next <= pointer || !stack.contains(&next) {
            return;
        }
        found.insert(pointer);
        pointer = next;
    }
}

fn by_address(layout: &Layout) -> Vec<&MemoryEntry> {
    let mut entries: Vec<&MemoryEntry> = layout.memory.iter().collect();
    entries.sort_by_key(|entry| entry.address);
    entries
}

struct Memory<'a> {
    bytes: &'a [u8],
    /// By address.
    entries: Vec<&'a MemoryEntry>,
}

impl Memory<'_> {
    /// `length` bytes before `address`, if one piece of memory has them.
    fn before(&self, address: u64, length: u64) -> Option<&[u8]> {
        let start = address.checked_sub(length)?;
        let after = self.entries.partition_point(|entry| entry.address <= start);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        let from = usize::try_from(start - entry.address).ok()?;
        let to = from.checked_add(usize::try_from(length).ok()?)?;
        self.bytes.get(entry.bytes.clone())?.get(from..to)
    }

    fn word(&self, address: u64, width: usize) -> Option<u64> {
        self.before(address.checked_add(width as u64)?, width as u64).map(contexts::value)
    }

    /// Whether the instruction before `address` is a call.
    fn follows_call(&self, address: u64, set: InstructionSet) -> bool {
        match set {
            InstructionSet::X86 => {
                (2..=LONGEST_CALL).any(|length| self.before(address, length).is_some_and(is_x86_call))
            }
            // In Thumb code the lowest bit is set.
            InstructionSet::Arm if address & 1 == 1 => {
                self.before(address - 1, 4).is_some_and(is_thumb_call)
                    || self
                        .before(address - 1, 2)
                        .is_some_and(|code| contexts::value(code) & 0xff87 == 0x4780)
            }
            InstructionSet::Arm => self.before(address, 4).is_some_and(|code| {
                let code = contexts::value(code);
                // BL, BLX with an immediate, BLX with a register (Arm Architecture Reference Manual, A32).
                code & 0x0f00_0000 == 0x0b00_0000
                    || code & 0xfe00_0000 == 0xfa00_0000
                    || code & 0x0fff_fff0 == 0x012f_ff30
            }),
            InstructionSet::Arm64 => false,
        }
    }
}

/// A call that is as long as `code`: E8 with 4 bytes, or FF /2 with what its ModRM byte asks for (Intel SDM, volume 2, CALL).
fn is_x86_call(code: &[u8]) -> bool {
    match code {
        [0xe8, rest @ ..] => rest.len() == 4,
        [0xff, modrm, rest @ ..] if modrm >> 3 & 7 == 2 => {
            let (mode, register) = (modrm >> 6, modrm & 7);
            let sib = usize::from(mode != 3 && register == 4);
            let displacement = match (mode, register) {
                (0, 5) | (2, _) => 4,
                (0, 4) if rest.first().is_some_and(|sib| sib & 7 == 5) => 4,
                (1, _) => 1,
                _ => 0,
            };
            rest.len() == sib + displacement
        }
        _ => false,
    }
}

/// BL and BLX (T32): two halfwords.
fn is_thumb_call(code: &[u8]) -> bool {
    let half = |at: usize| contexts::value(code.get(at..at + 2).unwrap_or_default());
    half(0) & 0xf800 == 0xf000 && half(2) & 0xc000 == 0xc000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_x86() {
        for (code, expected) in [
            (&[0xe8, 1, 2, 3, 4][..], true),
            (&[0xe8, 1, 2, 3], false),
            (&[0xff, 0xd0], true),
            (&[0xff, 0x10], true),
            (&[0xff, 0x14, 0x24], true),
            (&[0xff, 0x14, 0x25, 1, 2, 3, 4], true),
            (&[0xff, 0x15, 1, 2, 3, 4], true),
            (&[0xff, 0x50, 8], true),
            (&[0xff, 0x54, 0x24, 8], true),
            (&[0xff, 0x90, 1, 2, 3, 4], true),
            (&[0xff, 0x94, 0x24, 1, 2, 3, 4], true),
            (&[0xff, 0xe0], false),
            (&[0xff, 0x35, 1, 2, 3, 4], false),
            (&[0xff, 0x50], false),
            (&[0x90, 0x90], false),
        ] {
            assert_eq!(is_x86_call(code), expected, "{code:x?}");
        }
    }

    #[test]
    fn a_stack_without_a_name_is_where_its_pointer_points() {
        use crate::dump::layout::ThreadEntry;
        let mut bytes = vec![0; 1232 + 64];
        bytes[152..160].copy_from_slice(&0x7010_u64.to_le_bytes());
        let none = MemoryEntry { address: 0x7000, bytes: 0..0 };
        let layout = Layout {
            threads: vec![ThreadEntry { id: 1, context: 0..1232, stack: none }],
            memory: vec![
                MemoryEntry { address: 0x9000, bytes: 1232..1264 },
                MemoryEntry { address: 0x7000, bytes: 1264..1296 },
            ],
            ..Layout::default()
        };
        let cpu = Cpu::new(9).unwrap();
        assert_eq!(with_stacks(&bytes, &layout, cpu).threads[0].stack, layout.memory[1]);
        bytes[152..160].copy_from_slice(&0x8000_u64.to_le_bytes());
        assert_eq!(with_stacks(&bytes, &layout, cpu).threads[0].stack, layout.threads[0].stack);
    }

    #[test]
    fn calls_of_arm() {
        let entry = MemoryEntry { address: 0x1000, bytes: 0..4 };
        for (code, address, expected) in [
            (0xeb00_0010_u32, 0x1004, true),
            (0xfa00_0010, 0x1004, true),
            (0xe12f_ff33, 0x1004, true),
            (0xe12f_ff1e, 0x1004, false),
            (0xea00_0010, 0x1004, false),
            (0xf801_f000, 0x1005, true),
            (0x4798_0000, 0x1005, true),
            (0x4770_0000, 0x1005, false),
            (0xeb00_0010, 0x1003, false),
        ] {
            let bytes = code.to_le_bytes();
            let memory = Memory { bytes: &bytes, entries: vec![&entry] };
            assert_eq!(memory.follows_call(address, InstructionSet::Arm), expected, "{code:x}");
        }
    }
}
