//! What a copy of the application and the worker that reads its memory say to each other, where nobody may trace: a request
//! of fixed length, a reply with what there is. Both ends run on the same machine.
//!
//! This file is reached by signal handlers: nothing in it allocates.
#![forbid(unsafe_code)]

/// Bytes of a request: what, two numbers, and a number that the reply repeats.
pub(crate) const REQUEST: usize = 32;
/// Bytes before a reply's own: the request's number and how many follow.
pub(crate) const REPLY: usize = 16;
/// Bytes that a reply carries, at most.
pub(crate) const MOST: usize = 64 << 10;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// So many bytes at this address, as far as they can be read.
    Memory(u64, u64),
    /// The next bytes of a file about the process; from its start if so.
    File(File, bool),
}

/// Files of `/proc/self`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    Maps = 0,
    Auxv = 1,
    Status = 2,
    Stat = 3,
    Comm = 4,
}

impl File {
    pub(crate) const ALL: [Self; 5] = [Self::Maps, Self::Auxv, Self::Status, Self::Stat, Self::Comm];

    /// Its path, with a zero byte behind.
    pub(crate) fn path(self) -> &'static [u8] {
        match self {
            Self::Maps => b"/proc/self/maps\0",
            Self::Auxv => b"/proc/self/auxv\0",
            Self::Status => b"/proc/self/status\0",
            Self::Stat => b"/proc/self/stat\0",
            Self::Comm => b"/proc/self/comm\0",
        }
    }
}

impl Wanted {
    /// The request numbered `number`.
    pub(crate) fn encode(self, number: u64) -> [u8; REQUEST] {
        let (what, first, second) = match self {
            Self::Memory(address, length) => (1, address, length),
            Self::File(file, from_start) => (2, file as u64, u64::from(from_start)),
        };
        let mut out = [0; REQUEST];
        for (room, word) in out.chunks_exact_mut(8).zip([what, first, second, number]) {
            room.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// A request and its number.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, u64)> {
        let bytes: &[u8; REQUEST] = bytes.try_into().ok()?;
        let word = |at: usize| bytes.get(at..at + 8)?.first_chunk().map(|word| u64::from_le_bytes(*word));
        let (first, second, number) = (word(8)?, word(16)?, word(24)?);
        let wanted = match word(0)? {
            1 => Self::Memory(first, second.min(MOST as u64)),
            2 => Self::File(*File::ALL.get(usize::try_from(first).ok()?)?, second != 0),
            _ => return None,
        };
        Some((wanted, number))
    }
}

/// The first bytes of a reply.
pub(crate) fn reply(number: u64, length: u64) -> [u8; REPLY] {
    let mut out = [0; REPLY];
    out[..8].copy_from_slice(&number.to_le_bytes());
    out[8..].copy_from_slice(&length.to_le_bytes());
    out
}

/// A reply's number and bytes, if it has as many as it says.
pub(crate) fn parse_reply(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*length) == rest.len() as u64).then_some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_survive_the_way() {
        for wanted in [Wanted::Memory(7, 9), Wanted::File(File::Comm, true), Wanted::File(File::Maps, false)]
        {
            assert_eq!(Wanted::decode(&wanted.encode(5)), Some((wanted, 5)));
        }
        assert_eq!(
            Wanted::decode(&Wanted::Memory(1, u64::MAX).encode(0)),
            Some((Wanted::Memory(1, MOST as u64), 0))
        );
        let mut odd = Wanted::File(File::Maps, true).encode(1);
        odd[8] = 9;
        assert_eq!(
            (Wanted::decode(&odd), Wanted::decode(&[0; 32]), Wanted::decode(&[1; 31])),
            (None, None, None)
        );
        let whole = [&reply(3, 2)[..], b"ab"].concat();
        assert_eq!(parse_reply(&whole), Some((3, &b"ab"[..])));
        assert_eq!((parse_reply(&whole[..17]), parse_reply(&whole[..9])), (None, None));
    }
}
