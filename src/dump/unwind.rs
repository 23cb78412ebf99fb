//! Frames of every thread, found on the device from a dump.
//!
//! A caller is looked for by unwind tables (`.eh_frame`, through `framehop`), which themselves fall back on the
//! frame-pointer chain, and last by scanning the stack for an address in code. Whatever the bytes say, the stack
//! pointer moves towards the caller with each frame, and a thread has at most [`MAX_FRAMES`].
#![forbid(unsafe_code)]

use std::collections::HashMap;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Unwinder};
use minidump_common::format::{CONTEXT_AMD64, MemoryProtection, ProcessorArchitecture};
use scroll::{LE, Pread};

use super::binaries::{Binaries, Section, UnwindSections};
use super::layout::{Index, Layout, slice, utf16};
use super::memory::Memory;
use crate::error::{Error, Result};
use crate::report::{Frame, Module, StackTrace, Thread, Trust};

/// Frames of one thread.
pub const MAX_FRAMES: usize = 256;

/// Frames of all threads together, so that a dump of a million threads costs no more than one of some hundred. Threads
/// behind have their innermost frame only.
const MAX_ALL_FRAMES: usize = 1 << 16;

/// Words of the stack that are searched for a return address: rust-minidump's reach behind a trusted frame.
const SCAN_WORDS: u64 = 160;

/// Addresses below are no code, whatever the tables say: the page that null pointers fall into.
const LOWEST_CODE: u64 = 4096;

/// Unwinds all threads of `dump`, the crashing one first, from the exception stream's context.
///
/// # Errors
/// [`Error::Malformed`] if the dump's processor is not amd64. A thread without a context has no frames.
pub fn stack_trace(dump: &[u8], layout: &Layout, binaries: &dyn Binaries) -> Result<StackTrace> {
    if layout.processor != ProcessorArchitecture::PROCESSOR_ARCHITECTURE_AMD64 as u16 {
        return Err(Error::malformed(
            "minidump",
            format!("threads of processor {:#x} cannot be unwound, only amd64", layout.processor),
        ));
    }
    let order = Modules::new(dump, layout);
    let mut stacks = Stacks {
        memory: Memory::new(dump, layout),
        code: code(layout),
        modules: Index::new(layout.modules.iter().enumerate().map(|(i, module)| (module.addresses(), i))),
        layout,
        dump,
        binaries,
        unwinder: UnwinderX86_64::new(),
        cache: CacheX86_64::new(),
        with_tables: HashMap::new(),
        frames_left: MAX_ALL_FRAMES,
    };
    let crashed = layout.exception.as_ref();
    let mut threads: Vec<Thread> = Vec::with_capacity(layout.threads.len());
    let names: HashMap<u32, _> = layout.thread_names.iter().cloned().collect();
    for thread in &layout.threads {
        let exception = crashed.filter(|exception| exception.thread_id == thread.id);
        let context = match exception {
            Some(exception) if !exception.context.is_empty() => &exception.context,
            _ => &thread.context,
        };
        let frames = stacks.frames(slice(dump, context));
        threads.push(Thread {
            id: thread.id,
            name: names.get(&thread.id).map(|name| utf16(slice(dump, name))),
            crashed: exception.is_some(),
            frames: frames.into_iter().map(|(instruction, trust)| order.frame(instruction, trust)).collect(),
        });
    }
    threads.sort_by_key(|thread| !thread.crashed);
    Ok(StackTrace { modules: order.modules, threads })
}

/// Where code may lie: executable mappings, or else modules.
fn code(layout: &Layout) -> Index<()> {
    let executable = MemoryProtection::PAGE_EXECUTE
        | MemoryProtection::PAGE_EXECUTE_READ
        | MemoryProtection::PAGE_EXECUTE_READWRITE
        | MemoryProtection::PAGE_EXECUTE_WRITECOPY;
    let is_executable = |protection: u32| protection & executable.bits() != 0;
    if layout.mapped.is_empty() {
        return Index::new(layout.modules.iter().map(|module| (module.addresses(), ())));
    }
    let mapped = layout.mapped.iter().filter(|(_, protection)| is_executable(*protection));
    Index::new(mapped.map(|(range, _)| (range.clone(), ())))
}

/// The report's modules, in address order.
struct Modules {
    modules: Vec<Module>,
    index: Index<usize>,
}

impl Modules {
    fn new(dump: &[u8], layout: &Layout) -> Self {
        let mut entries: Vec<_> = layout.modules.iter().collect();
        entries.sort_by_key(|module| module.base);
        let index = Index::new(entries.iter().enumerate().map(|(i, module)| (module.addresses(), i)));
        let modules = entries.iter().map(|module| Module {
            name: base_name(&utf16(slice(dump, &module.name))).to_owned(),
            build_id: hexadecimal(slice(dump, &module.build_id)),
            base: module.base,
            size: module.size,
        });
        Self { modules: modules.collect(), index }
    }

    fn frame(&self, instruction: u64, trust: Trust) -> Frame {
        let module = self.index.find(instruction).map(|(_, module)| module);
        let base = module.and_then(|module| self.modules.get(module)).map_or(instruction, |m| m.base);
        Frame { instruction, module, offset: instruction - base, trust }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The part of a path behind its last separator.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

struct Stacks<'a> {
    memory: Memory<'a>,
    code: Index<()>,
    /// Value: index into `layout.modules`.
    modules: Index<usize>,
    layout: &'a Layout,
    dump: &'a [u8],
    binaries: &'a dyn Binaries,
    unwinder: UnwinderX86_64<Section>,
    cache: CacheX86_64,
    /// By index into `layout.modules`: whether the unwinder has tables for it.
    with_tables: HashMap<usize, bool>,
    frames_left: usize,
}

impl Stacks<'_> {
    /// Instruction (the return address minus one behind the first) and trust of each frame.
    fn frames(&mut self, context: &[u8]) -> Vec<(u64, Trust)> {
        let Ok(context) = context.pread_with::<CONTEXT_AMD64>(0, LE) else { return Vec::new() };
        let mut frames = vec![(context.rip, Trust::Context)];
        let mut registers = UnwindRegsX86_64::new(context.rip, context.rsp, context.rbp);
        while frames.len() < MAX_FRAMES && self.frames_left > 0 {
            let Some((next, trust)) = self.caller(&registers, frames.len() == 1) else { break };
            frames.push((next.ip() - 1, trust));
            registers = next;
            self.frames_left -= 1;
        }
        frames
    }

    /// The caller's registers.
    fn caller(&mut self, callee: &UnwindRegsX86_64, innermost: bool) -> Option<(UnwindRegsX86_64, Trust)> {
        // A stack pointer down there is garbage, and the tables' arithmetic on it could wrap around.
        if callee.sp() < LOWEST_CODE {
            return None;
        }
        let lookup = if innermost { callee.ip() } else { callee.ip().checked_sub(1)? };
        if innermost && !self.code.contains(lookup) {
            // A call through a bad pointer: nothing ran behind it, so the return address is on top.
            if let Some(caller) = self.pop(callee) {
                return Some((caller, Trust::Scan));
            }
        }
        let tables = self.load_tables(lookup);
        let address = match innermost {
            true => FrameAddress::from_instruction_pointer(callee.ip()),
            false => FrameAddress::from_return_address(callee.ip())?,
        };
        let mut caller = *callee;
        let memory = &self.memory;
        let mut read = |address| memory.word(address).ok_or(());
        match self.unwinder.unwind_frame(address, &mut caller, &mut self.cache, &mut read) {
            Ok(Some(_)) if self.plausible(callee, &caller) => return Some((caller, Trust::Unwound)),
            // Tables say that this is the outermost frame. Without tables it only means that there is no frame pointer.
            Ok(None) if tables => return None,
            _ => {}
        }
        self.scan(callee).map(|caller| (caller, Trust::Scan))
    }

    fn plausible(&self, callee: &UnwindRegsX86_64, caller: &UnwindRegsX86_64) -> bool {
        caller.sp() > callee.sp() && self.is_return_address(caller.ip())
    }

    fn is_return_address(&self, address: u64) -> bool {
        address > LOWEST_CODE && self.code.contains(address - 1)
    }

    /// The caller, if the word on top of the stack is a return address.
    fn pop(&self, callee: &UnwindRegsX86_64) -> Option<UnwindRegsX86_64> {
        let address = self.memory.word(callee.sp()).filter(|&word| self.is_return_address(word))?;
        Some(UnwindRegsX86_64::new(address, callee.sp().checked_add(8)?, callee.bp()))
    }

    /// The caller by the first word that points behind an instruction.
    fn scan(&self, callee: &UnwindRegsX86_64) -> Option<UnwindRegsX86_64> {
        let start = callee.sp().checked_next_multiple_of(8)?;
        (0..SCAN_WORDS).find_map(|i| {
            let at = start.checked_add(i * 8)?;
            self.pop(&UnwindRegsX86_64::new(0, at, callee.bp()))
        })
    }

    /// Gives the unwinder the tables of the module at `address`, once. Returns whether it has some.
    fn load_tables(&mut self, address: u64) -> bool {
        let Some((_, index)) = self.modules.find(address) else { return false };
        if let Some(&known) = self.with_tables.get(&index) {
            return known;
        }
        let module = &self.layout.modules[index];
        let path = utf16(slice(self.dump, &module.name));
        let build_id = slice(self.dump, &module.build_id);
        let sections = self.binaries.sections(&path, build_id, module);
        let sections =
            sections.filter(|sections| sections.eh_frame.is_some() || sections.debug_frame.is_some());
        if let Some(sections) = &sections {
            let info = section_info(sections);
            self.unwinder.add_module(framehop::Module::new(path, module.addresses(), module.base, info));
        }
        self.with_tables.insert(index, sections.is_some());
        sections.is_some()
    }
}

fn section_info(sections: &UnwindSections) -> ExplicitModuleSectionInfo<Section> {
    ExplicitModuleSectionInfo {
        base_svma: sections.base,
        text_svma: sections.text.clone(),
        got_svma: sections.got.clone(),
        eh_frame_svma: sections.eh_frame.as_ref().map(|section| section.addresses.clone()),
        eh_frame: sections.eh_frame.clone(),
        eh_frame_hdr_svma: sections.eh_frame_hdr.as_ref().map(|section| section.addresses.clone()),
        eh_frame_hdr: sections.eh_frame_hdr.clone(),
        debug_frame: sections.debug_frame.clone(),
        ..ExplicitModuleSectionInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use minidump_common::format::{ContextFlagsAmd64, MINIDUMP_MEMORY_DESCRIPTOR, MINIDUMP_THREAD};

    use super::*;
    use crate::dump::binaries::FileBinaries;
    use crate::dump::builder::Builder;
    use crate::dump::layout::{ModuleEntry, kind};

    const STACK: u64 = 0x7000_0000;
    const CODE: u64 = 0x40_0000;

    /// Addresses and trust of the frames of a thread with these registers, whose stack at `STACK` holds `words`. Code is
    /// at `CODE..CODE + 0x1000`, behind it 0x1000 bytes of data, both in one module without a file.
    fn frames((rip, rsp, rbp): (u64, u64, u64), words: &[u64]) -> Vec<(u64, Trust)> {
        let mut out = Builder::new(1);
        let registers = CONTEXT_AMD64 {
            context_flags: ContextFlagsAmd64::CONTEXT_AMD64_FULL.bits(),
            rip,
            rsp,
            rbp,
            ..CONTEXT_AMD64::default()
        };
        let thread_context = out.structure(registers).unwrap();
        let memory =
            out.bytes(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        let stack = MINIDUMP_MEMORY_DESCRIPTOR { start_of_memory_range: STACK, memory };
        let (thread_id, suspend_count, priority_class, priority, teb) = (1, 0, 0, 0, 0);
        let thread = MINIDUMP_THREAD {
            thread_id,
            suspend_count,
            priority_class,
            priority,
            teb,
            stack,
            thread_context,
        };
        let list = out.list(vec![thread]).unwrap();
        out.stream(kind::THREAD_LIST, list);
        let dump = out.finish(0).unwrap();
        let mut layout = Layout::parse(&dump).unwrap();
        layout.processor = 9;
        layout.mapped = vec![(CODE..CODE + 0x1000, 0x20), (CODE + 0x1000..CODE + 0x2000, 0x04)];
        let none = 0..0;
        let (name, codeview, debug_file, build_id) = (none.clone(), none.clone(), none.clone(), none);
        layout.modules = vec![ModuleEntry { base: CODE, size: 0x2000, name, codeview, debug_file, build_id }];
        let trace = stack_trace(&dump, &layout, &FileBinaries::new()).unwrap();
        assert_eq!(trace.threads.len(), 1);
        trace.threads[0].frames.iter().map(|frame| (frame.instruction, frame.trust)).collect()
    }

    #[test]
    fn fallbacks_in_order() {
        use Trust::{Context, Scan, Unwound};
        let (a, b, data) = (CODE + 0x10, CODE + 0x20, CODE + 0x1010);
        // Two frame-pointer records, the second of which ends the chain. The first word only looks like a return address.
        let chain = [b, STACK + 24, a, STACK + 999, 0, 0];
        assert_eq!(frames((a, STACK, STACK + 8), &chain), [(a, Context), (a - 1, Unwound)]);
        // No frame pointer: the first word that points into executable memory, be it in a module or not.
        assert_eq!(frames((a, STACK, 1), &[7, data, 0, b, 5]), [(a, Context), (b - 1, Scan)]);
        // A call through a null pointer, though the frame pointer would lead past the caller.
        let null_call = [b, 0, STACK + 64, a];
        assert_eq!(frames((0, STACK, STACK + 16), &null_call)[..2], [(0, Context), (b - 1, Scan)]);
        assert_eq!(frames((0, STACK, STACK + 16), &null_call)[2], (a - 1, Unwound));
        // Frame pointers into data, or a return address that is none, are not believed.
        assert_eq!(frames((a, STACK, STACK), &[STACK + 16, data, 0, 0]), [(a, Context)]);
    }

    #[test]
    fn no_stack_keeps_it_busy_for_long() {
        let a = CODE + 0x10;
        let looped: Vec<u64> = (0..64).flat_map(|_| [STACK, a]).collect();
        assert!(frames((a, STACK, STACK), &looped).len() <= 66, "a frame pointer that leads back");
        let endless: Vec<u64> = (1..2000).flat_map(|i| [STACK + i * 16, a]).collect();
        assert_eq!(frames((a, STACK, STACK), &endless).len(), MAX_FRAMES);
        assert_eq!(frames((a, STACK, 0), &[a; 2000]).len(), MAX_FRAMES, "scanned");
        let far: Vec<u64> = (0..1000).map(|i| if i == 999 { a } else { 0 }).collect();
        assert_eq!(frames((a, STACK, 0), &far).len(), 1, "too far to be found");
    }

    #[test]
    fn odd_registers_do_not_panic() {
        let odd =
            [0, 1, 7, 8, 4095, CODE, CODE + 0xfff, CODE + 0x1000, STACK, STACK + 3, u64::MAX - 8, u64::MAX];
        for rip in odd {
            for rsp in odd {
                for rbp in odd {
                    assert!(!frames((rip, rsp, rbp), &[CODE + 1, CODE, u64::MAX, 0]).is_empty());
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_unwound() {
        let mut layout = Layout { processor: 12, ..Layout::default() };
        assert!(stack_trace(&[], &layout, &FileBinaries::new()).is_err(), "arm64 is not here yet");
        layout.processor = 9;
        assert_eq!(stack_trace(&[], &layout, &FileBinaries::new()).unwrap(), StackTrace::default());
        assert_eq!(base_name("/home/jane/game"), "game");
        assert_eq!(base_name(r"C:\Users\jane\game.exe"), "game.exe");
        assert_eq!(base_name("game"), "game");
    }
}
