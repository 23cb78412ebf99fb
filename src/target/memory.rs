//! Reading a target's memory, in as few calls as can be.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::sys::remote::{self, Piece};

/// Where memory comes from: a process that stands still, or a core file.
pub trait Memory {
    /// The bytes of each range, from its start as far as they can be read. The ranges are the caller's to bound:
    /// buffers of their lengths are made.
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>>;

    /// A reader of the same memory that makes no system call but `pread` on descriptors that are open already, so that it
    /// works in a forked child that may do nothing else. `None` if there is none, or opening it was refused.
    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        None
    }

    /// As many bytes from `address` on as can be read, `length` at most.
    fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let range = address..address.saturating_add(length as u64);
        self.read_ranges(&[range]).pop().unwrap_or_default()
    }
}

/// The memory of a live process.
#[derive(Debug)]
pub(super) struct Live {
    /// Any thread that lives: the first one may be a zombie, whose memory is gone.
    pub(super) tid: libc::pid_t,
    /// `/proc/PID/mem`, once it was needed. It can also read what has no read permission.
    file: OnceCell<Option<File>>,
}

impl Live {
    pub(super) fn new(tid: libc::pid_t) -> Self {
        Self { tid, file: OnceCell::new() }
    }

    /// `/proc/PID/mem`, opened once.
    fn file(&self) -> Option<&File> {
        self.file.get_or_init(|| File::open(format!("/proc/{}/mem", self.tid)).ok()).as_ref()
    }

    /// Reads what `process_vm_readv` did not, where a file can.
    fn finish(&self, piece: &mut Piece<'_>) {
        let Some(file) = self.file() else { return };
        let Some(at) = piece.address.checked_add(piece.done as u64) else { return };
        piece.done += read_file(file, &mut piece.bytes[piece.done..], at);
    }
}

/// The memory of a live process through an open `/proc/PID/mem`, by `pread` only.
#[derive(Debug)]
pub(crate) struct MemFile(File);

impl MemFile {
    /// Takes a descriptor of `/proc/PID/mem`. It keeps its rights over the memory wherever it is handed to.
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }
}

impl Memory for MemFile {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let read = |range: &Range<u64>| {
            let mut bytes = vec![0; length(range)];
            let done = read_file(&self.0, &mut bytes, range.start);
            bytes.truncate(done);
            bytes
        };
        ranges.iter().map(read).collect()
    }

    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        Some(Box::new(Self(self.0.try_clone().ok()?)))
    }
}

/// Fills `bytes` from `offset` of a file on, as far as it goes; returns how far.
pub(super) fn read_file(file: &File, bytes: &mut [u8], offset: u64) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        let Some(at) = offset.checked_add(done as u64) else { break };
        match file.read_at(&mut bytes[done..], at) {
            Ok(read) if read > 0 => done += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    done
}

/// Of a range, for a buffer.
pub(super) fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)
}

impl Memory for Live {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = ranges.iter().map(|range| vec![0; length(range)]).collect();
        let mut pieces: Vec<Piece<'_>> = all
            .iter_mut()
            .zip(ranges)
            .map(|(bytes, range)| Piece { address: range.start, bytes, done: 0 })
            .collect();
        // Refused altogether (a filter, a policy): the file may still be open to us.
        let _ = remote::read_pieces(self.tid, &mut pieces);
        pieces.iter_mut().filter(|piece| piece.done < piece.bytes.len()).for_each(|piece| self.finish(piece));
        let done: Vec<usize> = pieces.iter().map(|piece| piece.done).collect();
        all.iter_mut().zip(done).for_each(|(bytes, done)| bytes.truncate(done));
        all
    }

    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        Some(Box::new(MemFile::new(self.file()?.try_clone().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        let own = Live::new(std::process::id() as libc::pid_t);
        let source: Vec<u8> = (0..100_000).map(|i| (i / 7) as u8).collect();
        let at = source.as_ptr() as u64;
        let read = own.read_ranges(&[
            at..at + 100_000,
            0..16,
            at + 5..at + 5,
            at + 1..at + 9,
            u64::MAX - 8..u64::MAX,
        ]);
        assert_eq!(read, [source.clone(), vec![], vec![], source[1..9].to_vec(), vec![]]);
        assert_eq!(own.read(at, 3), source[..3]);
        let file = own.by_pread().expect("one's own memory may be opened");
        let read = file.read_ranges(&[at + 1..at + 9, 0..16, u64::MAX - 8..u64::MAX, at..at + 100_000]);
        assert_eq!(read, [source[1..9].to_vec(), vec![], vec![], source.clone()]);
        assert_eq!(file.by_pread().unwrap().read(at, 3), source[..3]);
        let nobody = Live::new(libc::pid_t::MAX);
        assert_eq!(nobody.read_ranges(&[at..at + 8]), [Vec::<u8>::new()]);
        assert!(nobody.by_pread().is_none());
    }
}
