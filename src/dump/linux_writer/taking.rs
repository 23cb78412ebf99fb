//! A dump between its two halves: what was read, which others may look at and change before it is laid out.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use zeroize::Zeroize;

use super::stacks::{self, Stack};
use super::{Limits, Memory, Strings, Taken, ceiling, layout, overlap, read, system};
use crate::dump::ranges::{merged, without};
use crate::error::Result;
use crate::target::{Target, Thread, UnwindTables, find};

/// What is asked for may make a dump so many bytes longer than [`Limits::total`]: it is worth more than what was cut.
pub const EXTRA: u64 = 16 << 20;

/// What was read of a stopped process.
#[derive(Debug)]
pub struct Taking {
    memory: Memory,
    start_up: Option<Strings>,
    tables: Vec<UnwindTables>,
    limits: Limits,
}

/// A piece of memory that is to go into a dump.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Its address.
    pub address: u64,
    /// What was read.
    pub bytes: &'a [u8],
    /// The thread whose stack it is, if it is one.
    pub stack_of: Option<i32>,
}

impl Taking {
    /// Reads what a dump needs. The target stays as it is.
    pub fn read(target: &mut Target, limits: Limits) -> Self {
        let (memory, start_up) = read(target, limits);
        Self { memory, start_up, tables: target.unwind_tables(), limits }
    }

    /// All of its memory, stacks first. `target` is that which was read.
    pub fn pieces(&self, target: &Target) -> Vec<Piece<'_>> {
        let threads = target.threads.iter().map(|thread| Some(thread.id)).chain(std::iter::repeat(None));
        let all = self.memory.stacks.iter().chain(&self.memory.others);
        // There is a stack for each thread, empty if it has none.
        let all = all.zip(threads).filter(|((_, bytes), _)| !bytes.is_empty());
        all.map(|((address, bytes), stack_of)| Piece { address: *address, bytes, stack_of }).collect()
    }

    /// Reads `ranges`, and the stacks of `threads` as they were before they were cut for lack of room, in one batch. What
    /// does not fit into [`EXTRA`] any more is left out, and a note says so.
    pub fn add(&mut self, target: &mut Target, ranges: &[Range<u64>], threads: &BTreeSet<i32>) {
        if ranges.is_empty() && threads.is_empty() {
            return;
        }
        let held = (self.memory.len() as u64).saturating_add(layout::fixed_len(target));
        let mut room = self.limits.total.saturating_add(EXTRA).saturating_sub(held);
        let mut refused = 0_usize;
        let mut fits = |range: &Range<u64>| {
            let length = range.end - range.start;
            let fits = length <= room;
            room -= if fits { length } else { 0 };
            refused += usize::from(!fits);
            fits
        };
        let cut: Vec<_> = self.cut(target, threads).into_iter().filter(|(_, range)| fits(range)).collect();
        // What is in the dump already need not be there twice.
        let held = self.pieces(target).into_iter().map(|piece| span(piece.address, piece.bytes));
        let held = held.chain(cut.iter().map(|(_, range)| range.clone())).collect();
        let new: Vec<_> = without(merged(ranges.to_vec()), &merged(held)).into_iter().filter(fits).collect();
        if refused > 0 {
            target.notes.push(format!("{refused} pieces of memory that pmodules wanted did not fit"));
        }
        let wanted: Vec<_> = cut.iter().map(|(_, range)| range.clone()).chain(new.iter().cloned()).collect();
        let mut bytes = target.memory().read_ranges(&wanted);
        let added = bytes.split_off(cut.len());
        for ((place, range), bytes) in cut.into_iter().zip(bytes) {
            match place.and_then(|place| self.memory.stacks.get_mut(place)) {
                Some(stack) => {
                    stack.1.zeroize();
                    *stack = (range.start, bytes);
                }
                None => self.memory.others.push((range.start, bytes)),
            }
        }
        self.memory.others.extend(new.iter().map(|range| range.start).zip(added));
        join(&mut self.memory.others);
    }

    /// Leaves out the stacks of `threads`, and all other memory of their mappings.
    pub fn drop_stacks(&mut self, target: &Target, threads: &BTreeSet<i32>) {
        if threads.is_empty() {
            return;
        }
        let home = |thread: &Thread| {
            let pointer = thread.registers.as_ref()?.rsp;
            find(&target.maps, pointer).map(|mapping| mapping.range.clone())
        };
        let mut inhabitants = HashMap::<u64, usize>::new();
        for mapping in target.threads.iter().filter_map(home) {
            *inhabitants.entry(mapping.start).or_default() += 1;
        }
        let mut gone = Vec::new();
        let stacks = stacks(target).into_iter().zip(&mut self.memory.stacks);
        for (thread, (whole, (address, bytes))) in target.threads.iter().zip(stacks) {
            if !threads.contains(&thread.id) {
                continue;
            }
            gone.extend([whole.near, whole.far, span(*address, bytes)]);
            // Its mapping too, unless another thread lives in it.
            gone.extend(home(thread).filter(|mapping| inhabitants.get(&mapping.start) == Some(&1)));
            bytes.zeroize();
            bytes.clear();
        }
        let gone = merged(gone);
        for (address, bytes) in &mut self.memory.others {
            let here = span(*address, bytes);
            let behind = gone.partition_point(|range| range.end <= here.start);
            if gone.get(behind).is_some_and(|range| overlap(range, &here)) {
                bytes.zeroize();
                bytes.clear();
            }
        }
    }

    /// The minidump as it would be now.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) if it would be longer than 4 GiB.
    pub fn dump(&self, target: &Target) -> Result<Vec<u8>> {
        layout::lay_out(target, &self.memory, system::get())
    }

    /// Unwind tables that no file has.
    pub fn tables(&self) -> &[UnwindTables] {
        &self.tables
    }

    /// The strings that the process was started with, and the notes of `target`.
    pub fn finish(self, dump: Vec<u8>, target: &mut Target) -> Taken {
        Taken { dump, start_up: self.start_up, tables: self.tables, notes: std::mem::take(&mut target.notes) }
    }

    /// What of the stacks of `threads` is not here: which stack to replace, or none for an outer end.
    fn cut(&self, target: &Target, threads: &BTreeSet<i32>) -> Vec<(Option<usize>, Range<u64>)> {
        if threads.is_empty() {
            return Vec::new();
        }
        let others: HashSet<u64> = self.memory.others.iter().map(|(address, _)| *address).collect();
        let mut cut = Vec::new();
        let stacks = stacks(target).into_iter().zip(&self.memory.stacks);
        for (place, (whole, (address, bytes))) in stacks.enumerate() {
            if !threads.contains(&target.threads[place].id) {
                continue;
            }
            if !whole.near.is_empty() && whole.near != span(*address, bytes) {
                cut.push((Some(place), whole.near));
            }
            if !whole.far.is_empty() && !others.contains(&whole.far.start) {
                cut.push((None, whole.far));
            }
        }
        cut
    }
}

/// What is kept of each thread's stack where there is room.
fn stacks(target: &Target) -> Vec<Stack> {
    let threads: Vec<_> =
        target.threads.iter().map(|t| (t.registers.as_ref().map(|r| r.rsp), t.control_block)).collect();
    stacks::of(&threads, &target.maps, ceiling(target))
}

fn span(address: u64, bytes: &[u8]) -> Range<u64> {
    address..address.saturating_add(bytes.len() as u64)
}

/// Makes one piece of pieces that adjoin: where two meet nothing was cut off, and a scrubber must see what lies across.
fn join(pieces: &mut Vec<(u64, Vec<u8>)>) {
    pieces.sort_by_key(|(address, _)| *address);
    let mut joined: Vec<(u64, Vec<u8>)> = Vec::with_capacity(pieces.len());
    for (address, mut bytes) in std::mem::take(pieces) {
        match joined.last_mut() {
            Some((start, before))
                if !bytes.is_empty() && start.checked_add(before.len() as u64) == Some(address) =>
            {
                // Growing it may leave a copy behind.
                let mut whole = Vec::with_capacity(before.len() + bytes.len());
                whole.extend_from_slice(before);
                whole.extend_from_slice(&bytes);
                before.zeroize();
                bytes.zeroize();
                *before = whole;
            }
            _ => joined.push((address, bytes)),
        }
    }
    *pieces = joined;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_adjoin_are_one() {
        let piece = |address: u64, text: &str| (address, text.as_bytes().to_vec());
        let mut pieces = vec![
            piece(20, "x"),
            piece(4, "efg"),
            piece(0, "abcd"),
            piece(7, "h"),
            piece(9, ""),
            piece(9, "y"),
        ];
        join(&mut pieces);
        assert_eq!(pieces, [piece(0, "abcdefgh"), piece(9, "y"), piece(20, "x")]);
    }
}
