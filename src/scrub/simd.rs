//! Bitmaps of 64 bytes: for [`runs`](super::runs), which are printable and which zero; for lines, which characters are of what kind.
//! The one place of scrubbing with `unsafe`: intrinsics, chosen when the program runs.
#![deny(unsafe_op_in_unsafe_fn)]

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// A block in which runs may begin: which of its bytes and of the next block's are text, which are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Number of the block.
    pub(super) block: usize,
    pub(super) maps: Maps,
}

/// Bit n of the first is set if byte n is text, of the second if it is zero. Behind the end bytes are neither.
pub(super) type Maps = (u128, u128);

/// The blocks of `bytes` in which runs may begin, and no others that could be told from such at little cost. `long` is for runs
/// of six characters and more, else they have three and more.
pub(super) fn candidates(bytes: &[u8], long: bool, out: &mut Vec<Candidate>) {
    out.clear();
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has both; AVX-512BW implies AVX-512F.
        unsafe { x86::candidates_avx512(blocks, rest, long, out) };
    } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has both, which is all that the function needs.
        unsafe { x86::candidates_avx2(blocks, rest, long, out) };
    } else {
        collect(blocks, rest, long, x86::classify_sse2, out);
    }
    #[cfg(not(target_arch = "x86_64"))]
    collect(blocks, rest, long, scalar, out);
}

/// The maps of the two blocks from `start` on.
pub(super) fn maps(bytes: &[u8], start: usize) -> Maps {
    let (low, high) = (one(bytes, start), one(bytes, start.saturating_add(BLOCK)));
    (u128::from(low.0) | u128::from(high.0) << 64, u128::from(low.1) | u128::from(high.1) << 64)
}

/// Which characters of a part of a line, of 64 at most, are of a kind: a bit for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    /// Base64 digits of either alphabet (RFC 4648, sections 4 and 5).
    pub(super) word: u64,
    /// Hexadecimal digits among them.
    pub(super) hex: u64,
    /// The last two digits of either alphabet among them: "+/-_".
    pub(super) cut: u64,
}

/// Those of `part`, which has 64 characters at most.
pub(super) fn kinds(part: &[u8]) -> Kinds {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it, which is all that the function needs.
        return unsafe { x86::kinds_avx2(part) };
    }
    by_table(part)
}

/// The reference for that, and what there is where nothing better is known.
fn by_table(part: &[u8]) -> Kinds {
    part.iter().enumerate().fold(Kinds::default(), |kinds, (at, &byte)| {
        let of = KINDS[usize::from(byte)];
        let bit = |kind: u8| u64::from(of & kind != 0) << at;
        Kinds { word: kinds.word | bit(WORD), hex: kinds.hex | bit(HEX), cut: kinds.cut | bit(CUT) }
    })
}

const WORD: u8 = 1;
const HEX: u8 = 2;
const CUT: u8 = 4;

const KINDS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0u8;
    while byte < 128 {
        let cut = matches!(byte, b'+' | b'/' | b'-' | b'_');
        table[byte as usize] = if byte.is_ascii_alphanumeric() || cut { WORD } else { 0 }
            | if byte.is_ascii_hexdigit() { HEX } else { 0 }
            | if cut { CUT } else { 0 };
        byte += 1;
    }
    table
};

/// Where the text that goes on at `from` ends.
pub(super) fn text_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        let length = one(bytes, at).0.trailing_ones() as usize;
        at += length;
        if length < BLOCK {
            return at;
        }
    }
}

fn one(bytes: &[u8], start: usize) -> (u64, u64) {
    #[cfg(target_arch = "x86_64")]
    let classify = x86::classify_sse2;
    #[cfg(not(target_arch = "x86_64"))]
    let classify = scalar;
    let rest = bytes.get(start..).unwrap_or_default();
    rest.first_chunk().map_or_else(|| filled(rest, classify), classify)
}

/// A block that is cut off, as if bytes followed that are neither text nor zero.
fn filled<T>(rest: &[u8], classify: impl Fn(&[u8; BLOCK]) -> T) -> T {
    let mut block = [0xff; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    classify(&block)
}

/// The candidates by `classify`, which gives the maps of a block. Of nearly all blocks the text alone is asked for, and the compiler
/// leaves the rest out.
#[inline(always)]
fn collect(
    blocks: &[[u8; BLOCK]],
    rest: &[u8],
    long: bool,
    classify: impl Fn(&[u8; BLOCK]) -> (u64, u64),
    out: &mut Vec<Candidate>,
) {
    let maps = |block: usize| match blocks.get(block) {
        Some(block) => classify(block),
        None if block == blocks.len() && !rest.is_empty() => filled(rest, &classify),
        None => (0, 0),
    };
    for (block, bytes) in blocks.iter().enumerate() {
        if holds_enough(classify(bytes).0, long) {
            out.push(Candidate { block, maps: (0, 0) });
        }
    }
    if !rest.is_empty() && holds_enough(maps(blocks.len()).0, long) {
        out.push(Candidate { block: blocks.len(), maps: (0, 0) });
    }
    for Candidate { block, maps: both } in out {
        let (low, high) = (maps(*block), maps(*block + 1));
        let join = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
        *both = (join(low.0, high.0), join(low.1, high.1));
    }
}

/// Whether a block has as much text as a run that begins in it: all its first characters, unless it begins at the very end.
#[inline(always)]
fn holds_enough(text: u64, long: bool) -> bool {
    let first = if long { 6 } else { 3 };
    text.count_ones() >= first || text >> 60 != 0
}

/// Printable ASCII, tab, line feed, carriage return.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r')
}

/// The reference, which the others must equal, and what there is where nothing better is known.
#[cfg(any(test, not(target_arch = "x86_64")))]
use portable::scalar;

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::BLOCK;

    pub(super) fn scalar(block: &[u8; BLOCK]) -> (u64, u64) {
        let (mut text, mut zero) = (0, 0);
        for (at, word) in block.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            if word == 0 {
                zero |= 0xff << (at * 8);
                continue;
            }
            text |= gather(text_bytes(word)) << (at * 8);
            zero |= gather(zero_bytes(word)) << (at * 8);
        }
        (text, zero)
    }

    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;

    /// The high bit of every byte that is zero.
    fn zero_bytes(word: u64) -> u64 {
        !(((word & !HIGH) + !HIGH) | word) & HIGH
    }

    /// The high bit of every byte that [`is_text`].
    fn text_bytes(word: u64) -> u64 {
        let low = word & !HIGH;
        // Seven-bit values: adding 0x80 - n carries into the high bit from n on.
        let from = |n: u64| low + ONES * (0x80 - n);
        let printable = from(0x20) & !from(0x7f);
        let control = from(0x09) & !from(0x0b) | from(0x0d) & !from(0x0e);
        (printable | control) & !word & HIGH
    }

    /// The high bits of eight bytes as eight bits, the lowest byte first.
    fn gather(high_bits: u64) -> u64 {
        (high_bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Kinds};

    #[target_feature(enable = "avx2")]
    pub(super) fn kinds_avx2(part: &[u8]) -> Kinds {
        // As below. 1: digit; 2: A to F; 4 and 8: letter; 0x10: "_"; 0x20: "+-/".
        let low = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            9, 15, 15, 15, 15, 15, 15, 13, 13, 13, 12, 36, 4, 36, 4, 52,
        ));
        let high =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 32, 1, 6, 24, 6, 8, 0, 0, 0, 0, 0, 0, 0, 0));
        let half = |at: usize| {
            let bytes = _mm256_set_m128i(sixteen(part, at + 16), sixteen(part, at));
            let upper = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(0xf));
            let class = _mm256_and_si256(_mm256_shuffle_epi8(low, bytes), _mm256_shuffle_epi8(high, upper));
            let any = |classes: i8| {
                let some = _mm256_and_si256(class, _mm256_set1_epi8(classes));
                let some = _mm256_cmpgt_epi8(some, _mm256_setzero_si256());
                u64::from(_mm256_movemask_epi8(some).cast_unsigned())
            };
            Kinds { word: any(0x3f), hex: any(3), cut: any(0x30) }
        };
        let first = half(0);
        if part.len() <= 32 {
            return first;
        }
        let second = half(32);
        Kinds {
            word: first.word | second.word << 32,
            hex: first.hex | second.hex << 32,
            cut: first.cut | second.cut << 32,
        }
    }

    /// 16 bytes of `part` from `at` on, a multiple of 16, with zeros behind its end.
    #[target_feature(enable = "avx2")]
    fn sixteen(part: &[u8], at: usize) -> __m128i {
        /// Shuffles a vector's last bytes to its start, by as many as one begins further on.
        const LAST: [u8; 32] = {
            let mut shuffle = [0x80; 32];
            let mut at = 0;
            while at < 16 {
                shuffle[at] = at as u8;
                at += 1;
            }
            shuffle
        };
        // SAFETY: 16 bytes, and the load needs no alignment.
        let load = |bytes: &[u8; 16]| unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        match (part.get(at..).unwrap_or_default(), part.last_chunk()) {
            ([], _) => _mm_setzero_si128(),
            (rest, last) => match (rest.first_chunk(), last) {
                (Some(whole), _) => load(whole),
                (None, Some(last)) => {
                    let shuffle = LAST[16 - rest.len()..].first_chunk().map_or(_mm_setzero_si128(), load);
                    _mm_shuffle_epi8(load(last), shuffle)
                }
                (None, None) => load(&few(rest).to_le_bytes()),
            },
        }
    }

    /// Less than 16 bytes as a number, the first one lowest.
    fn few(bytes: &[u8]) -> u128 {
        // The same bytes at the same place, where both ends have them.
        let ends = |first: u64, last: u64, size: usize| {
            u128::from(first) | u128::from(last) << ((bytes.len() - size) * 8)
        };
        if let (Some(&first), Some(&last)) = (bytes.first_chunk(), bytes.last_chunk()) {
            ends(u64::from_le_bytes(first), u64::from_le_bytes(last), 8)
        } else if let (Some(&first), Some(&last)) = (bytes.first_chunk(), bytes.last_chunk()) {
            ends(u64::from(u32::from_le_bytes(first)), u64::from(u32::from_le_bytes(last)), 4)
        } else {
            bytes.iter().rev().fold(0, |number, &byte| number << 8 | u128::from(byte))
        }
    }

    #[target_feature(enable = "avx512bw,popcnt")]
    pub(super) fn candidates_avx512(
        blocks: &[[u8; BLOCK]],
        rest: &[u8],
        long: bool,
        out: &mut Vec<super::Candidate>,
    ) {
        // By the two halves of a byte: the classes that each may have, of which they must have one in common. 1: 0x20 to 0x6f; 2:
        // 0x70 to 0x7e; 4: tab, line feed, carriage return. Of bytes from 0x80 on the first lookup gives 0.
        let low = _mm512_broadcast_i32x4(_mm_setr_epi8(3, 3, 3, 3, 3, 3, 3, 3, 3, 7, 7, 3, 3, 7, 3, 1));
        let high = _mm512_broadcast_i32x4(_mm_setr_epi8(4, 0, 1, 1, 1, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0));
        let classify = move |block: &[u8; BLOCK]| {
            // SAFETY: 64 bytes, and the load needs no alignment.
            let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            let zero = _mm512_testn_epi8_mask(bytes, bytes);
            let upper = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(0xf));
            let text =
                _mm512_test_epi8_mask(_mm512_shuffle_epi8(low, bytes), _mm512_shuffle_epi8(high, upper));
            (text, zero)
        };
        super::collect(blocks, rest, long, classify, out);
    }

    #[target_feature(enable = "avx2,popcnt")]
    pub(super) fn candidates_avx2(
        blocks: &[[u8; BLOCK]],
        rest: &[u8],
        long: bool,
        out: &mut Vec<super::Candidate>,
    ) {
        // From 0x20 on, signed; and but for one of these, by the lower half of a byte: tab, line feed, carriage return, which are text
        // too, and delete, which is none. Of bytes from 0x80 on the lookup gives 0.
        let others = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            -1, -1, -1, -1, -1, -1, -1, -1, -1, 9, 10, -1, -1, 13, -1, 127,
        ));
        let half = move |bytes: __m256i| {
            let mask = |bytes: __m256i| u64::from(_mm256_movemask_epi8(bytes).cast_unsigned());
            let from_space = _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(0x1f));
            let other = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(others, bytes), bytes);
            let zero = _mm256_cmpeq_epi8(bytes, _mm256_setzero_si256());
            (mask(_mm256_xor_si256(from_space, other)), mask(zero))
        };
        let classify = move |block: &[u8; BLOCK]| {
            // SAFETY: both halves are 32 bytes long, and the loads need no alignment.
            let (low, high) = unsafe {
                let start: *const __m256i = block.as_ptr().cast();
                (_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1)))
            };
            let ((text, zero), (more_text, more_zero)) = (half(low), half(high));
            (text | more_text << 32, zero | more_zero << 32)
        };
        super::collect(blocks, rest, long, classify, out);
    }

    /// SSE2 is part of x86-64.
    pub(super) fn classify_sse2(block: &[u8; BLOCK]) -> (u64, u64) {
        let (mut text, mut zero) = (0u64, 0u64);
        for (at, part) in block.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: 16 bytes, and the load needs no alignment; SSE2 is part of the architecture.
            let (part_text, part_zero) = unsafe {
                let bytes = _mm_loadu_si128(part.as_ptr().cast());
                // Signed comparisons: bytes from 0x80 on are negative, and so below each bound.
                let above = |bound: i8| _mm_cmpgt_epi8(bytes, _mm_set1_epi8(bound));
                let equal = |byte: i8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte));
                let printable = _mm_andnot_si128(above(0x7e), above(0x1f));
                let control = _mm_or_si128(_mm_andnot_si128(above(0x0a), above(0x08)), equal(0x0d));
                (_mm_movemask_epi8(_mm_or_si128(printable, control)), _mm_movemask_epi8(equal(0)))
            };
            text |= u64::from(part_text.cast_unsigned()) << (at * 16);
            zero |= u64::from(part_zero.cast_unsigned()) << (at * 16);
        }
        (text, zero)
    }
}

#[cfg(test)]
mod tests;
