//! Pieces of a value that was found whole somewhere else.
//!
//! Memory holds dead copies: a string that moved, a freed block whose first bytes the allocator has written over, a stack
//! frame that another has half covered. No rule knows "ilhelmina.quist@corv" for an address, but where the whole address
//! was found, in memory, in the environment or in an attribute, any eight characters of it in a row are known.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

/// The shortest piece, in characters.
const PIECE: usize = 8;
/// Of each piece, wherever it stands in a line, as many characters in a row begin at a multiple of [`STEP`].
const PART: usize = 4;
const STEP: usize = PIECE - PART + 1;
/// Pieces that are remembered; a dump has a few hundred.
const MAX_PIECES: usize = 1 << 16;
/// A piece of fewer different bytes ("00000000", "11111111") says nothing.
const DISTINCT: usize = 3;

/// The rule's name in receipts.
pub(super) const RULE: &str = "echo";

/// Every eight characters in a row of the values found so far.
#[derive(Debug, Clone)]
pub(super) struct Echoes {
    pieces: HashSet<u64, PieceHash>,
    /// A bit for each hash that a piece has.
    filter: Box<[u64; 1024]>,
    /// A bit for each hash that [`PART`] characters in a row of a piece have: nearly all of a dump's text ends here.
    parts: Box<[u64; 1024]>,
}

/// A product with a random number, folded: what stands in a dump cannot be made to collide, and it is cheaper than the standard
/// hash, which is for keys of any length.
#[derive(Debug, Clone)]
struct PieceHash(u64);

struct PieceHasher(u64, u64);

impl Default for PieceHash {
    fn default() -> Self {
        Self(std::hash::RandomState::new().hash_one(0) | 1)
    }
}

impl BuildHasher for PieceHash {
    type Hasher = PieceHasher;

    fn build_hasher(&self) -> PieceHasher {
        PieceHasher(self.0, 0)
    }
}

impl Hasher for PieceHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(value ^ self.1 ^ self.0.rotate_left(32)) * u128::from(self.0);
        self.1 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.1
    }
}

impl Default for Echoes {
    fn default() -> Self {
        Self { pieces: HashSet::default(), filter: Box::new([0; 1024]), parts: Box::new([0; 1024]) }
    }
}

impl Echoes {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Remembers a value, one byte a character.
    pub(super) fn learn(&mut self, value: &[u8]) {
        for piece in value.array_windows::<PIECE>() {
            if self.pieces.len() >= MAX_PIECES {
                return;
            }
            let (word, bit) = position(piece);
            let known =
                self.filter[word] >> bit & 1 == 1 && self.pieces.contains(&u64::from_le_bytes(*piece));
            if !known && says_something(piece) {
                self.filter[word] |= 1 << bit;
                for part in piece.array_windows::<PART>() {
                    let (word, bit) = position_of_part(part);
                    self.parts[word] |= 1 << bit;
                }
                self.pieces.insert(u64::from_le_bytes(*piece));
            }
        }
    }

    /// Calls `found` with what of `line` repeats what was learnt: ascending, disjoint.
    pub(super) fn find(&self, line: &[u8], mut found: impl FnMut(Range<usize>)) {
        let some = line.array_windows::<PART>().step_by(STEP).any(|part| {
            let (word, bit) = position_of_part(part);
            self.parts[word] >> bit & 1 == 1
        });
        if !some {
            return;
        }
        let mut last: Option<Range<usize>> = None;
        for (start, piece) in line.array_windows::<PIECE>().enumerate() {
            let (word, bit) = position(piece);
            if self.filter[word] & 1 << bit == 0 || !self.pieces.contains(&u64::from_le_bytes(*piece)) {
                continue;
            }
            match &mut last {
                Some(last) if start <= last.end => last.end = start + PIECE,
                _ => last.replace(start..start + PIECE).into_iter().for_each(&mut found),
            }
        }
        last.into_iter().for_each(found);
    }
}

fn says_something(piece: &[u8; PIECE]) -> bool {
    let mut sorted = *piece;
    sorted.sort_unstable();
    1 + sorted.windows(2).filter(|pair| pair[0] != pair[1]).count() >= DISTINCT
}

/// Word and bit in the filter: the upper 16 bits of a multiplicative hash (Knuth, TAOCP 3, section 6.4).
fn position(piece: &[u8; PIECE]) -> (usize, u32) {
    let hash = u64::from_le_bytes(*piece).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    ((hash >> 6) as usize, (hash & 63) as u32)
}

/// The same of a part of a piece.
fn position_of_part(part: &[u8; PART]) -> (usize, u32) {
    let hash = u32::from_le_bytes(*part).wrapping_mul(0x9e37_79b1) >> 16;
    ((hash >> 6) as usize, hash & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_pieces_of_eight_and_more() {
        let mut echoes = Echoes::default();
        assert!(echoes.is_empty());
        echoes.learn(b"wilhelmina.quist@corvid-mail.example.org");
        echoes.learn(b"short");
        for (line, expected) in [
            (&b"xx ina.quist@corvi yy"[..], vec![3..18]),
            (b"ilhelmin", vec![0..8]),
            (b"ilhelmi", vec![]),
            (b"wilhelmina or example.org", vec![0..10, 14..25]),
            (b"short", vec![]),
            (b"", vec![]),
        ] {
            let mut found = Vec::new();
            echoes.find(line, |range| found.push(range));
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_piece_is_found_wherever_it_stands() {
        let mut echoes = Echoes::default();
        echoes.learn(b"quist@corvid-mail");
        for before in 0..40 {
            for length in PIECE..=17 {
                let line = [&vec![b'.'; before], &b"quist@corvid-mail"[17 - length..], b"~~"].concat();
                let mut found = Vec::new();
                echoes.find(&line, |range| found.push(range));
                assert_eq!(found, [before..before + length]);
            }
        }
    }

    #[test]
    fn what_says_nothing_is_not_learnt() {
        let mut echoes = Echoes::default();
        echoes.learn(b"000000000000");
        echoes.learn(b"1010101010101010");
        assert!(echoes.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut echoes = Echoes::default();
        let long: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
        echoes.learn(&long);
        assert_eq!(echoes.pieces.len(), MAX_PIECES);
    }
}
