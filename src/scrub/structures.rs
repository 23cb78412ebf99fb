//! The numbers of a minidump's own structures: what readers need stays, what nobody defines goes.
//!
//! Lists may have larger headers and entries than this module knows, structures have reserved fields and padding, and
//! writers fill none of these: whatever was in memory goes out with them. The table names what stays; all else becomes zero.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::Level;
use super::contexts::{self, Cpu};
use super::edit::{Addresses, Editor};
use super::known::Known;
use super::receipt::Place;
use super::runs::is_text;
use crate::dump::Layout;
use crate::dump::layout::kind;

/// The rule of bytes that no reader knows.
const GAP: &str = "gap";
/// The rule of numbers that are text.
const PRINTABLE: &str = "printable-word";
/// Printable bytes in a row that are no number.
const TEXT_RUN: usize = 4;

/// A field that stays.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// As it is: what other bytes are found or named by.
    Kept(usize, usize),
    /// Unless its bytes are text. A number of 8 bytes is also an address.
    Number(usize, usize),
}
use Field::{Kept, Number};

/// How a stream's entries are found.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// One structure of so many bytes.
    Sole,
    /// A count of 32 bits, perhaps padding, entries of so many bytes.
    Counted(usize),
    /// 16 bytes of header, entries of so many bytes.
    Counted64(usize),
    /// The first two words are the sizes of header and entry.
    Sized,
}

struct Structure {
    kind: u32,
    shape: Shape,
    header: &'static [Field],
    entry: &'static [Field],
}

/// `MINIDUMP_HEADER`: signature, version, streams, time, flags; not the checksum, which is of bytes that have changed.
const FILE_HEADER: &[Field] = &[Kept(0, 16), Kept(20, 4), Number(24, 8)];

/// By minidumpapiset.h, and Crashpad's minidump_extensions.h.
const STRUCTURES: &[Structure] = &[
    Structure {
        kind: kind::THREAD_LIST,
        shape: Shape::Counted(48),
        header: &[Kept(0, 4)],
        // Id, suspend count, priority class and priority, TEB, stack and context.
        entry: &[Kept(0, 4), Number(4, 4), Number(8, 4), Number(12, 4), Number(16, 8), Kept(24, 24)],
    },
    Structure {
        kind: kind::MODULE_LIST,
        shape: Shape::Counted(108),
        header: &[Kept(0, 4)],
        // Base and size, checksum, time (a part of code ids) and name, CodeView. The version: see `version`.
        entry: &[Kept(0, 12), Number(12, 4), Kept(16, 8), Kept(24, 52), Kept(76, 8)],
    },
    Structure {
        kind: kind::MEMORY_LIST,
        shape: Shape::Counted(16),
        header: &[Kept(0, 4)],
        entry: &[Kept(0, 16)],
    },
    Structure {
        kind: kind::MEMORY64_LIST,
        shape: Shape::Counted64(16),
        header: &[Kept(0, 16)],
        entry: &[Kept(0, 16)],
    },
    Structure {
        kind: kind::EXCEPTION,
        shape: Shape::Sole,
        // Thread; code and flags, nested record, address, number of parameters, the parameters themselves, context.
        header: &[
            Kept(0, 4),
            Kept(8, 8),
            Number(16, 8),
            Kept(24, 8),
            Number(32, 4),
            Kept(40, 120),
            Kept(160, 8),
        ],
        entry: &[],
    },
    Structure {
        kind: kind::SYSTEM_INFO,
        shape: Shape::Sole,
        // Processor, version of the system, its name, suite. The processor's own part: see `processor`.
        header: &[
            Kept(0, 8),
            Number(8, 4),
            Number(12, 4),
            Number(16, 4),
            Number(20, 4),
            Kept(24, 6),
            Kept(PROCESSOR.start, PROCESSOR.end - PROCESSOR.start),
        ],
        entry: &[],
    },
    Structure {
        kind: kind::HANDLE_DATA,
        shape: Shape::Sized,
        header: &[Kept(0, 12)],
        // Handle, names of type and object, attributes, access, counts. Behind them further information is referred to,
        // which is a gap.
        entry: &[Number(0, 8), Kept(8, 8), Number(16, 4), Number(20, 4), Number(24, 4), Number(28, 4)],
    },
    Structure {
        kind: kind::UNLOADED_MODULE_LIST,
        shape: Shape::Sized,
        header: &[Kept(0, 12)],
        entry: &[Kept(0, 12), Number(12, 4), Kept(16, 8)],
    },
    Structure {
        kind: kind::MEMORY_INFO_LIST,
        shape: Shape::Sized,
        header: &[Kept(0, 16)],
        // Base addresses, protection, size, state, protection, type.
        entry: &[Kept(0, 16), Number(16, 4), Kept(24, 8), Number(32, 4), Number(36, 4), Number(40, 4)],
    },
    Structure {
        kind: kind::THREAD_NAMES,
        shape: Shape::Counted(12),
        header: &[Kept(0, 4)],
        entry: &[Kept(0, 12)],
    },
    Structure {
        kind: kind::CRASHPAD_INFO,
        shape: Shape::Sole,
        // Version, report and client, annotations. The modules' own are not followed.
        header: &[Number(0, 4), Kept(4, 40)],
        entry: &[],
    },
];

/// `VS_FIXEDFILEINFO` of a module, and what it begins with (verrsrc.h).
const VERSION: Range<usize> = 24..76;
const VERSION_SIGNATURE: usize = 0xfeef_04bd;
/// `CPU_INFORMATION` in `MINIDUMP_SYSTEM_INFO`.
const PROCESSOR: Range<usize> = 32..56;
/// Bytes of it that are the vendor on x86; what is behind are numbers.
const VENDOR: usize = 12;
/// What CPUID leaf 0 says of the processors that there are (Intel SDM, AMD APM; the makers' manuals for the others).
const VENDORS: [&[u8; VENDOR]; 12] = [
    b"GenuineIntel",
    b"AuthenticAMD",
    b"HygonGenuine",
    b"CentaurHauls",
    b"  Shanghai  ",
    b"VIA VIA VIA ",
    b"CyrixInstead",
    b"GenuineTMx86",
    b"TransmetaCPU",
    b"Geode by NSC",
    b"Vortex86 SoC",
    b"MiSTer AO486",
];

/// Zeroes what no reader needs of the file's structures.
pub(super) fn scrub(editor: &mut Editor<'_>, layout: &Layout, cpu: &Cpu, mapped: &Addresses, known: &Known) {
    // Of memory alone there is none.
    if editor.bytes().starts_with(b"MDMP") {
        fields(editor, 0..32, FILE_HEADER, mapped);
    }
    for stream in &layout.streams {
        if stream.kind == kind::UNUSED {
            editor.zero(stream.entry.start + 4..stream.entry.end, Place::Unclaimed, GAP);
        }
        if let Some(structure) = STRUCTURES.iter().find(|structure| structure.kind == stream.kind)
            && !stream.bytes.is_empty()
        {
            structure.scrub(editor, &stream.bytes, mapped);
        }
        let mut addresses = |range: Range<usize>| words(editor, range, cpu.width, mapped, known);
        match stream.kind {
            kind::LINUX_AUXV => addresses(stream.bytes.clone()),
            kind::LINUX_DSO_DEBUG if !stream.bytes.is_empty() => {
                // Version, where the link maps are, how many; then addresses, and the program's dynamic section.
                let (start, map) = (stream.bytes.start, 4 + 2 * cpu.width);
                addresses(start + 12..stream.bytes.end);
                fields(editor, start..start + 4, &[Number(0, 4)], mapped);
                let (first, count) = (half(editor.bytes(), start + 4), half(editor.bytes(), start + 8));
                let maps = (first..editor.bytes().len()).step_by(map).take(count);
                for (start, end) in maps.map(|start| (start, start + map)) {
                    // The address, the name's offset, where the dynamic section is.
                    words(editor, start..start + cpu.width, cpu.width, mapped, known);
                    words(editor, end - cpu.width..end, cpu.width, mapped, known);
                }
            }
            kind::MODULE_LIST if !stream.bytes.is_empty() => {
                // Entries reach to the end, whatever stands before them.
                let entries = stream.bytes.start + stream.bytes.len() % 108..stream.bytes.end;
                entries.step_by(108).for_each(|module| version(editor, module, mapped));
            }
            kind::SYSTEM_INFO if !stream.bytes.is_empty() => {
                processor(editor, stream.bytes.start, layout.processor);
            }
            _ => {}
        }
    }
}

impl Structure {
    fn scrub(&self, editor: &mut Editor<'_>, stream: &Range<usize>, mapped: &Addresses) {
        let number = |at: usize| half(editor.bytes(), stream.start + at);
        // The parser has seen that these fill the stream; but it may have been blanked since.
        let (header, entry) = match self.shape {
            Shape::Sole => (stream.len(), 0),
            Shape::Counted(entry) => (stream.len().saturating_sub(number(0).saturating_mul(entry)), entry),
            Shape::Counted64(entry) => (16, entry),
            Shape::Sized => (number(0), number(4)),
        };
        let first = stream.start + header.min(stream.len());
        fields(editor, stream.start..first, self.header, mapped);
        if entry > 0 {
            for start in (first..stream.end).step_by(entry) {
                fields(editor, start..stream.end.min(start + entry), self.entry, mapped);
            }
        }
    }
}

/// Zeroes of a structure all but `kept`, which ascend.
fn fields(editor: &mut Editor<'_>, structure: Range<usize>, kept: &[Field], mapped: &Addresses) {
    let mut end = structure.start;
    for field in kept {
        let (Kept(at, length) | Number(at, length)) = *field;
        let range = structure.start + at..structure.start + at + length;
        if range.end > structure.end {
            break;
        }
        editor.zero(end..range.start, Place::Unclaimed, GAP);
        end = range.end;
        if matches!(field, Number(..)) && is_text_in(&editor.bytes()[range.clone()], mapped) {
            editor.zero(range, Place::Unclaimed, PRINTABLE);
        }
    }
    editor.zero(end..structure.end, Place::Unclaimed, GAP);
}

/// The number of 32 bits at `at`; 0 outside.
fn half(bytes: &[u8], at: usize) -> usize {
    contexts::value(at.checked_add(4).and_then(|end| bytes.get(at..end)).unwrap_or_default()) as usize
}

/// Whether a number holds text rather than a number. Build 19041 of Windows is `aJ`: two characters say nothing.
fn is_text_in(number: &[u8], mapped: &Addresses) -> bool {
    let has_run = number.windows(TEXT_RUN).any(|run| run.iter().all(|&byte| is_text(byte)));
    has_run && !(number.len() == 8 && mapped.contains(contexts::value(number)))
}

/// A module's version: numbers, if it is one.
fn version(editor: &mut Editor<'_>, module: usize, mapped: &Addresses) {
    const NUMBERS: [Field; 13] = {
        let (mut fields, mut at) = ([Number(0, 4); 13], 0);
        while at < 13 {
            fields[at] = Number(at * 4, 4);
            at += 1;
        }
        fields
    };
    let range = module + VERSION.start..module + VERSION.end;
    let signature = half(editor.bytes(), range.start);
    let numbers = if signature == VERSION_SIGNATURE { &NUMBERS[..] } else { &[] };
    fields(editor, range, numbers, mapped);
}

/// What the processor says of itself: on x86 its vendor, version and features; elsewhere numbers.
fn processor(editor: &mut Editor<'_>, info: usize, processor: u16) {
    let range = info + PROCESSOR.start..info + PROCESSOR.end;
    let own = &editor.bytes()[range.clone()];
    let is_x86 = matches!(processor, 0 | 9);
    let vendor = if is_x86 && VENDORS.iter().any(|vendor| own.starts_with(*vendor)) { VENDOR } else { 0 };
    for word in (range.start + vendor..range.end).step_by(4).map(|at| at..at + 4) {
        if editor.bytes()[word.clone()].iter().all(|&byte| is_text(byte)) {
            editor.zero(word, Place::Unclaimed, PRINTABLE);
        }
    }
}

/// Addresses and small integers, of which there is a whole row: as registers. What is left at the end of less than a word
/// goes.
fn words(editor: &mut Editor<'_>, range: Range<usize>, width: usize, mapped: &Addresses, known: &Known) {
    let whole = range.len() / width;
    let offsets: Vec<usize> = (0..whole).map(|index| range.start + index * width).collect();
    contexts::words(editor, &offsets, width, Place::TextStream, mapped, known, Level::Pattern);
    editor.zero(range.start + whole * width..range.end, Place::Unclaimed, GAP);
}

#[cfg(test)]
mod tests;
