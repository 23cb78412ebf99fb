//! Where everything lies in a core file, each byte claimed once or by nobody.
//!
//! Stricter than the reader that shows a core file as a process: what contradicts itself cannot be scrubbed with certainty.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::fields;
use crate::error::Result;
use crate::target::core_file::segments::{self, ENTRY, Load, malformed, narrow, word};
use crate::target::core_file::source::Source;

/// Bytes of the ELF header, and of the section header that a large table needs.
pub(super) const HEADER: u64 = 64;
const SECTION: u64 = 64;
/// A count of program headers that stands in the first section header (`PN_XNUM`).
const ELSEWHERE: u32 = 0xffff;

/// A core file, as ranges of its bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Core {
    /// Ascending by address, disjoint in addresses and in the file.
    pub(super) loads: Vec<Load>,
    /// Notes, as ranges of the file.
    pub(super) notes: Vec<Range<u64>>,
    /// The table of program headers.
    pub(super) programs: Range<u64>,
    /// The section header that holds their number.
    pub(super) section: Option<Range<u64>>,
    /// What nobody claims.
    pub(super) gaps: Vec<Range<u64>>,
}

impl Core {
    /// Reads the structure.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) for anything that is cut short, overlaps or lies outside the file.
    pub(super) fn read(file: &Source) -> Result<Self> {
        let mut remarks = Vec::new();
        let segments = segments::read(file, &mut remarks)?;
        if let Some(remark) = remarks.first() {
            return Err(malformed(remark.clone()));
        }
        let header = file.exactly(0, HEADER).ok_or_else(|| malformed("it is shorter than an ELF header"))?;
        let mut count = narrow(&header, 56) & 0xffff;
        if let Some(load) = segments.loads.iter().find(|load| !fields::is_memory(&load.range)) {
            return Err(malformed(format!(
                "its memory at {:#x}..{:#x} is none that a process has",
                load.range.start, load.range.end
            )));
        }
        let mut core = Self { loads: segments.loads, notes: segments.notes, ..Self::default() };
        if count == ELSEWHERE {
            let at = word(&header, 40);
            let section = file.exactly(at, SECTION);
            count = narrow(&section.ok_or_else(|| outside("section header", at))?, 44);
            core.section = Some(at..at.saturating_add(SECTION));
        }
        let table = word(&header, 32);
        let end = u64::from(count).checked_mul(ENTRY).and_then(|length| table.checked_add(length));
        core.programs = table..end.ok_or_else(|| outside("table of program headers", table))?;
        core.gaps = core.unclaimed(file.len())?;
        Ok(core)
    }

    /// The ranges of the file that no part claims.
    fn unclaimed(&self, length: u64) -> Result<Vec<Range<u64>>> {
        let loads = self.loads.iter().map(|load| load.offset..load.offset.saturating_add(load.held));
        let tables = self.section.iter().chain([&self.programs]);
        let mut claims: Vec<Range<u64>> =
            loads.chain(self.notes.iter().cloned()).chain(tables.cloned()).collect();
        claims.push(0..HEADER);
        claims.retain(|claim| !claim.is_empty());
        claims.sort_unstable_by_key(|claim| (claim.start, claim.end));
        let (mut gaps, mut end) = (Vec::new(), 0);
        for claim in claims {
            if claim.start < end {
                return Err(malformed(format!(
                    "its parts at {:#x}..{:#x} and before {end:#x} overlap",
                    claim.start, claim.end
                )));
            }
            if claim.end > length {
                return Err(outside("part", claim.start));
            }
            if claim.start > end {
                gaps.push(end..claim.start);
            }
            end = claim.end;
        }
        if end < length {
            gaps.push(end..length);
        }
        Ok(gaps)
    }

    /// Where in the file `address` lies, and how many bytes are there from it on.
    pub(super) fn find(&self, address: u64) -> Option<(u64, u64)> {
        let after = self.loads.partition_point(|load| load.range.start <= address);
        let load = self.loads.get(after.checked_sub(1)?)?;
        let into = address - load.range.start;
        (into < load.held).then(|| (load.offset.saturating_add(into), load.held - into))
    }

    /// As many of `length` bytes at `address` as its segment holds.
    pub(super) fn memory(&self, file: &Source, address: u64, length: u64) -> Vec<u8> {
        self.find(address).map_or_else(Vec::new, |(offset, held)| file.upto(offset, length.min(held)))
    }
}

fn outside(what: &str, at: u64) -> crate::Error {
    malformed(format!("its {what} at {at:#x} lies outside it"))
}
