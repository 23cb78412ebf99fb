//! The file of a binary that is mapped: opening it, and whether it is the one.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use object::elf::{self, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian, ReadRef};

/// The most bytes of a note segment that are looked at; they are some dozens.
const MOST_NOTES: u64 = 1 << 16;
/// The most sections, and the longest name of one.
const MOST_SECTIONS: u16 = 1 << 12;
const LONGEST_NAME: usize = 256;
/// The most program headers; a dozen is usual.
const MOST_SEGMENTS: u16 = 1 << 10;

/// Opens a regular file for reading. Opening a device or a pipe may block or have effects, so the look comes first and
/// again after.
pub fn open_regular(path: &Path) -> Option<File> {
    if !path.is_absolute() || !path.metadata().ok()?.is_file() {
        return None;
    }
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// NT_GNU_BUILD_ID of a binary, by its program headers. `None` if it has none or is no 64-bit little-endian ELF file.
pub fn noted_id<'data, R: ReadRef<'data>>(
    header: &FileHeader64<LittleEndian>,
    data: R,
) -> Option<&'data [u8]> {
    let endian = LittleEndian;
    let segments = header.program_headers(endian, data).ok()?;
    for segment in segments.iter().filter(|segment| segment.p_filesz(endian) <= MOST_NOTES) {
        let Ok(Some(mut notes)) = segment.notes(endian, data) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                return Some(note.desc());
            }
        }
    }
    None
}

/// What of a binary's file is mapped with which permissions: offsets, and PF_X 1, PF_W 2, PF_R 4.
pub(super) type Permissions = Vec<(Range<u64>, u32)>;

/// Opens the file at `path` if it is the binary with `build_id`, with the permissions of its parts.
pub(super) fn open(path: &str, build_id: &[u8]) -> Option<(File, Permissions)> {
    let file = open_regular(path.as_ref())?;
    // A cache of blocks that were asked for, not of the file.
    let cache = ReadCache::new(BufReader::new(&file));
    let data = &cache;
    let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
    if header.e_phnum.get(LittleEndian) > MOST_SEGMENTS || noted_id(header, data) != Some(build_id) {
        return None;
    }
    let segments = header.program_headers(LittleEndian, data).ok()?;
    let loads = segments.iter().filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD);
    let permissions = loads.filter_map(|load| {
        let (start, length) = load.file_range(LittleEndian);
        // Whole pages are mapped.
        let (start, end) = (start & !0xfff, start.checked_add(length)?.checked_next_multiple_of(4096)?);
        Some((start..end, load.p_flags(LittleEndian).0))
    });
    let permissions = permissions.collect();
    drop(cache);
    Some((file, permissions))
}

/// A section of a binary, as the binary has it: name, address, length.
pub(super) type OwnSection = (String, u64, u64);

/// The sections that are loaded, by the file at `path`, if it is the binary with `build_id`.
pub(super) fn sections(path: &str, build_id: &[u8]) -> Option<Vec<OwnSection>> {
    let file = open_regular(path.as_ref())?;
    let cache = ReadCache::new(BufReader::new(&file));
    let data = &cache;
    let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
    let endian = LittleEndian;
    if header.e_shnum.get(endian) > MOST_SECTIONS || noted_id(header, data) != Some(build_id) {
        return None;
    }
    let table = header.sections(endian, data).ok()?;
    let loaded =
        table.iter().filter(|section| section.sh_flags(endian) & elf::SHF_ALLOC != elf::SectionFlags(0));
    let section = |section: &elf::SectionHeader64<LittleEndian>| {
        let name = table.section_name(endian, section).unwrap_or_default();
        let name = name.get(..LONGEST_NAME).unwrap_or(name);
        (String::from_utf8_lossy(name).into_owned(), section.sh_addr(endian), section.sh_size(endian))
    };
    Some(loaded.map(section).collect())
}
