//! One layer of encoding over text: percent and JSON escapes, hexadecimal, base64. What is decoded is searched like any
//! other line, and what is found is blanked as it stands, encoded.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::rules::{Class, Line, Words};
use super::runs::is_text;

/// The shortest decoded piece that is looked at, in bytes: a short known value with a separator.
pub(super) const SHORTEST: usize = 4;
/// As many in hexadecimal.
const SHORTEST_HEX: usize = 2 * SHORTEST;

/// What is sought in decoded pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Bytes from which on pieces of base64 and hexadecimal are wanted: [`SHORTEST`] to [`runs::SHORTEST`](super::runs::SHORTEST).
    pub(super) least: usize,
    /// Whether they may be all of other characters than ASCII ones.
    pub(super) foreign: bool,
}

/// Calls `found` with every decoded piece of `text`, which `line` is about, and a function from its characters to those of `text`.
///
/// Each character belongs to one piece of each kind at most; base64 is tried at nine phases, so the work is linear.
pub(super) fn each(
    text: &[u8],
    line: &Line,
    wanted: Wanted,
    scratch: &mut Decoded,
    mut found: impl FnMut(&Decoded),
) {
    let Wanted { least, foreign } = wanted;
    if line.has(Class::Sign, 1) && memchr::memchr(b'%', text).is_some() && scratch.percent(text) {
        found(scratch);
    }
    if line.has(Class::Slash, 1) && memchr::memchr(b'\\', text).is_some() && scratch.json(text) {
        found(scratch);
    }
    // The zero of each.
    if line.has(Class::Digit, PAIRS) && has_pairs(text) && scratch.pairs(text) {
        found(scratch);
    }
    // Of base64, and of hexadecimal: no more than 12.
    let (digits, hex) = ((least * 8).div_ceil(6), 2 * least);
    let some_hex = line.words.has_hex(hex);
    let is_first = |at: usize| FIRST[usize::from(text[at])];
    if !some_hex && !line.words.may_begin(digits, is_first) {
        return;
    }
    line.words.each(digits, |word| {
        if !(some_hex && from_hex(text, &word, foreign, scratch, &mut found)) {
            from_base64(text, &word, digits, &line.words, scratch, &mut found);
        }
    });
}

/// Decoded text.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) text: Vec<u8>,
    /// Where in the line each character's own bytes lie.
    from: Vec<Range<u32>>,
}

impl Decoded {
    /// The characters of the line that tell `range` of the text.
    pub(super) fn source(&self, range: &Range<usize>) -> Range<usize> {
        let first = self.from.get(range.start).map_or(0, |from| from.start as usize);
        let last =
            range.end.checked_sub(1).and_then(|at| self.from.get(at)).map_or(first, |from| from.end as usize);
        first..last
    }

    fn clear(&mut self) {
        self.text.clear();
        self.from.clear();
    }

    fn push(&mut self, byte: u8, start: usize, end: usize) {
        self.text.push(byte);
        self.from.push(start as u32..end as u32);
    }

    /// The whole line with its `%XX` decoded (RFC 3986, section 2.1), if there are two at least.
    fn percent(&mut self, line: &[u8]) -> bool {
        self.clear();
        let (mut at, mut escapes) = (0, 0);
        while at < line.len() {
            let decoded = (line[at] == b'%').then(|| hex_pair(line, at + 1)).flatten();
            let length = if decoded.is_some() { 3 } else { 1 };
            escapes += usize::from(decoded.is_some());
            self.push(decoded.unwrap_or(line[at]), at, at + length);
            at += length;
        }
        escapes >= 1
    }

    /// The whole line with the escapes of JSON strings decoded (RFC 8259, section 7), and `\xXX` of other languages.
    fn json(&mut self, line: &[u8]) -> bool {
        self.clear();
        let (mut at, mut escapes) = (0, 0);
        while at < line.len() {
            let start = at;
            if line[at] != b'\\' {
                self.push(line[at], at, at + 1);
                at += 1;
                continue;
            }
            let (decoded, length) = match line.get(at + 1) {
                Some(b'u') => match (hex_pair(line, at + 2), hex_pair(line, at + 4)) {
                    (Some(high), Some(low)) => (char::from_u32(u32::from(high) << 8 | u32::from(low)), 6),
                    _ => (None, 1),
                },
                Some(b'x') => (hex_pair(line, at + 2).map(char::from), 4),
                Some(&plain @ (b'\\' | b'"' | b'/')) => (Some(char::from(plain)), 2),
                _ => (None, 1),
            };
            match decoded {
                Some(c) => {
                    escapes += 1;
                    at += length;
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8).bytes().for_each(|byte| self.push(byte, start, start + length));
                }
                // The other escapes are no characters of a value.
                None => {
                    self.push(b'\\', start, start + 1);
                    at += 1;
                }
            }
        }
        escapes >= 1
    }

    /// The whole line with its `0xXX` decoded, and what stands between two of them left out, as in a program's list of bytes.
    fn pairs(&mut self, line: &[u8]) -> bool {
        self.clear();
        let is_pair = |at: usize| line.get(at..at + 2).is_some_and(|two| two.eq_ignore_ascii_case(b"0x"));
        let pair = |at: usize| {
            let byte = is_pair(at).then(|| hex_pair(line, at + 2)).flatten();
            // Of more digits it is another number.
            byte.filter(|_| is_pair(at + 4) || !line.get(at + 4).is_some_and(u8::is_ascii_hexdigit))
        };
        let (mut at, mut count) = (0, 0usize);
        while at < line.len() {
            let Some(byte) = pair(at) else {
                self.push(line[at], at, at + 1);
                at += 1;
                continue;
            };
            self.push(byte, at, at + 4);
            (at, count) = (at + 4, count + 1);
            let between = line[at..].iter().take(3).take_while(|byte| b", \t\n".contains(byte)).count();
            if pair(at + between).is_some() {
                at += between;
            }
        }
        count >= usize::from(PAIRS)
    }

    /// All of `word` (at `start` in its line) from hexadecimal, if it is text throughout.
    fn hex(&mut self, word: &[u8], start: usize) -> bool {
        self.clear();
        for at in (0..word.len() & !1).step_by(2) {
            match hex_pair(word, at) {
                Some(byte) if is_text(byte) || byte >= 0x80 => self.push(byte, start + at, start + at + 2),
                _ => return false,
            }
        }
        is_text_throughout(&self.text)
    }

    /// `word` (at `start` in its line) from base64 (RFC 4648, sections 4 and 5), as far as it is text.
    fn base64(&mut self, word: &[u8], start: usize) -> bool {
        self.clear();
        // Bytes that a character still needs (RFC 3629): most words that are no base64 fail at the second byte.
        let mut open = 0;
        let (mut bits, mut count) = (0u32, 0);
        for (at, &byte) in word.iter().enumerate() {
            let Some(value) = base64_value(byte) else { break };
            bits = bits << 6 | u32::from(value);
            count += 6;
            if count >= 8 {
                count -= 8;
                let byte = (bits >> count) as u8;
                open = match (open, byte) {
                    (1.., 0x80..=0xbf) => open - 1,
                    (0, 0xc2..=0xdf) => 1,
                    (0, 0xe0..=0xef) => 2,
                    (0, 0xf0..=0xf4) => 3,
                    (0, _) if is_text(byte) => 0,
                    _ => return false,
                };
                // Six bits a character: the byte began in the one before.
                self.push(byte, start + at - 1, start + at + 1);
            }
        }
        is_text_throughout(&self.text)
    }
}

fn is_text_throughout(text: &[u8]) -> bool {
    // The end may be cut in the middle of a character.
    text.len() >= SHORTEST
        && match std::str::from_utf8(text) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none() && error.valid_up_to() + 4 > text.len(),
        }
}

/// Bytes of a list that is decoded, at least.
const PAIRS: u8 = 4;

/// Whether there is a `0x` with two digits.
fn has_pairs(line: &[u8]) -> bool {
    memchr::memchr2_iter(b'x', b'X', line).any(|at| {
        let zero = at.checked_sub(1).is_some_and(|before| line[before] == b'0');
        // Of more digits it is another number, but for the zero of the next one.
        zero && hex_pair(line, at + 1).is_some()
            && line.get(at + 3).is_none_or(|&next| next == b'0' || !next.is_ascii_hexdigit())
    })
}

/// Calls `found` with every series of [`SHORTEST_HEX`] hexadecimal digits or more in `word` that may be of text, whatever stands before
/// it: `0x`, "key-".
fn hexadecimal(word: &[u8], foreign: bool, mut found: impl FnMut(Range<usize>)) {
    let (mut floor, mut at) = (0, SHORTEST_HEX - 2);
    // What words begin with may be of any digits: those of Cyrillic are mostly no upper halves of ASCII.
    let lead = if matches!(word, [b'0', b'x' | b'X', ..]) { 2 } else { 0 };
    if word.get(lead..lead + SHORTEST_HEX).is_some_and(|first| first.iter().all(u8::is_ascii_hexdigit)) {
        let length = word[lead..].iter().position(|byte| !byte.is_ascii_hexdigit());
        floor = length.map_or(word.len(), |length| lead + length);
        found(lead..floor);
        at = floor + SHORTEST_HEX - 1;
    }
    // Of ASCII every other digit is one of these (RFC 20), so that one stands in any two of a series, and words have hardly any. Of
    // other characters it is one from 8 on (RFC 3629).
    let is_upper_half = |byte: u8| (b'2'..=b'7').contains(&byte) || foreign && byte >= b'8';
    // A series holds one of these pairs.
    while at + 1 < word.len() {
        let pair = [word[at], word[at + 1]];
        if pair.iter().any(|&byte| is_upper_half(byte)) && pair.iter().all(u8::is_ascii_hexdigit) {
            let before = word[floor..at].iter().rposition(|byte| !byte.is_ascii_hexdigit());
            let start = before.map_or(floor, |last| floor + last + 1);
            let length = word[at..].iter().position(|byte| !byte.is_ascii_hexdigit());
            floor = length.map_or(word.len(), |length| at + length);
            if floor - start >= SHORTEST_HEX {
                found(start..floor);
            }
            at = floor;
        }
        at += SHORTEST_HEX - 1;
    }
}

/// A word of base64 characters with hexadecimal digits among them. Whether all of it was such.
fn from_hex(
    text: &[u8],
    word: &Range<usize>,
    foreign: bool,
    scratch: &mut Decoded,
    found: &mut impl FnMut(&Decoded),
) -> bool {
    let mut whole = false;
    hexadecimal(&text[word.clone()], foreign, |series| {
        // A digit too many may stand before it.
        for phase in 0..2 {
            let digits = word.start + series.start + phase..word.start + series.end;
            if digits.len() >= SHORTEST_HEX && scratch.hex(&text[digits.clone()], digits.start) {
                found(scratch);
                whole |= digits.len() == word.len();
            }
        }
    });
    whole
}

/// A word of base64 characters, `least` of them. What stands before it may be of the same: "/path/", "key-". So it is tried behind the
/// first four of these and behind the last four, as what is encoded may hold some too.
fn from_base64(
    text: &[u8],
    word: &Range<usize>,
    least: usize,
    words: &Words,
    scratch: &mut Decoded,
    found: &mut impl FnMut(&Decoded),
) {
    let first = words.cuts(word).take(CUTS);
    // Of a long word, and of one with many.
    let few = word.len() <= 64 && words.cuts(word).nth(CUTS).is_none();
    let last = if few { 0 } else { CUTS };
    let last = words.cuts_from_end(word).take(last);
    for start in std::iter::once(word.start).chain(first.chain(last).map(|at| at + 1)) {
        let rest = &text[start..word.end];
        if rest.len() >= least && begins_as_text(rest) && scratch.base64(rest, start) {
            found(scratch);
            break;
        }
    }
}

/// Places of a word, from either end, behind which base64 is tried.
const CUTS: usize = 4;

/// Whether the first three bytes that `word`, of four base64 characters at least, encodes may be of a text: those of hardly one
/// word in ten of a language or a program may.
fn begins_as_text(word: &[u8]) -> bool {
    let Some(four) = word.first_chunk::<4>() else { return false };
    let value = |at: usize| u32::from(BASE64[usize::from(four[at])]);
    let bits = value(0) << 18 | value(1) << 12 | value(2) << 6 | value(3);
    let [_, first, second, third] = bits.to_be_bytes();
    match (is_text(first), first) {
        (true, _) => (is_text(second) || second >= 0xc2) && (is_text(third) || third >= 0x80),
        (_, 0xc2..=0xf4) => second >= 0x80,
        _ => false,
    }
}

/// The base64 characters that a text may begin with, by the upper six bits of a first byte that [`begins_as_text`]: those of two in three
/// words.
const FIRST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        // Tab and line feed, carriage return, printable ASCII, what UTF-8 begins with.
        table[byte] = matches!(BASE64[byte], 2 | 3 | 8..=31 | 48..=61);
        byte += 1;
    }
    table
};

fn hex_pair(line: &[u8], at: usize) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let high = line.get(at).and_then(digit)?;
    let low = line.get(at + 1).and_then(digit)?;
    Some((high << 4 | low) as u8)
}

fn base64_value(byte: u8) -> Option<u8> {
    Some(BASE64[usize::from(byte)]).filter(|&value| value != 0xff)
}

const BASE64: [u8; 256] = {
    let mut table = [0xff; 256];
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut at = 0;
    while at < 64 {
        table[digits[at] as usize] = at as u8;
        at += 1;
    }
    table[b'-' as usize] = 62;
    table[b'_' as usize] = 63;
    table
};

#[cfg(test)]
mod tests;
