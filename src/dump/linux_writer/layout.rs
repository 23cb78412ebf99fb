//! The minidump's bytes, from what was read.
#![forbid(unsafe_code)]

use minidump_common::errors::ExceptionCodeLinux;
use minidump_common::format::{
    CONTEXT_AMD64, CvSignature, MINIDUMP_EXCEPTION, MINIDUMP_EXCEPTION_STREAM, MINIDUMP_LOCATION_DESCRIPTOR,
    MINIDUMP_MEMORY_DESCRIPTOR, MINIDUMP_MEMORY_INFO, MINIDUMP_MEMORY_INFO_LIST, MINIDUMP_MISC_INFO,
    MINIDUMP_MODULE, MINIDUMP_THREAD, MINIDUMP_THREAD_NAME, MemoryProtection, MemoryState, MemoryType,
    VS_FFI_SIGNATURE, VS_FFI_STRUCVERSION, VS_FIXEDFILEINFO,
};

use super::context::context;
use super::system::System;
use super::{Memory, maps_text};
use crate::dump::binaries;
use crate::dump::builder::{self, Builder, size};
use crate::dump::layout::kind;
use crate::error::Result;
use crate::target::{Mapping, Module, Target};

/// Streams other than texts, Crashpad's among them, which is added once it is known what may be in it.
const STRUCTURES: usize = 9;

/// What a dump of `target` takes besides memory, about.
pub(super) fn fixed_len(target: &Target) -> u64 {
    const NAME: usize = 48;
    const SYSTEM: usize = 32 << 10;
    let thread = size::<MINIDUMP_THREAD>()
        + size::<CONTEXT_AMD64>()
        + size::<MINIDUMP_THREAD_NAME>()
        + 2 * size::<MINIDUMP_MEMORY_DESCRIPTOR>()
        + NAME;
    let modules =
        target.modules.iter().map(|module| size::<MINIDUMP_MODULE>() + 2 * module.name.len() + NAME);
    let texts = target.maps_text.len() + target.auxv.len() + target.status.len();
    let mappings = target.maps.len() * size::<MINIDUMP_MEMORY_INFO>();
    (target.threads.len() * thread + modules.sum::<usize>() + texts + mappings + SYSTEM) as u64
}

/// The file. What a reader needs most comes first in the directory: who crashed, where, in which binaries.
pub(super) fn lay_out(target: &Target, memory: &Memory, system: &System) -> Result<Vec<u8>> {
    let texts = texts(target, system);
    let mut out = Builder::new(STRUCTURES + texts.len());
    // In one piece, so that no half-grown copies of memory stay behind.
    out.reserve(usize::try_from(fixed_len(target)).unwrap_or(0).saturating_add(memory.len()));
    let kernel = out.string(&system.kernel)?.rva;
    let info = out.structure(system.info(kernel))?;
    out.stream(kind::SYSTEM_INFO, info);
    let misc = out.structure(misc(target))?;
    out.stream(kind::MISC_INFO, misc);
    let mut kept = threads(&mut out, target, memory)?;
    modules(&mut out, target)?;
    names(&mut out, target)?;
    mapped(&mut out, &target.maps)?;
    for (kind, text) in &texts {
        let text = out.bytes(text)?;
        out.stream(*kind, text);
    }
    for (address, bytes) in memory.others.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        kept.push(piece(*address, out.bytes(bytes)?));
    }
    let kept = out.list(kept)?;
    out.stream(kind::MEMORY_LIST, kept);
    let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    // The format's 32 bits of seconds last until 2106.
    out.finish(u32::try_from(time).unwrap_or(u32::MAX))
}

/// Streams of text, as the kernel and the distribution have them.
fn texts(target: &Target, system: &System) -> Vec<(u32, Vec<u8>)> {
    let notes = match target.notes.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(&target.notes).unwrap_or_default(),
    };
    let texts = [
        (kind::MOZ_SOFT_ERRORS, notes),
        (kind::LINUX_MAPS, maps_text::brief(&target.maps_text)),
        (kind::LINUX_AUXV, target.auxv.clone()),
        (kind::LINUX_PROC_STATUS, target.status.clone()),
        (kind::LINUX_CPU_INFO, system.cpu.clone().into_bytes()),
        (kind::LINUX_LSB_RELEASE, system.release.clone()),
    ];
    texts.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

fn misc(target: &Target) -> MINIDUMP_MISC_INFO {
    /// MINIDUMP_MISC1_PROCESS_ID (minidumpapiset.h).
    const PROCESS_ID: u32 = 1;
    MINIDUMP_MISC_INFO {
        size_of_info: size::<MINIDUMP_MISC_INFO>() as u32,
        flags1: PROCESS_ID,
        process_id: target.pid.unsigned_abs(),
        process_create_time: 0,
        process_user_time: 0,
        process_kernel_time: 0,
    }
}

/// Exception, contexts, stacks and the list of threads; returns the memory list's entries for the stacks.
fn threads(out: &mut Builder, target: &Target, memory: &Memory) -> Result<Vec<MINIDUMP_MEMORY_DESCRIPTOR>> {
    let (mut list, mut kept) = (Vec::new(), Vec::new());
    let mut crashed = (MINIDUMP_LOCATION_DESCRIPTOR::default(), 0);
    for (thread, (address, bytes)) in target.threads.iter().zip(&memory.stacks) {
        let thread_context = match &thread.registers {
            Some(registers) => out.structure(context(registers))?,
            None => MINIDUMP_LOCATION_DESCRIPTOR::default(),
        };
        if thread.id == target.tid {
            crashed = (thread_context, thread.registers.as_ref().map_or(0, |registers| registers.rip));
        }
        let stack = piece(*address, out.bytes(bytes)?);
        if !bytes.is_empty() {
            kept.push(stack);
        }
        let (thread_id, suspend_count, priority_class, priority, teb) =
            (thread.id.unsigned_abs(), 0, 0, 0, 0);
        list.push(MINIDUMP_THREAD {
            thread_id,
            suspend_count,
            priority_class,
            priority,
            teb,
            stack,
            thread_context,
        });
    }
    let (thread_context, pc) = crashed;
    let thread_id = target.tid.unsigned_abs();
    let exception_record = exception(target, pc);
    let stream = MINIDUMP_EXCEPTION_STREAM { thread_id, __align: 0, exception_record, thread_context };
    let exception = out.structure(stream)?;
    out.stream(kind::EXCEPTION, exception);
    let list = out.list(list)?;
    out.stream(kind::THREAD_LIST, list);
    Ok(kept)
}

fn piece(address: u64, memory: MINIDUMP_LOCATION_DESCRIPTOR) -> MINIDUMP_MEMORY_DESCRIPTOR {
    MINIDUMP_MEMORY_DESCRIPTOR { start_of_memory_range: address, memory }
}

/// Signal, `si_code` and address, as Breakpad has them on Linux; without a crash, where the thread is.
fn exception(target: &Target, pc: u64) -> MINIDUMP_EXCEPTION {
    match &target.crash {
        Some(crash) => MINIDUMP_EXCEPTION {
            exception_code: crash.siginfo.ssi_signo,
            exception_flags: crash.siginfo.ssi_code.cast_unsigned(),
            exception_address: crash.siginfo.ssi_addr,
            ..MINIDUMP_EXCEPTION::default()
        },
        None => MINIDUMP_EXCEPTION {
            exception_code: ExceptionCodeLinux::DUMP_REQUESTED as u32,
            exception_address: pc,
            ..MINIDUMP_EXCEPTION::default()
        },
    }
}

fn modules(out: &mut Builder, target: &Target) -> Result<()> {
    let list = target.modules.iter().map(|entry| module(out, entry)).collect::<Result<Vec<_>>>()?;
    let list = out.list(list)?;
    out.stream(kind::MODULE_LIST, list);
    Ok(())
}

fn module(out: &mut Builder, module: &Module) -> Result<MINIDUMP_MODULE> {
    let file = || if module.deleted { None } else { binaries::file_id(module.path.as_ref()) };
    let id = Some(module.build_id.clone()).filter(|id| !id.is_empty()).or_else(file);
    let cv_record = match id {
        Some(id) => out.bytes(&[&(CvSignature::Elf as u32).to_le_bytes(), &id[..]].concat())?,
        None => MINIDUMP_LOCATION_DESCRIPTOR::default(),
    };
    Ok(MINIDUMP_MODULE {
        base_of_image: module.range.start,
        size_of_image: u32::try_from(module.range.end - module.range.start).unwrap_or(u32::MAX),
        module_name_rva: out.string(&module.name)?.rva,
        version_info: version(&module.path),
        cv_record,
        ..MINIDUMP_MODULE::default()
    })
}

/// The numbers behind `.so.` of a file name; all zero if there are none.
fn version(path: &str) -> VS_FIXEDFILEINFO {
    let file = path.rsplit('/').next().unwrap_or_default();
    let Some((_, version)) = file.split_once(".so.") else { return VS_FIXEDFILEINFO::default() };
    let number = |part: &str| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse().unwrap_or(0)
    };
    let mut parts = version.split('.').map(number);
    let mut next = || parts.next().unwrap_or(0);
    VS_FIXEDFILEINFO {
        signature: VS_FFI_SIGNATURE,
        struct_version: VS_FFI_STRUCVERSION,
        file_version_hi: next(),
        file_version_lo: next(),
        product_version_hi: next(),
        product_version_lo: next(),
        ..VS_FIXEDFILEINFO::default()
    }
}

fn names(out: &mut Builder, target: &Target) -> Result<()> {
    let named = target.threads.iter().filter_map(|thread| Some((thread.id, thread.name.as_ref()?)));
    let list = named.map(|(id, name)| {
        let thread_name_rva = out.string(name)?.rva.into();
        Ok(MINIDUMP_THREAD_NAME { thread_id: id.unsigned_abs(), thread_name_rva })
    });
    let list = list.collect::<Result<Vec<_>>>()?;
    let list = out.list(list)?;
    out.stream(kind::THREAD_NAMES, list);
    Ok(())
}

fn mapped(out: &mut Builder, maps: &[Mapping]) -> Result<()> {
    let mut bytes = Vec::new();
    let header = MINIDUMP_MEMORY_INFO_LIST {
        size_of_header: size::<MINIDUMP_MEMORY_INFO_LIST>() as u32,
        size_of_entry: size::<MINIDUMP_MEMORY_INFO>() as u32,
        number_of_entries: maps.len() as u64,
    };
    builder::push(&mut bytes, header)?;
    for mapping in maps {
        let protection = protection(mapping).bits();
        let kind = if mapping.private { MemoryType::MEM_PRIVATE } else { MemoryType::MEM_MAPPED };
        let info = MINIDUMP_MEMORY_INFO {
            base_address: mapping.range.start,
            allocation_base: mapping.range.start,
            allocation_protection: protection,
            __alignment1: 0,
            region_size: mapping.range.end - mapping.range.start,
            state: MemoryState::MEM_COMMIT.bits(),
            protection,
            _type: kind.bits(),
            __alignment2: 0,
        };
        builder::push(&mut bytes, info)?;
    }
    let bytes = out.bytes(&bytes)?;
    out.stream(kind::MEMORY_INFO_LIST, bytes);
    Ok(())
}

/// Windows has no memory that can be written and not read.
fn protection(mapping: &Mapping) -> MemoryProtection {
    match (mapping.readable, mapping.writable, mapping.executable) {
        (false, false, false) => MemoryProtection::PAGE_NOACCESS,
        (false, false, true) => MemoryProtection::PAGE_EXECUTE,
        (true, false, false) => MemoryProtection::PAGE_READONLY,
        (true, false, true) => MemoryProtection::PAGE_EXECUTE_READ,
        (_, true, false) => MemoryProtection::PAGE_READWRITE,
        (_, true, true) => MemoryProtection::PAGE_EXECUTE_READWRITE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_libraries() {
        let cases = [
            ("/lib/libc.so.6", [6, 0, 0, 0]),
            ("/lib/libx.so.1.22.333", [1, 22, 333, 0]),
            ("/lib/libx.so.1.2.3rc4.5.6", [1, 2, 3, 5]),
            ("/lib.so.7/libx.so", [0; 4]),
            ("/lib/libx.so.", [0; 4]),
            ("/lib/libx.so.99999999999", [0; 4]),
        ];
        for (path, expected) in cases {
            let v = version(path);
            let numbers = [v.file_version_hi, v.file_version_lo, v.product_version_hi, v.product_version_lo];
            assert_eq!(numbers, expected, "{path}");
        }
        assert_eq!(version("/bin/true").signature, 0);
    }
}
