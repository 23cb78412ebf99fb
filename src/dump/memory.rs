//! The process's memory as far as a dump holds it, by address.
#![forbid(unsafe_code)]

use super::layout::{Index, Layout};

/// Reads memory out of a dump. Where two pieces hold one address, the one that starts first answers.
#[derive(Debug)]
pub struct Memory<'a> {
    dump: &'a [u8],
    /// Value: the address of the piece's first byte and its offset in the file.
    pieces: Index<(u64, usize)>,
}

impl<'a> Memory<'a> {
    /// Over `dump`, whose layout is `layout`.
    pub fn new(dump: &'a [u8], layout: &Layout) -> Self {
        let pieces =
            layout.memory.iter().map(|entry| (entry.addresses(), (entry.address, entry.bytes.start)));
        Self { dump, pieces: Index::new(pieces) }
    }

    /// The bytes from `address` to the end of the piece that holds it; empty if none does.
    pub fn bytes_at(&self, address: u64) -> &'a [u8] {
        self.pieces
            .find(address)
            .and_then(|(range, (base, offset))| {
                let start = offset.checked_add(usize::try_from(address - base).ok()?)?;
                let end = start.checked_add(usize::try_from(range.end - address).ok()?)?;
                self.dump.get(start..end)
            })
            .unwrap_or_default()
    }

    /// The 8-byte word at `address`, if one piece holds all of it.
    pub fn word(&self, address: u64) -> Option<u64> {
        self.bytes_at(address).first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// Whether the dump holds the byte at `address`.
    pub fn contains(&self, address: u64) -> bool {
        self.pieces.contains(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::layout::MemoryEntry;

    #[test]
    fn reads_by_address() {
        let dump: Vec<u8> = (0..40).collect();
        let memory = [(0x100, 0..16), (0x10c, 16..32), (u64::MAX - 8, 32..40)];
        let memory = memory.map(|(address, bytes)| MemoryEntry { address, bytes }).to_vec();
        let layout = Layout { memory, ..Layout::default() };
        let memory = Memory::new(&dump, &layout);
        assert_eq!(memory.word(0x100), Some(0x0706_0504_0302_0100));
        assert_eq!(memory.word(0x109), None, "runs over the piece's end");
        assert_eq!(memory.bytes_at(0x110), &dump[20..32], "the second piece, from behind the first");
        assert_eq!(memory.word(0xff), None);
        assert_eq!(memory.word(u64::MAX - 8), Some(0x2726_2524_2322_2120));
        assert!(memory.contains(0x11b) && !memory.contains(0x11c));
    }
}
