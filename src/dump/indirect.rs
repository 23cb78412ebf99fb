//! Memory that registers and live stacks point to: which addresses, and adding it to a dump.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use minidump_common::format::{
    CONTEXT_AMD64, MINIDUMP_DIRECTORY, MINIDUMP_HEADER, MINIDUMP_MEMORY_DESCRIPTOR, ProcessorArchitecture,
};
use scroll::{LE, Pread};
use zeroize::Zeroize;

use super::builder::{list, location, overwrite, push, size};
use super::layout::{Index, ThreadEntry, kind};
use crate::dump::Layout;
use crate::dump::ranges::merged;
use crate::error::{Error, Result};

/// Bytes kept around each address: half before, half behind.
pub const AROUND: u64 = 1024;

/// Of a budget, so many bytes are for what the crashing thread's registers and stack point to, and for nobody else: a
/// few KiB are usual, and what other threads point to seldom explains a crash.
pub const OWN: u64 = 64 << 10;

/// Address ranges worth keeping, merged, clipped to `readable` (ascending, disjoint), at most `budget` bytes
/// in all. The crashing thread's registers come first, then its stack from the stack pointer up; then the other threads',
/// with what the budget has beyond [`OWN`].
/// Ranges that the dump holds already, and addresses inside `modules`, are left out.
///
/// Threads whose context is not amd64's contribute nothing.
pub fn wanted(dump: &[u8], layout: &Layout, readable: &[Range<u64>], budget: u64) -> Vec<Range<u64>> {
    let crashed = layout.exception.as_ref().map(|exception| exception.thread_id);
    let (first, others): (Vec<_>, Vec<_>) =
        layout.threads.iter().partition(|thread| Some(thread.id) == crashed);
    let pointers = first.into_iter().chain(others).filter_map(|thread| pointers(dump, layout, thread));
    let held = layout.memory.iter().map(|entry| entry.addresses());
    let modules = layout.modules.iter().map(|module| module.addresses());
    choose(pointers, held, modules, readable, budget, dump.len() / 8)
}

/// What of a thread may point to memory worth keeping.
#[derive(Debug, Clone)]
pub struct Pointers<'a> {
    /// General registers, the program counter included (jitted code lies in no module).
    pub registers: [u64; 17],
    /// Words below it are dead.
    pub stack_pointer: u64,
    /// Address and bytes of the stack, as far as it is kept.
    pub stack: (u64, &'a [u8]),
}

/// As [`wanted`], from `threads` in their order, the one that crashed first. At most `words` words of stacks are looked at in all.
pub fn choose<'a>(
    threads: impl IntoIterator<Item = Pointers<'a>>,
    held: impl IntoIterator<Item = Range<u64>>,
    modules: impl IntoIterator<Item = Range<u64>>,
    readable: &[Range<u64>],
    budget: u64,
    words: usize,
) -> Vec<Range<u64>> {
    let mut choice = Choice {
        bounds: readable.first().map_or(0, |range| range.start)..readable.last().map_or(0, |range| range.end),
        readable: Index::new(readable.iter().map(|range| (range.clone(), ()))),
        modules: Index::new(modules.into_iter().map(|module| (module, ()))),
        left: budget,
        words,
        taken: BTreeMap::new(),
        chosen: Vec::new(),
    };
    // What the dump and the modules hold counts as taken, so that only what is new is chosen.
    for (range, ()) in Index::new(held.into_iter().map(|range| (range, ()))).iter() {
        choice.take(range.clone());
    }
    for (range, ()) in choice.modules.clone().iter() {
        choice.take(range.clone());
    }
    for thread in threads {
        if choice.left == 0 {
            break;
        }
        choice.thread(&thread);
        choice.left = choice.left.min(budget.saturating_sub(OWN));
    }
    merged(choice.chosen)
}

/// From the context with which the thread crashed, or its own.
fn pointers<'a>(dump: &'a [u8], layout: &Layout, thread: &ThreadEntry) -> Option<Pointers<'a>> {
    let exception = layout.exception.as_ref().filter(|exception| exception.thread_id == thread.id);
    let context = match exception {
        Some(exception) if !exception.context.is_empty() => exception.context.clone(),
        _ => thread.context.clone(),
    };
    let (stack_pointer, registers) = registers(layout.processor, dump.get(context))?;
    let stack = dump.get(thread.stack.bytes.clone()).unwrap_or_default();
    Some(Pointers { registers, stack_pointer, stack: (thread.stack.address, stack) })
}

struct Choice {
    /// From the first to the last readable address: most words of a stack are zeros and small numbers.
    bounds: Range<u64>,
    readable: Index<()>,
    modules: Index<()>,
    left: u64,
    /// Stack words still to look at. Stacks are disjoint, so that those of one dump do not exceed it; a hostile dump
    /// has a million threads on one stack.
    words: usize,
    /// Disjoint ranges, start to end: held already, in a module, or chosen.
    taken: BTreeMap<u64, u64>,
    chosen: Vec<Range<u64>>,
}

impl Choice {
    fn thread(&mut self, thread: &Pointers<'_>) {
        thread.registers.into_iter().for_each(|register| self.around(register));
        let (address, stack) = thread.stack;
        let dead = thread.stack_pointer.saturating_sub(address).checked_next_multiple_of(8);
        let dead = dead.and_then(|dead| usize::try_from(dead).ok()).unwrap_or(usize::MAX);
        for word in stack.get(dead..).unwrap_or_default().as_chunks().0 {
            if self.left == 0 || self.words == 0 {
                return;
            }
            self.words -= 1;
            self.around(u64::from_le_bytes(*word));
        }
    }

    /// Chooses what is new of the bytes around `address`, if that is readable and in no module.
    fn around(&mut self, address: u64) {
        if !self.bounds.contains(&address) {
            return;
        }
        let Some((readable, ())) = self.readable.find(address) else { return };
        if self.modules.contains(address) {
            return;
        }
        let start = address.saturating_sub(AROUND / 2).max(readable.start);
        let end = address.saturating_add(AROUND / 2).min(readable.end);
        for piece in self.untaken(start..end) {
            let end = piece.end.min(piece.start.saturating_add(self.left));
            if piece.start < end {
                self.left -= end - piece.start;
                self.chosen.push(piece.start..end);
                self.take(piece.start..end);
            }
        }
    }

    /// The parts of `range` that nobody has taken, ascending.
    fn untaken(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut free = Vec::new();
        let before = self.taken.range(..=range.start).next_back().map_or(0, |(_, &end)| end);
        let mut start = range.start.max(before);
        for (&taken, &end) in self.taken.range(range.start..range.end) {
            if start < taken {
                free.push(start..taken);
            }
            start = start.max(end);
        }
        if start < range.end {
            free.push(start..range.end);
        }
        free
    }

    fn take(&mut self, range: Range<u64>) {
        for piece in self.untaken(range) {
            self.taken.insert(piece.start, piece.end);
        }
    }
}

/// Stack pointer and general registers, the program counter included (jitted code lies in no module).
fn registers(processor: u16, context: Option<&[u8]>) -> Option<(u64, [u64; 17])> {
    if processor != ProcessorArchitecture::PROCESSOR_ARCHITECTURE_AMD64 as u16 {
        return None;
    }
    let c: CONTEXT_AMD64 = context?.pread_with(0, LE).ok()?;
    let all = [
        c.rip, c.rdi, c.rsi, c.rdx, c.rcx, c.r8, c.r9, c.rax, c.rbx, c.rbp, c.rsp, c.r10, c.r11, c.r12,
        c.r13, c.r14, c.r15,
    ];
    Some((c.rsp, all))
}

/// The dump with `memory` (address, bytes) added to its memory list. The old list's bytes are zeroed. Ranges of
/// `layout` still hold for the result, but for the memory list's; parse it anew to see the added memory.
///
/// # Errors
/// [`Error::Malformed`] if `layout` is not that of `dump`, [`Error::Limit`] if the result would not fit 32-bit offsets.
pub fn append(dump: Vec<u8>, layout: &Layout, memory: &[(u64, Vec<u8>)]) -> Result<Vec<u8>> {
    let stale = || Error::malformed("minidump", "its layout is another dump's");
    let old_entry = layout.streams.iter().find(|stream| stream.kind == kind::MEMORY_LIST);
    let old = old_entry.map_or(0..0, |stream| stream.bytes.clone());
    let mut descriptors = descriptors(dump.get(old.clone()).ok_or_else(stale)?);

    let added: usize =
        memory.iter().map(|(_, bytes)| bytes.len() + size::<MINIDUMP_MEMORY_DESCRIPTOR>()).sum();
    // Room for a moved list and directory, too.
    let lists = old.len() + 64 + (layout.streams.len() + 1) * size::<MINIDUMP_DIRECTORY>();
    let mut out = grown(dump, added.saturating_add(lists));
    for (address, bytes) in memory.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let memory = location(out.len(), bytes.len())?;
        descriptors.push(MINIDUMP_MEMORY_DESCRIPTOR { start_of_memory_range: *address, memory });
        out.extend_from_slice(bytes);
    }
    let bytes = list(descriptors)?;
    let entry =
        MINIDUMP_DIRECTORY { stream_type: kind::MEMORY_LIST, location: location(out.len(), bytes.len())? };
    out.extend_from_slice(&bytes);
    out.get_mut(old).ok_or_else(stale)?.fill(0);

    match old_entry {
        Some(stream) => overwrite(&mut out, stream.entry.start, entry)?,
        None => enter(&mut out, layout, entry)?,
    }
    Ok(out)
}

/// The entries of a memory list that [`Layout::parse`] accepted: they end where it ends, padding or not.
fn descriptors(list: &[u8]) -> Vec<MINIDUMP_MEMORY_DESCRIPTOR> {
    let entry = size::<MINIDUMP_MEMORY_DESCRIPTOR>();
    let entries = list.get(list.len() % entry..).unwrap_or_default();
    entries.chunks_exact(entry).filter_map(|entry| entry.pread_with(0, LE).ok()).collect()
}

/// Enters a stream into the directory: in the place of an unused entry, or in a longer directory behind all else.
pub(super) fn enter(out: &mut Vec<u8>, layout: &Layout, entry: MINIDUMP_DIRECTORY) -> Result<()> {
    match layout.streams.iter().find(|stream| stream.kind == kind::UNUSED) {
        Some(stream) => overwrite(out, stream.entry.start, entry),
        None => move_directory(out, layout, entry),
    }
}

/// `bytes` with room for `more`. If they must move, the old place is wiped: it holds what nobody has scrubbed.
pub(super) fn grown(mut bytes: Vec<u8>, more: usize) -> Vec<u8> {
    if bytes.capacity() - bytes.len() >= more {
        return bytes;
    }
    let mut grown = Vec::with_capacity(bytes.len().saturating_add(more));
    grown.extend_from_slice(&bytes);
    bytes.zeroize();
    grown
}

/// Writes the directory with one more entry behind all else, and zeroes the old one.
fn move_directory(out: &mut Vec<u8>, layout: &Layout, entry: MINIDUMP_DIRECTORY) -> Result<()> {
    let stale = || Error::malformed("minidump", "its layout is another dump's");
    let start = out.len();
    for stream in &layout.streams {
        let old = out.get(stream.entry.clone()).ok_or_else(stale)?.to_vec();
        out.extend_from_slice(&old);
    }
    push(out, entry)?;
    for stream in &layout.streams {
        out.get_mut(stream.entry.clone()).ok_or_else(stale)?.fill(0);
    }
    let moved = location(start, out.len() - start)?;
    let mut header: MINIDUMP_HEADER = out.pread_with(0, LE).map_err(|_| stale())?;
    header.stream_directory_rva = moved.rva;
    header.stream_count = header.stream_count.checked_add(1).ok_or_else(stale)?;
    overwrite(out, 0, header)
}

#[cfg(test)]
mod tests {
    use minidump_common::format::ContextFlagsAmd64;

    use super::*;
    use crate::dump::layout::{ExceptionEntry, MemoryEntry, ModuleEntry};

    const READABLE: Range<u64> = 0x10_0000..0x20_0000;

    /// Two threads with one pointer in `rax` and one on the stack each; the second crashed. A word of the dead stack,
    /// below the stack pointer, points somewhere, too.
    fn dump(pointers: [[u64; 2]; 2]) -> (Vec<u8>, Layout) {
        let mut dump = Vec::new();
        let mut layout = Layout { processor: 9, ..Layout::default() };
        for (i, [rax, stacked]) in pointers.into_iter().enumerate() {
            let address = 0x7000_0000 + i as u64 * 0x1_0000;
            let start = dump.len();
            let context_flags = ContextFlagsAmd64::CONTEXT_AMD64_FULL.bits();
            let context = CONTEXT_AMD64 { context_flags, rax, rsp: address + 8, ..CONTEXT_AMD64::default() };
            push(&mut dump, context).unwrap();
            let context = start..dump.len();
            [0x1f_0000, 77, stacked]
                .iter()
                .for_each(|word: &u64| dump.extend_from_slice(&word.to_le_bytes()));
            let stack = MemoryEntry { address, bytes: context.end..dump.len() };
            layout.memory.push(stack.clone());
            layout.threads.push(ThreadEntry { id: i as u32, context, stack });
        }
        let (parameters, context) = (0..0, 0..0);
        layout.exception =
            Some(ExceptionEntry { thread_id: 1, code: 11, flags: 1, address: 0, parameters, context });
        (dump, layout)
    }

    #[test]
    fn the_crashing_thread_comes_first_and_the_budget_holds() {
        let (dump, layout) = dump([[0x11_0000, 0x12_0000], [0x13_0000, 0x14_0000]]);
        let around = |address: u64| address - 512..address + 512;
        let choose = |budget| wanted(&dump, &layout, &[READABLE], budget);
        assert_eq!(choose(0), []);
        assert_eq!(choose(1024), [around(0x13_0000)], "its registers");
        assert_eq!(choose(2048), [around(0x13_0000), around(0x14_0000)], "its stack");
        assert_eq!(
            choose(OWN + 952),
            [around(0x11_0000).start..around(0x11_0000).start + 952, around(0x13_0000), around(0x14_0000)]
        );
        let all = [0x11_0000, 0x12_0000, 0x13_0000, 0x14_0000].map(around);
        assert_eq!(choose(u64::MAX), all, "and nothing for what is below the stack pointer");
        assert_eq!(wanted(&dump, &layout, &[], u64::MAX), [], "nothing is readable");
    }

    #[test]
    fn held_memory_modules_and_borders_are_cut_out() {
        let (dump, mut layout) = dump([[0x11_0000, 0x11_0100], [0x10_0010, 0x12_0000]]);
        let none = 0..0;
        let (name, codeview, debug_file, build_id) = (none.clone(), none.clone(), none.clone(), none);
        let module = ModuleEntry { base: 0x12_0000, size: 0x1000, name, codeview, debug_file, build_id };
        layout.modules.push(module);
        layout.memory.push(MemoryEntry { address: 0x10_fff0, bytes: 0..0x20 });
        assert_eq!(
            wanted(&dump, &layout, &[READABLE], u64::MAX),
            [0x10_0000..0x10_0210, 0x10_fe00..0x10_fff0, 0x11_0010..0x11_0300]
        );
    }

    #[test]
    fn another_dumps_layout_is_an_error() {
        let (dump, mut layout) = dump([[0; 2]; 2]);
        let stream = |bytes| crate::dump::layout::Stream { kind: kind::MEMORY_LIST, entry: 40..52, bytes };
        layout.streams = vec![stream(0..1 << 40)];
        assert!(append(dump.clone(), &layout, &[(0, vec![1])]).is_err());
        assert!(wanted(&dump[..100], &layout, &[READABLE], 1 << 20).is_empty());
        layout.streams = vec![stream(0..4)];
        layout.streams[0].entry = usize::MAX - 4..usize::MAX;
        assert!(append(dump, &layout, &[(0, vec![1])]).is_err());
    }
}
