//! What a module's own memory tells: its build id and its name.
//!
//! Everything comes from a process that may have overwritten it, so nothing is followed outside the module.
#![forbid(unsafe_code)]

use std::ops::Range;

use object::LittleEndian;
use object::elf::{self, Dyn64, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};

/// The bytes of a module's beginning that are looked at: header, program headers and usually the notes.
pub(super) const HEAD: u64 = 4096;
/// The most bytes of one note segment.
const MOST_NOTES: u64 = 1 << 12;
/// The most note segments.
const MOST_SEGMENTS: usize = 8;
/// The most bytes of a dynamic section; they are some hundreds.
const MOST_DYNAMIC: u64 = 1 << 12;
/// The longest name of a library that is believed.
pub(super) const LONGEST_NAME: u64 = 256;

// Tags of a dynamic section (elf(5), `<elf.h>`).
pub(super) const DT_HASH: u64 = 4;
pub(super) const DT_STRTAB: u64 = 5;
pub(super) const DT_SYMTAB: u64 = 6;
pub(super) const DT_STRSZ: u64 = 10;
const DT_SONAME: u64 = 14;
pub(super) const DT_DEBUG: u64 = 21;
pub(super) const DT_GNU_HASH: u64 = 0x6fff_fef5;
pub(super) const DT_VERSYM: u64 = 0x6fff_fff0;

/// Where more is to be found, as addresses in the process that lie in the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// Note segments with their alignment.
    pub(super) notes: Vec<(Range<u64>, u32)>,
    /// The dynamic section.
    pub(super) dynamic: Option<Range<u64>>,
    /// The index of its unwind table (PT_GNU_EH_FRAME, `.eh_frame_hdr`), and where the segment ends that this lies in:
    /// linkers put the table itself (`.eh_frame`) behind.
    pub(super) unwind: Option<(Range<u64>, u64)>,
    /// What is added to the binary's own addresses. It wraps around where those are higher than the process's.
    pub(super) bias: u64,
    /// Where the binary says that it ends, zero-initialized data included. The file's mappings end before.
    pub(super) end: u64,
}

impl Head {
    /// With `by` added to all addresses.
    pub(super) fn moved(self, by: u64) -> Self {
        let address = |address: u64| address.wrapping_add(by);
        let range = |range: Range<u64>| address(range.start)..address(range.end);
        Self {
            notes: self.notes.into_iter().map(|(note, align)| (range(note), align)).collect(),
            dynamic: self.dynamic.map(range),
            unwind: self.unwind.map(|(index, end)| (range(index), address(end))),
            bias: address(self.bias),
            end: address(self.end),
        }
    }
}

/// Reads the beginning of the module at `addresses`. `None` if that is no 64-bit little-endian ELF binary.
pub(super) fn head(page: &[u8], addresses: &Range<u64>) -> Option<Head> {
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(page).ok()?;
    let Ok(segments) = header.program_headers(endian, page) else { return Some(Head::default()) };
    let loads = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
    let first = loads.clone().map(|segment| segment.p_vaddr(endian)).min().unwrap_or(0) & !0xfff;
    let bias = addresses.start.wrapping_sub(first);
    let place = |segment: &elf::ProgramHeader64<LittleEndian>, most: u64| {
        let start = segment.p_vaddr(endian).checked_sub(first)?.checked_add(addresses.start)?;
        let end = start.checked_add(segment.p_memsz(endian).min(most))?.min(addresses.end);
        (start < end).then_some(start..end)
    };
    let span = |segment: &elf::ProgramHeader64<LittleEndian>| {
        let start = bias.wrapping_add(segment.p_vaddr(endian));
        start..start.saturating_add(segment.p_memsz(endian))
    };
    let ends = loads.clone().map(|segment| span(segment).end);
    let index = segments.iter().find(|segment| segment.p_type(endian) == elf::PT_GNU_EH_FRAME);
    let unwind = index.and_then(|index| {
        let index = place(index, u64::MAX)?;
        let segment = loads.map(span).find(|load| load.contains(&index.start))?;
        Some((index, segment.end.min(addresses.end)))
    });
    let notes = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_NOTE).take(MOST_SEGMENTS);
    let mut dynamics = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_DYNAMIC);
    let align = |segment: &elf::ProgramHeader64<LittleEndian>| segment.p_align(endian) as u32;
    Some(Head {
        notes: notes.filter_map(|note| Some((place(note, MOST_NOTES)?, align(note)))).collect(),
        dynamic: dynamics.next().and_then(|dynamic| place(dynamic, MOST_DYNAMIC)),
        unwind,
        bias,
        end: ends.max().unwrap_or(0).max(addresses.end),
    })
}

/// NT_GNU_BUILD_ID among `notes`. Empty and all-zero ones do not count.
pub(super) fn build_id(notes: &[u8], align: u32) -> Option<Vec<u8>> {
    let endian = LittleEndian;
    let mut notes = NoteIterator::<FileHeader64<LittleEndian>>::new(endian, align.into(), notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
            return Some(note.desc().to_vec()).filter(|id| id.iter().any(|&byte| byte != 0));
        }
    }
    None
}

/// Tags and values of a dynamic section up to its end (DT_NULL).
pub(super) fn entries(dynamic: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let entries = dynamic.chunks_exact(size_of::<Dyn64<LittleEndian>>());
    let entries = entries.map(|entry| {
        let number = |at: usize| entry[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        (number(0), number(8))
    });
    entries.take_while(|(tag, _)| *tag != 0)
}

/// Where the module at `addresses` keeps its own name (DT_SONAME), if it has one.
pub(super) fn name(dynamic: &[u8], addresses: &Range<u64>) -> Option<Range<u64>> {
    let (mut table, mut length, mut offset) = (None, None, None);
    for (tag, value) in entries(dynamic) {
        match tag {
            DT_STRTAB => table = Some(value),
            DT_STRSZ => length = Some(value),
            DT_SONAME => offset = Some(value),
            _ => {}
        }
    }
    let (table, length, offset) = (table?, length?, offset?);
    // The dynamic linker makes the address absolute; nobody does that for the vdso.
    let table = if table < addresses.start { table.checked_add(addresses.start)? } else { table };
    let start = table.checked_add(offset).filter(|start| offset < length && addresses.contains(start))?;
    let end = start.checked_add((length - offset).min(LONGEST_NAME))?.min(addresses.end);
    Some(start..end)
}

/// The text up to the first zero byte.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0).filter(|&end| end > 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_binary() {
        // The file as it would lie in memory: for what is in the first segment that is the same.
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let addresses = 0x5555_0000_0000..0x5555_0000_0000 + file.len() as u64;
        let head = head(&file[..HEAD as usize], &addresses).unwrap();
        assert!(head.dynamic.is_some() && !head.notes.is_empty());
        let id = head.notes.iter().find_map(|(range, align)| {
            let at = |address: u64| (address - addresses.start) as usize;
            build_id(&file[at(range.start)..at(range.end)], *align)
        });
        let note =
            memchr::memmem::find(&file, b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0").expect("a SHA-1 build id");
        assert_eq!(id.as_deref(), Some(&file[note + 16..note + 36]));
        for (i, byte) in file[..256].iter().enumerate() {
            let mut damaged = file[..HEAD as usize].to_vec();
            damaged[i] = !byte;
            if let Some(head) = super::head(&damaged, &addresses) {
                let inside =
                    |range: &Range<u64>| addresses.start <= range.start && range.end <= addresses.end;
                assert!(head.notes.iter().all(|(range, _)| inside(range)) && head.dynamic.iter().all(inside));
            }
            super::head(&file[..i], &addresses);
        }
    }

    #[test]
    fn names() {
        let module = 0x1000..0x9000;
        let section = |entries: &[(u64, u64)]| -> Vec<u8> {
            entries
                .iter()
                .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()])
                .flatten()
                .collect()
        };
        let cases = [
            (&[(5, 0x2000), (10, 0x100), (14, 0x10), (0, 0)][..], Some(0x2010..0x2100)),
            (&[(14, 0x10), (10, 0x100), (5, 0x200)], Some(0x1210..0x1300)),
            (&[(14, 0x10), (10, 0x1000), (5, 0x2000)], Some(0x2010..0x2110)),
            (&[(0, 0), (5, 0x2000), (10, 0x100), (14, 0x10)], None),
            (&[(5, 0x2000), (10, 0x10), (14, 0x10)], None),
            (&[(5, 0x9000), (10, 0x10), (14, 0)], None),
            (&[(5, u64::MAX), (10, u64::MAX), (14, 9)], None),
            (&[(5, 0x8ff8), (10, 0x100), (14, 0)], Some(0x8ff8..0x9000)),
        ];
        for (entries, expected) in cases {
            assert_eq!(name(&section(entries), &module), expected, "{entries:x?}");
        }
        assert_eq!(name(&[1; 15], &module), None);
        assert_eq!(text(b"libx.so.1\0rest").as_deref(), Some("libx.so.1"));
        assert_eq!(text(b"\0"), None);
        assert_eq!(text(b"endless"), None);
    }

    #[test]
    fn notes() {
        let note = |kind: u8, id: &[u8]| {
            [&[4, 0, 0, 0, id.len() as u8, 0, 0, 0, kind, 0, 0, 0][..], b"GNU\0", id].concat()
        };
        let both = [note(5, &[9; 8]), note(3, &[1, 2, 3, 4])].concat();
        assert_eq!(build_id(&both, 4), Some(vec![1, 2, 3, 4]));
        assert_eq!(build_id(&note(3, &[0; 20]), 4), None);
        assert_eq!(build_id(&note(3, &[]), 4), None);
        assert_eq!(build_id(&both[..both.len() - 2], 4), None);
        assert_eq!(build_id(&[0xff; 64], 3), None);
    }
}
