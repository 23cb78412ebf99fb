//! Text in memory: runs of characters in any of five encodings at any byte offset, in one pass.
//!
//! Every block of 64 bytes is reduced to two bitmaps, printable byte and zero byte ([`simd`](super::simd)). ASCII is a series of printable
//! bytes; UTF-16 is printable and zero in turn; UTF-32 has three zeros between. Only where enough characters
//! follow each other does anything else happen: the run is followed to its end and narrowed to one byte a character.
//! Time is linear: no byte is visited more than once for each of nine (encoding, phase) pairs.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::edit::Encoding;
use super::simd::{self, Candidate};

pub(super) use super::simd::is_text;

mod letters;

/// Shortest run, in characters. The shortest value that a rule knows ("a@b.co") has as many.
pub(super) const SHORTEST: usize = 6;

/// A series of characters. Only ASCII text in the wide encodings; ASCII and well-formed UTF-8 in the narrow one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The first character's first byte; with UTF-16 and UTF-32 its byte that is not zero.
    first: usize,
    /// Characters (bytes, in UTF-8).
    count: usize,
    /// Characters before the first that its line has besides: letters of other scripts, and what is between them.
    back: usize,
    /// Characters of that kind behind the last.
    ahead: usize,
    pub(super) encoding: Encoding,
}

impl Run {
    /// The byte that is not zero of character `at` of its line.
    fn position(&self, at: usize) -> usize {
        // What it looks back at lies in the same bytes.
        (self.first + at * self.encoding.stride()).saturating_sub(self.back * self.encoding.stride())
    }

    /// The first byte of character `at` of its line.
    #[inline]
    pub(super) fn start(&self, at: usize) -> usize {
        self.position(at) - self.encoding.lead()
    }

    /// The bytes of the characters `chars` of this run of `bytes`, not empty. A unit that is cut off by the end of
    /// `bytes` is given as far as it goes.
    pub(super) fn bytes(&self, chars: &Range<usize>, bytes: &[u8]) -> Range<usize> {
        let last = self.position(chars.end.saturating_sub(1).max(chars.start));
        let rest = self.encoding.stride() - 1 - self.encoding.lead();
        let rest = bytes[last + 1..].iter().take(rest);
        // Letters of other scripts have no zeros.
        let rest = if chars.end > self.back + self.count {
            rest.len()
        } else {
            rest.take_while(|&&byte| byte == 0).count()
        };
        self.start(chars.start)..last + 1 + rest
    }

    /// The same characters as big-endian text, where there are zeros on both sides and either order may be meant.
    pub(super) fn twin(&self, bytes: &[u8]) -> Option<Self> {
        let encoding = match self.encoding {
            Encoding::Utf16Le => Encoding::Utf16Be,
            Encoding::Utf32Le => Encoding::Utf32Be,
            _ => return None,
        };
        let zeros = bytes.get((self.first + 1).checked_sub(encoding.stride())?..self.first)?;
        zeros.iter().all(|&byte| byte == 0).then(|| Self { encoding, ..self.clone() })
    }

    /// The run of all characters but the last, unless that is a letter of another script or the only one.
    pub(super) fn without_last_character(&self) -> Option<Self> {
        (self.ahead == 0 && self.count > 1).then(|| Self { count: self.count - 1, ..self.clone() })
    }

    /// Whether a character before the first could be cut off by the start of the bytes.
    pub(super) fn at_start(&self) -> bool {
        self.first < self.encoding.stride()
    }

    /// Whether a character behind the last could be cut off by the end of `length` bytes.
    pub(super) fn at_end(&self, length: usize) -> bool {
        self.position(self.back + self.count + self.ahead) >= length
    }
}

/// Memory that [`scan`] uses again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    line: Vec<u8>,
    candidates: Vec<Candidate>,
}

/// Where runs are, so that they need not be sought again.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// A bit for each block in which one begins.
    blocks: Vec<u64>,
    /// All of them, if they are few.
    runs: Option<Vec<Run>>,
}

/// Runs that are remembered one by one: of a stack, but not of a heap.
const FEW: usize = 1024;

/// Shortest run that [`scan`] can be asked for: a short known value with a separator.
pub(super) const LEAST: usize = 3;

/// Blocks that are classified at once: what they hold stays in the nearest cache.
const BLOCKS: usize = 4096;

/// Calls `found` with every run of `bytes` of at least `least` characters ([`LEAST`] to [`SHORTEST`]) and its text, one byte a
/// character. Returns where those of [`SHORTEST`] characters and more are.
pub(super) fn scan(
    bytes: &[u8],
    least: usize,
    scratch: &mut Scratch,
    mut found: impl FnMut(&Run, &[u8]),
) -> Blocks {
    let Scratch { line, candidates } = scratch;
    let mut blocks = vec![0; bytes.len().div_ceil(simd::BLOCK * 64)];
    let mut runs = Some(Vec::new());
    let mut found = |run: &Run, line: &[u8]| {
        if let Some(few) = runs.as_mut().filter(|_| line.len() >= SHORTEST) {
            // What has letters around it is made anew.
            if few.len() < FEW && run.back + run.ahead == 0 {
                few.push(run.clone());
            } else {
                runs = None;
            }
        }
        found(run, line);
    };
    let mut follow = Follow::new(bytes, least, line);
    for part in (0..bytes.len()).step_by(BLOCKS * simd::BLOCK) {
        // With the block behind the part, in which its last runs go on.
        let end = bytes.len().min(part + (BLOCKS + 1) * simd::BLOCK);
        simd::candidates(&bytes[part..end], least >= SHORTEST, candidates);
        for candidate in candidates.iter().filter(|candidate| candidate.block < BLOCKS) {
            let block = part / simd::BLOCK + candidate.block;
            if follow.block(block * simd::BLOCK, candidate.maps, &mut found) {
                blocks[block / 64] |= 1 << (block % 64);
            }
        }
    }
    Blocks { blocks, runs }
}

/// The same for the same `bytes` once more. What was written over the runs in between may have made others of them.
pub(super) fn scan_again(
    bytes: &[u8],
    blocks: &Blocks,
    scratch: &mut Scratch,
    mut found: impl FnMut(&Run, &[u8]),
) {
    if let Some(runs) = &blocks.runs {
        for run in runs {
            let text = &bytes[run.first..run.first + (run.count - 1) * run.encoding.stride() + 1];
            if run.encoding == Encoding::Utf8 {
                found(run, text);
            } else {
                scratch.line.clear();
                scratch.line.extend(text.iter().step_by(run.encoding.stride()));
                found(run, &scratch.line);
            }
        }
        return;
    }
    let mut follow = Follow::new(bytes, SHORTEST, &mut scratch.line);
    for (word, &bits) in blocks.blocks.iter().enumerate() {
        each_bit(bits, |bit| {
            let start = (word * 64 + bit) * simd::BLOCK;
            follow.block(start, simd::maps(bytes, start), &mut found);
        });
    }
}

/// Follows runs to their ends, each once.
struct Follow<'a> {
    bytes: &'a [u8],
    least: usize,
    /// Where the next run may begin: ASCII, two phases of stride 2, four of stride 4.
    ascii: usize,
    two: [usize; 2],
    four: [usize; 4],
    line: &'a mut Vec<u8>,
}

impl<'a> Follow<'a> {
    fn new(bytes: &'a [u8], least: usize, line: &'a mut Vec<u8>) -> Self {
        Self { bytes, least, ascii: 0, two: [0; 2], four: [0; 4], line }
    }

    /// The runs that begin in the block at `start`, and whether any may.
    fn block(&mut self, start: usize, (text, zero): simd::Maps, found: &mut impl FnMut(&Run, &[u8])) -> bool {
        // Where the first `least` characters are there; a link is a character, zeros, and another character.
        let low = |bits: u128| bits as u64;
        let zero_behind = low(text) & low(zero >> 1);
        let two = zero_behind & low(text >> 2);
        let four = zero_behind & low(zero >> 2) & low(zero >> 3) & low(text >> 4);
        let narrow = match self.least {
            SHORTEST => in_a_row::<SHORTEST>(text),
            5 => in_a_row::<5>(text),
            4 => in_a_row::<4>(text),
            _ => in_a_row::<LEAST>(text),
        };
        // Hardly ever one of a run.
        let two = if two == 0 { 0 } else { links(text & zero >> 1 & text >> 2, 2, self.least - 1) };
        let zeros = || zero >> 1 & zero >> 2 & zero >> 3;
        let four = if four == 0 { 0 } else { links(text & zeros() & text >> 4, 4, self.least - 1) };

        let bytes = self.bytes;
        let mut bits = narrow;
        // What an earlier run holds.
        if let Some(done) = self.ascii.checked_sub(start) {
            bits = u32::try_from(done).ok().and_then(|done| bits.checked_shr(done)).map_or(0, |b| b << done);
        }
        while bits != 0 {
            let at = bits.trailing_zeros();
            let first = start + at as usize;
            let length = (text >> at).trailing_ones();
            let end = first + length as usize;
            let end = if at + length == u128::BITS { simd::text_end(bytes, end) } else { end };
            let run = narrow_run(bytes, first..end, self.ascii);
            self.ascii = run.position(run.count);
            found(&run, &bytes[run.first..self.ascii]);
            let done = self.ascii - start;
            bits = if done < 64 { bits >> done << done } else { 0 };
        }
        each_bit(two, |bit| wide(bytes, start + bit, 2, &mut self.two, self.line, found));
        each_bit(four, |bit| wide(bytes, start + bit, 4, &mut self.four, self.line, found));
        narrow | two | four != 0
    }
}

/// Calls `found` with the runs shorter than [`SHORTEST`] that touch the start or the end of `bytes` and hold at
/// least 4 characters of ASCII, 3 of UTF-16, 2 of UTF-32: 8 bytes of a cut-off text, or half of that for ASCII.
pub(super) fn scan_edges(bytes: &[u8], mut found: impl FnMut(&Run, &[u8])) {
    for (stride, shortest) in [(1, 4), (2, 3), (4, 2)] {
        for phase in 0..stride.min(bytes.len()) {
            let mut seen = None;
            for from_end in [false, true] {
                // One that goes on further was found as any other.
                let most = SHORTEST * stride;
                let mut run = if from_end {
                    edge_run(bytes, bytes.len() - 1 - phase, stride, false, most)
                } else {
                    edge_run(bytes, phase, stride, true, most)
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

/// The places at which `COUNT` characters in a row begin.
#[inline]
fn in_a_row<const COUNT: usize>(text: u128) -> u64 {
    (1..COUNT).fold(text as u64, |series, at| series & (text >> at) as u64)
}

/// The places at which `count` links in a row begin, `stride` bytes from each other.
fn links(links: u128, stride: usize, count: usize) -> u64 {
    (1..count).fold(links, |series, at| series & links >> (at * stride)) as u64
}

fn each_bit(mut bits: u64, mut call: impl FnMut(usize)) {
    while bits != 0 {
        call(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// The run around the ASCII text `text`, with what of UTF-8 goes on before it, not from before `floor`, and behind it.
fn narrow_run(bytes: &[u8], text: Range<usize>, floor: usize) -> Run {
    let Range { start: mut first, mut end } = text;
    // Beside nearly all text there is other ASCII, such as the zero that ends it.
    let is_letter = |byte: Option<&u8>| byte.is_some_and(|&byte| !byte.is_ascii() || is_text(byte));
    if is_letter(bytes[floor..first].last()) {
        while let Some(length) = character_before(&bytes[floor..first]) {
            first -= length;
        }
    }
    if is_letter(bytes.get(end)) {
        while let Some(length) = character(&bytes[end..]) {
            end += length;
        }
    }
    Run { first, count: end - first, back: 0, ahead: 0, encoding: Encoding::Utf8 }
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
    let mut run = edge_run(bytes, at, stride, true, usize::MAX);
    label(&mut run, bytes, stride);
    *free = at + run.count * stride;
    scratch.clear();
    scratch.extend(bytes[at..].iter().step_by(stride).take(run.count));
    found(&run, scratch);
    // Once more with the letters around it. By itself first: they may be no letters but other data.
    letters::each(&run, bytes, scratch, found);
}

/// The characters from `at` on (or back from it) with `stride - 1` zeros between them, over `most` bytes.
fn edge_run(bytes: &[u8], at: usize, stride: usize, forward: bool, most: usize) -> Run {
    let linked = |from: usize, to: usize| is_text(bytes[to]) && bytes[from + 1..to].iter().all(|&b| b == 0);
    let (mut first, mut last) = (at, at);
    if !is_text(bytes[at]) {
        return Run { first, count: 0, back: 0, ahead: 0, encoding: Encoding::Utf8 };
    }
    if forward {
        while last - at < most && last + stride < bytes.len() && linked(last, last + stride) {
            last += stride;
        }
    } else {
        while at - first < most
            && first >= stride
            && is_text(bytes[first - stride])
            && linked(first - stride, first)
        {
            first -= stride;
        }
    }
    Run { first, count: (last - first) / stride + 1, back: 0, ahead: 0, encoding: Encoding::Utf8 }
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
mod tests;
