//! The bitmaps of [`runs`](super::runs): which bytes are printable, which are zero, 64 at a time. The one place of scrubbing
//! with `unsafe`: intrinsics, chosen when the program runs.
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

#[inline(always)]
fn collect(
    blocks: &[[u8; BLOCK]],
    rest: &[u8],
    long: bool,
    classify: impl Fn(&[u8; BLOCK]) -> (u64, u64),
    out: &mut Vec<Candidate>,
) {
    let mut open: Option<(u64, u64)> = None;
    let mut close = |open: Option<(u64, u64)>, next: (u64, u64), behind: usize| {
        if let Some((text, zero)) = open {
            let text = u128::from(text) | u128::from(next.0) << 64;
            let zero = u128::from(zero) | u128::from(next.1) << 64;
            out.push(Candidate { block: behind - 1, maps: (text, zero) });
        }
    };
    for (at, block) in blocks.iter().enumerate() {
        let maps = classify(block);
        close(open, maps, at);
        open = may_begin(maps, long).then_some(maps);
    }
    let mut behind = blocks.len();
    if !rest.is_empty() {
        let maps = filled(rest, classify);
        close(open, maps, behind);
        open = may_begin(maps, long).then_some(maps);
        behind += 1;
    }
    close(open, (0, 0), behind);
}

/// Whether a run may begin in a block, whatever comes behind it.
#[inline(always)]
fn may_begin((text, zero): (u64, u64), long: bool) -> bool {
    // A run that begins here and not at the very end has all its first characters here: nearly everything ends so.
    let first = if long { 6 } else { 3 };
    if text.count_ones() < first && text >> 60 == 0 {
        return false;
    }
    // The last byte goes on as it is: if it is text, more of it may follow.
    let from = |bits: u64, count: u32| (bits.cast_signed() >> count).cast_unsigned();
    let pairs = text & from(text, 1);
    let ascii = if long { pairs & from(pairs, 2) & from(pairs, 4) } else { pairs & from(pairs, 1) };
    // What comes behind the block may be anything.
    let then = |bits: u64, count: u32| bits >> count | !(u64::MAX >> count);
    let two = text & then(zero, 1) & then(text, 2);
    let zeros = then(zero, 1) & then(zero, 2) & then(zero, 3);
    let four = text & zeros & then(text, 4);
    let (two, four) = (two & then(two, 2), four & then(four, 4));
    let (two, four) = if long { (two & then(two, 4), four & then(four, 8)) } else { (two, four) };
    ascii | two | four != 0
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

    use super::BLOCK;

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
        let classify = |block: &[u8; BLOCK]| {
            // SAFETY: 64 bytes, and the load needs no alignment.
            let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            // Without a branch for zeros alone, which are much of a stack: it would be mispredicted too often.
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
        // By the two halves of a byte: the classes that each may have, and those that both have. 1: 0x20 to 0x6f; 2: 0x70 to
        // 0x7e; 4: tab, line feed, carriage return; 0x80, the sign: zero. Of bytes from 0x80 on the first lookup gives 0.
        let low =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(-125, 3, 3, 3, 3, 3, 3, 3, 3, 7, 7, 3, 3, 7, 3, 1));
        let high =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(-124, 0, 1, 1, 1, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0));
        let half = |bytes: __m256i| {
            let upper = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(0xf));
            let class = _mm256_and_si256(_mm256_shuffle_epi8(low, bytes), _mm256_shuffle_epi8(high, upper));
            let text = _mm256_movemask_epi8(_mm256_cmpgt_epi8(class, _mm256_setzero_si256()));
            (u64::from(text.cast_unsigned()), u64::from(_mm256_movemask_epi8(class).cast_unsigned()))
        };
        let classify = |block: &[u8; BLOCK]| {
            // SAFETY: both halves are 32 bytes long, and the loads need no alignment.
            let (low, high) = unsafe {
                let start: *const __m256i = block.as_ptr().cast();
                (_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1)))
            };
            let any = _mm256_or_si256(low, high);
            if _mm256_testz_si256(any, any) == 1 {
                // Much of a stack.
                return (0, u64::MAX);
            }
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
mod tests {
    use super::*;

    fn blocks() -> Vec<[u8; BLOCK]> {
        let mut blocks: Vec<[u8; BLOCK]> =
            (0..=255u8).map(|first| std::array::from_fn(|i| first.wrapping_add((i * 37) as u8))).collect();
        let mut state = 1u64;
        for round in 0..2000 {
            blocks.push(std::array::from_fn(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                match state >> 61 {
                    0 | 1 => 0,
                    2 | 3 if round % 2 == 0 => b'a',
                    _ => (state >> 40) as u8,
                }
            }));
        }
        blocks.push([0; BLOCK]);
        blocks
    }

    fn naive(block: &[u8; BLOCK]) -> (u64, u64) {
        let bits = |is: fn(u8) -> bool| {
            block.iter().enumerate().fold(0u64, |bits, (at, &byte)| bits | u64::from(is(byte)) << at)
        };
        (bits(is_text), bits(|byte| byte == 0))
    }

    #[test]
    fn the_bitmaps_say_what_the_bytes_are_in_every_way_to_make_them() {
        let blocks = blocks();
        let expected: Vec<_> = blocks.iter().map(naive).collect();
        assert_eq!(blocks.iter().map(scalar).collect::<Vec<_>>(), expected, "scalar");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(blocks.iter().map(x86::classify_sse2).collect::<Vec<_>>(), expected, "SSE2");
        // A block that is cut off, too.
        for length in 0..400 {
            let bytes = &blocks.as_flattened()[..length];
            for start in [0, 1, 63, 64, 100] {
                let (text, zero) = maps(bytes, start);
                for at in 0..128 {
                    let byte = bytes.get(start + at).copied().unwrap_or(0xff);
                    assert_eq!((text >> at & 1 == 1, zero >> at & 1 == 1), (is_text(byte), byte == 0));
                }
            }
        }
    }

    type Way = unsafe fn(&[[u8; BLOCK]], &[u8], bool, &mut Vec<Candidate>);

    /// The ways that this processor has.
    fn ways() -> Vec<(&'static str, Way)> {
        let mut ways: Vec<(&str, Way)> = vec![("scalar", |blocks, rest, long, out| {
            collect(blocks, rest, long, scalar, out);
        })];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected;
            ways.push(("SSE2", |blocks, rest, long, out| {
                collect(blocks, rest, long, x86::classify_sse2, out);
            }));
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
                ways.push(("AVX2", x86::candidates_avx2));
            }
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("popcnt") {
                ways.push(("AVX-512", x86::candidates_avx512));
            }
        }
        ways
    }

    #[test]
    fn every_way_to_look_for_runs_finds_the_same_blocks() {
        let blocks = blocks();
        for long in [false, true] {
            for cut in [0, 1, 30, 63] {
                let bytes = &blocks.as_flattened()[..blocks.len() * BLOCK - cut];
                let (whole, rest) = bytes.as_chunks::<BLOCK>();
                let (mut dispatched, mut reference) = (Vec::new(), Vec::new());
                candidates(bytes, long, &mut dispatched);
                collect(whole, rest, long, naive, &mut reference);
                assert_eq!(dispatched, reference);
                for (name, way) in ways() {
                    let mut found = Vec::new();
                    // SAFETY: the processor has what the way needs.
                    unsafe { way(whole, rest, long, &mut found) };
                    assert_eq!(found, reference, "{name}");
                }
                assert!(reference.len() > 100 && reference.len() < blocks.len());
                for Candidate { block, maps: found } in reference {
                    assert_eq!(found, maps(bytes, block * BLOCK));
                }
            }
        }
    }

    #[test]
    fn text_ends_where_it_does() {
        for length in [0, 1, 63, 64, 65, 200] {
            for from in [0, 5, 64] {
                let mut bytes = vec![0; from];
                bytes.extend(vec![b'x'; length]);
                assert_eq!(text_end(&bytes, from), from + length);
                bytes.extend([0, b'x']);
                assert_eq!(text_end(&bytes, from), from + length);
            }
        }
    }
}
