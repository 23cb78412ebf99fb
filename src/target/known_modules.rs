//! What files of binaries say about themselves, kept across the dumps of one monitor.
//!
//! A table in memory that the supervisor shares with its workers, each of which takes one dump: what one has learnt, the
//! next one knows. The key is the mapped file's device, inode, length and time of change, so a file that was replaced
//! or written to is read afresh. It takes a stat(2) for each module instead of reads of its memory: of 90 modules 0.11 ms
//! instead of 0.30 ms, or of 1.5 ms when the pages have to be brought in first (measured on a machine whose minidump of
//! them takes some 3 ms).
//!
//! What there is when an application starts is learnt before it crashes, from the files alone.
//!
//! Only what the file itself confirms is learnt: a process may have overwritten its header.
#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::ReadCache;
use object::read::elf::FileHeader;

use super::elf::Head;
use super::maps::FileId;
use super::{Module, maps, modules, noted_id, open_regular};
use crate::error::Result;
use crate::sys::memory::SharedMemory;

/// Slots; a file has one, by device and inode, which another file may take over.
const SLOTS: usize = 1 << 10;
/// Words of a slot: sequence number, key, lengths, header, build id, name.
const WORDS: usize = 32;
/// Bytes of the longest build id and of the longest name that are kept.
const LONGEST_ID: usize = 32;
const LONGEST_NAME: usize = 80;

static TABLE: OnceLock<SharedMemory> = OnceLock::new();
/// Modules to be learnt when nobody waits any more.
static UNKNOWN: Mutex<Vec<(Module, FileId)>> = Mutex::new(Vec::new());

/// Makes the table, which processes forked from here share. Without it nothing is known and nothing is learnt.
///
/// # Errors
/// [`Error::System`](crate::Error::System) if there is no memory for it.
pub fn share() -> Result<()> {
    let table = SharedMemory::create(c"cenotaph-modules", SLOTS * WORDS)?;
    // A second call leaves the first one's table.
    let _ = TABLE.set(table);
    Ok(())
}

/// Processes that are forked from now on do not have the table: what goes wrong in a pmodule must not reach the reports of
/// other crashes.
pub fn keep_from_children() {
    if let Some(table) = TABLE.get() {
        table.keep_from_children();
    }
}

/// Opens the files of modules that were not known, and remembers those that are what was mapped. Returns their number.
pub fn learn() -> usize {
    let unknown = std::mem::take(&mut *UNKNOWN.lock().unwrap_or_else(PoisonError::into_inner));
    let Some(table) = TABLE.get() else { return 0 };
    let confirmed = unknown.iter().filter_map(|(module, id)| confirmed(module, *id));
    confirmed.inspect(|words| store(table, words)).count()
}

/// Learns of the files that `pid` has mapped, before anybody waits for them. Neither stops the process nor looks at its
/// memory. `is_wanted` is asked between them, and ends it. Returns their number.
pub fn learn_of(pid: i32, is_wanted: impl Fn() -> bool) -> usize {
    if TABLE.get().is_none() {
        return 0;
    }
    // A process that may not be looked at has none here.
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    modules::learn(&maps::parse(&maps), is_wanted);
    learn()
}

/// Notes a module for [`learn`].
pub(super) fn remember(module: &Module, id: FileId) {
    if TABLE.get().is_some() && !module.deleted && !module.build_id.is_empty() {
        UNKNOWN.lock().unwrap_or_else(PoisonError::into_inner).push((module.clone(), id));
    }
}

/// What a file says, as addresses from the module's start on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) build_id: Vec<u8>,
    /// DT_SONAME.
    pub(super) own_name: Option<String>,
    pub(super) head: Head,
}

/// What is known of the file at `path`, of which `length` bytes of addresses are mapped, if it is still the mapped one.
pub(super) fn lookup(path: &str, id: FileId, length: u64) -> Option<Known> {
    let table = TABLE.get()?;
    let words = load(table, id)?;
    let (lengths, head) = (words[5], &words[6..14]);
    // The file is asked for last: before anything was learnt, nothing is asked.
    if head[0] != length || key(&std::fs::metadata(path).ok()?, id)? != words[1..5] {
        return None;
    }
    let bytes: Vec<u8> = words[14..].iter().flat_map(|word| word.to_le_bytes()).collect();
    let id = usize::try_from(lengths & 0xff).ok()?;
    let name = usize::try_from(lengths >> 8 & 0xff).ok()?;
    let name = bytes.get(LONGEST_ID..LONGEST_ID + name).filter(|name| !name.is_empty());
    let range = |start: u64, end: u64| (start < end).then_some(start..end);
    Some(Known {
        build_id: bytes.get(..id)?.to_vec(),
        own_name: name.map(|name| String::from_utf8_lossy(name).into_owned()),
        head: Head {
            notes: Vec::new(),
            dynamic: range(head[1], head[2]),
            unwind: range(head[3], head[4]).map(|index| (index, head[5])),
            bias: head[6],
            end: head[7],
        },
    })
}

/// Device, inode, length, time of change. `None` if the path leads to another file than the mapped one.
fn key(file: &std::fs::Metadata, id: FileId) -> Option<[u64; 4]> {
    let time = file.mtime().wrapping_mul(1_000_000_000).wrapping_add(file.mtime_nsec()).cast_unsigned();
    (file.dev() == id.device && file.ino() == id.inode && file.is_file()).then_some([
        id.device,
        id.inode,
        file.len(),
        time,
    ])
}

/// A slot's words behind its sequence number, if the file is the one that was mapped and has the build id that was found
/// in memory.
fn confirmed(module: &Module, id: FileId) -> Option<[u64; WORDS]> {
    let file = open_regular(Path::new(&module.path))?;
    let key = key(&file.metadata().ok()?, id)?;
    let cache = ReadCache::new(file);
    let header = FileHeader64::<LittleEndian>::parse(&cache).ok()?;
    if noted_id(header, &cache)? != module.build_id || module.build_id.len() > LONGEST_ID {
        return None;
    }
    let own_name = match module.own_name.as_deref() {
        Some(name) if name.len() <= LONGEST_NAME => name,
        Some(_) => return None,
        None => "",
    };
    let start = module.range.start;
    let head = &module.head;
    let from = |address: u64| address.wrapping_sub(start);
    let (dynamic, (index, behind)) =
        (head.dynamic.clone().unwrap_or(start..start), head.unwind.clone().unwrap_or((start..start, start)));
    let places = [
        module.range.end - start,
        from(dynamic.start),
        from(dynamic.end),
        from(index.start),
        from(index.end),
        from(behind),
        from(head.bias),
        from(head.end),
    ];
    let mut texts = [0; LONGEST_ID + LONGEST_NAME];
    texts[..module.build_id.len()].copy_from_slice(&module.build_id);
    texts[LONGEST_ID..LONGEST_ID + own_name.len()].copy_from_slice(own_name.as_bytes());
    let lengths = module.build_id.len() as u64 | (own_name.len() as u64) << 8;
    let mut words = [0; WORDS];
    words[1..5].copy_from_slice(&key);
    words[5] = lengths;
    words[6..14].copy_from_slice(&places);
    for (word, bytes) in words[14..].iter_mut().zip(texts.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Some(words)
}

/// The slot of a file: the golden ratio's multiples spread well.
fn slot(table: &SharedMemory, id: FileId) -> &[AtomicU64] {
    let mixed = (id.device.rotate_left(32) ^ id.inode).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let first = (mixed % SLOTS as u64) as usize * WORDS;
    table.words().get(first..first + WORDS).unwrap_or_default()
}

/// The words of a file's slot, if they are about it and nobody writes there.
fn load(table: &SharedMemory, id: FileId) -> Option<[u64; WORDS]> {
    let slot = slot(table, id);
    let sequence = slot.first()?.load(Ordering::Acquire);
    let mut words = [0; WORDS];
    for (word, place) in words.iter_mut().zip(slot) {
        *word = place.load(Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    let still = slot.first()?.load(Ordering::Relaxed) == sequence;
    let whole = sequence != 0 && sequence.is_multiple_of(2) && still;
    (whole && words[1..3] == [id.device, id.inode]).then_some(words)
}

/// Writes a slot. One that another worker writes to, or died over, is left alone.
fn store(table: &SharedMemory, words: &[u64; WORDS]) {
    let slot = slot(table, FileId { device: words[1], inode: words[2] });
    let Some(number) = slot.first() else { return };
    let sequence = number.load(Ordering::Relaxed);
    if !sequence.is_multiple_of(2)
        || number.compare_exchange(sequence, sequence + 1, Ordering::AcqRel, Ordering::Relaxed).is_err()
    {
        return;
    }
    fence(Ordering::Release);
    for (place, word) in slot.iter().zip(words).skip(1) {
        place.store(*word, Ordering::Relaxed);
    }
    number.store(sequence + 2, Ordering::Release);
}

#[cfg(test)]
mod tests;
