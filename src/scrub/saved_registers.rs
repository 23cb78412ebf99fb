//! Registers that were saved in memory: in the frame of the signal, and where crash handlers keep what they send.
//!
//! Of a text that was split over registers, memory has the pieces in another order there, in which no rule knows it. So what goes from
//! the registers goes from their copies.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::contexts;
use super::edit::{Addresses, Editor};
use super::known::Known;
use super::receipt::Place;
use super::{Level, Policy};
use crate::dump::Layout;

/// `PROCESSOR_ARCHITECTURE_AMD64`.
const AMD64: u16 = 9;
/// R8 to R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP: the order of `struct sigcontext` (asm/sigcontext.h), as offsets into
/// `CONTEXT_AMD64`.
const SAVED: [usize; 17] =
    [184, 192, 200, 208, 216, 224, 232, 240, 176, 168, 160, 144, 136, 120, 128, 152, 248];
/// The general ones among them, as `contexts` has them: arguments first.
const GENERAL: [usize; 15] = [8, 9, 12, 14, 0, 1, 13, 11, 10, 2, 3, 4, 5, 6, 7];
/// Words before RSP, which with RIP is what is looked for.
const BEFORE: usize = 15;
/// XMM0 to XMM15 of `CONTEXT_AMD64` (`FltSave.XmmRegisters`), which `struct _fpstate` has in the same order.
const VECTORS: Range<usize> = 416..672;

/// Scrubs the copies of the registers of the thread that crashed.
pub(super) fn scrub(
    editor: &mut Editor<'_>,
    layout: &Layout,
    policy: &Policy,
    mapped: &Addresses,
    known: &Known,
) {
    let Some(exception) = layout.exception.as_ref().filter(|_| layout.processor == AMD64) else { return };
    let own = layout.threads.iter().find(|thread| thread.id == exception.thread_id);
    let mut contexts: Vec<&Range<usize>> = own.map(|thread| &thread.context).into_iter().collect();
    if contexts.first() != Some(&&exception.context) {
        contexts.push(&exception.context);
    }
    let level = policy.level_of(Place::Registers);
    for context in contexts {
        let Some(registers) = editor.bytes().get(context.clone()).filter(|bytes| bytes.len() >= VECTORS.end)
        else {
            continue;
        };
        let saved: Vec<u8> = SAVED.iter().flat_map(|at| registers[*at..at + 8].to_vec()).collect();
        let vectors = registers[VECTORS].to_vec();
        for entry in &layout.memory {
            for start in copies(&editor.bytes()[entry.bytes.clone()], &saved, BEFORE * 8, 16) {
                let words = GENERAL.map(|index| entry.bytes.start + start + index * 8);
                contexts::words(editor, &words, 8, Place::Heap, mapped, known, level);
            }
            // All of zero there is nothing in them.
            let Some(first) = vectors.chunks(16).position(|vector| vector.iter().any(|&byte| byte != 0))
            else {
                continue;
            };
            if level > Level::Keep {
                for start in copies(&editor.bytes()[entry.bytes.clone()], &vectors, first * 16, 16) {
                    let start = entry.bytes.start + start;
                    editor.zero(start..start + vectors.len(), Place::Heap, "vector-state");
                }
            }
        }
    }
}

/// Where `whole` stands in `memory`; found by `length` bytes of it from `at` on.
fn copies(memory: &[u8], whole: &[u8], at: usize, length: usize) -> Vec<usize> {
    let found = memchr::memmem::find_iter(memory, &whole[at..at + length]);
    let starts = found.filter_map(|found| found.checked_sub(at));
    starts.filter(|&start| memory.get(start..start + whole.len()) == Some(whole)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::layout::{ExceptionEntry, MemoryEntry, ThreadEntry};
    use crate::scrub::{self, Receipt};

    #[test]
    fn pieces_of_a_text_go_from_the_frame_of_the_signal_too() {
        let mut bytes = vec![0; 1232];
        let text = "alice.smithson@example.com is all over the registers of this thread, and";
        for (at, piece) in [120, 144, 176, 168, 184, 192, 200].into_iter().zip(text.as_bytes().chunks(8)) {
            bytes[at..at + piece.len()].copy_from_slice(piece);
        }
        bytes[152..160].copy_from_slice(&0x7ffd_0000_1000_u64.to_le_bytes());
        bytes[248..256].copy_from_slice(&0x40_1234_u64.to_le_bytes());
        bytes[432..432 + 16].copy_from_slice(b"bob.builder@exam");
        bytes[464..464 + 16].copy_from_slice(b"ple.com         ");
        let memory = bytes.len();
        bytes.extend([7; 40]);
        let frame: Vec<u8> = SAVED.iter().flat_map(|at| bytes[*at..at + 8].to_vec()).collect();
        bytes.extend(&frame);
        bytes.extend([7; 24]);
        let vectors = bytes[VECTORS].to_vec();
        bytes.extend(&vectors);
        // The same stack pointer and instruction, and nothing else of it.
        bytes.extend([9; 8]);
        bytes.extend(&frame[BEFORE * 8..]);
        let layout = Layout {
            processor: AMD64,
            memory: vec![MemoryEntry { address: 0x9000, bytes: memory..bytes.len() }],
            threads: vec![ThreadEntry { id: 1, context: 0..1232, stack: MemoryEntry::default() }],
            exception: Some(ExceptionEntry {
                thread_id: 1,
                code: 11,
                flags: 0,
                address: 0,
                parameters: 0..0,
                context: 0..1232,
            }),
            ..Layout::default()
        };
        let (before, mut receipt) = (bytes.clone(), Receipt::default());
        scrub::dump(&mut bytes, &layout, &Policy::default(), &mut receipt).unwrap();
        assert_eq!(receipt.discrepancy(&before, &bytes), None);
        let left: Vec<_> = bytes.windows(4).filter(|run| run.iter().all(u8::is_ascii_graphic)).collect();
        assert_eq!(left, [[0_u8; 0]; 0]);
        assert_eq!(bytes[memory + 40 + BEFORE * 8..][..16], frame[BEFORE * 8..], "what unwinding needs");
        assert_eq!(bytes[bytes.len() - 16..], frame[BEFORE * 8..]);
    }
}
