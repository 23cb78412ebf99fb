//! Writing minidump structures, one behind the other.
#![forbid(unsafe_code)]

use minidump_common::format::{
    MINIDUMP_DIRECTORY, MINIDUMP_HEADER, MINIDUMP_LOCATION_DESCRIPTOR, MINIDUMP_SIGNATURE, MINIDUMP_VERSION,
};
use scroll::ctx::{SizeWith, TryIntoCtx};
use scroll::{Endian, LE, Pwrite};

use crate::error::{Error, Result};

/// A structure that can be written.
pub(super) trait Structure: SizeWith<Endian> + TryIntoCtx<Endian, Error = scroll::Error> {}
impl<T: SizeWith<Endian> + TryIntoCtx<Endian, Error = scroll::Error>> Structure for T {}

/// A minidump in the making: header, room for the directory, then whatever is appended.
pub(super) struct Builder {
    bytes: Vec<u8>,
    directory: Vec<MINIDUMP_DIRECTORY>,
    streams: usize,
}

impl Builder {
    /// For at most `streams` streams.
    pub(super) fn new(streams: usize) -> Self {
        let start = size::<MINIDUMP_HEADER>() + streams * size::<MINIDUMP_DIRECTORY>();
        Self { bytes: vec![0; start], directory: Vec::new(), streams }
    }

    /// Makes room for `more` bytes.
    pub(super) fn reserve(&mut self, more: usize) {
        self.bytes.reserve(more);
    }

    /// Appends bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<MINIDUMP_LOCATION_DESCRIPTOR> {
        let location = location(self.bytes.len(), bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(location)
    }

    /// Appends a structure.
    pub(super) fn structure<T: Structure>(&mut self, value: T) -> Result<MINIDUMP_LOCATION_DESCRIPTOR> {
        let at = location(self.bytes.len(), size::<T>())?;
        push(&mut self.bytes, value)?;
        Ok(at)
    }

    /// Appends a 32-bit count and `entries`.
    pub(super) fn list<T: Structure>(&mut self, entries: Vec<T>) -> Result<MINIDUMP_LOCATION_DESCRIPTOR> {
        let bytes = list(entries)?;
        self.bytes(&bytes)
    }

    /// Appends a MINIDUMP_STRING: length in bytes, UTF-16LE text, terminator.
    pub(super) fn string(&mut self, text: &str) -> Result<MINIDUMP_LOCATION_DESCRIPTOR> {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let at = self.bytes(&narrow(units.len())?.to_le_bytes())?;
        self.bytes.extend_from_slice(&units);
        self.bytes.extend_from_slice(&[0, 0]);
        Ok(at)
    }

    /// Enters a stream into the directory.
    pub(super) fn stream(&mut self, kind: u32, location: MINIDUMP_LOCATION_DESCRIPTOR) {
        self.directory.push(MINIDUMP_DIRECTORY { stream_type: kind, location });
    }

    /// The file. `time` is Unix time in seconds.
    pub(super) fn finish(mut self, time: u32) -> Result<Vec<u8>> {
        let header = MINIDUMP_HEADER {
            signature: MINIDUMP_SIGNATURE,
            version: MINIDUMP_VERSION,
            stream_count: narrow(self.streams)?,
            stream_directory_rva: narrow(size::<MINIDUMP_HEADER>())?,
            checksum: 0,
            time_date_stamp: time,
            flags: 0,
        };
        overwrite(&mut self.bytes, 0, header)?;
        for (i, entry) in self.directory.into_iter().take(self.streams).enumerate() {
            let at = size::<MINIDUMP_HEADER>() + i * size::<MINIDUMP_DIRECTORY>();
            overwrite(&mut self.bytes, at, entry)?;
        }
        Ok(self.bytes)
    }
}

/// A 32-bit count and `entries`.
pub(super) fn list<T: Structure>(entries: Vec<T>) -> Result<Vec<u8>> {
    let mut bytes = narrow(entries.len())?.to_le_bytes().to_vec();
    entries.into_iter().try_for_each(|entry| push(&mut bytes, entry))?;
    Ok(bytes)
}

/// Appends a structure.
pub(super) fn push<T: Structure>(bytes: &mut Vec<u8>, value: T) -> Result<()> {
    let start = bytes.len();
    bytes.resize(start + size::<T>(), 0);
    overwrite(bytes, start, value)
}

/// Writes a structure over the bytes at `offset`.
pub(super) fn overwrite<T: Structure>(bytes: &mut [u8], offset: usize, value: T) -> Result<()> {
    let written = bytes.pwrite_with(value, offset, LE);
    written.map(|_| ()).map_err(|_| Error::malformed("minidump", "a structure does not fit its place"))
}

/// Where `length` bytes at `offset` lie.
pub(super) fn location(offset: usize, length: usize) -> Result<MINIDUMP_LOCATION_DESCRIPTOR> {
    narrow(offset.saturating_add(length))?;
    Ok(MINIDUMP_LOCATION_DESCRIPTOR { data_size: narrow(length)?, rva: narrow(offset)? })
}

/// Minidumps have 32-bit offsets and counts.
fn narrow(number: usize) -> Result<u32> {
    u32::try_from(number)
        .map_err(|_| Error::Limit { what: "minidump size in bytes", limit: u32::MAX as usize })
}

pub(super) fn size<T: SizeWith<Endian>>() -> usize {
    T::size_with(&LE)
}
