//! Rust's allocator without memory: from the runtime's symbols on the stack, and from what an application's
//! [`WatchedAllocator`](crate::WatchedAllocator) noted.
#![forbid(unsafe_code)]

use std::io::BufReader;
use std::path::Path;

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader, Sym};
use serde::{Deserialize, Serialize};

use crate::report::{Frame, StackTrace};
use crate::target::{Target, noted_id, open_regular};

/// The most symbols that are looked at: a large program with all its symbols has some hundred thousand.
const MOST_SYMBOLS: usize = 1 << 21;
/// What the runtime calls when memory was refused, in either mangling: `std::alloc::rust_oom`,
/// `alloc::alloc::handle_alloc_error`, and the shim between them.
const NAMES: [&str; 4] =
    ["8rust_oom", "18handle_alloc_error", "rust_alloc_error_handler", "rdl_alloc_error_handler"];

/// Bytes that the crashing thread asked for in vain, if nothing was given to it since.
pub(super) fn refused(target: &Target, note: Option<u64>) -> Option<u64> {
    let note = note.filter(|&at| at != 0)?;
    let thread = target.memory().read_u64(note)?;
    let bytes = target.memory().read_u64(note.checked_add(8)?)?;
    (thread != 0 && super::own_id(target) == Some(thread)).then_some(bytes)
}

/// The program's file, whose symbol table has more than what it exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    path: String,
    build_id: Vec<u8>,
    base: u64,
}

impl Program {
    pub(super) fn of(target: &Target) -> Option<Self> {
        let module = target.modules.first().filter(|module| !module.build_id.is_empty())?;
        Some(Self { path: module.path.clone(), build_id: module.build_id.clone(), base: module.range.start })
    }

    /// Whether one of `frames` lies in what the runtime calls when memory was refused. A stripped program does not tell.
    pub(super) fn allocation_failed(&self, trace: &StackTrace, frames: &[Frame]) -> bool {
        let own = |frame: &&Frame| {
            frame.module.and_then(|index| trace.modules.get(index)).is_some_and(|m| m.base == self.base)
        };
        let offsets: Vec<u64> = frames.iter().filter(own).map(|frame| frame.offset).collect();
        !offsets.is_empty() && self.holds(&offsets).unwrap_or(false)
    }

    /// Whether an offset from the program's base lies in one of [`NAMES`].
    fn holds(&self, offsets: &[u64]) -> Option<bool> {
        let file = open_regular(Path::new(&self.path))?;
        let cache = ReadCache::new(BufReader::new(&file));
        let (data, endian) = (&cache, LittleEndian);
        let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
        if noted_id(header, data) != Some(&self.build_id) {
            return None;
        }
        let segments = header.program_headers(endian, data).ok()?;
        let loads = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
        let first = loads.map(|segment| segment.p_vaddr(endian)).min()? & !0xfff;
        let sections = header.sections(endian, data).ok()?;
        let symbols = sections.symbols(endian, data, elf::SHT_SYMTAB).ok()?;
        Some(symbols.iter().take(MOST_SYMBOLS).any(|symbol| {
            let start = symbol.st_value(endian).wrapping_sub(first);
            let end = start.saturating_add(symbol.st_size(endian));
            // The name last: reading it is a look into another part of the file.
            offsets.iter().any(|offset| (start..end).contains(offset))
                && symbol.name(endian, symbols.strings()).is_ok_and(|name| {
                    let name = String::from_utf8_lossy(name);
                    NAMES.iter().any(|known| name.contains(known))
                })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_runtimes_own_symbols() {
        let path = std::env::current_exe().unwrap();
        let file = std::fs::read(&path).unwrap();
        let header = FileHeader64::<LittleEndian>::parse(&*file).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let own = maps.lines().find(|line| line.ends_with(path.to_str().unwrap())).unwrap();
        let program = Program {
            path: path.to_str().unwrap().to_owned(),
            build_id: noted_id(header, &*file).unwrap().to_vec(),
            base: u64::from_str_radix(own.split_once('-').unwrap().0, 16).unwrap(),
        };
        let at = |function: *const ()| function.addr() as u64 - program.base;
        let refused = at(std::alloc::handle_alloc_error as fn(std::alloc::Layout) -> ! as *const ());
        let other = at(refused_is_not_here as fn() as *const ());
        assert_eq!(program.holds(&[other, refused + 1]), Some(true));
        assert_eq!(program.holds(&[other]), Some(false));
        let stranger = Program { build_id: vec![1], ..program };
        assert_eq!(stranger.holds(&[refused]), None);
    }

    fn refused_is_not_here() {}
}
