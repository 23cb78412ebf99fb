//! A file that is read at places, never past its end.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

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

    /// All of `length` bytes at `offset`.
    pub(crate) fn exactly(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        let bytes = self.upto(offset, length);
        (bytes.len() as u64 == length).then_some(bytes)
    }
}
