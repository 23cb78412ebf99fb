//! A stack trace as a small minidump, for collectors that take nothing else.
//!
//! Each thread's stack is a chain of frame-pointer records (saved frame pointer, return address) and nothing besides,
//! at addresses that were free in the process. Whoever follows frame pointers finds the trace's frames.
#![forbid(unsafe_code)]

use std::ops::Range;

use minidump_common::errors::ExceptionCodeLinux;
use minidump_common::format::{
    CONTEXT_AMD64, CPU_INFORMATION, ContextFlagsAmd64, CvSignature, MINIDUMP_EXCEPTION,
    MINIDUMP_EXCEPTION_STREAM, MINIDUMP_LOCATION_DESCRIPTOR, MINIDUMP_MEMORY_DESCRIPTOR, MINIDUMP_MODULE,
    MINIDUMP_SYSTEM_INFO, MINIDUMP_THREAD, MINIDUMP_THREAD_NAME, PlatformId, ProcessorArchitecture,
};

use super::builder::Builder;
use super::layout::kind;
use crate::error::{Error, Result};
use crate::report::{Frame, Module, Reason, StackTrace, Thread};

/// Writes `trace` as a minidump whose stacks hold only return addresses and the frame-pointer chain, so that any
/// unwinder finds the same modules and offsets. `time_ms` is Unix time. Module names are written as they are, so the
/// trace's base names stay base names.
///
/// The dump is one of Linux on amd64, as [`stack_trace`](super::unwind::stack_trace) makes traces of no other kind.
///
/// # Errors
/// [`Error::Limit`] if the dump would not fit 32-bit offsets, [`Error::Malformed`] if the modules leave no addresses
/// free for the stacks.
pub fn write(trace: &StackTrace, reason: &Reason, time_ms: u64) -> Result<Vec<u8>> {
    let mut out = Builder::new(6);
    let system = out.string("Linux")?;
    let system = out.structure(system_info(system.rva))?;
    out.stream(kind::SYSTEM_INFO, system);

    let mut stack_at = free_addresses(trace)?;
    let (mut threads, mut stacks, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let mut crashed = None;
    for thread in &trace.threads {
        let context = match thread.frames.first() {
            Some(frame) => out.structure(context(frame.instruction, stack_at))?,
            None => MINIDUMP_LOCATION_DESCRIPTOR::default(),
        };
        let memory = out.bytes(&stack(&thread.frames, stack_at))?;
        let stack = MINIDUMP_MEMORY_DESCRIPTOR { start_of_memory_range: stack_at, memory };
        stacks.push(stack);
        threads.push(MINIDUMP_THREAD {
            thread_id: thread.id,
            suspend_count: 0,
            priority_class: 0,
            priority: 0,
            teb: 0,
            stack,
            thread_context: context,
        });
        if let Some(name) = &thread.name {
            let rva = out.string(name)?.rva.into();
            names.push(MINIDUMP_THREAD_NAME { thread_id: thread.id, thread_name_rva: rva });
        }
        if thread.crashed && crashed.is_none() {
            crashed = Some((thread.id, context));
        }
        stack_at += room(thread);
    }
    let threads = out.list(threads)?;
    out.stream(kind::THREAD_LIST, threads);
    let names = out.list(names)?;
    out.stream(kind::THREAD_NAMES, names);
    let modules = trace.modules.iter().map(|entry| module(&mut out, entry)).collect::<Result<_>>()?;
    let modules = out.list::<MINIDUMP_MODULE>(modules)?;
    out.stream(kind::MODULE_LIST, modules);
    if let Some((thread_id, thread_context)) = crashed {
        let exception_record = exception(reason);
        let stream = MINIDUMP_EXCEPTION_STREAM { thread_id, __align: 0, exception_record, thread_context };
        let exception = out.structure(stream)?;
        out.stream(kind::EXCEPTION, exception);
    }
    let stacks = out.list(stacks)?;
    out.stream(kind::MEMORY_LIST, stacks);
    // The format's 32 bits of seconds last until 2106.
    out.finish(u32::try_from(time_ms / 1000).unwrap_or(u32::MAX))
}

/// Bytes of a frame-pointer record.
const RECORD: u64 = 16;

/// The records of all frames but the innermost, whose address is in the context, and one that ends the chain.
fn stack(frames: &[Frame], base: u64) -> Vec<u8> {
    let callers = frames.iter().skip(1).zip(1..);
    let records = callers.flat_map(|(frame, i)| [base + i * RECORD, frame.instruction.wrapping_add(1)]);
    records.chain([0, 0]).flat_map(u64::to_le_bytes).collect()
}

/// Address space for a thread's stack, with some between it and the next.
fn room(thread: &Thread) -> u64 {
    (thread.frames.len() as u64 + 1).saturating_mul(RECORD).next_multiple_of(STACK_ALIGN) + STACK_ALIGN
}

const STACK_ALIGN: u64 = 4096;

/// The lowest address from which all stacks fit between the modules and the bounds of user space.
fn free_addresses(trace: &StackTrace) -> Result<u64> {
    const USER_SPACE: Range<u64> = 0x10_0000..0x7fff_ffff_f000;
    let needed = trace.threads.iter().fold(STACK_ALIGN, |sum, thread| sum.saturating_add(room(thread)));
    let mut modules: Vec<_> = trace.modules.iter().map(|m| m.base..m.base.saturating_add(m.size)).collect();
    modules.sort_unstable_by_key(|module| module.start);
    let mut start = USER_SPACE.start;
    for module in modules {
        if module.start.min(USER_SPACE.end).saturating_sub(start) >= needed {
            break;
        }
        start = start.max(module.end.checked_next_multiple_of(STACK_ALIGN).unwrap_or(u64::MAX));
    }
    match USER_SPACE.end.checked_sub(start) {
        Some(left) if left >= needed => Ok(start),
        _ => Err(Error::malformed("stack trace", "its modules leave no room for stacks")),
    }
}

fn context(instruction: u64, stack: u64) -> CONTEXT_AMD64 {
    CONTEXT_AMD64 {
        context_flags: ContextFlagsAmd64::CONTEXT_AMD64_FULL.bits(),
        rip: instruction,
        rsp: stack,
        rbp: stack,
        ..CONTEXT_AMD64::default()
    }
}

fn module(out: &mut Builder, module: &Module) -> Result<MINIDUMP_MODULE> {
    let id = hex(&module.build_id).filter(|id| !id.is_empty());
    let cv_record = match id {
        Some(id) => out.bytes(&[&(CvSignature::Elf as u32).to_le_bytes(), &id[..]].concat())?,
        None => MINIDUMP_LOCATION_DESCRIPTOR::default(),
    };
    Ok(MINIDUMP_MODULE {
        base_of_image: module.base,
        size_of_image: u32::try_from(module.size).unwrap_or(u32::MAX),
        module_name_rva: out.string(&module.name)?.rva,
        cv_record,
        ..MINIDUMP_MODULE::default()
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>()?;
    Some(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

fn exception(reason: &Reason) -> MINIDUMP_EXCEPTION {
    match reason {
        // Signal, si_code and si_addr, as Breakpad has them on Linux.
        Reason::Signal { number, code, address } => MINIDUMP_EXCEPTION {
            exception_code: number.cast_unsigned(),
            exception_flags: code.cast_unsigned(),
            exception_address: address.unwrap_or(0),
            ..MINIDUMP_EXCEPTION::default()
        },
        Reason::Panic { .. } | Reason::Requested { .. } => MINIDUMP_EXCEPTION {
            exception_code: ExceptionCodeLinux::DUMP_REQUESTED as u32,
            ..MINIDUMP_EXCEPTION::default()
        },
    }
}

fn system_info(os_version: u32) -> MINIDUMP_SYSTEM_INFO {
    MINIDUMP_SYSTEM_INFO {
        processor_architecture: ProcessorArchitecture::PROCESSOR_ARCHITECTURE_AMD64 as u16,
        processor_level: 0,
        processor_revision: 0,
        number_of_processors: 0,
        product_type: 0,
        major_version: 0,
        minor_version: 0,
        build_number: 0,
        platform_id: PlatformId::Linux as u32,
        csd_version_rva: os_version,
        suite_mask: 0,
        reserved2: 0,
        cpu: CPU_INFORMATION { data: [0; 24] },
    }
}
