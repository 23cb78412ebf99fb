//! Where everything lies in a minidump: the parsed dump as ranges of its bytes.
//!
//! Shape and constants: Microsoft's minidumpapiset.h as extended by Breakpad
//! (`minidump_format.h`), the types of `minidump-common`. A [`Layout`] borrows nothing, so the bytes can
//! be edited in place while it is held.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::error::Result;

/// A parsed minidump, as ranges of its bytes. Every range lies inside the file.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// `MDRawSystemInfo::processor_architecture` (9 = amd64, 12 = arm64, 0x8003 = Breakpad's arm64).
    pub processor: u16,
    /// The stream directory, in file order; unused entries included.
    pub streams: Vec<Stream>,
    /// `ThreadListStream`.
    pub threads: Vec<ThreadEntry>,
    /// Stacks of `ThreadListStream`, `MemoryListStream` and `Memory64ListStream`, without duplicates,
    /// by file offset.
    pub memory: Vec<MemoryEntry>,
    /// `ModuleListStream`, in file order.
    pub modules: Vec<ModuleEntry>,
    /// `ExceptionStream`.
    pub exception: Option<ExceptionEntry>,
    /// `ThreadNamesStream`: thread id and the UTF-16LE text.
    pub thread_names: Vec<(u32, Range<usize>)>,
    /// Other UTF-16LE strings that known streams refer to (OS version, handle names): stream kind and text.
    pub strings: Vec<(u32, Range<usize>)>,
    /// `MemoryInfoListStream`: address ranges and `MemoryProtection` bits (winnt.h PAGE_*); empty if absent.
    pub mapped: Vec<(Range<u64>, u32)>,
    /// Everything that no parsed structure claims: gaps between streams, by file offset.
    pub gaps: Vec<Range<usize>>,
}

/// A stream directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// `MINIDUMP_STREAM_TYPE`.
    pub kind: u32,
    /// The 12 bytes of the directory entry.
    pub entry: Range<usize>,
    /// The stream's own bytes (for list streams the header and the entries, not what they point to).
    pub bytes: Range<usize>,
}

/// An entry of the thread list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadEntry {
    /// Thread id.
    pub id: u32,
    /// The CPU context.
    pub context: Range<usize>,
    /// Start address and bytes of the stack; empty if none was kept.
    pub stack: MemoryEntry,
}

/// A piece of the process's memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryEntry {
    /// Address in the process.
    pub address: u64,
    /// Where its bytes lie in the file.
    pub bytes: Range<usize>,
}

/// An entry of the module list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleEntry {
    /// `base_of_image`.
    pub base: u64,
    /// `size_of_image`.
    pub size: u64,
    /// The name's UTF-16LE text, without length prefix and terminator.
    pub name: Range<usize>,
    /// The whole CodeView record (empty if none).
    pub codeview: Range<usize>,
    /// The part of the CodeView record that is a file name (PDB70/PDB20), empty for ELF.
    pub debug_file: Range<usize>,
    /// The part of the CodeView record that is the ELF build id (empty if none).
    pub build_id: Range<usize>,
}

/// The exception stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionEntry {
    /// The crashing thread.
    pub thread_id: u32,
    /// `exception_code`: on Linux the signal, or 0xffffffff for a requested dump.
    pub code: u32,
    /// `exception_flags`: on Linux `si_code`.
    pub flags: u32,
    /// `exception_address`.
    pub address: u64,
    /// `exception_information`, 15 words of 8 bytes.
    pub parameters: Range<usize>,
    /// The CPU context.
    pub context: Range<usize>,
}

impl Layout {
    /// Reads a minidump's structure.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) for anything that a reader could trip over: a range outside
    /// the file, a count that does not fit, two known streams of one kind, structures that overlap.
    pub fn parse(_bytes: &[u8]) -> Result<Self> {
        todo!()
    }
}
