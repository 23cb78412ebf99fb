//! Frames from a minimal record: its words are laid out as a small dump of one thread, which is unwound like any other.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use minidump_common::format::{
    MINIDUMP_LOCATION_DESCRIPTOR, MINIDUMP_MEMORY_DESCRIPTOR, MINIDUMP_MEMORY_INFO,
    MINIDUMP_MEMORY_INFO_LIST, MINIDUMP_MODULE, MINIDUMP_THREAD, MemoryProtection, MemoryState, MemoryType,
};

use super::binaries::{Binaries, file_id};
use super::builder::{self, Builder, size};
use super::layout::{Layout, kind};
use super::{synthetic, unwind};
use crate::error::Result;
use crate::minimal_record::read::Record;
use crate::report::{Module, Reason, StackTrace};

/// What a record shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    /// One thread.
    pub(crate) trace: StackTrace,
    /// Whether the files of all binaries that frames lie in are there as they were: else frames were found by the
    /// frame-pointer chain and by scanning the stack alone.
    pub(crate) has_files: bool,
}

/// Unwinds what a record has. `find` gives files that may be the binary of that base name; only one with the recorded
/// build id is used.
///
/// # Errors
/// If the record's modules cannot be laid out.
pub(crate) fn stack_trace(
    record: &Record,
    reason: &Reason,
    find: &dyn Fn(&str) -> Vec<PathBuf>,
    binaries: &dyn Binaries,
) -> Result<Recorded> {
    let modules: Vec<Module> = record
        .modules
        .iter()
        .map(|module| {
            let base = module.name();
            let id = module.build_id();
            let file =
                find(&base).into_iter().find(|path| !id.is_empty() && file_id(path).as_deref() == Some(id));
            let path = file.and_then(|path| path.to_str().map(str::to_owned));
            Module {
                name: path.unwrap_or(base),
                build_id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
                base: module.start,
                size: module.end - module.start,
            }
        })
        .collect();
    let dump = lay_out(record, reason, &modules)?;
    let layout = Layout::parse(&dump)?;
    let trace = unwind::stack_trace(&dump, &layout, binaries)?;
    let mut used = trace.threads.iter().flat_map(|thread| &thread.frames).filter_map(|frame| frame.module);
    // The trace's modules are the record's: both are in the order of their addresses.
    let has_file = |name: &str| name.contains('/') || name == VDSO;
    let has_files = used.all(|index| modules.get(index).is_some_and(|module| has_file(&module.name)));
    Ok(Recorded { trace, has_files })
}

/// It has no file.
const VDSO: &str = "linux-gate.so";

fn lay_out(record: &Record, reason: &Reason, modules: &[Module]) -> Result<Vec<u8>> {
    let head = &record.head;
    let mut out = Builder::new(6);
    let system = out.string("Linux")?;
    let system = out.structure(synthetic::system_info(system.rva))?;
    out.stream(kind::SYSTEM_INFO, system);
    let context = out.structure(synthetic::context(head.pc, head.sp, head.fp))?;
    let words: Vec<u8> = record.words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let memory = if words.is_empty() { MINIDUMP_LOCATION_DESCRIPTOR::default() } else { out.bytes(&words)? };
    let stack = MINIDUMP_MEMORY_DESCRIPTOR { start_of_memory_range: head.stack_start, memory };
    let (suspend_count, priority_class, priority, teb) = (0, 0, 0, 0);
    let thread = MINIDUMP_THREAD {
        thread_id: head.thread,
        suspend_count,
        priority_class,
        priority,
        teb,
        stack,
        thread_context: context,
    };
    let threads = out.list(vec![thread])?;
    out.stream(kind::THREAD_LIST, threads);
    let entries = modules.iter().map(|module| synthetic::module(&mut out, module)).collect::<Result<_>>()?;
    let entries = out.list::<MINIDUMP_MODULE>(entries)?;
    out.stream(kind::MODULE_LIST, entries);
    let exception = out.structure(synthetic::exception_stream(head.thread, reason, context))?;
    out.stream(kind::EXCEPTION, exception);
    let code = code(record)?;
    let code = out.bytes(&code)?;
    out.stream(kind::MEMORY_INFO_LIST, code);
    out.finish(u32::try_from(head.time_ms / 1000).unwrap_or(u32::MAX))
}

/// The executable mappings.
fn code(record: &Record) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let header = MINIDUMP_MEMORY_INFO_LIST {
        size_of_header: size::<MINIDUMP_MEMORY_INFO_LIST>() as u32,
        size_of_entry: size::<MINIDUMP_MEMORY_INFO>() as u32,
        number_of_entries: record.modules.len() as u64,
    };
    builder::push(&mut bytes, header)?;
    for module in &record.modules {
        let protection = MemoryProtection::PAGE_EXECUTE_READ.bits();
        let info = MINIDUMP_MEMORY_INFO {
            base_address: module.code_start,
            allocation_base: module.start,
            allocation_protection: protection,
            __alignment1: 0,
            region_size: module.code_end - module.code_start,
            state: MemoryState::MEM_COMMIT.bits(),
            protection,
            _type: MemoryType::MEM_PRIVATE.bits(),
            __alignment2: 0,
        };
        builder::push(&mut bytes, info)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::binaries::FileBinaries;
    use crate::minimal_record::read::tests::{bytes, head, module};
    use crate::report::Trust;

    fn trace(words: &[u64], fp: u64) -> Recorded {
        let head = crate::minimal_record::Head { words: words.len() as u32, fp, ..head() };
        let record = Record::parse(&bytes(&head, &[module()], words)).unwrap();
        let reason = Reason::Signal { number: 11, code: 1, address: Some(0x10) };
        stack_trace(&record, &reason, &|_| Vec::new(), &FileBinaries::new()).unwrap()
    }

    #[test]
    fn frame_pointers_and_scanning_without_files() {
        let recorded = trace(&[0, 0x7000_0018, 0x40_1234, 0, 0x40_1567, 0], 0x7000_0008);
        let thread = &recorded.trace.threads[0];
        assert!(thread.crashed && !recorded.has_files);
        let frames: Vec<_> = thread.frames.iter().map(|f| (f.module, f.offset, f.trust)).collect();
        let expected = [(0x1000, Trust::Context), (0x1233, Trust::Unwound), (0x1566, Trust::Scan)];
        assert_eq!(frames[..2], expected.map(|(offset, trust)| (Some(0), offset, trust))[..2]);
        assert_eq!(recorded.trace.modules[0].build_id, "ce07");
        let scanned = trace(&[0, 0, 0x40_1234, 0, 0x40_1567], 0);
        let offsets: Vec<u64> = scanned.trace.threads[0].frames.iter().map(|f| f.offset).collect();
        assert_eq!(offsets, [0x1000, 0x1233, 0x1566]);
        assert_eq!(trace(&[], 0).trace.threads[0].frames.len(), 1);
    }
}
