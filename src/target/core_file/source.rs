//! A file that is read at places, never past its end.
#![forbid(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

use crate::sys::holes;
use crate::target::memory::read_file;

/// An open file of a known length.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    length: u64,
}

impl Source {
    /// The length is that of now; a file that grows shorter yields fewer bytes.
    pub(crate) fn new(file: File) -> std::io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Fills `bytes` from `offset` on, as far as the file goes; returns how far.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> usize {
        read_file(&self.file, bytes, offset)
    }

    /// As many of `length` bytes at `offset` as there are. No more is allocated than the file has.
    pub(crate) fn upto(&self, offset: u64, length: u64) -> Vec<u8> {
        let there = length.min(self.length.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        let done = self.read(offset, &mut bytes);
        bytes.truncate(done);
        bytes
    }

    /// The first part of `range` that may be other than zeros; `None` if all of it is a hole, or behind the file's end.
    pub(crate) fn next_data(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let whole = range.start..range.end.min(self.length);
        if whole.is_empty() {
            return None;
        }
        // Without an answer, or with one that cannot be, all of it may be data.
        let data = holes::next_data(&self.file, whole.start).unwrap_or_else(|_| Some(whole.clone()))?;
        if data.start < whole.start || data.is_empty() {
            return Some(whole);
        }
        let data = data.start..data.end.min(whole.end);
        (!data.is_empty()).then_some(data)
    }

    /// All of `length` bytes at `offset`.
    pub(crate) fn exactly(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        let bytes = self.upto(offset, length);
        (bytes.len() as u64 == length).then_some(bytes)
    }
}
