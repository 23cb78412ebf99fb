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
    // One entry more, for Crashpad's stream.
    let mut out = Builder::new(7);
    let system = out.string("Linux")?;
    let system = out.structure(system_info(system.rva))?;
    out.stream(kind::SYSTEM_INFO, system);

    let mut stack_at = free_addresses(trace)?;
    let (mut threads, mut stacks, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let mut crashed = None;
    for thread in &trace.threads {
        let context = match thread.frames.first() {
            Some(frame) => out.structure(context(frame.instruction, stack_at, stack_at))?,
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
        let exception = out.structure(exception_stream(thread_id, reason, thread_context))?;
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

/// Registers of which only three are known.
pub(super) fn context(instruction: u64, stack: u64, frame: u64) -> CONTEXT_AMD64 {
    CONTEXT_AMD64 {
        context_flags: ContextFlagsAmd64::CONTEXT_AMD64_FULL.bits(),
        rip: instruction,
        rsp: stack,
        rbp: frame,
        ..CONTEXT_AMD64::default()
    }
}

/// An entry of the module list.
pub(super) fn module(out: &mut Builder, module: &Module) -> Result<MINIDUMP_MODULE> {
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

/// The exception stream for a thread whose context is written.
pub(super) fn exception_stream(
    thread_id: u32,
    reason: &Reason,
    thread_context: MINIDUMP_LOCATION_DESCRIPTOR,
) -> MINIDUMP_EXCEPTION_STREAM {
    MINIDUMP_EXCEPTION_STREAM { thread_id, __align: 0, exception_record: exception(reason), thread_context }
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
        Reason::UncleanExit { signal: Some(signal), .. } => {
            MINIDUMP_EXCEPTION { exception_code: signal.cast_unsigned(), ..MINIDUMP_EXCEPTION::default() }
        }
        Reason::Panic { .. }
        | Reason::Requested { .. }
        | Reason::Hang { .. }
        | Reason::UncleanExit { signal: None, .. } => MINIDUMP_EXCEPTION {
            exception_code: ExceptionCodeLinux::DUMP_REQUESTED as u32,
            ..MINIDUMP_EXCEPTION::default()
        },
    }
}

pub(super) fn system_info(os_version: u32) -> MINIDUMP_SYSTEM_INFO {
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

#[cfg(test)]
mod tests {
    use minidump_unwind::FrameTrust;

    use super::*;
    use crate::dump::binaries::FileBinaries;
    use crate::dump::{Layout, oracle, unwind};
    use crate::report::Trust;

    fn module(name: &str, base: u64, size: u64, build_id: &str) -> Module {
        Module { name: name.into(), build_id: build_id.into(), base, size }
    }

    fn trace() -> StackTrace {
        let modules = vec![
            module("app", 0x5555_5555_4000, 0x10_0000, "00112233445566778899aabbccddeeff00112233"),
            module("libc.so.6", 0x7fff_f7d0_0000, 0x20_0000, "ffeeddccbbaa99887766554433221100ffeeddcc"),
            module("no id.so", 0x7fff_f7fc_0000, 0x1000, ""),
        ];
        let frame = |module: usize, offset, trust| Frame {
            instruction: modules[module].base + offset,
            module: Some(module),
            offset,
            trust,
        };
        let nowhere = |instruction| Frame { instruction, module: None, offset: 0, trust: Trust::Context };
        let thread = |id, name: Option<&str>, crashed, frames: Vec<Frame>| Thread {
            id,
            name: name.map(str::to_owned),
            crashed,
            frames,
        };
        let deep = (0..256).map(|i| frame(0, 0x1000 + i * 8, Trust::Unwound)).collect();
        let recursion = vec![frame(0, 0x2000, Trust::Unwound); 40];
        let short = vec![
            frame(0, 0x1234, Trust::Context),
            frame(1, 0x5678, Trust::Unwound),
            frame(0, 1, Trust::Scan),
        ];
        let jit =
            vec![nowhere(0), frame(2, 0xfff, Trust::Scan), nowhere(0x1234_5678), frame(1, 0, Trust::Unwound)];
        let threads = vec![
            thread(77, Some("wörker"), true, short),
            thread(70, None, false, deep),
            thread(71, Some(""), false, recursion),
            thread(72, Some("jit"), false, jit),
            thread(73, Some("no frames"), false, vec![]),
        ];
        StackTrace { modules, threads }
    }

    fn signal() -> Reason {
        Reason::Signal { number: libc::SIGSEGV, code: 1, address: Some(0xdead_0000) }
    }

    #[test]
    fn an_independent_stackwalker_finds_the_same_frames() {
        let trace = trace();
        let dump = write(&trace, &signal(), 1_700_000_000_123).unwrap();
        let state = oracle::process(&dump);
        let found = oracle::frames(&state);
        assert_eq!(found.len(), trace.threads.len());
        for (thread, (id, frames)) in trace.threads.iter().zip(&found) {
            assert_eq!(thread.id, *id);
            let expected: Vec<_> = thread
                .frames
                .iter()
                .enumerate()
                .map(|(i, frame)| {
                    let module = frame.module.map(|module| trace.modules[module].name.clone());
                    let offset = if module.is_some() { frame.offset } else { frame.instruction };
                    let trust = if i == 0 { FrameTrust::Context } else { FrameTrust::FramePointer };
                    (module, offset, trust)
                })
                .collect();
            assert_eq!(frames, &expected, "thread {id}");
        }
        assert_eq!(state.requesting_thread, Some(0));
        assert_eq!(state.time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_700_000_000);
        let exception = state.exception_info.unwrap();
        assert_eq!(exception.reason.to_string(), "SIGSEGV / SEGV_MAPERR");
        assert_eq!(exception.address.0, 0xdead_0000);
        assert_eq!(state.threads[0].thread_name.as_deref(), Some("wörker"));
        use minidump::Module as _;
        let ids: Vec<_> =
            state.modules.iter().map(|m| m.code_identifier().map(|id| id.to_string())).collect();
        assert_eq!(ids[0].as_deref(), Some(&trace.modules[0].build_id[..]));
    }

    #[test]
    fn our_own_reader_finds_the_same_trace_again() {
        let trace = trace();
        let dump = write(&trace, &signal(), 0).unwrap();
        let layout = Layout::parse(&dump).unwrap();
        // String terminators are all that nobody claims.
        assert!(
            layout.gaps.iter().all(|gap| gap.len() == 2 && dump[gap.clone()] == [0, 0]),
            "{:?}",
            layout.gaps
        );
        let again = unwind::stack_trace(&dump, &layout, &FileBinaries::new()).unwrap();
        assert_eq!(again.modules, trace.modules);
        for (thread, again) in trace.threads.iter().zip(&again.threads) {
            assert_eq!((thread.id, &thread.name, thread.crashed), (again.id, &again.name, again.crashed));
            // Without a map of executable memory only addresses in modules count as code.
            if thread.id != 72 {
                let places =
                    |thread: &Thread| thread.frames.iter().map(|f| (f.module, f.offset)).collect::<Vec<_>>();
                assert_eq!(places(thread), places(again));
            }
        }
    }

    #[test]
    fn nothing_but_the_trace_is_in_it() {
        for reason in [
            Reason::Panic { message: "SECRET1".into(), location: "SECRET2".into(), thread: "SECRET3".into() },
            Reason::Requested { reason: "SECRET4".into() },
        ] {
            let dump = write(&trace(), &reason, 0).unwrap();
            assert!(memchr::memmem::find(&dump, b"SECRET").is_none());
            assert!(memchr::memmem::find(&dump, b"S\0E\0C\0").is_none());
            let reason = oracle::process(&dump).exception_info.unwrap().reason.to_string();
            assert_eq!(reason, "DUMP_REQUESTED");
        }
    }

    #[test]
    fn empty_traces_and_full_address_spaces() {
        let dump = write(&StackTrace::default(), &signal(), u64::MAX).unwrap();
        assert!(Layout::parse(&dump).unwrap().threads.is_empty());
        let mut trace = trace();
        trace.modules[0] = module("everything", 0, u64::MAX, "");
        assert!(write(&trace, &signal(), 0).is_err());
        trace.modules[0] = module("low", 0x1000, 0x6000_0000_0000, "not hex");
        let dump = write(&trace, &signal(), 0).unwrap();
        assert!(Layout::parse(&dump).unwrap().memory.iter().all(|m| m.address >= 0x6000_0000_0000));
    }
}
