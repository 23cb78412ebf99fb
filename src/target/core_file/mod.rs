//! A dead process as a [`Target`], from the core file that the kernel or gdb's `gcore` wrote.
//!
//! What the kernel leaves out by default, pages of binaries that nobody wrote to (core(5), `coredump_filter`), comes from
//! the binaries on disk, if their build ids are those that the core file holds. All files are opened at once: later reads
//! are `pread` on descriptors.
#![forbid(unsafe_code)]

mod memory;
mod notes;
pub(crate) mod segments;
pub(crate) mod source;
mod start_up;

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crash_context::CrashContext;

use self::memory::{CoreMemory, Piece};
use self::notes::{Notes, Status};
use self::segments::{Load, malformed, narrow, word};
use self::source::Source;
use super::binary_file::{self, Permissions};
use super::maps::Mapping;
use super::modules::{self, DELETED, Module};
use super::registers::FLOAT_LEN;
use super::{AT_ENTRY, AT_RANDOM, AT_SYSINFO_EHDR, Target, Thread};
use crate::error::{Error, Result};

/// The most binaries that are opened: half of the usual limit of descriptors.
const MOST_BINARIES: usize = 512;

impl Target {
    /// The process whose core file is at `path`: an ELF core of a 64-bit x86 process, written by the kernel or by
    /// `gcore`. It gives the same view as a stopped process, but for what a core file does not have: names of threads
    /// other than the first one (and that cut to 15 bytes), whether mappings are shared, `/proc/PID/status`.
    ///
    /// Binaries that it names are opened, read-only, for what the core file leaves out.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be opened, [`Error::Malformed`] if it is no such core file or holds neither threads
    /// nor memory. What is cut short or contradicts itself beyond that is left out and named in [`Target::notes`].
    pub fn from_core(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |source| Error::file(path, "read the core file", source);
        // A pipe that nobody writes to would not open.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let file = file.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(malformed("it is no regular file"));
        }
        from_file(Source::new(file).map_err(failed)?)
    }
}

fn from_file(file: Source) -> Result<Target> {
    let mut remarks = Vec::new();
    let segments = segments::read(&file, &mut remarks)?;
    let notes = notes::read(&file, &segments.notes, &mut remarks);
    let first = notes.threads.first().ok_or_else(|| malformed("it has no thread (NT_PRSTATUS)"))?;
    let mut maps = notes::mappings(&segments.loads, &notes.files);
    if maps.is_empty() {
        return Err(malformed("it has no memory (PT_LOAD)"));
    }
    let memory = CoreMemory::new(file, &segments.loads);
    let value = |key| super::auxv(&notes.auxv, key);
    let (entry, vdso) = (value(AT_ENTRY), value(AT_SYSINFO_EHDR));
    // Build ids first, then what only the binaries have: most of their names.
    let modules = modules::read(&memory, &maps, entry, vdso);
    let memory = with_binaries(&memory, &mut maps, &segments.loads, &modules, &mut remarks);
    let modules = modules::read(&memory, &maps, entry, vdso);
    if modules.is_empty() {
        remarks.push("no modules could be read".to_owned());
    }
    remarks.push("this is a core file: processor and system are those of where it was read".to_owned());
    name_mappings(&mut maps, &notes.auxv, vdso);
    let (tid, crash) = (first.id, crash(first, &notes));
    let mut target = Target {
        pid: notes.process.as_ref().map_or(tid, |(pid, _)| *pid),
        tid,
        crash,
        threads: threads(&notes, &mut remarks),
        modules,
        maps_text: text(&maps),
        maps,
        auxv: notes.auxv,
        status: Vec::new(),
        start_up: None,
        notes: remarks,
        memory: Box::new(memory),
        symbols: super::symbols::Cache::default(),
        stopped: None,
    };
    target.start_up = start_up::find(&target);
    Ok(target)
}

/// A binary's place among the files, and what of it is mapped how.
type Opened = (usize, Permissions);

/// The binaries' files where the core file has nothing, and the permissions of what they were mapped at without a segment.
fn with_binaries(
    memory: &CoreMemory,
    maps: &mut [Mapping],
    loads: &[Load],
    modules: &[Module],
    remarks: &mut Vec<String>,
) -> CoreMemory {
    let mut opened: HashMap<(&str, &[u8]), Option<Opened>> = HashMap::new();
    let (mut files, mut pieces, mut lost) = (Vec::new(), Vec::new(), 0);
    for module in modules.iter().filter(|module| module.path.starts_with('/')) {
        let first = maps.partition_point(|mapping| mapping.range.start < module.range.start);
        let own = maps.iter_mut().skip(first).take_while(|mapping| mapping.range.start < module.range.end);
        let missing: Vec<_> = own
            .filter(|mapping| {
                mapping.readable && mapping.name.strip_suffix(DELETED).unwrap_or(&mapping.name) == module.path
            })
            .map(|mapping| (memory.missing(&mapping.range), mapping))
            .filter(|(missing, _)| !missing.is_empty())
            .collect();
        if missing.is_empty() {
            continue;
        }
        let room = files.len() < MOST_BINARIES && !module.build_id.is_empty();
        let file = opened.entry((&module.path, &module.build_id)).or_insert_with(|| {
            let (file, permissions) = room.then(|| binary_file::open(&module.path, &module.build_id))??;
            files.push(Source::new(file).ok()?);
            Some((files.len(), permissions))
        });
        let Some((file, permissions)) = file else {
            lost += 1;
            continue;
        };
        for (missing, mapping) in missing {
            let start = mapping.range.start;
            let offset = |address: u64| mapping.offset.saturating_add(address - start);
            let piece = |range: Range<u64>| Piece { offset: offset(range.start), file: *file, range };
            pieces.extend(missing.into_iter().map(piece));
            let part = permissions.iter().find(|(part, _)| part.contains(&mapping.offset));
            if let Some((_, flags)) = part.filter(|_| !has_segment(loads, start)) {
                (mapping.writable, mapping.executable) = (flags & 2 != 0, flags & 1 != 0);
            }
        }
    }
    if lost > 0 {
        remarks.push(format!(
            "parts of {lost} modules are neither in the core file nor, with the same build id, on disk"
        ));
    }
    memory.with(files, pieces)
}

fn has_segment(loads: &[Load], address: u64) -> bool {
    let after = loads.partition_point(|load| load.range.start <= address);
    after.checked_sub(1).and_then(|last| loads.get(last)).is_some_and(|load| load.range.contains(&address))
}

fn threads(notes: &Notes, remarks: &mut Vec<String>) -> Vec<Thread> {
    let thread = |status: &Status| {
        let registers = status.registers();
        let own_name = notes.process.as_ref().filter(|(pid, _)| *pid == status.id);
        Thread {
            id: status.id,
            name: own_name.map(|(_, name)| name.clone()),
            control_block: registers
                .as_ref()
                .and_then(|registers| registers.traced)
                .map(|traced| traced.fs_base),
            registers,
            signal: None,
        }
    };
    let threads: Vec<_> = notes.threads.iter().map(thread).collect();
    let without = threads.iter().filter(|thread| thread.name.is_none()).count();
    if without > 0 {
        remarks.push(format!("a core file does not have the names of {without} threads"));
    }
    threads
}

/// The signals whose default action is a core file (signal(7)). Others, such as the stop that `gcore` made, are no crash.
const FATAL: [i32; 10] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGSYS,
];
/// What SIGTRAP's code holds when a tracer made the stop (`PTRACE_EVENT_STOP`, ptrace(2)).
const TRACER_STOP: i32 = libc::SIGTRAP | 128 << 8;

/// The crash as a signal handler would have seen it, as far as a core file tells.
fn crash(first: &Status, notes: &Notes) -> Option<CrashContext> {
    let registers = first.registers()?;
    // siginfo_t: signal, errno, code; from 16 on an address or the sender (sigaction(2)).
    let info = notes.siginfo.as_deref().unwrap_or_default();
    let noted = |at: usize| narrow(info, at);
    let signal = if info.is_empty() { first.signal } else { noted(0).cast_signed() };
    let code = noted(8).cast_signed();
    if !FATAL.contains(&signal) || (signal == libc::SIGTRAP && code == TRACER_STOP) {
        return None;
    }
    let mut bytes = vec![0; size_of::<CrashContext>()];
    let float = std::mem::offset_of!(CrashContext, float_state);
    if let (Some(place), Some(image)) = (bytes.get_mut(float..float + FLOAT_LEN), first.float()) {
        place.copy_from_slice(image);
    }
    let mut context = CrashContext::from_bytes(&bytes)?;
    registers.into_crash(&mut context);
    context.siginfo.ssi_signo = signal.cast_unsigned();
    context.siginfo.ssi_errno = noted(4).cast_signed();
    context.siginfo.ssi_code = code;
    // Positive codes of these are the kernel's; all else has a sender.
    let fault = [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP, libc::SIGSYS];
    if code > 0 && fault.contains(&signal) {
        context.siginfo.ssi_addr = word(info, 16);
    } else {
        (context.siginfo.ssi_pid, context.siginfo.ssi_uid) = (noted(16), noted(20));
    }
    context.pid = notes.process.as_ref().map_or(first.id, |(pid, _)| *pid);
    context.tid = first.id;
    Some(context)
}

/// Names what the kernel names in `/proc/PID/maps` and not in a core file, as far as the auxiliary vector tells.
fn name_mappings(maps: &mut [Mapping], auxv: &[u8], vdso: Option<u64>) {
    let stack = super::auxv(auxv, AT_RANDOM);
    for (address, name) in [(stack, "[stack]"), (vdso, "[vdso]")] {
        let Some(address) = address else { continue };
        let mapping =
            maps.iter_mut().find(|mapping| mapping.range.contains(&address) && mapping.name.is_empty());
        if let Some(mapping) = mapping {
            mapping.name = name.to_owned();
        }
    }
}

/// The mappings as the kernel would write them (proc(5)); device and inode are unknown.
fn text(maps: &[Mapping]) -> Vec<u8> {
    let mut text = String::new();
    for mapping in maps {
        let flag = |on: bool, letter| if on { letter } else { '-' };
        let permissions: String =
            [flag(mapping.readable, 'r'), flag(mapping.writable, 'w'), flag(mapping.executable, 'x'), 'p']
                .iter()
                .collect();
        let (range, offset) = (&mapping.range, mapping.offset);
        let start = text.len();
        let _ = write!(text, "{:08x}-{:08x} {permissions} {offset:08x} 00:00 0 ", range.start, range.end);
        if !mapping.name.is_empty() {
            let width = (text.len() - start).max(73);
            let _ = write!(text, "{:1$}", "", width - (text.len() - start));
            text.push_str(&mapping.name.replace('\n', "\\012"));
        }
        text.push('\n');
    }
    text.into_bytes()
}
