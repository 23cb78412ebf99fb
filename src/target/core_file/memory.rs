//! Memory from a core file and, where the kernel left it out, from the binaries that were mapped.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::segments::Load;
use super::source::Source;
use crate::target::memory::Memory;

/// Reads by `pread` from files that are all open.
#[derive(Debug)]
pub(super) struct CoreMemory {
    /// The core file, then binaries.
    files: Vec<Arc<Source>>,
    /// Ascending, disjoint.
    pieces: Arc<[Piece]>,
}

/// Memory that is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    /// Index into the files: 0 is the core file.
    pub(super) file: usize,
    /// Where it begins there.
    pub(super) offset: u64,
}

impl CoreMemory {
    /// What the core file itself holds.
    pub(super) fn new(core: Source, loads: &[Load]) -> Self {
        let held = loads.iter().filter(|load| load.held > 0).map(|load| Piece {
            // No wrap around: the whole segment does not.
            range: load.range.start..load.range.start.saturating_add(load.held),
            file: 0,
            offset: load.offset,
        });
        Self { pieces: held.collect(), files: vec![Arc::new(core)] }
    }

    /// With more files, whose pieces lie where this has none.
    pub(super) fn with(&self, files: Vec<Source>, more: Vec<Piece>) -> Self {
        let mut pieces = [&self.pieces[..], &more].concat();
        pieces.sort_by_key(|piece| piece.range.start);
        let mut end = 0;
        pieces.retain(|piece| {
            let new = piece.range.start >= end;
            end = if new { piece.range.end } else { end };
            new
        });
        let files = self.files.iter().cloned().chain(files.into_iter().map(Arc::new)).collect();
        Self { files, pieces: pieces.into() }
    }

    /// The parts of `range` that no piece has.
    pub(super) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let (mut missing, mut at) = (Vec::new(), range.start);
        for piece in self.pieces_from(range.start).iter().take_while(|piece| piece.range.start < range.end) {
            if at < piece.range.start {
                missing.push(at..piece.range.start);
            }
            at = at.max(piece.range.end);
        }
        if at < range.end {
            missing.push(at..range.end);
        }
        missing
    }

    /// The pieces that end behind `address`.
    fn pieces_from(&self, address: u64) -> &[Piece] {
        let first = self.pieces.partition_point(|piece| piece.range.end <= address);
        self.pieces.get(first..).unwrap_or_default()
    }

    /// The bytes from the start of `range` as far as they are there. No more is allocated than the files may hold.
    fn read_range(&self, range: &Range<u64>) -> Vec<u8> {
        let (mut bytes, mut at) = (Vec::new(), range.start);
        for piece in self.pieces_from(range.start) {
            if at >= range.end || !piece.range.contains(&at) {
                break;
            }
            let Some(file) = self.files.get(piece.file) else { break };
            let skipped = at - piece.range.start;
            let wanted = piece.range.end.min(range.end) - at;
            let read = file.upto(piece.offset.saturating_add(skipped), wanted);
            let done = read.len() as u64;
            bytes.extend_from_slice(&read);
            if done < wanted {
                break;
            }
            at = piece.range.end;
        }
        bytes
    }
}

impl Memory for CoreMemory {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        ranges.iter().map(|range| self.read_range(range)).collect()
    }

    /// Itself: it makes no other system calls.
    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        Some(Box::new(Self { files: self.files.clone(), pieces: self.pieces.clone() }))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.files.iter().map(|file| file.descriptor()).collect()
    }
}
