//! Whether what a pmodule wants is about things that are there.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Edit, Edits, Failure};
use crate::target::{Mapping, Target};

/// Registers that may be blanked: all general ones but those that an unwinder needs (rip, rsp, rbp), and the vector registers.
pub const REGISTERS: [&str; 30] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
    "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
    "xmm13", "xmm14", "xmm15",
];

/// What is known of a process, so that one edit takes one search in it, however many mappings and threads there are: the
/// process stands still meanwhile, and nobody's deadline but the tracer's own is over it.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// All that is mapped, in runs: ascending, apart from each other.
    mapped: Vec<Range<u64>>,
    /// What of that is memory.
    memory: Vec<Range<u64>>,
    threads: BTreeSet<i32>,
    /// Whether its arguments and environment could be found.
    start_up: bool,
}

impl Facts {
    pub(super) fn of(target: &Target) -> Self {
        let threads = target.threads.iter().map(|thread| thread.id);
        Self::new(&target.maps, threads, target.start_up.is_some())
    }

    /// `maps` are ascending.
    fn new(maps: &[Mapping], threads: impl Iterator<Item = i32>, start_up: bool) -> Self {
        let memory = maps.iter().filter(|mapping| mapping.is_memory());
        Self { mapped: runs(maps.iter()), memory: runs(memory), threads: threads.collect(), start_up }
    }
}

/// Mappings that follow each other, as one range each.
fn runs<'a>(maps: impl Iterator<Item = &'a Mapping>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for Mapping { range, .. } in maps {
        match runs.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => runs.push(range.clone()),
        }
    }
    runs
}

/// Checks every edit of a list; one that is wrong spoils all, since who wrote it does not know what it looks at.
///
/// # Errors
/// What is wrong.
pub(super) fn edits(edits: &Edits, facts: &Facts) -> Result<(), Failure> {
    edits.iter().try_for_each(|wanted| edit(wanted, facts))
}

fn edit(edit: &Edit, facts: &Facts) -> Result<(), Failure> {
    match edit {
        Edit::AddMemory(range) => within(range, &facts.memory),
        Edit::BlankMemory(range) => within(range, &facts.mapped),
        Edit::BlankRegister { thread: id, register } => {
            thread(*id, facts)?;
            self::register(register)
        }
        Edit::KeepStack(id) | Edit::DropStack(id) => thread(*id, facts),
        Edit::BlankArgument(_) | Edit::BlankEnvironment(_) if !facts.start_up => {
            Err("wanted an argument or a variable blanked, but the kernel hides where those are".into())
        }
        _ => Ok(()),
    }
}

/// Whether a register may be blanked.
pub(super) fn register(name: &str) -> Result<(), Failure> {
    match REGISTERS.contains(&name) {
        true => Ok(()),
        false => Err("named a register that is unknown or that an unwinder needs".into()),
    }
}

fn thread(id: i32, facts: &Facts) -> Result<(), Failure> {
    match facts.threads.contains(&id) {
        true => Ok(()),
        false => Err(format!("named thread {id}, which is not there").into()),
    }
}

/// Whether one of `runs` holds all of `range`.
fn within(range: &Range<u64>, runs: &[Range<u64>]) -> Result<(), Failure> {
    let run = runs.get(runs.partition_point(|run| run.end <= range.start));
    let end = run.filter(|run| run.start <= range.start).map_or(range.start, |run| run.end);
    match range.end <= end {
        true => Ok(()),
        false => Err(format!("named memory at {end:#x}, where there is none").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(range: Range<u64>, readable: bool, name: &str) -> Mapping {
        let (writable, executable, private, offset) = (readable, false, true, 0);
        Mapping { range, readable, writable, executable, private, offset, file: None, name: name.to_owned() }
    }

    #[test]
    fn lies_are_found_out() {
        let maps = [
            map(0x1000..0x2000, true, ""),
            map(0x2000..0x3000, true, "[heap]"),
            map(0x3000..0x4000, false, ""),
            map(0x8000..0x9000, true, "/dev/dri/card0"),
        ];
        let facts = |start_up| Facts::new(&maps, [7, 9].into_iter(), start_up);
        let register = |thread, register: &str| Edit::BlankRegister { thread, register: register.to_owned() };
        let cases = [
            (Edit::AddMemory(0x1800..0x2800), true),
            (Edit::AddMemory(0x1800..0x3001), false),
            (Edit::BlankMemory(0x1800..0x3001), true),
            (Edit::BlankMemory(0x3fff..0x4001), false),
            (Edit::AddMemory(0..8), false),
            (Edit::AddMemory(0x8000..0x8008), false),
            (Edit::BlankMemory(u64::MAX - 8..u64::MAX), false),
            (Edit::KeepStack(7), true),
            (Edit::DropStack(8), false),
            (register(9, "r15"), true),
            (register(8, "r15"), false),
            (register(9, "rip"), false),
            (register(9, "rsp"), false),
            (register(9, "rbp"), false),
            (register(9, "eax"), false),
            (Edit::BlankArgument(99), true),
        ];
        for (edit, good) in cases {
            let mut list = Edits::default();
            list.push(edit.clone()).unwrap();
            assert_eq!(edits(&list, &facts(true)).is_ok(), good, "{edit:?}");
        }
        let mut list = Edits::default();
        list.push(Edit::BlankEnvironment("HOME".into())).unwrap();
        assert!(edits(&list, &facts(true)).is_ok() && edits(&list, &facts(false)).is_err());
    }

    /// Told apart by work, not by time: what it cost before was edits times mappings, some 10^11 steps here, for which no
    /// test waits.
    #[test]
    fn many_edits_of_many_mappings_are_one_search_each() {
        let maps: Vec<Mapping> = (0..100_000).map(|i| map(i << 12..(i + 1) << 12, i % 2 == 0, "")).collect();
        let facts = Facts::new(&maps, 0..60_000, true);
        assert_eq!((facts.mapped.len(), facts.memory.len()), (1, 50_000));
        for _ in 0..250 {
            let mut list = Edits::default();
            for _ in 0..4000 {
                list.push(Edit::BlankMemory(0..100_000 << 12)).unwrap();
            }
            assert!(edits(&list, &facts).is_ok());
        }
    }
}
