//! Numbers of a core file's structures, and which values they can have. What cannot be there is no number but something that
//! hides, and goes: no rule would look at it.
//!
//! Shapes: `<linux/elfcore.h>`, sigaction(2), `user_regs_struct` (`<sys/user.h>`), elf(5).
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::scrub::contexts;
use crate::scrub::edit::Editor;
use crate::scrub::receipt::Place;

/// Behind the addresses that a process may have: 56 bits with five levels of page tables (`Documentation/arch/x86/x86_64/mm.rst`).
const USER: u64 = 1 << 56;
/// The one mapping beyond them, of the kernel's own: `VSYSCALL_ADDR` (`asm/vsyscall.h`).
const VSYSCALL: Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;
/// What mappings begin and end at.
const PAGE: u64 = 4096;
/// `PID_MAX_LIMIT` (proc_sys_kernel(5)).
const MOST_PROCESSES: u64 = 1 << 22;
/// `_NSIG`.
const MOST_SIGNALS: u64 = 64;
/// Behind the largest offset in a file that is mapped.
const FILE_END: u64 = 1 << 47;

/// A number in a structure.
pub(super) struct Field {
    /// Offset.
    at: usize,
    /// Bytes; at most 8.
    length: usize,
    can_be: fn(u64) -> bool,
}

const fn field(at: usize, length: usize, can_be: fn(u64) -> bool) -> Field {
    Field { at, length, can_be }
}

/// `Elf64_Ehdr` but for what the reader has checked, or goes by: kernel and gdb write no more.
pub(super) const ELF: &[Field] = &[
    // Version of the identification, of the system's ABI, padding.
    field(6, 1, |value| value == 1),
    field(7, 1, |value| value == 0 || value == 3),
    field(8, 8, is_zero),
    field(20, 4, |value| value == 1),
    field(24, 8, is_zero),
    field(48, 4, is_zero),
    field(52, 2, |value| value == 64),
];
/// Of a header that names section headers: there is one, which holds a number.
pub(super) const SECTION_IN_ELF: &[Field] =
    &[field(58, 2, |value| value == 64), field(60, 2, |value| value <= 1), field(62, 2, is_zero)];
/// The first `Elf64_Shdr`: `sh_size` is the number of section headers, `sh_info` that of program headers.
pub(super) const SECTION: &[Field] = &[
    field(0, 8, is_zero),
    field(8, 8, is_zero),
    field(16, 8, is_zero),
    field(24, 8, is_zero),
    field(32, 8, |value| value <= 1),
    field(40, 4, is_zero),
    field(48, 8, is_zero),
    field(56, 8, is_zero),
];
/// `Elf64_Phdr` of memory: flags, physical address, alignment.
pub(super) const LOAD: &[Field] = &[
    field(4, 1, |value| value <= 7),
    field(5, 3, is_zero),
    field(24, 8, is_zero),
    field(48, 8, |value| value <= 1 << 30 && (value == 0 || value.is_power_of_two())),
];
/// The same of notes, which lie in a file only. With an alignment of 8 they would be others.
pub(super) const NOTE: &[Field] = &[
    field(4, 1, |value| value <= 7),
    field(5, 3, is_zero),
    field(16, 8, is_zero),
    field(24, 8, is_zero),
    field(40, 8, is_zero),
    field(48, 8, |value| [0, 1, 4].contains(&value)),
];
/// `struct elf_prstatus`. Pending and held signals and times are not shown by anybody, and may have any bits.
pub(super) const STATUS: &[Field] = &[
    field(0, 4, is_signal),
    field(4, 4, is_code),
    field(8, 4, is_error),
    field(12, 2, is_signal),
    field(14, 2, is_zero),
    field(16, 8, is_zero),
    field(24, 8, is_zero),
    field(32, 4, is_process),
    field(36, 4, is_process),
    field(40, 4, is_process),
    field(44, 4, is_process),
    field(48, 8, is_zero),
    field(56, 8, is_zero),
    field(64, 8, is_zero),
    field(72, 8, is_zero),
    field(80, 8, is_zero),
    field(88, 8, is_zero),
    field(96, 8, is_zero),
    field(104, 8, is_zero),
    // ORIG_RAX: a system call or -1. CS, SS, DS, ES, FS, GS.
    field(112 + 15 * 8, 8, |value| contexts::is_small(value, 8)),
    field(112 + 17 * 8, 8, is_selector),
    field(112 + 18 * 8, 8, is_flags),
    field(112 + 20 * 8, 8, is_selector),
    field(112 + 23 * 8, 8, is_selector),
    field(112 + 24 * 8, 8, is_selector),
    field(112 + 25 * 8, 8, is_selector),
    field(112 + 26 * 8, 8, is_selector),
    field(328, 4, |value| value <= 1),
    field(332, 4, is_zero),
];
/// `struct elf_prpsinfo` up to its texts: state by number and letter, zombie, niceness, padding, flags, user and group.
pub(super) const PROCESS: &[Field] = &[
    field(0, 1, |value| value <= 16),
    field(1, 1, |value| value == 0 || b".DIKPRSTWXZtx".contains(&(value as u8))),
    field(2, 1, |value| value <= 1),
    field(3, 1, |value| (-20..20).contains(&(value as u8).cast_signed())),
    field(4, 4, is_zero),
    field(8, 8, is_zero),
    field(16, 4, is_user),
    field(20, 4, is_user),
    field(24, 4, is_process),
    field(28, 4, is_process),
    field(32, 4, is_process),
    field(36, 4, is_process),
];
/// `siginfo_t`: signal, errno, code, padding.
pub(super) const SIGNAL: &[Field] =
    &[field(0, 4, is_signal), field(4, 4, is_error), field(8, 4, is_code), field(12, 4, is_zero)];

fn is_zero(value: u64) -> bool {
    value == 0
}

fn is_signal(value: u64) -> bool {
    value <= MOST_SIGNALS
}

/// `si_code`: a small one, or a signal and above it the event that a tracer is told of (ptrace(2)).
fn is_code(value: u64) -> bool {
    let is_event = value & 0xff <= MOST_SIGNALS && value >> 8 <= 128;
    (-64..64).contains(&(value as u32).cast_signed()) || is_event
}

/// `MAX_ERRNO` (`linux/err.h`).
fn is_error(value: u64) -> bool {
    contexts::is_small(value, 4)
}

pub(super) fn is_process(value: u64) -> bool {
    value <= MOST_PROCESSES
}

pub(super) fn is_user(value: u64) -> bool {
    value <= u64::from(u16::MAX)
}

/// Of segments that the kernel or a small descriptor table has.
fn is_selector(value: u64) -> bool {
    value <= contexts::SMALL
}

/// Bit 1 is always on, 3, 5 and 15 never (Intel SDM 1, 3.4.3).
fn is_flags(value: u64) -> bool {
    value & !0x3f_7fd7 == 0 && value & 2 != 0
}

/// Whether a register that unwinding starts from may point to where nothing is mapped; only with five levels is anything
/// above, and only where a program asked for it.
pub(super) fn is_canonical(value: u64) -> bool {
    value < 1 << 47
}

/// Whether an address may be one of a process.
pub(super) fn is_address(value: u64) -> bool {
    value < USER || VSYSCALL.contains(&value)
}

/// Whether a process may have memory there.
pub(super) fn is_memory(range: &Range<u64>) -> bool {
    range.end <= USER || (VSYSCALL.start <= range.start && range.end <= VSYSCALL.end)
}

/// Whether a file may be mapped there.
pub(super) fn is_mapping(range: &Range<u64>) -> bool {
    range.start < range.end && range.end <= USER && (range.start | range.end).is_multiple_of(PAGE)
}

/// Whether NT_FILE may count its offsets in this: the kernel's page size, or gdb's single byte.
pub(super) fn is_unit(value: u64) -> bool {
    value.is_power_of_two() && value <= 1 << 30
}

/// Whether a mapping may begin there in its file.
pub(super) fn is_offset(value: u64, unit: u64) -> bool {
    value.checked_mul(unit).is_some_and(|offset| offset < FILE_END && offset.is_multiple_of(PAGE))
}

/// Whether a note of a known owner may be of this type. The larger ones are `NT_FILE`, `NT_SIGINFO` and `NT_PRXFPREG`.
pub(super) fn is_note_type(value: u32) -> bool {
    value < 0x1000 || [0x4649_4c45, 0x5349_4749, 0x46e6_2b7f].contains(&value)
}

/// Zeroes what of the structure at `start` cannot be.
pub(super) fn check(editor: &mut Editor<'_>, start: usize, fields: &[Field]) {
    for Field { at, length, can_be } in fields {
        let place = start + at..start + at + length;
        if !can_be(contexts::value(&editor.bytes()[place.clone()])) {
            editor.zero(place, Place::Unclaimed, "gap");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::Receipt;

    #[test]
    fn numbers_that_there_are() {
        for (what, can_be, yes, no) in [
            (
                "signal",
                is_signal as fn(u64) -> bool,
                &[0u64, 11, 64][..],
                &[65u64, 0x61, u32::MAX.into()][..],
            ),
            (
                "code",
                is_code,
                &[0, 1, 0x8005, 0x8013, 0xffff_fffa, 0xffff_ffc4],
                &[0x6161, 0x6005_0000, 0x61],
            ),
            ("errno", is_error, &[0, 133, 4095, 0xffff_fff5], &[0x6161, 1 << 31]),
            ("flags", is_flags, &[0x202, 0x1_0246, 0x21_0293], &[0, 0x6a, 0x8202, 0x4000_0202]),
            ("selector", is_selector, &[0, 0x2b, 0x33, 0x53], &[0x6161, u64::MAX]),
            (
                "address",
                is_address,
                &[0, 0x7fff_ffff_f000, 1 << 55, 0xffff_ffff_ff60_0400],
                &[1 << 56, u64::MAX],
            ),
        ] {
            assert!(yes.iter().all(|&value| can_be(value)), "{what}");
            assert!(!no.iter().any(|&value| can_be(value)), "{what}");
        }
        assert!(is_offset(3, 4096) && is_offset(8192, 1) && is_offset(u64::MAX, 0) == is_offset(0, 1));
        assert!(!is_offset(8193, 1) && !is_offset(u64::MAX, 4096) && !is_offset(1 << 35, 4096));
        assert!(is_mapping(&(0x1000..0x3000)) && !is_mapping(&(0x1000..0x1000)) && !is_mapping(&(1..0x1000)));
        assert!(is_memory(&(1..USER)) && is_memory(&VSYSCALL) && !is_memory(&(1..USER + 1)));
    }

    #[test]
    fn every_byte_of_a_structure_is_somebodys() {
        for (what, fields, others, length) in [
            // Magic number, class, order; type and machine; places of the tables and the number of program headers.
            ("ELF header", [ELF, SECTION_IN_ELF], vec![0..6, 16..20, 32..48, 54..58], 64),
            // The type, and where it lies in the file and in memory.
            ("memory", [LOAD, &[]], vec![0..4, 8..24, 32..48], 56),
            ("notes", [NOTE, &[]], vec![0..4, 8..16, 32..40], 56),
            ("section", [SECTION, &[]], vec![44..48], 64),
            // General registers, RIP, RSP, bases: `notes` looks at them.
            ("status", [STATUS, &[]], vec![112..232, 240..248, 264..272, 280..296], 336),
            ("process", [PROCESS, &[]], vec![40..136], 136),
            ("signal", [SIGNAL, &[]], vec![16..128], 128),
        ] {
            let mut bytes = vec![0x99; length];
            let mut receipt = Receipt::default();
            fields.iter().for_each(|fields| check(&mut Editor::new(&mut bytes, &mut receipt), 0, fields));
            let kept: Vec<usize> = (0..length).filter(|&at| bytes[at] != 0).collect();
            assert_eq!(kept, others.into_iter().flatten().collect::<Vec<_>>(), "{what}");
        }
    }
}
