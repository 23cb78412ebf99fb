//! The minidump parser behind [`Layout::parse`]: every structure read is bounds-checked, claimed, and counted once.
#![forbid(unsafe_code)]

use std::ops::Range;

use minidump_common::format::{
    CvSignature, DSO_DEBUG_32, DSO_DEBUG_64, LINK_MAP_32, LINK_MAP_64, MINIDUMP_CRASHPAD_INFO,
    MINIDUMP_DIRECTORY, MINIDUMP_EXCEPTION_STREAM, MINIDUMP_HANDLE_DATA_STREAM, MINIDUMP_HANDLE_DESCRIPTOR,
    MINIDUMP_HEADER, MINIDUMP_LOCATION_DESCRIPTOR, MINIDUMP_MEMORY_DESCRIPTOR, MINIDUMP_MEMORY_DESCRIPTOR64,
    MINIDUMP_MEMORY_INFO, MINIDUMP_MEMORY_INFO_LIST, MINIDUMP_MODULE, MINIDUMP_SIGNATURE,
    MINIDUMP_SIMPLE_STRING_DICTIONARY_ENTRY, MINIDUMP_SYSTEM_INFO, MINIDUMP_THREAD, MINIDUMP_THREAD_NAME,
    MINIDUMP_UNLOADED_MODULE, MINIDUMP_VERSION,
};
use scroll::ctx::{SizeWith, TryFromCtx};
use scroll::{Endian, LE, Pread};

use super::claims::{Claim, Claims};
use super::layout::{ExceptionEntry, Layout, MemoryEntry, ModuleEntry, Stream, ThreadEntry, kind};
use crate::error::{Error, Result};

/// `MEM_RESERVE` and `MEM_FREE` (winnt.h, as MEMORY_BASIC_INFORMATION has them).
const MEM_RESERVE: u32 = 0x2000;
const MEM_FREE: u32 = 0x1_0000;

/// `PROCESSOR_ARCHITECTURE_UNKNOWN`: of a dump that does not say; 0 is x86.
const UNKNOWN_PROCESSOR: u16 = 0xffff;

/// See [`Layout::parse`].
pub(super) fn layout(bytes: &[u8]) -> Result<Layout> {
    let layout = Layout { processor: UNKNOWN_PROCESSOR, ..Layout::default() };
    let mut parser = Parser { bytes, claims: Claims::default(), layout };
    parser.directory()?;
    let mut seen = Vec::new();
    for stream in parser.layout.streams.clone() {
        if !kind::KNOWN.contains(&stream.kind) {
            continue;
        }
        if seen.contains(&stream.kind) {
            return Err(malformed(format!("two streams of kind {:#x}", stream.kind)));
        }
        seen.push(stream.kind);
        if !stream.bytes.is_empty() {
            parser.stream(stream.kind, stream.bytes)?;
        }
    }
    parser.finish()
}

struct Parser<'a> {
    bytes: &'a [u8],
    claims: Claims,
    layout: Layout,
}

impl<'a> Parser<'a> {
    fn directory(&mut self) -> Result<()> {
        let header: MINIDUMP_HEADER = self.read(0)?;
        if header.signature != MINIDUMP_SIGNATURE || header.version & 0xffff != MINIDUMP_VERSION {
            return Err(malformed("it does not begin with a little-endian minidump's signature and version"));
        }
        self.claims.add(0..size::<MINIDUMP_HEADER>(), Claim::Header);
        let entries =
            self.array::<MINIDUMP_DIRECTORY>(header.stream_directory_rva.into(), header.stream_count.into())?;
        self.claims.add(entries.clone(), Claim::Directory);
        for start in entries.step_by(size::<MINIDUMP_DIRECTORY>()) {
            let entry: MINIDUMP_DIRECTORY = self.read(start)?;
            let bytes = match entry.stream_type {
                kind::UNUSED => 0..0,
                _ => self.claim(&entry.location, Claim::Stream)?,
            };
            // The link maps' size depends on the processor, so it must be known before any stream is read.
            if entry.stream_type == kind::SYSTEM_INFO {
                let info: MINIDUMP_SYSTEM_INFO = self.sole(&bytes)?;
                self.layout.processor = info.processor_architecture;
            }
            let entry_range = start..start + size::<MINIDUMP_DIRECTORY>();
            self.layout.streams.push(Stream { kind: entry.stream_type, entry: entry_range, bytes });
        }
        Ok(())
    }

    fn stream(&mut self, kind: u32, bytes: Range<usize>) -> Result<()> {
        match kind {
            kind::THREAD_LIST => self.threads(&bytes),
            kind::MODULE_LIST => self.modules(&bytes),
            kind::MEMORY_LIST => self.memory(&bytes),
            kind::MEMORY64_LIST => self.memory64(&bytes),
            kind::EXCEPTION => self.exception(&bytes),
            kind::SYSTEM_INFO => {
                let info: MINIDUMP_SYSTEM_INFO = self.sole(&bytes)?;
                self.optional_string(kind, info.csd_version_rva)
            }
            kind::HANDLE_DATA => self.handles(&bytes),
            kind::UNLOADED_MODULE_LIST => self.unloaded_modules(&bytes),
            kind::MEMORY_INFO_LIST => self.memory_info(&bytes),
            kind::THREAD_NAMES => self.thread_names(&bytes),
            kind::LINUX_DSO_DEBUG => self.dso_debug(&bytes),
            kind::CRASHPAD_INFO => self.crashpad_info(&bytes),
            // Text or plain numbers: the stream's bytes are all there is.
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Layout> {
        let memory = &mut self.layout.memory;
        memory.sort_unstable_by_key(|entry| (entry.bytes.start, entry.bytes.end, entry.address));
        memory.dedup();
        if let Some(pair) = memory.windows(2).find(|pair| pair[0].bytes == pair[1].bytes) {
            return Err(malformed(format!("bytes at {:#x} stand for two addresses", pair[0].bytes.start)));
        }
        self.layout.gaps = self.claims.gaps(self.bytes.len())?;
        Ok(self.layout)
    }

    fn threads(&mut self, stream: &Range<usize>) -> Result<()> {
        for start in self.list::<MINIDUMP_THREAD>(stream)? {
            let thread: MINIDUMP_THREAD = self.read(start)?;
            let context = self.claim(&thread.thread_context, Claim::Context)?;
            let stack = self.memory_entry(&thread.stack)?;
            self.layout.threads.push(ThreadEntry { id: thread.thread_id, context, stack });
        }
        Ok(())
    }

    fn modules(&mut self, stream: &Range<usize>) -> Result<()> {
        for start in self.list::<MINIDUMP_MODULE>(stream)? {
            let module: MINIDUMP_MODULE = self.read(start)?;
            let name = self.string(module.module_name_rva.into())?;
            let codeview = self.claim(&module.cv_record, Claim::CodeView)?;
            let (debug_file, build_id) = self.codeview(&codeview);
            self.layout.modules.push(ModuleEntry {
                base: module.base_of_image,
                size: module.size_of_image.into(),
                name,
                codeview,
                debug_file,
                build_id,
            });
        }
        Ok(())
    }

    /// File name and build id of a CodeView record.
    fn codeview(&self, record: &Range<usize>) -> (Range<usize>, Range<usize>) {
        const NONE: Range<usize> = 0..0;
        let rest = |header: usize| (record.start.saturating_add(header).min(record.end))..record.end;
        let file_name = |header: usize| {
            let range = rest(header);
            let length = self.bytes[range.clone()].iter().position(|&b| b == 0).unwrap_or(range.len());
            range.start..range.start + length
        };
        let Ok(signature) = self.bytes[record.clone()].pread_with::<u32>(0, LE) else { return (NONE, NONE) };
        // Header sizes: signature, GUID and age; signature, offset, time stamp and age; signature.
        if signature == CvSignature::Pdb70 as u32 {
            (file_name(24), NONE)
        } else if signature == CvSignature::Pdb20 as u32 {
            (file_name(16), NONE)
        } else if signature == CvSignature::Elf as u32 {
            (NONE, rest(4))
        } else {
            (NONE, NONE)
        }
    }

    fn memory(&mut self, stream: &Range<usize>) -> Result<()> {
        for start in self.list::<MINIDUMP_MEMORY_DESCRIPTOR>(stream)? {
            let descriptor = self.read(start)?;
            self.memory_entry(&descriptor)?;
        }
        Ok(())
    }

    fn memory64(&mut self, stream: &Range<usize>) -> Result<()> {
        // MINIDUMP_MEMORY64_LIST: count, then where the bytes of all ranges lie, one after the other.
        let count: u64 = self.read(stream.start)?;
        let mut next: u64 = self.read(self.offset(stream.start, 8)?)?;
        let entries = self.entries::<MINIDUMP_MEMORY_DESCRIPTOR64>(stream, 16, count)?;
        for start in entries {
            let descriptor: MINIDUMP_MEMORY_DESCRIPTOR64 = self.read(start)?;
            let bytes = self.range(next, descriptor.data_size)?;
            next = bytes.end as u64;
            self.add_memory(descriptor.start_of_memory_range, bytes)?;
        }
        Ok(())
    }

    fn exception(&mut self, stream: &Range<usize>) -> Result<()> {
        let exception: MINIDUMP_EXCEPTION_STREAM = self.sole(stream)?;
        let context = self.claim(&exception.thread_context, Claim::Context)?;
        // Thread id and padding, then the record: 32 bytes of other fields before the parameters.
        let parameters = self.range(stream.start as u64 + 40, 15 * 8)?;
        self.layout.exception = Some(ExceptionEntry {
            thread_id: exception.thread_id,
            code: exception.exception_record.exception_code,
            flags: exception.exception_record.exception_flags,
            address: exception.exception_record.exception_address,
            parameters,
            context,
        });
        Ok(())
    }

    fn handles(&mut self, stream: &Range<usize>) -> Result<()> {
        let header: MINIDUMP_HANDLE_DATA_STREAM = self.read(stream.start)?;
        let entries = self.extended_list::<MINIDUMP_HANDLE_DESCRIPTOR>(
            stream,
            (header.size_of_header, size::<MINIDUMP_HANDLE_DATA_STREAM>()),
            header.size_of_descriptor,
            header.number_of_descriptors.into(),
        )?;
        for start in entries {
            let handle: MINIDUMP_HANDLE_DESCRIPTOR = self.read(start)?;
            self.optional_string(kind::HANDLE_DATA, handle.type_name_rva)?;
            self.optional_string(kind::HANDLE_DATA, handle.object_name_rva)?;
        }
        Ok(())
    }

    fn unloaded_modules(&mut self, stream: &Range<usize>) -> Result<()> {
        // MINIDUMP_UNLOADED_MODULE_LIST: sizes of header and entry, count.
        let [header, entry, count]: [u32; 3] = [
            self.read(stream.start)?,
            self.read(self.offset(stream.start, 4)?)?,
            self.read(self.offset(stream.start, 8)?)?,
        ];
        for start in
            self.extended_list::<MINIDUMP_UNLOADED_MODULE>(stream, (header, 12), entry, count.into())?
        {
            let module: MINIDUMP_UNLOADED_MODULE = self.read(start)?;
            self.optional_string(kind::UNLOADED_MODULE_LIST, module.module_name_rva)?;
        }
        Ok(())
    }

    fn memory_info(&mut self, stream: &Range<usize>) -> Result<()> {
        let header: MINIDUMP_MEMORY_INFO_LIST = self.read(stream.start)?;
        let entries = self.extended_list::<MINIDUMP_MEMORY_INFO>(
            stream,
            (header.size_of_header, size::<MINIDUMP_MEMORY_INFO_LIST>()),
            header.size_of_entry,
            header.number_of_entries,
        )?;
        for start in entries {
            let info: MINIDUMP_MEMORY_INFO = self.read(start)?;
            let end = info.base_address.checked_add(info.region_size).ok_or_else(|| {
                malformed(format!("memory region at {:#x} wraps around", info.base_address))
            })?;
            // Where nothing is, nothing points to: a region that is free or only reserved may be most of what there is.
            if info.state & (MEM_RESERVE | MEM_FREE) == 0 {
                self.layout.mapped.push((info.base_address..end, info.protection));
            }
        }
        Ok(())
    }

    fn thread_names(&mut self, stream: &Range<usize>) -> Result<()> {
        for start in self.list::<MINIDUMP_THREAD_NAME>(stream)? {
            let entry: MINIDUMP_THREAD_NAME = self.read(start)?;
            if entry.thread_name_rva != 0 {
                let name = self.string(entry.thread_name_rva)?;
                self.layout.thread_names.push((entry.thread_id, name));
            }
        }
        Ok(())
    }

    /// The structure, followed in the stream by the program's dynamic section; the link maps and their names lie elsewhere.
    fn dso_debug(&mut self, stream: &Range<usize>) -> Result<()> {
        // Those with 64-bit pointers: amd64, arm64 and Breakpad's arm64.
        if matches!(self.layout.processor, 9 | 12 | 0x8003) {
            let debug: DSO_DEBUG_64 = self.read_in(stream)?;
            for start in self.link_maps::<LINK_MAP_64>(debug.map, debug.dso_count)? {
                let map: LINK_MAP_64 = self.read(start)?;
                self.optional_string(kind::LINUX_DSO_DEBUG, map.name)?;
            }
        } else {
            let debug: DSO_DEBUG_32 = self.read_in(stream)?;
            for start in self.link_maps::<LINK_MAP_32>(debug.map, debug.dso_count)? {
                let map: LINK_MAP_32 = self.read(start)?;
                self.optional_string(kind::LINUX_DSO_DEBUG, map.name)?;
            }
        }
        Ok(())
    }

    /// Report id, client id, annotations. What belongs to modules is not followed: it counts as a gap.
    fn crashpad_info(&mut self, stream: &Range<usize>) -> Result<()> {
        let info: MINIDUMP_CRASHPAD_INFO = self.sole(stream)?;
        // Version and report id before it.
        self.layout.client_id = Some(self.range(stream.start as u64 + 20, 16)?);
        let dictionary = self.claim(&info.simple_annotations, Claim::Dictionary)?;
        if dictionary.is_empty() {
            return Ok(());
        }
        let count: u32 = self.read(dictionary.start)?;
        let entries =
            self.entries::<MINIDUMP_SIMPLE_STRING_DICTIONARY_ENTRY>(&dictionary, 4, count.into())?;
        for start in entries {
            let entry: MINIDUMP_SIMPLE_STRING_DICTIONARY_ENTRY = self.read(start)?;
            for rva in [entry.key, entry.value] {
                let prefix = self.range(rva.into(), 4)?;
                let length: u32 = self.read(prefix.start)?;
                let text = self.range(prefix.end as u64, length.into())?;
                self.claims.add(prefix.start..text.end, Claim::Text);
                if !text.is_empty() {
                    self.layout.annotations.push(text);
                }
            }
        }
        Ok(())
    }

    fn link_maps<T: SizeWith<Endian>>(&mut self, rva: u32, count: u32) -> Result<Entries> {
        if count == 0 {
            return Ok((0..0).step_by(1));
        }
        let maps = self.array::<T>(rva.into(), count.into())?;
        self.claims.add(maps.clone(), Claim::LinkMap);
        Ok(maps.step_by(size::<T>()))
    }

    fn memory_entry(&mut self, descriptor: &MINIDUMP_MEMORY_DESCRIPTOR) -> Result<MemoryEntry> {
        let bytes = self.location(&descriptor.memory)?;
        self.add_memory(descriptor.start_of_memory_range, bytes)
    }

    fn add_memory(&mut self, address: u64, bytes: Range<usize>) -> Result<MemoryEntry> {
        if address.checked_add(bytes.len() as u64).is_none() {
            return Err(malformed(format!("memory at {address:#x} wraps around")));
        }
        let entry = MemoryEntry { address, bytes };
        if !entry.bytes.is_empty() {
            self.claims.add(entry.bytes.clone(), Claim::Memory);
            self.layout.memory.push(entry.clone());
        }
        Ok(entry)
    }

    fn optional_string(&mut self, kind: u32, rva: u32) -> Result<()> {
        if rva != 0 {
            let text = self.string(rva.into())?;
            self.layout.strings.push((kind, text));
        }
        Ok(())
    }

    /// MINIDUMP_STRING: length in bytes, then UTF-16LE. Its terminator, if any, is left to the gaps: minidump-writer writes none.
    fn string(&mut self, rva: u64) -> Result<Range<usize>> {
        let prefix = self.range(rva, 4)?;
        let length: u32 = self.read(prefix.start)?;
        let text = self.range(prefix.end as u64, length.into())?;
        if text.len() % 2 != 0 {
            return Err(malformed(format!("UTF-16 string at {rva:#x} has an odd length")));
        }
        self.claims.add(prefix.start..text.end, Claim::Text);
        Ok(text)
    }

    fn claim(&mut self, location: &MINIDUMP_LOCATION_DESCRIPTOR, claim: Claim) -> Result<Range<usize>> {
        let range = self.location(location)?;
        self.claims.add(range.clone(), claim);
        Ok(range)
    }

    fn location(&self, location: &MINIDUMP_LOCATION_DESCRIPTOR) -> Result<Range<usize>> {
        // Writers leave odd offsets behind where there is nothing.
        if location.data_size == 0 {
            Ok(0..0)
        } else {
            self.range(location.rva.into(), location.data_size.into())
        }
    }

    /// A list with a 32-bit count. Breakpad aligns the entries of some to 8 bytes.
    fn list<T: SizeWith<Endian>>(&self, stream: &Range<usize>) -> Result<Entries> {
        let count: u32 = self.read(stream.start)?;
        let padded = stream.len() as u64 == 8 + u64::from(count) * size::<T>() as u64;
        self.entries::<T>(stream, if padded { 8 } else { 4 }, count.into())
    }

    /// A list that says how large its header and its entries are; they may be larger than we know.
    fn extended_list<T: SizeWith<Endian>>(
        &self,
        stream: &Range<usize>,
        (header, least_header): (u32, usize),
        entry: u32,
        count: u64,
    ) -> Result<Entries> {
        let (header, entry) = (header as usize, entry as usize);
        if header < least_header || entry < size::<T>() {
            return Err(malformed(format!("list at {:#x} has too small a header or entries", stream.start)));
        }
        self.sized_entries(stream, header, entry, count)
    }

    fn entries<T: SizeWith<Endian>>(
        &self,
        stream: &Range<usize>,
        header: usize,
        count: u64,
    ) -> Result<Entries> {
        self.sized_entries(stream, header, size::<T>(), count)
    }

    /// Starts of `count` entries that fill `stream` from behind its header to its end: bytes behind them would be claimed
    /// by nobody who understands them.
    fn sized_entries(
        &self,
        stream: &Range<usize>,
        header: usize,
        entry: usize,
        count: u64,
    ) -> Result<Entries> {
        let length = count.checked_mul(entry as u64).and_then(|n| n.checked_add(header as u64));
        if length != Some(stream.len() as u64) {
            return Err(malformed(format!("list at {:#x}: {count} entries do not fill it", stream.start)));
        }
        Ok((stream.start + header..stream.end).step_by(entry))
    }

    fn array<T: SizeWith<Endian>>(&self, rva: u64, count: u64) -> Result<Range<usize>> {
        let length = count.checked_mul(size::<T>() as u64);
        self.range(rva, length.ok_or_else(|| malformed(format!("{count} entries at {rva:#x}")))?)
    }

    /// The structure that `stream` consists of.
    fn sole<T>(&self, stream: &Range<usize>) -> Result<T>
    where
        T: SizeWith<Endian> + TryFromCtx<'a, Endian, Error = scroll::Error>,
    {
        if stream.len() != size::<T>() {
            return Err(malformed(format!("stream at {:#x} has {} bytes", stream.start, stream.len())));
        }
        self.read(stream.start)
    }

    /// The structure that `stream` begins with.
    fn read_in<T>(&self, stream: &Range<usize>) -> Result<T>
    where
        T: SizeWith<Endian> + TryFromCtx<'a, Endian, Error = scroll::Error>,
    {
        self.sole(&(stream.start..stream.end.min(stream.start + size::<T>())))
    }

    fn read<T: TryFromCtx<'a, Endian, Error = scroll::Error>>(&self, offset: usize) -> Result<T> {
        self.bytes
            .pread_with(offset, LE)
            .map_err(|_| malformed(format!("it ends inside a structure at {offset:#x}")))
    }

    fn offset(&self, start: usize, by: usize) -> Result<usize> {
        start.checked_add(by).ok_or_else(|| malformed("an offset is too large"))
    }

    fn range(&self, start: u64, length: u64) -> Result<Range<usize>> {
        let end = start.checked_add(length).filter(|&end| end <= self.bytes.len() as u64);
        let end =
            end.ok_or_else(|| malformed(format!("{length} bytes at {start:#x} lie outside the file")))?;
        // Both are at most the length of a slice.
        Ok(start as usize..end as usize)
    }
}

type Entries = std::iter::StepBy<Range<usize>>;

fn size<T: SizeWith<Endian>>() -> usize {
    T::size_with(&LE)
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::malformed("minidump", reason)
}
