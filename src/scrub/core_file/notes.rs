//! The notes of a core file: which bytes of them stay.
//!
//! Shapes: `<linux/elfcore.h>`, `fs/binfmt_elf.c`, the numbers of `<linux/elf.h>`. A note that is not in [`edit`] keeps the lengths
//! in its header, and its type if there is such a one, and loses its contents. gdb's own description of the machine is one of
//! those: without it gdb goes by the extended state.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use super::fields;
use crate::error::Result;
use crate::scrub::contexts;
use crate::scrub::cut_off;
use crate::scrub::edit::{Addresses, Editor, Encoding, Finding};
use crate::scrub::known::Known;
use crate::scrub::places::{self, Means, THREAD_NAME};
use crate::scrub::receipt::Place;
use crate::scrub::{Level, Policy};
use crate::target::core_file::segments::{malformed, narrow, word};
use crate::target::core_file::source::Source;

/// The most notes; a thread has four or five.
const MOST: usize = 1 << 20;
/// The longest note; the kernel's longest is NT_FILE with 4 MiB.
const LONGEST: u64 = 16 << 20;
/// Lengths of name and contents, and the type.
const HEADER: u64 = 12;

const PRSTATUS: u32 = 1;
const PRPSINFO: u32 = 3;
const AUXV: u32 = 6;
const FILE: u32 = 0x4649_4c45;
const SIGINFO: u32 = 0x5349_4749;
/// Of "LINUX": the extended state.
const XSTATE: u32 = 0x202;

/// `struct elf_prstatus` of x86-64: its length, and its registers by name.
const STATUS_LEN: usize = 336;
const STATUS_REGISTERS: usize = 112;
/// Indices into `user_regs_struct` (sys/user.h): RDI RSI RDX RCX R8 R9, RAX, RBX, RBP, R10 to R15, so that the halves of a
/// string in two of them are neighbours; FS_BASE, GS_BASE.
const GENERAL: [usize; 17] = [14, 13, 12, 11, 9, 8, 10, 5, 4, 7, 6, 3, 2, 1, 0, 21, 22];
/// RIP and RSP, which stay, unless they can be no addresses (`leave` loads RSP with anything).
const COUNTER: usize = 16;
const POINTER: usize = 19;
const STACK_POINTER: usize = STATUS_REGISTERS + POINTER * 8;
/// `struct elf_prpsinfo`: its length, the program's name, the beginning of its command line.
const PROCESS_LEN: usize = 136;
const PROCESS_NAME: Range<usize> = 40..56;
const PROCESS_ARGUMENTS: Range<usize> = 56..136;
/// `siginfo_t`: signal, errno and code, then what depends on them.
const SIGINFO_LEN: usize = 128;
const SIGINFO_REST: usize = 16;
/// The longest auxiliary vector that is looked at; the kernel's has some 400 bytes.
const LONGEST_AUXV: usize = 1 << 14;
/// Where in the extended state its mask of components lies (`XFEATURE_ENABLED_MASK` in the software-usable bytes); larger
/// numbers are none.
const XSTATE_MASK: Range<usize> = 464..472;
const XSTATE_MOST: u64 = 1 << 24;

/// Who defined a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Core,
    Linux,
    Other,
}

/// A note, as ranges of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    owner: Owner,
    kind: u32,
    name: Range<u64>,
    contents: Range<u64>,
    /// From its header to the next one's.
    pub(super) whole: Range<u64>,
}

impl Note {
    fn is(&self, owner: Owner, kind: u32) -> bool {
        self.owner == owner && self.kind == kind
    }
}

/// What the notes tell that scrubbing the rest needs.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Of every thread; ascending.
    stack_pointers: Vec<u64>,
    /// The auxiliary vector: the first value of each key.
    auxv: BTreeMap<u64, u64>,
    /// Where files are mapped.
    pub(super) files: Addresses,
}

impl Facts {
    pub(super) fn auxv(&self, key: u64) -> Option<u64> {
        self.auxv.get(&key).copied()
    }

    /// The lowest stack pointer in `range`.
    pub(super) fn stack_pointer(&self, range: &Range<u64>) -> Option<u64> {
        let first = self.stack_pointers.partition_point(|&pointer| pointer < range.start);
        self.stack_pointers.get(first).copied().filter(|&pointer| pointer < range.end)
    }
}

/// All notes in `ranges`, and what is behind them.
///
/// # Errors
/// For a note that does not lie in its range, or is too long, or too many of them.
pub(super) fn all(file: &Source, ranges: &[Range<u64>]) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    for range in ranges {
        let mut at = range.start;
        while range.end - at >= HEADER {
            let header = file.exactly(at, HEADER).ok_or_else(|| ended(at))?;
            let (name, length, kind) = (narrow(&header, 0), narrow(&header, 4), narrow(&header, 8));
            let start = at + HEADER;
            // Names and contents are padded to 4 bytes each.
            let contents = start.saturating_add(u64::from(name).next_multiple_of(4));
            let end = contents.saturating_add(length.into());
            if end > range.end || end - at > LONGEST || notes.len() >= MOST {
                return Err(malformed(format!(
                    "its note {} at {at:#x} claims {name} and {length} bytes",
                    notes.len()
                )));
            }
            let name = start..start + u64::from(name);
            let owner = match file.upto(start, (name.end - start).min(8)).as_slice() {
                b"CORE\0" => Owner::Core,
                b"LINUX\0" => Owner::Linux,
                _ => Owner::Other,
            };
            let next = contents.saturating_add(u64::from(length).next_multiple_of(4)).min(range.end);
            notes.push(Note { owner, kind, name, contents: contents..end, whole: at..next });
            at = next;
        }
        // Too short for a note: nobody's.
        if at < range.end {
            let rest = at..range.end;
            notes.push(Note {
                owner: Owner::Other,
                kind: 0,
                name: at..at,
                contents: rest.clone(),
                whole: rest,
            });
        }
    }
    Ok(notes)
}

/// What `notes` tell.
///
/// # Errors
/// If one is not what its type says, or there is no thread or no auxiliary vector, without which neither stacks nor the
/// strings of argv and envp can be told from other memory.
pub(super) fn facts(file: &Source, notes: &[Note]) -> Result<Facts> {
    let (mut facts, mut mapped) = (Facts::default(), Vec::new());
    for note in notes {
        let contents =
            || file.exactly(note.contents.start, note.contents.end - note.contents.start).unwrap_or_default();
        if note.is(Owner::Core, PRSTATUS) {
            facts.stack_pointers.push(word(&contents(), STACK_POINTER));
        } else if note.is(Owner::Core, AUXV) {
            let words = contents();
            for pair in words.chunks_exact(16) {
                facts.auxv.entry(word(pair, 0)).or_insert(word(pair, 8));
            }
        } else if note.is(Owner::Core, FILE) {
            let note_bytes = contents();
            let (table, _) = files(&note_bytes, note.contents.start)?;
            let ranges = table.chunks_exact(24).map(|entry| word(entry, 0)..word(entry, 8));
            mapped.extend(ranges.filter(fields::is_mapping));
        }
    }
    facts.stack_pointers.sort_unstable();
    facts.files = Addresses::new(mapped);
    if facts.stack_pointers.is_empty() {
        return Err(malformed("it has no thread (NT_PRSTATUS)"));
    }
    if facts.auxv.is_empty() {
        return Err(malformed(
            "it has no auxiliary vector (NT_AUXV), by which the command line and the environment are found",
        ));
    }
    Ok(facts)
}

/// Scrubs one note, whose bytes from its header on `editor` holds.
///
/// # Errors
/// If its length is not that of its type.
pub(super) fn edit(
    editor: &mut Editor<'_>,
    note: &Note,
    mapped: &Addresses,
    known: &Known,
    policy: &Policy,
) -> Result<()> {
    // A note is 16 MiB at most.
    let local = |range: &Range<u64>| {
        (range.start - note.whole.start) as usize..(range.end - note.whole.start) as usize
    };
    let (name, contents, whole) = (local(&note.name), local(&note.contents), local(&note.whole));
    if note.owner == Owner::Other {
        editor.zero(name.clone(), Place::Unclaimed, "unknown-note");
    }
    // What is too short for a note has no header.
    if name.start == HEADER as usize && (note.owner == Owner::Other || !fields::is_note_type(note.kind)) {
        editor.zero(8..12, Place::Unclaimed, "unknown-note");
    }
    editor.zero(name.end..contents.start, Place::Unclaimed, "gap");
    editor.zero(contents.end..whole.end, Place::Unclaimed, "gap");
    let means = Means { policy, known };
    let inner = |range: &Range<usize>| contents.start + range.start..contents.start + range.end;
    let sized = |length: usize| match contents.len() == length {
        true => Ok(()),
        false => Err(malformed(format!(
            "its note of type {} at {:#x} has {} bytes instead of {length}",
            note.kind,
            note.whole.start,
            contents.len()
        ))),
    };
    match (note.owner, note.kind) {
        (Owner::Core, PRSTATUS) => {
            sized(STATUS_LEN)?;
            let place = |index: &usize| contents.start + STATUS_REGISTERS + index * 8;
            let mut general: Vec<usize> = GENERAL.iter().map(place).collect();
            for index in [COUNTER, POINTER] {
                let bytes = &editor.bytes()[place(&index)..place(&index) + 8];
                let value = contexts::value(bytes);
                // A frame has its address, even where nothing is.
                let is_text = index == POINTER && contexts::is_printable(bytes);
                if !mapped.contains(value) && (is_text || !fields::is_canonical(value)) {
                    general.push(place(&index));
                }
            }
            contexts::words(
                editor,
                &general,
                8,
                Place::Registers,
                mapped,
                known,
                policy.level_of(Place::Registers),
            );
            fields::check(editor, contents.start, fields::STATUS);
        }
        (Owner::Core, PRPSINFO) => {
            sized(PROCESS_LEN)?;
            fields::check(editor, contents.start, fields::PROCESS);
            process_name(editor, inner(&PROCESS_NAME), &means);
            let arguments = inner(&PROCESS_ARGUMENTS);
            let text = &editor.bytes()[arguments.clone()];
            let findings = match policy.level_of(Place::Environment) {
                Level::Drop => {
                    vec![Finding { range: 0..text.len(), encoding: Encoding::Utf8, rule: "command-line" }]
                }
                _ => means.in_text(text, Place::Environment),
            };
            places::blank(editor, arguments.start, findings, Place::Environment, None);
        }
        (Owner::Core, SIGINFO) => {
            sized(SIGINFO_LEN)?;
            fields::check(editor, contents.start, fields::SIGNAL);
            let rest: Vec<usize> = inner(&(SIGINFO_REST..SIGINFO_LEN)).step_by(8).collect();
            // A sender's process and user: two small numbers in a word.
            let sender = word(editor.bytes(), contents.start + SIGINFO_REST);
            let is_sender = fields::is_process(sender & 0xffff_ffff) && fields::is_user(sender >> 32);
            let rest = &rest[usize::from(is_sender)..];
            contexts::words(
                editor,
                rest,
                8,
                Place::Exception,
                mapped,
                known,
                policy.level_of(Place::Exception),
            );
        }
        (Owner::Core, AUXV) => {
            if contents.len() % 16 != 0 {
                return Err(malformed(format!("its auxiliary vector at {:#x} is cut", note.contents.start)));
            }
            if contents.len() > LONGEST_AUXV {
                return Err(malformed(format!(
                    "its auxiliary vector at {:#x} is too long",
                    note.contents.start
                )));
            }
            let words: Vec<usize> = contents.step_by(8).collect();
            // Keys are small; values are at most addresses.
            for &at in &words {
                let value = word(editor.bytes(), at);
                if !fields::is_address(value) && !contexts::is_small(value, 8) {
                    editor.zero(at..at + 8, Place::Unclaimed, "gap");
                }
            }
            contexts::words(editor, &words, 8, Place::TextStream, mapped, known, Level::Pattern);
        }
        (Owner::Core, FILE) => {
            let (_, names) = files(&editor.bytes()[contents.clone()], note.contents.start)?;
            mapped_files(editor, contents.start, names.len());
            for name in names {
                path(editor, inner(&name), &means);
            }
        }
        (Owner::Linux, XSTATE) => {
            let keep = contents.len() >= XSTATE_MASK.end
                && word(&editor.bytes()[contents.clone()], XSTATE_MASK.start) < XSTATE_MOST;
            let kept = if keep { inner(&XSTATE_MASK) } else { contents.start..contents.start };
            editor.zero(contents.start..kept.start, Place::Registers, "vector-state");
            editor.zero(kept.end..contents.end, Place::Registers, "vector-state");
        }
        (Owner::Core | Owner::Linux, _) => editor.zero(contents, Place::Registers, "vector-state"),
        _ => editor.zero(contents, Place::Unclaimed, "unknown-note"),
    }
    Ok(())
}

/// The program's name, which Linux cuts to 15 bytes.
fn process_name(editor: &mut Editor<'_>, range: Range<usize>, means: &Means<'_>) {
    let bytes = &editor.bytes()[range.clone()];
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let name = &bytes[..end];
    let is_cut = end >= THREAD_NAME
        && means.policy.level_of(Place::ThreadName) == Level::Pattern
        && cut_off::is_cut_value(name, means.known);
    let findings = if is_cut {
        vec![Finding { range: 0..end, encoding: Encoding::Utf8, rule: "cut-off" }]
    } else {
        means.in_text(name, Place::ThreadName)
    };
    places::blank(editor, range.start, findings, Place::ThreadName, None);
    editor.zero(range.start + end..range.end, Place::Unclaimed, "gap");
}

/// A mapped file's path, whose base name stays.
fn path(editor: &mut Editor<'_>, range: Range<usize>, means: &Means<'_>) {
    let path = &editor.bytes()[range.clone()];
    let findings = means.in_text(path, Place::ModulePath);
    let findings = places::outside(findings, places::base_name(path));
    places::blank(editor, range.start, findings, Place::ModulePath, None);
}

/// The numbers of NT_FILE, at `start`, of `count` files.
fn mapped_files(editor: &mut Editor<'_>, start: usize, count: usize) {
    let unit = word(editor.bytes(), start + 8);
    if !fields::is_unit(unit) {
        editor.zero(start + 8..start + 16, Place::Unclaimed, "gap");
    }
    for at in (0..count).map(|index| start + 16 + index * 24) {
        let number = |offset| word(editor.bytes(), at + offset);
        let (range, offset) = (number(0)..number(8), number(16));
        if !fields::is_mapping(&range) {
            editor.zero(at..at + 16, Place::Unclaimed, "gap");
        }
        if !fields::is_offset(offset, unit) {
            editor.zero(at + 16..at + 24, Place::Unclaimed, "gap");
        }
    }
}

/// NT_FILE: a count, the page size, start, end and offset of each, then as many names, with nothing behind.
fn files(note: &[u8], at: u64) -> Result<(&[u8], Vec<Range<usize>>)> {
    let bad = |reason: &str| malformed(format!("its list of mapped files (NT_FILE) at {at:#x} {reason}"));
    let count = usize::try_from(word(note, 0)).map_err(|_| bad("is too long"))?;
    let start = count.checked_mul(24).and_then(|length| length.checked_add(16));
    let start = start.filter(|&start| start <= note.len()).ok_or_else(|| bad("ends inside its table"))?;
    let (mut names, mut next) = (Vec::new(), start);
    for _ in 0..count {
        let rest = note.get(next..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0).ok_or_else(|| bad("ends inside its names"))?;
        names.push(next..next + end);
        next += end + 1;
    }
    if next != note.len() {
        return Err(bad("has bytes behind its names"));
    }
    Ok((&note[16..start], names))
}

fn ended(at: u64) -> crate::Error {
    malformed(format!("it ends at {at:#x} while it is read"))
}
