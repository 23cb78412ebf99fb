//! The strings of argv and envp at the top of the first stack.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::Policy;
use super::aliases::masked;
use super::contexts::{self, Cpu};
use super::echoes::Echoes;
use super::edit::Editor;
use super::finder::{self, Edges};
use super::known::Known;
use super::receipt::Place;
use crate::dump::Layout;
use crate::dump::layout::{kind, slice};

/// Keys of the auxiliary vector (`<elf.h>`).
pub(super) const AT_RANDOM: u64 = 25;
pub(super) const AT_EXECFN: u64 = 31;
/// Bytes of argv and envp that are looked at; the kernel's limit is 6 MiB (a quarter of the stack, `execve(2)`).
pub(super) const MOST: u64 = 8 << 20;

/// Blanks them in whatever memory holds them.
///
/// They go whole, but the values that are found in them are remembered: a program copies its environment about.
pub(super) fn scrub(
    editor: &mut Editor<'_>,
    layout: &Layout,
    cpu: &Cpu,
    policy: &Policy,
    known: &Known,
    echoes: &mut Echoes,
) {
    for strings in [&policy.argument_strings, &policy.environment_strings] {
        let strings = masked(strings);
        let bytes = strings.as_bytes();
        finder::learn(echoes, bytes, &finder::in_memory(bytes, Edges::Whole, known));
    }
    let arguments = policy.arguments.clone().or_else(|| of_vector(editor.bytes(), layout, cpu.width));
    let Some(arguments) = arguments else { return };
    for entry in &layout.memory {
        let span = entry.addresses();
        let (first, last) = (arguments.start.max(span.start), arguments.end.min(span.end));
        // Both lie in the entry, whose length is that of a slice.
        let offset = |address: u64| entry.bytes.start + (address - span.start) as usize;
        if first < last {
            let block = offset(first)..offset(last);
            let bytes = &editor.bytes()[block.clone()];
            finder::learn(echoes, bytes, &finder::in_memory(bytes, Edges::Whole, known));
            editor.zero(block, Place::Environment, "argv-envp");
        }
    }
}

/// Where they are in a dump that others wrote: between the random bytes that its auxiliary vector names and the program's file
/// name (`fs/binfmt_elf.c`, `create_elf_tables`).
fn of_vector(bytes: &[u8], layout: &Layout, width: usize) -> Option<Range<u64>> {
    let vector = slice(bytes, &layout.stream(kind::LINUX_AUXV)?.bytes);
    let value = |key: u64| {
        let mut pairs = vector.chunks_exact(2 * width);
        pairs.find_map(|pair| {
            (contexts::value(&pair[..width]) == key).then(|| contexts::value(&pair[width..]))
        })
    };
    let strings = value(AT_RANDOM)?.checked_add(16)?..value(AT_EXECFN)?;
    (strings.start < strings.end && strings.end - strings.start <= MOST).then_some(strings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::layout::{MemoryEntry, Stream};
    use crate::scrub::Receipt;

    #[test]
    fn the_vector_of_a_foreign_dump_leads_to_them() {
        for (random, name, gone) in [
            (0x7000_u64, 0x7040_u64, true),
            (0x7040, 0x7000, false),
            (u64::MAX, 1, false),
            (0, u64::MAX, false),
        ] {
            let mut bytes = vec![b'.'; 16];
            bytes.extend(b"tool\0--pin=zebra\0PET=ferret\0......................");
            bytes.truncate(0x50);
            let memory = MemoryEntry { address: 0x7000, bytes: 0..bytes.len() };
            let vector = bytes.len()..bytes.len() + 48;
            for word in [25, random, 3, 0x40, 31, name] {
                bytes.extend(u64::to_le_bytes(word));
            }
            let stream = Stream { kind: kind::LINUX_AUXV, entry: 0..0, bytes: vector };
            let layout = Layout { memory: vec![memory], streams: vec![stream], ..Layout::default() };
            let (cpu, known, before) = (Cpu::new(9).unwrap(), Known::new(&[]).unwrap(), bytes.clone());
            let mut receipt = Receipt::default();
            let mut editor = Editor::new(&mut bytes, &mut receipt);
            scrub(&mut editor, &layout, cpu, &Policy::default(), &known, &mut Echoes::default());
            assert_eq!(bytes[16..64] == [0; 48], gone, "{random:#x} {name:#x}");
            assert!(gone || bytes == before, "{random:#x} {name:#x}");
            assert_eq!(receipt.discrepancy(&before, &bytes), None);
        }
    }
}
