//! A core file's header and program headers (elf(5), `ET_CORE`).
#![forbid(unsafe_code)]

use std::ops::Range;

use super::source::Source;
use crate::error::{Error, Result};

/// The most program headers that are looked at: the kernel's own limit of mappings is 65530 (`vm.max_map_count`).
const MOST: u64 = 1 << 16;
const HEADER: u64 = 64;
/// Bytes of a program header.
pub(crate) const ENTRY: u64 = 56;
/// Bytes of a section header.
const SECTION: u64 = 64;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
pub(crate) const PT_LOAD: u32 = 1;
pub(crate) const PT_NOTE: u32 = 4;
/// A number of program headers that does not fit is in the first section header (`sh_info`).
const PN_XNUM: u16 = 0xffff;

/// A mapping of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load {
    /// Addresses; never empty.
    pub(crate) range: Range<u64>,
    /// PF_X 1, PF_W 2, PF_R 4.
    pub(crate) flags: u32,
    /// Where its bytes begin in the file,
    pub(crate) offset: u64,
    /// and how many of them are there. What lies behind was left out by the kernel.
    pub(crate) held: u64,
}

/// What the program headers say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Segments {
    /// Ascending, disjoint.
    pub(crate) loads: Vec<Load>,
    /// Where notes are, as offsets in the file.
    pub(crate) notes: Vec<Range<u64>>,
}

/// Reads the headers. What contradicts itself is left out, cut, and named in `notes`.
///
/// # Errors
/// [`Error::Malformed`] if it is no core file of a 64-bit x86 process, or its table lies outside it.
pub(crate) fn read(file: &Source, notes: &mut Vec<String>) -> Result<Segments> {
    let header = file.exactly(0, HEADER).ok_or_else(|| malformed("it is shorter than an ELF header"))?;
    let half =
        |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_le_bytes(*b));
    if header.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(malformed("it is no 64-bit little-endian ELF file"));
    }
    if half(16) != ET_CORE {
        return Err(malformed(format!(
            "its type (e_type) is {}, not {ET_CORE}: it is no core file",
            half(16)
        )));
    }
    if half(18) != EM_X86_64 {
        return Err(malformed(format!("its machine (e_machine) is {}, only x86_64 can be read", half(18))));
    }
    let (at, entry, mut count) = (word(&header, 32), half(54), u64::from(half(56)));
    if u64::from(entry) != ENTRY {
        return Err(malformed(format!(
            "its program headers (e_phentsize) have {entry} bytes instead of {ENTRY}"
        )));
    }
    if count == u64::from(PN_XNUM) {
        let section = file.exactly(word(&header, 40), SECTION);
        let section =
            section.ok_or_else(|| malformed("the section header with its count lies outside it"))?;
        count = u64::from(narrow(&section, 44));
    }
    if count > MOST {
        notes.push(format!("only the first {MOST} of {count} segments were looked at"));
        count = MOST;
    }
    let table = file.upto(at, count * ENTRY);
    let mut found = Segments::default();
    let mut odd = 0;
    for entry in table.chunks_exact(ENTRY as usize) {
        let (kind, flags) = (narrow(entry, 0), narrow(entry, 4));
        let (offset, address, held, length) =
            (word(entry, 8), word(entry, 16), word(entry, 32), word(entry, 40));
        match kind {
            PT_LOAD if length == 0 => {}
            PT_LOAD => match address.checked_add(length) {
                Some(end) => {
                    found.loads.push(Load { range: address..end, flags, offset, held: held.min(length) })
                }
                None => odd += 1,
            },
            PT_NOTE => match offset.checked_add(held) {
                Some(end) => found.notes.push(offset..end),
                None => odd += 1,
            },
            _ => {}
        }
    }
    let read = table.len() as u64 / ENTRY;
    if read < count {
        if read == 0 {
            return Err(malformed(format!("its program headers at {at:#x} lie outside it")));
        }
        notes.push(format!("the core file ends inside its table: {read} of {count} segments"));
    }
    if odd > 0 {
        notes.push(format!("{odd} segments of the core file wrap around"));
    }
    finish(&mut found, file.len(), notes);
    Ok(found)
}

/// Sorts what is mapped, makes it disjoint, and clips it to the file's end.
fn finish(found: &mut Segments, length: u64, notes: &mut Vec<String>) {
    found.loads.sort_by_key(|load| load.range.start);
    let (mut overlapping, mut cut, mut end) = (0, 0, 0);
    found.loads.retain_mut(|load| {
        if load.range.start < end {
            overlapping += 1;
            return false;
        }
        end = load.range.end;
        let there = length.saturating_sub(load.offset);
        if load.held > there {
            load.held = there;
            cut += 1;
        }
        true
    });
    if overlapping > 0 {
        notes.push(format!("{overlapping} segments of the core file overlap earlier ones"));
    }
    if cut > 0 {
        notes.push(format!("the core file is cut short: {cut} segments reach past its end at {length:#x}"));
    }
}

pub(crate) fn malformed(reason: impl Into<String>) -> Error {
    Error::malformed("core file", reason)
}

/// Eight bytes at `at`; zero if there are none.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Four bytes at `at`; zero if there are none.
pub(crate) fn narrow(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
