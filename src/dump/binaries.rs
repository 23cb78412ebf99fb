//! Unwind sections of the binaries that a process had mapped.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use object::elf::{self, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian, ReadRef};

use super::layout::ModuleEntry;
use crate::target::{UnwindTables, noted_id, open_regular};

/// The most bytes taken of one section. Firefox's libxul, among the largest, has 14 MB of `.eh_frame`.
pub const MAX_SECTION: u64 = 128 << 20;

/// Where unwind sections come from: the mapped files, in the worker; memory, in tests.
pub trait Binaries {
    /// The sections of `module`, whose name in the dump is `path`. `None` if they cannot be had or do not belong to the
    /// binary with `build_id`.
    fn sections(&self, path: &str, build_id: &[u8], module: &ModuleEntry) -> Option<Arc<UnwindSections>>;
}

/// What an unwinder needs of an ELF binary. Addresses are the binary's own, before relocation.
#[derive(Debug, Clone, Default)]
pub struct UnwindSections {
    /// Address of the first loadable segment, rounded down to its page: what the module's base stands for.
    pub base: u64,
    /// `.text`.
    pub text: Option<Range<u64>>,
    /// `.got`.
    pub got: Option<Range<u64>>,
    /// `.eh_frame`.
    pub eh_frame: Option<Section>,
    /// `.eh_frame_hdr`.
    pub eh_frame_hdr: Option<Section>,
    /// `.debug_frame`.
    pub debug_frame: Option<Section>,
}

/// A section's address and contents, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Where it lies in the binary's address space.
    pub addresses: Range<u64>,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

impl Deref for Section {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads sections from the files that modules name, and keeps them. Not for sharing among threads.
///
/// Only regular files are opened, and only those whose build id is the dump's are used, so a library that was
/// replaced on disk while it was loaded counts as missing. Deleted files and the vdso are missing, too: for those
/// [`MemoryBinaries`] has what was read while they were in memory.
#[derive(Debug, Default)]
pub struct FileBinaries {
    /// By path: the build id asked for, and what came of it.
    cache: RefCell<HashMap<String, Answer>>,
}

type Answer = (Vec<u8>, Option<Arc<UnwindSections>>);

impl FileBinaries {
    /// With nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of sections that are kept.
    pub fn bytes(&self) -> usize {
        let cache = self.cache.borrow();
        let sections = cache.values().filter_map(|(_, sections)| sections.as_ref());
        sections
            .flat_map(|s| [&s.eh_frame, &s.eh_frame_hdr, &s.debug_frame])
            .flatten()
            .map(|section| section.bytes.len())
            .sum()
    }
}

impl Binaries for FileBinaries {
    fn sections(&self, path: &str, build_id: &[u8], _: &ModuleEntry) -> Option<Arc<UnwindSections>> {
        if let Some((known_id, sections)) = self.cache.borrow().get(path)
            && known_id == build_id
        {
            return sections.clone();
        }
        let sections =
            open_regular(Path::new(path)).and_then(|file| read_sections(file, build_id)).map(Arc::new);
        self.cache.borrow_mut().insert(path.to_owned(), (build_id.to_vec(), sections.clone()));
        sections
    }
}

/// The build id of a binary by its file alone; Breakpad's stand-in for one that has none. `None` if it is no regular file
/// or no 64-bit ELF binary.
pub(super) fn file_id(path: &Path) -> Option<Vec<u8>> {
    let cache = ReadCache::new(BufReader::new(open_regular(path)?));
    let data = &cache;
    let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
    let id = noted_id(header, data).map(<[u8]>::to_vec);
    id.or_else(|| text_fold(header, data).map(Vec::from)).filter(|id| id.iter().any(|&byte| byte != 0))
}

/// Tables that were read from the process's memory, and files for all other modules.
pub struct MemoryBinaries<'a> {
    tables: HashMap<u64, Arc<UnwindSections>>,
    others: &'a dyn Binaries,
}

impl<'a> MemoryBinaries<'a> {
    /// With the tables of some modules, which are known by where they begin.
    pub fn new(tables: &[UnwindTables], others: &'a dyn Binaries) -> Self {
        let sections = |tables: &UnwindTables| {
            let section = |(address, bytes): &(u64, Vec<u8>)| {
                let start = address.wrapping_sub(tables.bias);
                let addresses = start..start.checked_add(bytes.len() as u64)?;
                Some(Section { addresses, bytes: bytes.as_slice().into() })
            };
            Some(UnwindSections {
                base: tables.module.wrapping_sub(tables.bias),
                eh_frame: Some(section(&tables.frames)?),
                eh_frame_hdr: section(&tables.index),
                ..UnwindSections::default()
            })
        };
        let tables = tables.iter().filter_map(|table| Some((table.module, Arc::new(sections(table)?))));
        Self { tables: tables.collect(), others }
    }
}

impl Binaries for MemoryBinaries<'_> {
    fn sections(&self, path: &str, build_id: &[u8], module: &ModuleEntry) -> Option<Arc<UnwindSections>> {
        let known = self.tables.get(&module.base).cloned();
        known.or_else(|| self.others.sections(path, build_id, module))
    }
}

fn read_sections(file: File, build_id: &[u8]) -> Option<UnwindSections> {
    // A cache of blocks that were asked for, not of the file: binaries with debug information have gigabytes.
    let cache = ReadCache::new(BufReader::new(file));
    sections_of(&cache, build_id)
}

/// The sections of the 64-bit little-endian ELF file `data`, if it is the one with `build_id`.
pub fn sections_of<'data, R: ReadRef<'data>>(data: R, build_id: &[u8]) -> Option<UnwindSections> {
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
    if build_id.is_empty() || !has_build_id(header, data, build_id) {
        return None;
    }
    let segments = header.program_headers(endian, data).ok()?;
    let base =
        segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).map(|s| s.p_vaddr(endian)).min()?;
    let sections = header.sections(endian, data).ok()?;
    let addresses = |name: &[u8]| {
        let (_, section) = sections.section_by_name(endian, name)?;
        let start = section.sh_addr(endian);
        Some((section, start..start.checked_add(section.sh_size(endian))?))
    };
    let contents = |name: &[u8]| {
        let (section, addresses) = addresses(name)?;
        // Compressed sections (only .debug_frame may be) are not worth a decompressor here.
        let plain = section.sh_flags(endian) & elf::SHF_COMPRESSED == elf::SectionFlags(0);
        if !plain
            || section.sh_type(endian) == elf::SHT_NOBITS
            || addresses.end - addresses.start > MAX_SECTION
        {
            return None;
        }
        Some(Section { addresses, bytes: section.data(endian, data).ok()?.into() })
    };
    let eh_frame = contents(b".eh_frame");
    Some(UnwindSections {
        base: base & !0xfff,
        text: addresses(b".text").map(|(_, range)| range),
        got: addresses(b".got").map(|(_, range)| range),
        debug_frame: if eh_frame.is_some() { None } else { contents(b".debug_frame") },
        eh_frame_hdr: contents(b".eh_frame_hdr"),
        eh_frame,
    })
}

/// NT_GNU_BUILD_ID of any note segment or, for binaries without one, Breakpad's stand-in: the first page of the first
/// executable section, folded to 16 bytes by exclusive or.
fn has_build_id<'data, R: ReadRef<'data>>(
    header: &FileHeader64<LittleEndian>,
    data: R,
    build_id: &[u8],
) -> bool {
    match noted_id(header, data) {
        Some(noted) => noted == build_id,
        None => text_fold(header, data).is_some_and(|fold| fold == build_id),
    }
}

fn text_fold<'data, R: ReadRef<'data>>(header: &FileHeader64<LittleEndian>, data: R) -> Option<[u8; 16]> {
    let endian = LittleEndian;
    let flags = elf::SHF_ALLOC | elf::SHF_EXECINSTR;
    let sections = header.section_headers(endian, data).ok()?;
    let text = sections
        .iter()
        .find(|s| s.sh_type(endian) == elf::SHT_PROGBITS && s.sh_flags(endian) & flags == flags)?;
    let page = data.read_bytes_at(text.sh_offset(endian), text.sh_size(endian).min(4096)).ok()?;
    let mut fold = [0; 16];
    for (i, byte) in page.iter().enumerate() {
        fold[i % 16] ^= byte;
    }
    Some(fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The build id of this test program, found by a search for the note's header instead of by parsing.
    fn own_build_id() -> (String, Vec<u8>) {
        let path = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let note =
            memchr::memmem::find(&bytes, b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0").expect("a SHA-1 build id");
        (path.to_str().unwrap().to_owned(), bytes[note + 16..note + 36].to_vec())
    }

    fn module() -> ModuleEntry {
        ModuleEntry { base: 0, size: 0, name: 0..0, codeview: 0..0, debug_file: 0..0, build_id: 0..0 }
    }

    #[test]
    fn only_the_very_binary_will_do() {
        let (path, id) = own_build_id();
        let binaries = FileBinaries::new();
        let sections = binaries.sections(&path, &id, &module()).expect("own sections");
        assert!(
            sections.eh_frame.as_ref().is_some_and(|s| s.len() > 1000) && sections.eh_frame_hdr.is_some()
        );
        assert!(Arc::ptr_eq(&sections, &binaries.sections(&path, &id, &module()).unwrap()), "read once");
        let mut other = id.clone();
        other[19] ^= 1;
        assert!(binaries.sections(&path, &other, &module()).is_none());
        assert!(binaries.sections(&path, &[], &module()).is_none());
        for odd in ["/dev/zero", "/dev/tty", "/", "linux-gate.so", "", "/nonexistent", "/proc/self/maps"] {
            assert!(binaries.sections(odd, &id, &module()).is_none(), "{odd}");
        }
    }

    #[test]
    fn damaged_binaries_are_refused_or_read_without_panic() {
        let (path, id) = own_build_id();
        let mut head = std::fs::read(path).unwrap();
        head.truncate(64 << 10);
        for length in (0..head.len()).step_by(7) {
            sections_of(&head[..length], &id);
        }
        for at in 0..4096 {
            let kept = head[at];
            head[at] ^= 0xff;
            sections_of(&head[..], &id);
            head[at] = kept;
        }
    }
}
