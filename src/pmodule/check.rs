//! Whether what a pmodule wants is about things that are there.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::{Edit, Edits, Failure};
use crate::target::{Mapping, Target, find};

/// Registers that may be blanked: all general ones but those that an unwinder needs (rip, rsp, rbp), and the vector registers.
pub const REGISTERS: [&str; 30] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
    "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
    "xmm13", "xmm14", "xmm15",
];

/// What is known of a process.
#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    /// Ascending.
    pub(super) maps: &'a [Mapping],
    pub(super) threads: Vec<i32>,
    /// Whether its arguments and environment could be found.
    pub(super) start_up: bool,
}

impl<'a> Facts<'a> {
    pub(super) fn of(target: &'a Target) -> Self {
        Self {
            maps: &target.maps,
            threads: target.threads.iter().map(|thread| thread.id).collect(),
            start_up: target.start_up.is_some(),
        }
    }
}

/// Checks every edit of a list; one that is wrong spoils all, since who wrote it does not know what it looks at.
///
/// # Errors
/// What is wrong.
pub(super) fn edits(edits: &Edits, facts: &Facts<'_>) -> Result<(), Failure> {
    edits.iter().try_for_each(|edit| match edit {
        Edit::AddMemory(range) => mapped(range, facts, Mapping::is_memory),
        Edit::BlankMemory(range) => mapped(range, facts, |_| true),
        Edit::BlankRegister { thread: id, register } => {
            thread(*id, facts)?;
            self::register(register)
        }
        Edit::KeepStack(id) | Edit::DropStack(id) => thread(*id, facts),
        Edit::BlankArgument(_) | Edit::BlankEnvironment(_) if !facts.start_up => {
            Err("wanted an argument or a variable blanked, but the kernel hides where those are".into())
        }
        _ => Ok(()),
    })
}

/// Whether a register may be blanked.
pub(super) fn register(name: &str) -> Result<(), Failure> {
    match REGISTERS.contains(&name) {
        true => Ok(()),
        false => Err("named a register that is unknown or that an unwinder needs".into()),
    }
}

fn thread(id: i32, facts: &Facts<'_>) -> Result<(), Failure> {
    match facts.threads.contains(&id) {
        true => Ok(()),
        false => Err(format!("named thread {id}, which is not there").into()),
    }
}

/// Whether mappings that follow each other hold all of `range`, each of them fit.
fn mapped(range: &Range<u64>, facts: &Facts<'_>, fits: impl Fn(&Mapping) -> bool) -> Result<(), Failure> {
    let mut at = range.start;
    while at < range.end {
        match find(facts.maps, at).filter(|mapping| fits(mapping)) {
            Some(mapping) => at = mapping.range.end,
            None => return Err(format!("named memory at {at:#x}, where there is none").into()),
        }
    }
    Ok(())
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
        let facts = |start_up| Facts { maps: &maps, threads: vec![7, 9], start_up };
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
}
