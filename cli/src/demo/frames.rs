//! Names for the victim's frames: it is this very program, so its symbols are at hand.
#![forbid(unsafe_code)]

use cenotaph::report::StackTrace;
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

/// The crashing thread's frames, innermost first, as lines.
pub(crate) fn crashing(trace: &StackTrace) -> Vec<String> {
    let symbols = Symbols::of_this_program();
    let Some(thread) = trace.threads.iter().find(|thread| thread.crashed) else { return Vec::new() };
    let describe = |(index, frame): (usize, &cenotaph::report::Frame)| {
        let Some(module) = frame.module.and_then(|index| trace.modules.get(index)) else {
            return format!("{index:3}  {:#x}", frame.instruction);
        };
        let place = format!("{} + {:#x}", module.name, frame.offset);
        match symbols.as_ref().filter(|symbols| symbols.program == module.name) {
            Some(symbols) => match symbols.name(frame.offset) {
                Some(name) => format!("{index:3}  {place:<28}  {name}"),
                None => format!("{index:3}  {place}"),
            },
            None => format!("{index:3}  {place}"),
        }
    };
    thread.frames.iter().enumerate().map(describe).collect()
}

struct Symbols {
    program: String,
    /// Offset from the module's base, and name.
    sorted: Vec<(u64, String)>,
}

impl Symbols {
    fn of_this_program() -> Option<Self> {
        let path = std::env::current_exe().ok()?;
        let bytes = std::fs::read(&path).ok()?;
        let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&*bytes).ok()?;
        let base = file.segments().map(|segment| segment.address()).min()?;
        let mut sorted: Vec<(u64, String)> = file
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text)
            .filter_map(|symbol| Some((symbol.address().checked_sub(base)?, symbol.name().ok()?.to_owned())))
            .collect();
        sorted.sort();
        Some(Self { program: path.file_name()?.to_str()?.to_owned(), sorted })
    }

    fn name(&self, offset: u64) -> Option<String> {
        let after = self.sorted.partition_point(|(start, _)| *start <= offset);
        let (_, name) = self.sorted.get(after.checked_sub(1)?)?;
        Some(format!("{:#}", rustc_demangle::demangle(name)))
    }
}
