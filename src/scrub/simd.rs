//! The bitmaps of [`runs`](super::runs): which bytes are printable, which are zero, 64 at a time. The one place of scrubbing
//! with `unsafe`: intrinsics, chosen when the program runs.
#![deny(unsafe_op_in_unsafe_fn)]

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// For each block of `bytes`, the last one filled up with bytes that are neither: bit n of the first word is set if byte n is
/// text, of the second if it is zero.
pub(super) fn classify(bytes: &[u8], out: &mut Vec<(u64, u64)>) {
    out.clear();
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    out.reserve(blocks.len() + 1);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, which is all that the function needs.
        unsafe { x86::classify_avx2(blocks, out) };
    } else {
        x86::classify_sse2(blocks, out);
    }
    #[cfg(not(target_arch = "x86_64"))]
    out.extend(blocks.iter().map(scalar));
    if !rest.is_empty() {
        let mut block = [0xff; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        out.push(scalar(&block));
    }
}

/// Printable ASCII, tab, line feed, carriage return.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r')
}

/// The reference, which the others must equal.
fn scalar(block: &[u8; BLOCK]) -> (u64, u64) {
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::BLOCK;

    #[target_feature(enable = "avx2")]
    pub(super) fn classify_avx2(blocks: &[[u8; BLOCK]], out: &mut Vec<(u64, u64)>) {
        // Signed comparisons: bytes from 0x80 on are negative, and so below each bound.
        let half = |bytes: __m256i| {
            let above = |bound: i8| _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(bound));
            let equal = |byte: i8| _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte));
            let printable = _mm256_andnot_si256(above(0x7e), above(0x1f));
            let control = _mm256_or_si256(_mm256_andnot_si256(above(0x0a), above(0x08)), equal(0x0d));
            let text = _mm256_movemask_epi8(_mm256_or_si256(printable, control)).cast_unsigned();
            let zero = _mm256_movemask_epi8(equal(0)).cast_unsigned();
            (u64::from(text), u64::from(zero))
        };
        for block in blocks {
            let [low, high] = block.as_chunks::<32>().0 else { continue };
            // SAFETY: both are 32 bytes long, and the loads need no alignment.
            let (low, high) = unsafe {
                (_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast()))
            };
            let any = _mm256_or_si256(low, high);
            if _mm256_testz_si256(any, any) == 1 {
                // Most of a stack.
                out.push((0, u64::MAX));
                continue;
            }
            let ((text, zero), (more_text, more_zero)) = (half(low), half(high));
            out.push((text | more_text << 32, zero | more_zero << 32));
        }
    }

    /// SSE2 is part of x86-64.
    pub(super) fn classify_sse2(blocks: &[[u8; BLOCK]], out: &mut Vec<(u64, u64)>) {
        for block in blocks {
            let (mut text, mut zero) = (0u64, 0u64);
            for (at, part) in block.as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: 16 bytes, and the load needs no alignment; SSE2 is part of the architecture.
                let (part_text, part_zero) = unsafe {
                    let bytes = _mm_loadu_si128(part.as_ptr().cast());
                    let above = |bound: i8| _mm_cmpgt_epi8(bytes, _mm_set1_epi8(bound));
                    let equal = |byte: i8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte));
                    let printable = _mm_andnot_si128(above(0x7e), above(0x1f));
                    let control = _mm_or_si128(_mm_andnot_si128(above(0x0a), above(0x08)), equal(0x0d));
                    (_mm_movemask_epi8(_mm_or_si128(printable, control)), _mm_movemask_epi8(equal(0)))
                };
                text |= u64::from(part_text.cast_unsigned()) << (at * 16);
                zero |= u64::from(part_zero.cast_unsigned()) << (at * 16);
            }
            out.push((text, zero));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitmaps_say_what_the_bytes_are_in_every_way_to_make_them() {
        let mut blocks: Vec<[u8; BLOCK]> =
            (0..=255u8).map(|first| std::array::from_fn(|i| first.wrapping_add((i * 37) as u8))).collect();
        let mut state = 1u64;
        for _ in 0..2000 {
            blocks.push(std::array::from_fn(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if state >> 62 == 0 { 0 } else { (state >> 40) as u8 }
            }));
        }
        blocks.push([0; BLOCK]);
        let naive = |block: &[u8; BLOCK]| {
            let bits = |is: fn(u8) -> bool| {
                block.iter().enumerate().fold(0u64, |bits, (at, &byte)| bits | u64::from(is(byte)) << at)
            };
            (bits(is_text), bits(|byte| byte == 0))
        };
        let expected: Vec<_> = blocks.iter().map(naive).collect();
        assert_eq!(blocks.iter().map(scalar).collect::<Vec<_>>(), expected, "scalar");
        let mut out = Vec::new();
        classify(blocks.as_flattened(), &mut out);
        assert_eq!(out, expected, "as dispatched");
        #[cfg(target_arch = "x86_64")]
        {
            out.clear();
            x86::classify_sse2(&blocks, &mut out);
            assert_eq!(out, expected, "SSE2");
        }
        // A block that is cut off.
        for length in 0..200 {
            let bytes = &blocks.as_flattened()[..length];
            classify(bytes, &mut out);
            assert_eq!(out.len(), length.div_ceil(BLOCK));
            for (at, &byte) in bytes.iter().enumerate() {
                let (text, zero) = out[at / BLOCK];
                assert_eq!(
                    (text >> (at % BLOCK) & 1 == 1, zero >> (at % BLOCK) & 1 == 1),
                    (is_text(byte), byte == 0)
                );
            }
        }
    }
}
