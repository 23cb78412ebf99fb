//! Unwind tables that only the process has: those of modules whose file is gone, or never was.
//!
//! `.eh_frame_hdr` is found by PT_GNU_EH_FRAME and begins with where `.eh_frame` is (Linux Standard Base, core
//! specification, 10.6.2).
#![forbid(unsafe_code)]

use std::ops::Range;

use super::memory::length;
use super::{Module, Target, VDSO};

/// All tables of a dump together. A program of 100 MB has some 4 MiB.
const MOST: u64 = 4 << 20;
/// How `.eh_frame_hdr` says where `.eh_frame` is: as a signed distance of 4 bytes from the place that says so
/// (`DW_EH_PE_pcrel | DW_EH_PE_sdata4`). Linkers write no other.
const RELATIVE: u8 = 0x1b;

/// The unwind tables of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwindTables {
    /// Where the module begins in the process.
    pub module: u64,
    /// What is added to the binary's own addresses.
    pub bias: u64,
    /// `.eh_frame_hdr`: where it is in the process, and its bytes.
    pub index: (u64, Vec<u8>),
    /// `.eh_frame`, maybe with some of what lies behind.
    pub frames: (u64, Vec<u8>),
}

impl Target {
    /// The tables of modules whose file was deleted or never had a name, and of the vdso if a thread runs there: 4 MiB in
    /// all, one batch of reads; one more where a linker put `.eh_frame` elsewhere. No reads at all if there are no such
    /// modules. What does not fit is named in the notes.
    pub fn unwind_tables(&mut self) -> Vec<UnwindTables> {
        let runs_in = |module: &Module| {
            self.threads
                .iter()
                .filter_map(|thread| thread.registers.as_ref())
                .any(|r| module.range.contains(&r.rip))
        };
        let (mut left, mut lost) = (MOST, 0);
        let mut wanted: Vec<(&Module, &Range<u64>, Range<u64>)> = Vec::new();
        for module in &self.modules {
            let Some((index, end)) = &module.head.unwind else { continue };
            if !(module.deleted || (module.path == VDSO && runs_in(module))) {
                continue;
            }
            let range = index.start..*end;
            let size = range.end.saturating_sub(range.start);
            if size <= left {
                left -= size;
                wanted.push((module, index, range));
            } else {
                lost += 1;
            }
        }
        let bytes = match wanted.is_empty() {
            true => Vec::new(),
            false => {
                self.memory.read_ranges(&wanted.iter().map(|(.., range)| range.clone()).collect::<Vec<_>>())
            }
        };
        let mut tables: Vec<UnwindTables> = wanted
            .iter()
            .zip(bytes)
            .filter_map(|((module, index, range), bytes)| {
                let frames = frames(range.start, &bytes).filter(|at| module.range.contains(at))?;
                let behind = frames
                    .checked_sub(range.start)
                    .and_then(|offset| bytes.get(usize::try_from(offset).ok()?..));
                Some(UnwindTables {
                    module: module.range.start,
                    bias: module.head.bias,
                    frames: (frames, behind.unwrap_or_default().to_vec()),
                    index: (range.start, bytes.get(..length(index)).unwrap_or(&bytes).to_vec()),
                })
            })
            .collect();
        lost += self.read_elsewhere(&mut tables, left);
        if lost > 0 {
            self.notes.push(format!(
                "the unwind tables of {lost} modules without a file are longer than {MOST} bytes"
            ));
        }
        tables
    }

    /// Reads `.eh_frame` where it does not lie behind its index: up to the index, or to the module's end. Returns how many
    /// did not fit.
    fn read_elsewhere(&self, tables: &mut Vec<UnwindTables>, mut left: u64) -> usize {
        let mut ranges = Vec::new();
        for table in tables.iter().filter(|table| table.frames.1.is_empty()) {
            let module = self.modules.iter().find(|module| module.range.start == table.module);
            let end = module.map_or(table.frames.0, |module| module.range.end);
            let end = if table.index.0 > table.frames.0 { table.index.0 } else { end };
            let size = end.saturating_sub(table.frames.0);
            let taken = if size <= left { size } else { 0 };
            left -= taken;
            ranges.push(table.frames.0..table.frames.0.saturating_add(taken));
        }
        if ranges.iter().any(|range| !range.is_empty()) {
            let mut bytes = self.memory.read_ranges(&ranges).into_iter();
            for table in tables.iter_mut().filter(|table| table.frames.1.is_empty()) {
                table.frames.1 = bytes.next().unwrap_or_default();
            }
        }
        let before = tables.len();
        tables.retain(|table| !table.frames.1.is_empty());
        before - tables.len()
    }
}

/// Where `.eh_frame` is, by an index at `at`.
fn frames(at: u64, index: &[u8]) -> Option<u64> {
    let [1, RELATIVE, _, _, distance @ ..] = index.first_chunk::<8>()? else { return None };
    at.checked_add(4)?.checked_add_signed(i32::from_le_bytes(*distance).into())
}

impl UnwindTables {
    /// For another process to go on with.
    pub fn encode(tables: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for table in tables {
            out.extend([table.module, table.bias].iter().flat_map(|word| word.to_le_bytes()));
            for (address, bytes) in [&table.index, &table.frames] {
                out.extend([*address, bytes.len() as u64].iter().flat_map(|word| word.to_le_bytes()));
                out.extend(bytes);
            }
        }
        out
    }

    /// What [`encode`](Self::encode) wrote. `None` if it is cut short.
    pub fn decode(mut bytes: &[u8]) -> Option<Vec<Self>> {
        fn word(bytes: &mut &[u8]) -> Option<u64> {
            Some(u64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?))
        }
        fn piece(bytes: &mut &[u8]) -> Option<(u64, Vec<u8>)> {
            let (address, length) = (word(bytes)?, word(bytes)?);
            Some((address, bytes.split_off(..usize::try_from(length).ok()?)?.to_vec()))
        }
        let mut tables = Vec::new();
        while !bytes.is_empty() {
            let (module, bias) = (word(&mut bytes)?, word(&mut bytes)?);
            tables.push(Self { module, bias, index: piece(&mut bytes)?, frames: piece(&mut bytes)? });
        }
        Some(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::own;

    #[test]
    fn where_frames_are() {
        let index = |distance: i32| [&[1, 0x1b, 3, 0x3b][..], &distance.to_le_bytes(), &[0; 8]].concat();
        assert_eq!(frames(0x1000, &index(0x20)), Some(0x1024));
        assert_eq!(frames(0x1000, &index(-4)), Some(0x1000));
        assert_eq!(frames(0, &index(-8)), None);
        assert_eq!(frames(0x1000, &index(8)[..7]), None);
        assert_eq!(frames(0x1000, &[2, 0x1b, 3, 0x3b, 0, 0, 0, 0]), None, "an unknown version");
        assert_eq!(frames(0x1000, &[1, 0x03, 3, 0x3b, 0, 0, 0, 0]), None, "an absolute address");
    }

    #[test]
    fn as_the_file_has_them() {
        let mut target = own();
        assert_eq!(target.unwind_tables(), [], "all files are there");
        let sections = target.sections(0);
        target.modules[0].deleted = true;
        let tables = target.unwind_tables();
        let section = |name: &str| sections.iter().find(|section| section.name == name).unwrap();
        assert_eq!(tables.len(), 1, "{:?}", target.notes);
        let (index, table) = (section(".eh_frame_hdr"), section(".eh_frame"));
        assert_eq!((tables[0].index.0, tables[0].index.1.len() as u64), (index.address, index.size));
        assert_eq!(tables[0].frames.0, table.address);
        assert!(tables[0].frames.1.len() as u64 >= table.size);
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(memchr::memmem::find(&file, &tables[0].frames.1[..table.size as usize]).is_some());

        let encoded = UnwindTables::encode(&tables);
        assert_eq!(UnwindTables::decode(&encoded).as_ref(), Some(&tables));
        for length in [1, 8, 40, encoded.len() / 2, encoded.len() - 1] {
            assert_eq!(UnwindTables::decode(&encoded[..length]), None);
        }
        assert_eq!(UnwindTables::decode(&[0xff; 64]), None);
        // Too long for the limit.
        target.modules[0].head.unwind.as_mut().unwrap().1 += MOST;
        assert_eq!((target.unwind_tables(), target.notes.len()), (vec![], 1));
    }
}
