//! Where everything lies in a minidump: the parsed dump as ranges of its bytes.
//!
//! Shape and constants: Microsoft's minidumpapiset.h as extended by Breakpad
//! (`minidump_format.h`), the types of `minidump-common`. A [`Layout`] borrows nothing, so the bytes can
//! be edited in place while it is held.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::parse;
use crate::error::Result;

/// Stream kinds (`MINIDUMP_STREAM_TYPE`) that [`Layout::parse`] knows: Microsoft's, Breakpad's ("Gg") and Mozilla's ("Mz").
/// All others are opaque bytes.
pub mod kind {
    /// A directory entry that names nothing.
    pub const UNUSED: u32 = 0;
    /// `ThreadListStream`.
    pub const THREAD_LIST: u32 = 3;
    /// `ModuleListStream`.
    pub const MODULE_LIST: u32 = 4;
    /// `MemoryListStream`.
    pub const MEMORY_LIST: u32 = 5;
    /// `ExceptionStream`.
    pub const EXCEPTION: u32 = 6;
    /// `SystemInfoStream`.
    pub const SYSTEM_INFO: u32 = 7;
    /// `Memory64ListStream`.
    pub const MEMORY64_LIST: u32 = 9;
    /// `HandleDataStream`; on Linux the open descriptors' paths.
    pub const HANDLE_DATA: u32 = 12;
    /// `UnloadedModuleListStream`.
    pub const UNLOADED_MODULE_LIST: u32 = 14;
    /// `MiscInfoStream`.
    pub const MISC_INFO: u32 = 15;
    /// `MemoryInfoListStream`.
    pub const MEMORY_INFO_LIST: u32 = 16;
    /// `ThreadNamesStream`.
    pub const THREAD_NAMES: u32 = 24;
    /// `/proc/cpuinfo`.
    pub const LINUX_CPU_INFO: u32 = 0x4767_0003;
    /// `/proc/PID/status`.
    pub const LINUX_PROC_STATUS: u32 = 0x4767_0004;
    /// `/etc/lsb-release` or `/etc/os-release`.
    pub const LINUX_LSB_RELEASE: u32 = 0x4767_0005;
    /// `/proc/PID/cmdline`.
    pub const LINUX_CMD_LINE: u32 = 0x4767_0006;
    /// `/proc/PID/environ`.
    pub const LINUX_ENVIRON: u32 = 0x4767_0007;
    /// `/proc/PID/auxv`.
    pub const LINUX_AUXV: u32 = 0x4767_0008;
    /// `/proc/PID/maps`.
    pub const LINUX_MAPS: u32 = 0x4767_0009;
    /// The dynamic linker's list: a structure, its link maps and their names.
    pub const LINUX_DSO_DEBUG: u32 = 0x4767_000a;
    /// `/proc/PID/limits`.
    pub const MOZ_LINUX_LIMITS: u32 = 0x4d7a_0003;
    /// What the writer could not read, as JSON.
    pub const MOZ_SOFT_ERRORS: u32 = 0x4d7a_0004;

    /// Crashpad's annotations.
    pub const CRASHPAD_INFO: u32 = 0x4350_0001;

    /// Every constant above but [`UNUSED`], ascending.
    pub const KNOWN: [u32; 22] = [
        THREAD_LIST,
        MODULE_LIST,
        MEMORY_LIST,
        EXCEPTION,
        SYSTEM_INFO,
        MEMORY64_LIST,
        HANDLE_DATA,
        UNLOADED_MODULE_LIST,
        MISC_INFO,
        MEMORY_INFO_LIST,
        THREAD_NAMES,
        CRASHPAD_INFO,
        LINUX_CPU_INFO,
        LINUX_PROC_STATUS,
        LINUX_LSB_RELEASE,
        LINUX_CMD_LINE,
        LINUX_ENVIRON,
        LINUX_AUXV,
        LINUX_MAPS,
        LINUX_DSO_DEBUG,
        MOZ_LINUX_LIMITS,
        MOZ_SOFT_ERRORS,
    ];
}

/// A parsed minidump, as ranges of its bytes. Every range lies inside the file.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// `MDRawSystemInfo::processor_architecture` (9 = amd64, 12 = arm64, 0x8003 = Breakpad's arm64).
    pub processor: u16,
    /// The stream directory, in file order; unused entries included.
    pub streams: Vec<Stream>,
    /// `ThreadListStream`.
    pub threads: Vec<ThreadEntry>,
    /// Stacks of `ThreadListStream`, `MemoryListStream` and `Memory64ListStream`, without duplicates and without
    /// empty ones, by file offset. Addresses may overlap; file ranges do not.
    pub memory: Vec<MemoryEntry>,
    /// `ModuleListStream`, in file order.
    pub modules: Vec<ModuleEntry>,
    /// `ExceptionStream`.
    pub exception: Option<ExceptionEntry>,
    /// `ThreadNamesStream`: thread id and the UTF-16LE text.
    pub thread_names: Vec<(u32, Range<usize>)>,
    /// Other UTF-16LE strings that known streams refer to (OS version, handle names): stream kind and text.
    pub strings: Vec<(u32, Range<usize>)>,
    /// Names and values of Crashpad's annotations, UTF-8.
    pub annotations: Vec<Range<usize>>,
    /// The client id of Crashpad's stream, which names a device.
    pub client_id: Option<Range<usize>>,
    /// `MemoryInfoListStream`: address ranges and `MemoryProtection` bits (winnt.h PAGE_*); empty if absent.
    pub mapped: Vec<(Range<u64>, u32)>,
    /// Everything that no parsed structure claims: gaps between streams, string terminators, records that this
    /// parser does not follow (`misc_record` of modules, object information of handles), by file offset. Zeroing
    /// them all leaves a readable dump.
    pub gaps: Vec<Range<usize>>,
}

/// A stream directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// `MINIDUMP_STREAM_TYPE`.
    pub kind: u32,
    /// The 12 bytes of the directory entry.
    pub entry: Range<usize>,
    /// The stream's own bytes (for list streams the header and the entries, not what they point to). Empty for
    /// [`kind::UNUSED`]: bytes that such an entry names are a gap.
    pub bytes: Range<usize>,
}

/// An entry of the thread list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadEntry {
    /// Thread id.
    pub id: u32,
    /// The CPU context (empty if none).
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

impl MemoryEntry {
    /// The addresses; they do not wrap around.
    pub fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.bytes.len() as u64)
    }
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
    /// Reads a minidump's structure, in time and space of order n log n.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) for anything that a reader could trip over: a range outside
    /// the file, a count that does not fit, two known streams of one kind, structures that overlap. The very same
    /// range may be named twice for memory (a stack is in two lists), contexts, strings and CodeView records.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse::layout(bytes)
    }

    /// The stream of `kind`, if there is one with bytes. With several (only of kinds not in [`kind::KNOWN`]) the first.
    pub fn stream(&self, kind: u32) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.kind == kind && !stream.bytes.is_empty())
    }
}

impl ModuleEntry {
    /// The addresses; they do not wrap around.
    pub fn addresses(&self) -> Range<u64> {
        self.base..self.base.saturating_add(self.size)
    }
}

/// The bytes of `dump` in `range`; none if it does not have them, as when the range is from another dump's layout.
pub(crate) fn slice<'a>(dump: &'a [u8], range: &Range<usize>) -> &'a [u8] {
    dump.get(range.clone()).unwrap_or_default()
}

/// UTF-16LE text of a dump; what is no character becomes U+FFFD.
pub fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Disjoint address ranges with a value each, for questions in logarithmic time. Where given ranges overlap, the
/// one that starts first has the shared part.
#[derive(Debug, Clone)]
pub struct Index<T>(Vec<(Range<u64>, T)>);

impl<T: Copy> Index<T> {
    /// From ranges in any order.
    pub fn new(ranges: impl IntoIterator<Item = (Range<u64>, T)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(range, _)| !range.is_empty()).collect();
        ranges.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        let mut end = 0;
        ranges.retain_mut(|(range, _)| {
            range.start = range.start.max(end);
            end = end.max(range.end);
            !range.is_empty()
        });
        Self(ranges)
    }

    /// The range that holds `address`, with its value.
    pub fn find(&self, address: u64) -> Option<(Range<u64>, T)> {
        let after = self.0.partition_point(|(range, _)| range.start <= address);
        let (range, value) = self.0.get(after.checked_sub(1)?)?;
        range.contains(&address).then(|| (range.clone(), *value))
    }

    /// Whether some range holds `address`.
    pub fn contains(&self, address: u64) -> bool {
        self.find(address).is_some()
    }

    /// The ranges in address order.
    pub fn iter(&self) -> impl Iterator<Item = &(Range<u64>, T)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_disjoint_and_the_earlier_range_wins() {
        let index = Index::new([(10..20, 'b'), (5..12, 'a'), (6..8, 'x'), (30..30, 'y'), (18..40, 'c')]);
        let ranges: Vec<_> = index.iter().cloned().collect();
        assert_eq!(ranges, [(5..12, 'a'), (12..20, 'b'), (20..40, 'c')]);
        let found = |address| index.find(address).map(|(_, value)| value);
        assert_eq!(
            [4, 5, 11, 12, 39, 40].map(found),
            [None, Some('a'), Some('a'), Some('b'), Some('c'), None]
        );
        assert_eq!(Index::<u8>::new([]).find(0), None);
    }

    #[test]
    fn broken_text_is_still_text() {
        assert_eq!(utf16(&[b'a', 0, 0x00, 0xd8, b'b', 0, 9]), "a\u{fffd}b");
    }
}
