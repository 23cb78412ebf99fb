//! Text in memory: runs of characters in any of five encodings at any byte offset, in one pass.
//!
//! Every block of 64 bytes is reduced to two bitmaps, printable byte and zero byte. ASCII is a series of printable
//! bytes; UTF-16 is printable and zero in turn; UTF-32 has three zeros between. Only where enough characters
//! follow each other does anything else happen: the run is followed to its end and narrowed to one byte a character.
//! Time is linear: no byte is visited more than once for each of nine (encoding, phase) pairs.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::edit::Encoding;

/// Shortest run, in characters. The shortest value that a rule knows ("a@b.co") has as many.
pub(super) const SHORTEST: usize = 6;

/// A series of characters. Only ASCII text in the wide encodings; ASCII and well-formed UTF-8 in the narrow one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The first character's first byte; with UTF-16 and UTF-32 its byte that is not zero.
    first: usize,
    /// Characters (bytes, in UTF-8).
    count: usize,
    pub(super) encoding: Encoding,
}

impl Run {
    /// The byte that is not zero of character `at`.
    fn position(&self, at: usize) -> usize {
        self.first + at * self.encoding.stride()
    }

    /// The bytes of the characters `chars` of this run of `bytes`, not empty. A unit that is cut off by the end of
    /// `bytes` is given as far as it goes.
    pub(super) fn bytes(&self, chars: &Range<usize>, bytes: &[u8]) -> Range<usize> {
        let last = self.position(chars.end.saturating_sub(1).max(chars.start));
        let rest = self.encoding.stride() - 1 - self.encoding.lead();
        let zeros = bytes[last + 1..].iter().take(rest).take_while(|&&byte| byte == 0).count();
        self.position(chars.start) - self.encoding.lead()..last + 1 + zeros
    }

    /// Whether a character before the first could be cut off by the start of the bytes.
    pub(super) fn at_start(&self) -> bool {
        self.first < self.encoding.stride()
    }

    /// Whether a character behind the last could be cut off by the end of `length` bytes.
    pub(super) fn at_end(&self, length: usize) -> bool {
        self.position(self.count) >= length
    }
}

/// Calls `found` with every run of `bytes` of at least [`SHORTEST`] characters and its text, one byte a character.
/// `scratch` is overwritten; it is taken so that its memory is used again.
pub(super) fn scan(bytes: &[u8], scratch: &mut Vec<u8>, mut found: impl FnMut(&Run, &[u8])) {
    // Where the next run may begin: ASCII, two phases of stride 2, four of stride 4.
    let (mut ascii, mut two, mut four) = (0, [0; 2], [0; 4]);
    let mut next = classify(bytes, 0);
    for block in (0..bytes.len()).step_by(64) {
        let (text, zero) = next;
        next = classify(bytes, block + 64);
        if text == 0 {
            continue;
        }
        let text = u128::from(text) | u128::from(next.0) << 64;
        let zero = u128::from(zero) | u128::from(next.1) << 64;

        let series = text & text >> 1;
        let series = series & series >> 2 & text >> 4 & text >> 5;
        each_bit(series as u64, |bit| {
            if block + bit >= ascii {
                let run = ascii_run(bytes, block + bit, ascii);
                ascii = run.position(run.count);
                found(&run, &bytes[run.first..ascii]);
            }
        });

        // A link: a character, zeros, and another character. Five links in a row are six characters.
        let links = text & zero >> 1 & text >> 2;
        let series = links & links >> 2;
        let series = series & series >> 4 & links >> 8;
        each_bit(series as u64, |bit| wide(bytes, block + bit, 2, &mut two, scratch, &mut found));

        let links = text & zero >> 1 & zero >> 2 & zero >> 3 & text >> 4;
        let series = links & links >> 4;
        let series = series & series >> 8 & links >> 16;
        each_bit(series as u64, |bit| wide(bytes, block + bit, 4, &mut four, scratch, &mut found));
    }
}

/// Calls `found` with the runs shorter than [`SHORTEST`] that touch the start or the end of `bytes` and hold at
/// least 4 characters of ASCII, 3 of UTF-16, 2 of UTF-32: 8 bytes of a cut-off text, or half of that for ASCII.
pub(super) fn scan_edges(bytes: &[u8], mut found: impl FnMut(&Run, &[u8])) {
    for (stride, shortest) in [(1, 4), (2, 3), (4, 2)] {
        for phase in 0..stride.min(bytes.len()) {
            let mut seen = None;
            for from_end in [false, true] {
                let mut run = if from_end {
                    edge_run(bytes, bytes.len() - 1 - phase, stride, false)
                } else {
                    edge_run(bytes, phase, stride, true)
                };
                label(&mut run, bytes, stride);
                if !(shortest..SHORTEST).contains(&run.count) || seen.as_ref() == Some(&run) {
                    continue;
                }
                let line: Vec<u8> = (0..run.count).map(|at| bytes[run.position(at)]).collect();
                found(&run, &line);
                seen = Some(run);
            }
        }
    }
}

/// Printable ASCII, tab, line feed, carriage return.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r')
}

/// Bitmaps of printable bytes and of zero bytes of the 64 bytes from `at` on; behind the end there is neither.
fn classify(bytes: &[u8], at: usize) -> (u64, u64) {
    let Some(rest) = bytes.get(at..) else { return (0, 0) };
    match rest.first_chunk::<64>() {
        Some(block) => classify_block(block),
        None => {
            let mut block = [0xff; 64];
            block[..rest.len()].copy_from_slice(rest);
            classify_block(&block)
        }
    }
}

fn classify_block(block: &[u8; 64]) -> (u64, u64) {
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

fn each_bit(mut bits: u64, mut call: impl FnMut(usize)) {
    while bits != 0 {
        call(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// The run around the text at `at`, not reaching before `floor`.
fn ascii_run(bytes: &[u8], at: usize, floor: usize) -> Run {
    let (mut first, mut end) = (at, at);
    while let Some(length) = character_before(&bytes[floor..first]) {
        first -= length;
    }
    while let Some(length) = character(&bytes[end..]) {
        end += length;
    }
    Run { first, count: end - first, encoding: Encoding::Utf8 }
}

/// Bytes of the text character that `bytes` begins with.
fn character(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let length = match first {
        _ if is_text(first) => return Some(1),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    std::str::from_utf8(bytes.get(..length)?).ok().map(|_| length)
}

/// Bytes of the text character that `bytes` ends with.
fn character_before(bytes: &[u8]) -> Option<usize> {
    let last = *bytes.last()?;
    if last < 0x80 {
        return is_text(last).then_some(1);
    }
    let length = 1 + bytes.iter().rev().take(3).take_while(|&&byte| byte & 0xc0 == 0x80).count();
    let start = bytes.len().checked_sub(length)?;
    (character(&bytes[start..]) == Some(length)).then_some(length)
}

/// Follows the run of stride 2 or 4 that begins at `at`, unless that is inside one already found.
fn wide(
    bytes: &[u8],
    at: usize,
    stride: usize,
    free: &mut [usize],
    scratch: &mut Vec<u8>,
    found: &mut impl FnMut(&Run, &[u8]),
) {
    let free = &mut free[at % stride];
    if at < *free {
        return;
    }
    let mut run = edge_run(bytes, at, stride, true);
    label(&mut run, bytes, stride);
    *free = at + run.count * stride;
    scratch.clear();
    scratch.extend(bytes[at..].iter().step_by(stride).take(run.count));
    found(&run, scratch);
}

/// The characters from `at` on (or back from it) with `stride - 1` zeros between them.
fn edge_run(bytes: &[u8], at: usize, stride: usize, forward: bool) -> Run {
    let linked = |from: usize, to: usize| is_text(bytes[to]) && bytes[from + 1..to].iter().all(|&b| b == 0);
    let (mut first, mut last) = (at, at);
    if !is_text(bytes[at]) {
        return Run { first, count: 0, encoding: Encoding::Utf8 };
    }
    if forward {
        while last + stride < bytes.len() && linked(last, last + stride) {
            last += stride;
        }
    } else {
        while first >= stride && is_text(bytes[first - stride]) && linked(first - stride, first) {
            first -= stride;
        }
    }
    Run { first, count: (last - first) / stride + 1, encoding: Encoding::Utf8 }
}

/// Decides the byte order: the same bytes are little-endian text if the last character's zeros follow it, and
/// big-endian text if the first one's precede it. Both is taken for little-endian.
fn label(run: &mut Run, bytes: &[u8], stride: usize) {
    let zeros = |range: Option<&[u8]>| range.is_some_and(|range| range.iter().all(|&byte| byte == 0));
    let last = run.first + run.count.saturating_sub(1) * stride;
    let big = !zeros(bytes.get(last + 1..last + stride))
        && run.first + 1 >= stride
        && zeros(bytes.get(run.first + 1 - stride..run.first));
    run.encoding = match (stride, big) {
        (2, false) => Encoding::Utf16Le,
        (2, true) => Encoding::Utf16Be,
        (4, false) => Encoding::Utf32Le,
        (4, true) => Encoding::Utf32Be,
        _ => Encoding::Utf8,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(Encoding, usize, String)> {
        let mut all = Vec::new();
        scan(bytes, &mut Vec::new(), |run, line| {
            let range = run.bytes(&(0..run.count), bytes);
            all.push((run.encoding, range.start, String::from_utf8(line.to_vec()).unwrap()));
        });
        all
    }

    #[test]
    fn the_bitmaps_say_what_the_bytes_are() {
        for first in 0..=255u8 {
            let block: [u8; 64] = std::array::from_fn(|i| first.wrapping_add((i * 37) as u8));
            let (text, zero) = classify_block(&block);
            for (i, &byte) in block.iter().enumerate() {
                assert_eq!((text >> i & 1 == 1, zero >> i & 1 == 1), (is_text(byte), byte == 0), "{byte:#x}");
            }
        }
    }

    #[test]
    fn runs_are_found_in_every_encoding_at_every_phase() {
        let text = "text @ 42";
        for (encoding, unit) in [
            (Encoding::Utf8, vec![None]),
            (Encoding::Utf16Le, vec![None, Some(0)]),
            (Encoding::Utf16Be, vec![Some(0), None]),
            (Encoding::Utf32Le, vec![None, Some(0), Some(0), Some(0)]),
            (Encoding::Utf32Be, vec![Some(0), Some(0), Some(0), None]),
        ] {
            for offset in 0..200 {
                let mut bytes = vec![0xfe; offset];
                bytes.extend(text.bytes().flat_map(|c| unit.iter().map(move |u| u.unwrap_or(c))));
                bytes.extend([0xfe; 9]);
                assert_eq!(lines(&bytes), [(encoding, offset, text.to_owned())]);
            }
        }
    }

    #[test]
    fn utf8_belongs_to_its_run_and_stray_bytes_do_not() {
        let bytes = "\u{1}é日本 José wrote\u{1}".as_bytes();
        assert_eq!(lines(bytes), [(Encoding::Utf8, 1, "é日本 José wrote".to_owned())]);
        assert_eq!(lines(b"\x80\xffabcdefg\xc3"), [(Encoding::Utf8, 2, "abcdefg".to_owned())]);
    }

    #[test]
    fn runs_equal_those_of_a_naive_search() {
        let mut state = 7u64;
        let mut bytes = Vec::new();
        while bytes.len() < 20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = (state >> 40) as usize % 40;
            let stride = [1, 2, 4][(state >> 50) as usize % 3];
            for i in 0..length {
                bytes.push(if i % stride == 0 { b'a' + (i % 26) as u8 } else { 0 });
            }
            bytes.push((state >> 33) as u8 | 0x80);
        }
        for stride in [2, 4] {
            let mut naive = Vec::new();
            for phase in 0..stride {
                let mut at = phase;
                while at < bytes.len() {
                    let run = edge_run(&bytes, at, stride, true);
                    if run.count >= SHORTEST {
                        naive.push((at, run.count));
                    }
                    at += run.count.max(1) * stride;
                }
            }
            let mut fast = Vec::new();
            scan(&bytes, &mut Vec::new(), |run, _| {
                if run.encoding.stride() == stride {
                    fast.push((run.first, run.count));
                }
            });
            naive.sort_unstable();
            fast.sort_unstable();
            assert_eq!(fast, naive, "stride {stride}");
        }
    }

    #[test]
    fn short_runs_at_the_edges_are_found() {
        let edges = |bytes: &[u8]| {
            let mut all = Vec::new();
            scan_edges(bytes, |run, line| all.push((run.encoding, run.first, line.to_vec())));
            all
        };
        assert_eq!(edges(b"abcd\xff\xffxyz\xff"), [(Encoding::Utf8, 0, b"abcd".to_vec())]);
        assert_eq!(edges(b"\xff\xffwxyz"), [(Encoding::Utf8, 2, b"wxyz".to_vec())]);
        assert_eq!(edges(b"\xff\xffx\0y\0z\0"), [(Encoding::Utf16Le, 2, b"xyz".to_vec())]);
        assert_eq!(edges(b"\0y\0\0\0z\0\0\0\xff\xff"), [(Encoding::Utf32Le, 1, b"yz".to_vec())]);
        assert_eq!(edges(b""), []);
        assert_eq!(edges(b"abcd"), [(Encoding::Utf8, 0, b"abcd".to_vec())]);
    }
}
