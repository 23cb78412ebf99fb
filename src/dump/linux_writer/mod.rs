//! Our own dump of a Linux process: one stop, a few large reads, release, and only then the file is laid out.
//!
//! What is left out on purpose: environment and command line (they are handed on beside the dump, for the scrubber to look
//! for copies), open files, the dynamic linker's list.
#![forbid(unsafe_code)]

mod context;
mod layout;
mod maps_text;
mod stacks;
mod system;
mod taking;

use std::ops::Range;

use zeroize::Zeroize;

pub use stacks::END;
pub use taking::{EXTRA, Piece, Taking};

use super::indirect::{self, OWN, Pointers};
use crate::error::Result;
use crate::target::{Module, StartUp, Target, UnwindTables, find};

/// Bytes around the program counter of the thread that crashed: Breakpad's number.
pub const AROUND_PC: u64 = 256;
/// Of the strings that the process was started with, so many bytes are read.
const MOST_START_UP: u64 = 1 << 20;

/// How much may go into a dump, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory that registers and live stacks point to; the first [`OWN`] of it only what those of the thread that
    /// crashed point to.
    pub indirect: u64,
    /// All of it. Where it is tight, memory that is pointed to gets what the stacks leave, then stacks are cut: first
    /// the outer ends of long ones, then those of threads that did not crash, to 16, 4 and 1 KiB and to nothing, last
    /// the outer end of the crashing thread's. Registers, modules and mappings always stay.
    pub total: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { indirect: OWN, total: 32 << 20 }
    }
}

/// A dump, and what was read beside it.
#[derive(Debug, Default)]
pub struct Taken {
    /// The minidump. It holds personal data of every kind.
    pub dump: Vec<u8>,
    /// The strings that the process was started with. They are not in the dump, but a program copies them about.
    pub start_up: Option<Strings>,
    /// Unwind tables that no file has.
    pub tables: Vec<UnwindTables>,
    /// What could not be read or was left out. No personal data.
    pub notes: Vec<String>,
}

/// The strings that a process was started with.
#[derive(Debug, Default)]
pub struct Strings {
    /// Where they lie in the process.
    pub addresses: Range<u64>,
    /// Arguments, each with a zero byte behind.
    pub arguments: Vec<u8>,
    /// Environment variables, each with a zero byte behind.
    pub environment: Vec<u8>,
}

impl Drop for Strings {
    fn drop(&mut self) {
        self.arguments.zeroize();
        self.environment.zeroize();
    }
}

/// Reads what all dumps of this process's life say about the machine, so that no target waits for it.
pub fn prepare() {
    system::get();
}

/// Reads what a dump needs from `target`, lets it go on, and makes the dump.
///
/// # Errors
/// [`Error::Limit`](crate::Error::Limit) if it would be longer than 4 GiB.
pub fn write(mut target: Target, limits: Limits) -> Result<Taken> {
    let (memory, start_up) = read(&mut target, limits);
    let tables = target.unwind_tables();
    target.release();
    let dump = layout::lay_out(&target, &memory, system::get());
    let notes = std::mem::take(&mut target.notes);
    Ok(Taken { dump: dump?, start_up, tables, notes })
}

/// As [`write()`], but leaves the target as it is: hundreds of threads that go on would take the processor from who makes the
/// dump, while the one that crashed waits for it.
///
/// # Errors
/// As [`write()`].
pub fn write_standing(target: &mut Target, limits: Limits) -> Result<Taken> {
    let (memory, start_up) = read(target, limits);
    let tables = target.unwind_tables();
    let dump = layout::lay_out(target, &memory, system::get());
    let notes = std::mem::take(&mut target.notes);
    Ok(Taken { dump: dump?, start_up, tables, notes })
}

/// The memory that goes into the dump.
#[derive(Debug, Default)]
struct Memory {
    /// For each thread: address and bytes of its stack.
    stacks: Vec<(u64, Vec<u8>)>,
    /// Everything else.
    others: Vec<(u64, Vec<u8>)>,
}

impl Memory {
    fn all(&self) -> impl Iterator<Item = &(u64, Vec<u8>)> {
        self.stacks.iter().chain(&self.others).filter(|(_, bytes)| !bytes.is_empty())
    }

    /// Takes off the stacks' outer ends what belongs to no frame, where they were read that far.
    fn cut(&mut self, target: &Target, to_the_end: &[bool]) {
        let code: Vec<_> =
            target.maps.iter().filter(|map| map.executable).map(|map| map.range.clone()).collect();
        let stacks = self.stacks.iter_mut().zip(to_the_end).zip(&target.threads);
        for (((_, bytes), _), thread) in stacks.filter(|((_, to_the_end), _)| **to_the_end) {
            let length = match thread.id == target.tid {
                // Its own variables, which lie there too, are worth their bytes.
                true => stacks::without_zeros(bytes),
                false => stacks::frames_end(bytes, &code),
            };
            bytes.truncate(length);
        }
    }

    fn len(&self) -> usize {
        self.all().map(|(_, bytes)| bytes.len()).sum()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stacks.iter_mut().chain(&mut self.others).for_each(|(_, bytes)| bytes.zeroize());
    }
}

/// Reads during the stop: all stacks in one batch, what they point to in another.
fn read(target: &mut Target, limits: Limits) -> (Memory, Option<Strings>) {
    let room = limits.total.saturating_sub(layout::fixed_len(target));
    let crashed = target.threads.iter().position(|thread| thread.id == target.tid);
    let threads: Vec<_> =
        target.threads.iter().map(|t| (t.registers.as_ref().map(|r| r.rsp), t.control_block)).collect();
    let mut stacks = stacks::of(&threads, &target.maps, ceiling(target));
    target.notes.extend(stacks::fit(&mut stacks, crashed, room));

    let to_the_end: Vec<_> = stacks.iter().map(|stack| stack.far.is_empty()).collect();
    let near = stacks.iter().map(|stack| stack.near.clone());
    let far = stacks.iter().map(|stack| stack.far.clone()).filter(|range| !range.is_empty());
    let mut wanted: Vec<_> = near.collect();
    let threads = wanted.len();
    wanted.extend(far);
    wanted.extend(around_pc(target).filter(|code| !wanted.iter().any(|range| overlap(range, code))));
    let memory_end = wanted.len();
    wanted.extend(target.start_up.iter().flat_map(strings));
    let mut bytes = target.memory().read_ranges(&wanted);
    let mut strings = bytes.split_off(memory_end).into_iter();
    let start_up = target.start_up.as_ref().map(|start_up| Strings {
        addresses: start_up.arguments.start.min(start_up.environment.start)
            ..start_up.arguments.end.max(start_up.environment.end),
        arguments: strings.next().unwrap_or_default(),
        environment: strings.next().unwrap_or_default(),
    });
    let mut stacks: Vec<_> = wanted.iter().map(|range| range.start).zip(bytes).collect();
    let others = stacks.split_off(threads);
    let mut memory = Memory { stacks, others };
    memory.cut(target, &to_the_end);
    let left = room.saturating_sub(memory.len() as u64).min(limits.indirect);
    let pointed_to = pointed_to(target, &memory, left);
    let bytes = target.memory().read_ranges(&pointed_to);
    memory.others.extend(pointed_to.iter().map(|range| range.start).zip(bytes));
    (memory, start_up)
}

/// Where, at the top of the first stack, the arguments begin. If the kernel hides that, the random bytes
/// that it puts below them (AT_RANDOM, getauxval(3)).
fn ceiling(target: &Target) -> Option<u64> {
    const AT_RANDOM: u64 = 25;
    let known = target.start_up.as_ref().map(|start_up| start_up.arguments.start);
    known.or_else(|| target.auxv(AT_RANDOM))
}

fn around_pc(target: &Target) -> Option<Range<u64>> {
    let pc = target.crashed()?.registers.as_ref()?.rip;
    let mapping = find(&target.maps, pc).filter(|mapping| mapping.is_memory())?;
    let start = pc.saturating_sub(AROUND_PC / 2).max(mapping.range.start);
    Some(start..pc.saturating_add(AROUND_PC / 2).min(mapping.range.end))
}

fn strings(start_up: &StartUp) -> [Range<u64>; 2] {
    [&start_up.arguments, &start_up.environment]
        .map(|range| range.start..range.end.clamp(range.start, range.start.saturating_add(MOST_START_UP)))
}

/// What registers and stacks point to, the crashing thread's first; never the strings at the top of the first stack.
fn pointed_to(target: &Target, memory: &Memory, budget: u64) -> Vec<Range<u64>> {
    let (first, others): (Vec<_>, Vec<_>) =
        target.threads.iter().zip(&memory.stacks).partition(|(thread, _)| thread.id == target.tid);
    let threads = first.into_iter().chain(others).filter_map(|(thread, (address, bytes))| {
        let registers = thread.registers.as_ref()?;
        let stack = (*address, &bytes[..]);
        Some(Pointers { registers: registers.pointers(), stack_pointer: registers.rsp, stack })
    });
    let held = memory.all().map(|(address, bytes)| *address..address.saturating_add(bytes.len() as u64));
    let above = ceiling(target).and_then(|start| Some(start..find(&target.maps, start)?.range.end));
    let modules = target.modules.iter().map(|module: &Module| module.range.clone());
    let readable: Vec<_> = target
        .maps
        .iter()
        .filter(|mapping| mapping.is_memory())
        .map(|mapping| mapping.range.clone())
        .collect();
    let words = memory.len() / 8;
    indirect::choose(threads, held.chain(above), modules, &readable, budget, words)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}
