//! Whether what a pmodule wants is about things that are there.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Blank, Edit, Edits, Failure};
use crate::dump::{Layout, ranges};
use crate::target::{Mapping, Target};

/// Registers that may be blanked: all general ones but those that an unwinder needs (rip, rsp, rbp), and the vector registers.
pub const REGISTERS: [&str; 30] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
    "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
    "xmm13", "xmm14", "xmm15",
];

/// What is known of a process or of a dump, so that one edit takes one search in it, however many mappings and threads there
/// are: the process stands still meanwhile, and nobody's deadline but the tracer's own is over it.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// All that is mapped, in runs: ascending, apart from each other.
    mapped: Vec<Range<u64>>,
    /// What of that may go into a dump.
    memory: Vec<Range<u64>>,
    threads: BTreeSet<i32>,
    /// Whether its arguments and environment could be found.
    start_up: bool,
}

/// What is wrong with an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It can never be.
    Unfit(String),
    /// What it is about is not there.
    Absent(String),
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        let (Wrong::Unfit(words) | Wrong::Absent(words)) = wrong;
        Self(words)
    }
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self::Unfit(failure.0)
    }
}

impl Facts {
    pub(super) fn of(target: &Target) -> Self {
        let threads = target.threads.iter().map(|thread| thread.id);
        Self::new(&target.maps, threads, target.start_up.is_some())
    }

    /// Those of a dump, for scrub hooks.
    pub(super) fn of_dump(layout: &Layout) -> Self {
        let held = ranges::merged(layout.memory.iter().map(|entry| entry.addresses()).collect());
        let threads = layout.threads.iter().map(|thread| thread.id.cast_signed()).collect();
        Self { mapped: held.clone(), memory: held, threads, start_up: false }
    }

    fn new(maps: &[Mapping], threads: impl Iterator<Item = i32>, start_up: bool) -> Self {
        let of = |fits: &dyn Fn(&Mapping) -> bool| {
            ranges::merged(maps.iter().filter(|map| fits(map)).map(|map| map.range.clone()).collect())
        };
        Self { mapped: of(&|_| true), memory: of(&Mapping::is_memory), threads: threads.collect(), start_up }
    }
}

/// Checks every edit of a list that came from another process; one that is wrong spoils all, since the list refused it there.
///
/// # Errors
/// What is wrong.
pub(super) fn edits(edits: &Edits, facts: &Facts) -> Result<(), Failure> {
    Ok(edits.iter().try_for_each(|one| edit(one, facts))?)
}

/// Checks one edit.
///
/// # Errors
/// What is wrong.
pub(super) fn edit(edit: &Edit, facts: &Facts) -> Result<(), Wrong> {
    match edit {
        Edit::AddMemory(range) => within(range, &facts.memory),
        Edit::BlankMemory(range) => within(range, &facts.mapped),
        Edit::BlankRegister { thread: id, register } => {
            thread(*id, facts)?;
            self::register(register)
        }
        Edit::KeepStack(id) | Edit::DropStack(id) => thread(*id, facts),
        Edit::BlankArgument(_) | Edit::BlankEnvironment(_) if !facts.start_up => {
            Err(Wrong::Absent("the kernel hides where arguments and variables are".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Checks what a scrub hook wants blanked.
///
/// # Errors
/// What is wrong.
pub(super) fn blank(blank: &Blank, facts: &Facts) -> Result<(), Wrong> {
    match blank {
        Blank::Memory(range) => within(range, &facts.mapped),
        Blank::Register { thread: id, register } => {
            thread(id.cast_signed(), facts)?;
            self::register(register)
        }
        Blank::Stack(id) => thread(id.cast_signed(), facts),
    }
}

fn register(name: &str) -> Result<(), Wrong> {
    const LONGEST: usize = 16;
    if REGISTERS.contains(&name) {
        return Ok(());
    }
    let shown = name.get(..name.floor_char_boundary(LONGEST)).unwrap_or_default();
    Err(Wrong::Unfit(format!(
        "{shown:?} is no register that may be blanked: those are rax to r15 but rsp and rbp, and xmm0 to xmm15"
    )))
}

fn thread(id: i32, facts: &Facts) -> Result<(), Wrong> {
    match facts.threads.contains(&id) {
        true => Ok(()),
        false => Err(Wrong::Absent(format!("there is no thread {id}"))),
    }
}

/// Whether one of `runs` holds all of `range`.
fn within(range: &Range<u64>, runs: &[Range<u64>]) -> Result<(), Wrong> {
    let run = runs.get(runs.partition_point(|run| run.end <= range.start));
    let end = run.filter(|run| run.start <= range.start).map_or(range.start, |run| run.end);
    match range.end <= end {
        true => Ok(()),
        false => Err(Wrong::Absent(format!("there is no memory at {end:#x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pmodule::Blanks;

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
            (register(9, "RAX"), false),
            (Edit::BlankArgument(99), true),
        ];
        for (edit, good) in cases {
            let mut list = Edits::default();
            list.push(edit.clone()).unwrap();
            assert_eq!(edits(&list, &facts(true)).is_ok(), good, "{edit:?}");
            // A list that knows what it is about says so at once, and what it took is good.
            let mut list = Edits::about(facts(true));
            assert_eq!(list.push(edit.clone()).is_ok(), good, "{edit:?}");
            assert_eq!(list.is_empty(), !good);
        }
        let mut blanks = Blanks::about(facts(false));
        assert!(blanks.push(Blank::Stack(7)).is_ok() && blanks.push(Blank::Stack(8)).is_err());
        let why = blanks.push(Blank::Register { thread: 7, register: "RAX".into() }).unwrap_err();
        assert!(why.0.starts_with("\"RAX\" is no register"), "{why}");
        assert_eq!(blanks.iter().count(), 1);
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
