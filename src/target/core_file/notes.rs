//! A core file's notes: threads, the signal, the auxiliary vector, mapped files.
//!
//! Shapes: `<linux/elfcore.h>` and `fs/binfmt_elf.c` (NT_PRSTATUS, NT_PRPSINFO, NT_FILE), `<linux/elf.h>` (the numbers).
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::segments::{narrow, word};
use super::source::Source;
use crate::target::maps::Mapping;
use crate::target::registers::{FLOAT_LEN, GENERAL_LEN, Registers};

/// The most notes that are looked at; a thread has three or four.
const MOST: usize = 1 << 19;
/// The most threads, as with a live process.
const MOST_THREADS: usize = 1 << 16;
/// The longest NT_FILE; the kernel's limit is 4 MiB.
const LONGEST_FILES: u64 = 16 << 20;
/// The longest auxiliary vector; the kernel's has some 400 bytes.
const LONGEST_AUXV: u64 = 1 << 14;
/// The most mapped files, and the longest name of one (PATH_MAX, and what the kernel puts behind).
const MOST_FILES: usize = 1 << 16;
const LONGEST_NAME: usize = 4096 + 16;
/// All names of all mappings; 65530 of usual length have some 6 MiB.
const MOST_NAMES: usize = 64 << 20;
/// Bytes of a note's header: lengths of name and contents, type.
const HEADER: u64 = 12;

const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
const NT_SIGINFO: u32 = 0x5349_4749;

/// Offsets in `struct elf_prstatus`: the signal that ended it, the thread's id, its registers; its length.
const STATUS_SIGNAL: usize = 12;
const STATUS_ID: usize = 32;
const STATUS_REGISTERS: usize = 112;
const STATUS_LEN: u64 = 336;
/// Offsets in `struct elf_prpsinfo`: process id, name; its length.
const PROCESS_ID: usize = 24;
const PROCESS_NAME: usize = 40;
const PROCESS_NAME_LEN: usize = 16;
const PROCESS_LEN: u64 = 136;
/// `siginfo_t`.
pub(super) const SIGINFO_LEN: u64 = 128;

/// A thread as the notes have it, the one that crashed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) id: i32,
    /// The signal that ended the process; 0 if none did.
    pub(super) signal: i32,
    general: Vec<u8>,
    float: Option<Vec<u8>>,
}

impl Status {
    pub(super) fn registers(&self) -> Option<Registers> {
        Registers::from_sets(&self.general, self.float.as_deref())
    }

    pub(super) fn float(&self) -> Option<&[u8]> {
        self.float.as_deref()
    }
}

/// A mapped file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MappedFile {
    pub(super) range: Range<u64>,
    /// In bytes.
    pub(super) offset: u64,
    pub(super) name: String,
}

/// All that is made use of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    pub(super) threads: Vec<Status>,
    /// Process id, and the name of its first thread.
    pub(super) process: Option<(i32, String)>,
    /// `siginfo_t` of the thread that crashed.
    pub(super) siginfo: Option<Vec<u8>>,
    pub(super) auxv: Vec<u8>,
    /// Ascending, disjoint.
    pub(super) files: Vec<MappedFile>,
}

/// Reads the notes in `ranges` of `file`. What is cut short or of a wrong size is left out and named in `remarks`.
pub(super) fn read(file: &Source, ranges: &[Range<u64>], remarks: &mut Vec<String>) -> Notes {
    let mut notes = Notes::default();
    let (mut seen, mut ids, mut odd) = (0, BTreeSet::new(), 0);
    // Each byte is read once, however many segments claim it, and what a process has one of is taken in once.
    let (mut read, mut overlapping, mut cut, mut had) = (BTreeMap::new(), 0, 0, BTreeSet::new());
    'segments: for range in ranges {
        let end = range.end.min(file.len());
        cut += usize::from(end < range.end);
        let before = read.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start);
        if before {
            overlapping += 1;
            continue;
        }
        read.insert(range.start, range.end);
        let mut at = range.start;
        while let Some(header) = at.checked_add(HEADER).filter(|&next| next <= end) {
            seen += 1;
            if seen > MOST {
                remarks.push(format!("only the first {MOST} notes of the core file were looked at"));
                break 'segments;
            }
            let bytes = file.upto(at, HEADER);
            let (name, length, kind) = (narrow(&bytes, 0), narrow(&bytes, 4), narrow(&bytes, 8));
            // Names and contents are padded to 4 bytes each.
            let contents = header.saturating_add(u64::from(name).next_multiple_of(4));
            let next = contents.saturating_add(u64::from(length).next_multiple_of(4));
            if contents.saturating_add(length.into()) > end {
                remarks.push(format!("the core file's note at {at:#x} claims {name} and {length} bytes"));
                break;
            }
            if name == 5 && file.upto(header, 5) == b"CORE\0" {
                let again = matches!(kind, NT_FILE | NT_AUXV) && !had.insert(kind);
                odd += usize::from(again || !notes.add(file, kind, contents, length.into(), &mut ids));
            }
            at = next;
        }
    }
    if cut > 0 {
        remarks.push(format!("{cut} note segments of the core file are cut short"));
    }
    if overlapping > 0 {
        remarks.push(format!("{overlapping} note segments of the core file overlap earlier ones"));
    }
    if odd > 0 {
        remarks.push(format!("{odd} notes of the core file have a wrong size or repeat a thread"));
    }
    notes
}

impl Notes {
    /// Takes in a note; `false` if it is not what it claims to be.
    fn add(&mut self, file: &Source, kind: u32, at: u64, length: u64, ids: &mut BTreeSet<i32>) -> bool {
        let contents = |most: u64| (length <= most).then(|| file.upto(at, length));
        match kind {
            NT_PRSTATUS => {
                let Some(status) = contents(STATUS_LEN).filter(|status| status.len() as u64 == STATUS_LEN)
                else {
                    return false;
                };
                let id = narrow(&status, STATUS_ID).cast_signed();
                if self.threads.len() >= MOST_THREADS || !ids.insert(id) {
                    return false;
                }
                let general = status[STATUS_REGISTERS..STATUS_REGISTERS + GENERAL_LEN].to_vec();
                let signal = (narrow(&status, STATUS_SIGNAL) & 0xffff).cast_signed();
                self.threads.push(Status { id, signal, general, float: None });
            }
            NT_PRFPREG => {
                let float = contents(FLOAT_LEN as u64).filter(|float| float.len() == FLOAT_LEN);
                match (self.threads.last_mut(), float) {
                    (Some(thread), Some(float)) => thread.float = Some(float),
                    _ => return false,
                }
            }
            NT_PRPSINFO => {
                let Some(process) = contents(PROCESS_LEN).filter(|info| info.len() as u64 == PROCESS_LEN)
                else {
                    return false;
                };
                let name = &process[PROCESS_NAME..PROCESS_NAME + PROCESS_NAME_LEN];
                let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
                let name = String::from_utf8_lossy(&name[..end]).into_owned();
                self.process = Some((narrow(&process, PROCESS_ID).cast_signed(), name));
            }
            // The kernel writes one behind the first thread, gdb one behind each.
            NT_SIGINFO if self.threads.len() < 2 && self.siginfo.is_none() => {
                self.siginfo = contents(SIGINFO_LEN).filter(|info| info.len() as u64 == SIGINFO_LEN);
                return self.siginfo.is_some();
            }
            NT_AUXV => match contents(LONGEST_AUXV) {
                Some(auxv) => self.auxv = auxv,
                None => return false,
            },
            NT_FILE => match contents(LONGEST_FILES).and_then(|note| files(&note)) {
                Some(files) => self.files = files,
                None => return false,
            },
            _ => {}
        }
        true
    }
}

/// NT_FILE: a count, the page size, start, end and offset in pages of each, then the names.
fn files(note: &[u8]) -> Option<Vec<MappedFile>> {
    let (count, page) = (word(note, 0), word(note, 8));
    let names = usize::try_from(count).ok()?.checked_mul(24)?.checked_add(16)?;
    let (entries, names) = (note.get(16..names)?, note.get(names..)?);
    let mut names = names.split(|&byte| byte == 0);
    let mut files: Vec<MappedFile> = entries
        .chunks_exact(24)
        .take(MOST_FILES)
        .map_while(|entry| {
            let name = names.next()?;
            let name = name.get(..LONGEST_NAME).unwrap_or(name);
            let name = String::from_utf8_lossy(name).into_owned();
            let offset = word(entry, 16).saturating_mul(page);
            Some(MappedFile { range: word(entry, 0)..word(entry, 8), offset, name })
        })
        .collect();
    files.sort_by_key(|file| file.range.start);
    let mut end = 0;
    files.retain(|file| {
        let new = !file.range.is_empty() && file.range.start >= end;
        end = if new { file.range.end } else { end };
        new
    });
    Some(files)
}

/// The process's mappings: segments, by name and offset where a file was mapped. What a file was mapped at without a
/// segment (gdb leaves those out that the core filter excludes) counts as readable.
pub(super) fn mappings(loads: &[super::segments::Load], files: &[MappedFile]) -> Vec<Mapping> {
    let mut maps = Vec::with_capacity(loads.len().saturating_add(files.len()));
    let mut room = MOST_NAMES;
    let mut push = |range: Range<u64>, flags: u32, file: Option<&MappedFile>| {
        if range.is_empty() {
            return;
        }
        let file = file.filter(|file| file.name.len() <= room);
        room -= file.map_or(0, |file| file.name.len());
        let offset = file.map_or(0, |file| file.offset.saturating_add(range.start - file.range.start));
        maps.push(Mapping {
            readable: flags & 4 != 0,
            writable: flags & 2 != 0,
            executable: flags & 1 != 0,
            private: true,
            file: None,
            offset,
            name: file.map(|file| file.name.clone()).unwrap_or_default(),
            range,
        });
    };
    let mut loads = loads.iter().map(|load| (load.range.clone(), load.flags)).peekable();
    for file in files {
        let mut at = file.range.start;
        while let Some((range, flags)) = loads.peek_mut() {
            if range.start >= file.range.end {
                break;
            }
            let flags = *flags;
            let before = range.start..range.end.min(file.range.start);
            push(before, flags, None);
            let inside = range.start.max(file.range.start)..range.end.min(file.range.end);
            push(at..inside.start, 4, Some(file));
            at = at.max(inside.end);
            push(inside, flags, Some(file));
            if range.end <= file.range.end {
                loads.next();
            } else {
                range.start = range.start.max(file.range.end);
                break;
            }
        }
        push(at..file.range.end, 4, Some(file));
    }
    for (range, flags) in loads {
        push(range, flags, None);
    }
    maps
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn note(kind: u32, contents: &[u8]) -> Vec<u8> {
        let mut bytes = [5_u32, contents.len() as u32, kind].map(u32::to_le_bytes).as_flattened().to_vec();
        bytes.extend_from_slice(b"CORE\0\0\0\0");
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn mapped(name: &str) -> Vec<u8> {
        let numbers = [1_u64, 4096, 0x1000, 0x2000, 0].map(u64::to_le_bytes);
        [numbers.as_flattened(), name.as_bytes(), b"\0"].concat()
    }

    fn read_notes(bytes: &[u8], ranges: &[Range<u64>]) -> (Notes, Vec<String>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut remarks = Vec::new();
        let notes = read(&Source::new(file).unwrap(), ranges, &mut remarks);
        (notes, remarks)
    }

    #[test]
    fn bytes_that_many_segments_claim_are_read_once() {
        let (first, second) = (note(NT_FILE, &mapped("/a")), note(NT_AUXV, &[7; 16]));
        let bytes = [&first[..], &second].concat();
        let (middle, end) = (first.len() as u64, bytes.len() as u64);
        let (notes, remarks) = read_notes(&bytes, &[0..middle, middle..end]);
        assert_eq!((notes.files[0].name.as_str(), notes.auxv.len(), remarks.len()), ("/a", 16, 0));
        // All at one place, and one over two.
        let ranges: Vec<_> =
            std::iter::repeat_n(0..middle, 60_000).chain([4..end, middle..end, 0..4]).collect();
        let (notes, remarks) = read_notes(&bytes, &ranges);
        assert_eq!((notes.files.len(), notes.auxv.len()), (1, 16));
        assert_eq!(remarks, ["60001 note segments of the core file overlap earlier ones"]);
    }

    #[test]
    fn what_there_is_one_of_is_taken_in_once() {
        let bytes = [note(NT_FILE, &mapped("/a")), note(NT_FILE, &mapped("/b"))].concat();
        let (notes, remarks) = read_notes(&bytes, &[0..bytes.len() as u64]);
        assert_eq!((notes.files.len(), notes.files[0].name.as_str(), remarks.len()), (1, "/a", 1));
    }
}
