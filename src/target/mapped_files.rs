//! Memory by the files that are mapped there: what a process has that changed nothing, without a look at the process.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::maps::{FileId, Mapping, find};
use super::memory::{Memory, length, read_file};
use super::open_regular;

/// Reads from regular files that are still the mapped ones. One file is open at a time.
pub(super) struct MappedFiles<'a> {
    maps: &'a [Mapping],
    last: RefCell<Option<(FileId, Option<File>)>>,
}

impl<'a> MappedFiles<'a> {
    pub(super) fn new(maps: &'a [Mapping]) -> Self {
        Self { maps, last: RefCell::new(None) }
    }

    /// The bytes from the start of `range` on that lie in one mapping.
    fn read_range(&self, range: &Range<u64>) -> Option<Vec<u8>> {
        let mapping = find(self.maps, range.start)?;
        let id = mapping.file?;
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| *known != id) {
            *last = Some((id, open(&mapping.name, id)));
        }
        let file = last.as_ref()?.1.as_ref()?;
        let offset = mapping.offset.checked_add(range.start - mapping.range.start)?;
        let mut bytes = vec![0; length(&(range.start..range.end.min(mapping.range.end)))];
        let done = read_file(file, &mut bytes, offset);
        bytes.truncate(done);
        Some(bytes)
    }
}

impl Memory for MappedFiles<'_> {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let read = |range: &Range<u64>| if range.is_empty() { None } else { self.read_range(range) };
        ranges.iter().map(|range| read(range).unwrap_or_default()).collect()
    }
}

fn open(path: &str, id: FileId) -> Option<File> {
    let file = open_regular(Path::new(path))?;
    let found = file.metadata().ok()?;
    ((found.dev(), found.ino()) == (id.device, id.inode)).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::own;

    #[test]
    fn code_is_what_memory_has() {
        let target = own();
        let files = MappedFiles::new(&target.maps);
        let code = target.maps.iter().find(|mapping| mapping.executable && mapping.file.is_some()).unwrap();
        let start = code.range.start;
        let ranges = [start..start + 64, start + 100..start + 4196, 0..0, 16..32];
        let [first, second, empty, nowhere] = &files.read_ranges(&ranges)[..] else { panic!() };
        let tells = open(&code.name, code.file.unwrap()).is_some();
        // Where the file system tells other numbers, no file is the mapped one.
        assert_eq!(*first, if tells { target.memory().read(start, 64) } else { Vec::new() });
        assert_eq!(*second, if tells { target.memory().read(start + 100, 4096) } else { Vec::new() });
        assert!(empty.is_empty() && nowhere.is_empty());
        // Not beyond the mapping.
        let end = code.range.end;
        assert!(files.read(end - 8, 4096).len() <= 8);
    }
}
