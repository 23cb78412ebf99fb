//! `cenotaph inspect`: what is in a minidump, by the `minidump` crates and not by our own reader.

use std::path::{Path, PathBuf};

use cenotaph::dump::{Layout, binaries};
use lexopt::prelude::*;
use minidump::system_info::Cpu;
use minidump::{Minidump, MinidumpModule, MinidumpModuleList, MinidumpSystemInfo, Module};
use minidump_processor::ProcessState;
use minidump_unwind::debuginfo::DebugInfoSymbolProvider;
use minidump_unwind::{CallStack, MultiSymbolProvider};
use serde::Serialize;

use super::{is_elf, missing, read_minidump, take, write_json};
use crate::failure::{Failure, Result};
use crate::output::{self, printable};

/// What `--json` writes.
#[derive(Serialize)]
struct Inspection {
    file: PathBuf,
    bytes: usize,
    reason: Option<String>,
    address: Option<u64>,
    system: String,
    process_id: Option<u32>,
    crashed_thread: Option<u32>,
    threads: Vec<Thread>,
    modules: Vec<Binary>,
    streams: Vec<Stream>,
}

#[derive(Serialize)]
struct Thread {
    id: u32,
    name: Option<String>,
    frames: Vec<Frame>,
}

#[derive(Serialize)]
struct Frame {
    instruction: u64,
    module: Option<String>,
    offset: Option<u64>,
    trust: &'static str,
}

#[derive(Serialize)]
struct Binary {
    name: String,
    code_id: Option<String>,
    base: u64,
    size: u64,
}

#[derive(Serialize)]
struct Stream {
    kind: u32,
    name: String,
    bytes: u32,
}

pub(crate) fn inspect(mut arguments: lexopt::Parser) -> Result<()> {
    let (mut file, mut json) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("json") => json = Some(PathBuf::from(arguments.value()?)),
            Value(value) => take(&mut file, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let file = file.ok_or_else(|| missing("inspect", "FILE"))?;
    let inspection = read(&file)?;
    if let Some(json) = json {
        write_json(&json, &inspection)?;
        if json == Path::new("-") {
            return Ok(());
        }
    }
    print(&inspection)
}

fn read(file: &Path) -> Result<Inspection> {
    if is_elf(file)? {
        return Err(Failure::Failed(format!(
            "{}: an ELF file, and inspect takes minidumps; core files are for 'cenotaph scrub' and gdb",
            file.display()
        )));
    }
    let bytes = read_minidump(file, "; inspect takes minidumps")?;
    let length = bytes.len();
    let damaged = |e: &dyn std::fmt::Display| Failure::file(file, "read as a minidump", e);
    // The list of local binaries to unwind with comes first: it borrows the bytes.
    let layout = Layout::parse(&bytes).ok();
    let found = layout.map(|layout| local_binaries(&bytes, &layout)).unwrap_or_default();
    let dump = Minidump::read(bytes).map_err(|e| damaged(&e))?;
    let state = process(&dump, &found).map_err(|e| damaged(&e))?;
    let mut streams: Vec<Stream> = dump
        .all_streams()
        .map(|stream| Stream {
            kind: stream.stream_type,
            name: minidump_kind(stream.stream_type),
            bytes: stream.location.data_size,
        })
        .collect();
    streams.sort_by_key(|stream| stream.kind);
    let crashed = state.requesting_thread.and_then(|index| state.threads.get(index));
    Ok(Inspection {
        file: file.to_path_buf(),
        bytes: length,
        reason: state.exception_info.as_ref().map(|e| e.reason.to_string()),
        address: state.exception_info.as_ref().map(|e| e.address.0),
        system: format!("{} {}", state.system_info.os, state.system_info.cpu),
        process_id: state.process_id,
        crashed_thread: crashed.map(|thread| thread.thread_id),
        threads: state.threads.iter().map(thread).collect(),
        modules: state.modules.iter().map(binary).collect(),
        streams,
    })
}

/// Addresses of the modules whose very binary (by build id) is on this machine.
fn local_binaries(bytes: &[u8], layout: &Layout) -> Vec<u64> {
    let files = binaries::FileBinaries::new();
    let within = |range: &std::ops::Range<usize>| bytes.get(range.clone()).unwrap_or_default();
    let local = |module: &&cenotaph::dump::layout::ModuleEntry| {
        let path = cenotaph::dump::layout::utf16(within(&module.name));
        binaries::Binaries::sections(&files, &path, within(&module.build_id), module).is_some()
    };
    layout.modules.iter().filter(local).map(|module| module.base).collect()
}

fn process(
    dump: &Minidump<'_, Vec<u8>>,
    local: &[u64],
) -> Result<ProcessState, minidump_processor::ProcessError> {
    let mut provider = MultiSymbolProvider::new();
    let (system, modules) =
        (dump.get_stream::<MinidumpSystemInfo>(), dump.get_stream::<MinidumpModuleList>());
    if let (Ok(system), Ok(modules)) = (system, modules) {
        // Other processors are not implemented there.
        if matches!(system.cpu, Cpu::X86_64 | Cpu::Arm64) {
            let here = |module: &&MinidumpModule| local.contains(&module.base_address());
            let here = MinidumpModuleList::from_modules(modules.iter().filter(here).cloned().collect());
            provider.add(Box::new(pollster::block_on(DebugInfoSymbolProvider::new(&system, &here))));
        }
    }
    pollster::block_on(minidump_processor::process_minidump(dump, &provider))
}

/// Module, offset in it (or address), trust.
pub(crate) type CodeFrame = (String, u64, String);

/// Threads and frames as an independent stackwalker finds them: (module, offset or address, trust). `tables`: with the unwind
/// tables of this machine's binaries, else by frame pointers and scanning. `of` is the dump to find the binaries by.
pub(crate) fn frames(bytes: &[u8], of: &[u8], tables: bool) -> Result<Vec<(u32, Vec<CodeFrame>)>> {
    let failed = |why: &dyn std::fmt::Display| Failure::Failed(format!("a dump cannot be walked: {why}"));
    let local = if tables { local_binaries(of, &Layout::parse(of)?) } else { Vec::new() };
    let dump = Minidump::read(bytes.to_vec()).map_err(|e| failed(&e))?;
    let state = process(&dump, &local).map_err(|e| failed(&e))?;
    let frame = |frame: Frame| {
        (frame.module.unwrap_or_default(), frame.offset.unwrap_or(frame.instruction), frame.trust.to_owned())
    };
    let threads = state.threads.iter().map(thread);
    Ok(threads.map(|thread| (thread.id, thread.frames.into_iter().map(frame).collect())).collect())
}

fn thread(stack: &CallStack) -> Thread {
    let frames = stack.frames.iter().map(|frame| Frame {
        instruction: frame.instruction,
        module: frame.module.as_ref().map(|m| base_name(&m.code_file())),
        offset: frame.module.as_ref().map(|m| frame.instruction.wrapping_sub(m.base_address())),
        trust: frame.trust.as_str(),
    });
    Thread { id: stack.thread_id, name: stack.thread_name.clone(), frames: frames.collect() }
}

fn binary(module: &MinidumpModule) -> Binary {
    Binary {
        name: module.code_file().into_owned(),
        code_id: module.code_identifier().map(|id| id.to_string()),
        base: module.base_address(),
        size: module.size(),
    }
}

fn base_name(path: &str) -> String {
    path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned()
}

fn minidump_kind(kind: u32) -> String {
    use minidump::format::MINIDUMP_STREAM_TYPE;
    use num_traits::FromPrimitive;
    MINIDUMP_STREAM_TYPE::from_u32(kind).map_or_else(|| "unknown".to_owned(), |known| format!("{known:?}"))
}

fn print(inspection: &Inspection) -> Result<()> {
    let line = |name: &str, value: String| output::line(format_args!("{name:<8} {}", printable(&value)));
    line("file", format!("{} ({} bytes)", inspection.file.display(), inspection.bytes))?;
    line("system", inspection.system.clone())?;
    if let Some(id) = inspection.process_id {
        line("process", id.to_string())?;
    }
    match (&inspection.reason, inspection.address) {
        (Some(reason), Some(address)) => line("reason", format!("{reason} at {address:#x}"))?,
        _ => line("reason", "none: no exception in it".to_owned())?,
    }
    let crashed = |thread: &&Thread| Some(thread.id) == inspection.crashed_thread;
    if let Some(thread) = inspection.threads.iter().find(crashed) {
        let name = thread.name.as_deref().unwrap_or_default();
        output::line("")?;
        output::line(output::bold(&printable(&format!("thread {} {name} (crashed)", thread.id))))?;
        for (number, frame) in thread.frames.iter().enumerate() {
            let place = match (&frame.module, frame.offset) {
                (Some(module), Some(offset)) => format!("{module} + {offset:#x}"),
                _ => format!("{:#018x}", frame.instruction),
            };
            output::line(format_args!("{number:>4}  {:<44} {}", printable(&place), frame.trust))?;
        }
    }
    output::line("")?;
    output::line(output::bold("threads"))?;
    let rows: Vec<Vec<String>> = inspection
        .threads
        .iter()
        .map(|t| vec![t.id.to_string(), t.name.clone().unwrap_or_default(), t.frames.len().to_string()])
        .collect();
    output::table(&["id", "name", "frames"], &rows)?;
    output::line("")?;
    output::line(output::bold("modules"))?;
    let rows: Vec<Vec<String>> = inspection
        .modules
        .iter()
        .map(|m| {
            vec![
                format!("{:#x}", m.base),
                m.size.to_string(),
                m.code_id.clone().unwrap_or_default(),
                m.name.clone(),
            ]
        })
        .collect();
    output::table(&["base", "bytes", "build id", "name"], &rows)?;
    output::line("")?;
    output::line(output::bold("streams"))?;
    let rows: Vec<Vec<String>> = inspection
        .streams
        .iter()
        .map(|s| vec![format!("{:#x}", s.kind), s.bytes.to_string(), s.name.clone()])
        .collect();
    output::table(&["kind", "bytes", "name"], &rows)
}
