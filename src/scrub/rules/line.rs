//! What is known of a line before any rule looks at it, from one pass.
#![forbid(unsafe_code)]

use std::ops::{BitAnd, Range, Shr};

use self::Class::*;
use crate::scrub::simd::{self, Kinds};
use crate::scrub::trigrams::{Pair, Trigrams};

/// What one pass over a line shows.
#[derive(Debug, Default)]
pub(in crate::scrub) struct Line {
    /// How many characters of each class it has, up to 127: a byte each.
    counts: u64,
    /// Where something of a set may begin.
    pub(in crate::scrub) starts: Starts,
    /// The words of base64 characters.
    pub(in crate::scrub) words: Words,
}

/// Where in a line something may begin.
#[derive(Debug, Default)]
pub(in crate::scrub) struct Starts {
    /// A bit for each place, two characters further on.
    bits: Vec<u64>,
    any: bool,
}

/// Words of base64 characters, of both alphabets (RFC 4648, sections 4 and 5), in a line. They hold all letters and digits.
#[derive(Debug, Default)]
pub(in crate::scrub) struct Words {
    /// 64 characters each.
    parts: Vec<Kinds>,
}

impl Line {
    /// Looks at `text`, without a branch that depends on a character. `set` holds [`begins`](super::begins) at least.
    pub(in crate::scrub) fn look(&mut self, text: &[u8], set: &Trigrams) {
        let Self { counts, starts, words } = self;
        starts.bits.clear();
        words.parts.clear();
        *counts = 0;
        let mut pair = Pair::default();
        for part in text.chunks(64) {
            let (mut sums, mut start_bits) = (0, 0u64);
            let mut step = |byte: u8| {
                sums += ONES[usize::from(byte)];
                // Bits come in at the top.
                start_bits = start_bits >> 1 | u64::from(set.contains(pair, byte)) << 63;
                pair = pair.and(byte);
            };
            let (fours, rest) = part.as_chunks::<4>();
            fours.iter().for_each(|four| four.iter().for_each(|&byte| step(byte)));
            rest.iter().for_each(|&byte| step(byte));
            starts.bits.push(start_bits >> (64 - part.len()));
            words.parts.push(simd::kinds(part));
            // At most 64 more of each: no sum exceeds a byte, and where its highest bit is set it is MOST.
            let sums = *counts + sums;
            let over = sums & HIGHEST;
            *counts = (sums | (over - (over >> 7))) & !HIGHEST;
        }
        // Two characters at the end.
        if set.contains(pair, 0) {
            starts.bits.resize(text.len() / 64 + 1, 0);
            starts.bits[text.len() / 64] |= 1 << (text.len() % 64);
        }
        if let Some(first) = starts.bits.first_mut() {
            *first &= !3;
        }
        starts.any = starts.bits.iter().any(|&bits| bits != 0);
    }

    /// Whether there are as many characters of a class (up to 127).
    pub(in crate::scrub) fn has(&self, class: Class, least: u8) -> bool {
        (self.counts >> (class as u32 * 8)) as u8 >= least
    }

    /// Whether there are as many of each class.
    pub(in crate::scrub) fn has_all(&self, needs: Needs) -> bool {
        // Each byte with its highest bit set, less what is needed, keeps that bit if there is as much.
        ((self.counts | HIGHEST) - needs.0) & HIGHEST == HIGHEST
    }
}

impl Starts {
    /// Whether there is no such place.
    pub(in crate::scrub) fn is_empty(&self) -> bool {
        !self.any
    }

    /// The places, ascending.
    pub(in crate::scrub) fn iter(&self) -> impl Iterator<Item = usize> {
        let each = |(word, &bits): (usize, &u64)| {
            let mut bits = bits;
            std::iter::from_fn(move || {
                let at = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(word * 64 + at - 2)
            })
        };
        self.bits.iter().enumerate().flat_map(each)
    }
}

impl Words {
    /// Calls `found` with every word of at least `least` characters (up to 64).
    pub(in crate::scrub) fn each(&self, least: usize, mut found: impl FnMut(Range<usize>)) {
        let mut floor = 0usize;
        for part in 0..self.parts.len() {
            let start = part * 64;
            let mut series = self.series(part, least, |part| part.word);
            if series == 0 {
                continue;
            }
            let both = self.two(part, |part| part.word);
            // What an earlier word holds.
            let done = floor.saturating_sub(start);
            series = if done < 64 { series >> done << done } else { 0 };
            while series != 0 {
                let at = series.trailing_zeros();
                let mut end = at + (both >> at).trailing_ones();
                let mut last = start + end as usize;
                if end == u128::BITS {
                    let more = self.parts.iter().skip(part + 2);
                    let whole = more.clone().take_while(|part| part.word == u64::MAX).count();
                    let rest = more.clone().nth(whole).map_or(0, |part| part.word.trailing_ones() as usize);
                    last += whole * 64 + rest;
                }
                found(start + at as usize..last);
                (floor, end) = (last, end.min(64));
                series = if end < 64 { series >> end << end } else { 0 };
            }
        }
    }

    /// Whether there is a word of at least `least` characters (up to 64).
    pub(in crate::scrub) fn has(&self, least: usize) -> bool {
        (0..self.parts.len()).any(|part| self.series(part, least, |part| part.word) != 0)
    }

    /// Whether at least `least` hexadecimal digits (up to 64) follow each other.
    pub(in crate::scrub) fn has_hex(&self, least: usize) -> bool {
        (0..self.parts.len()).any(|part| self.series(part, least, |part| part.hex) != 0)
    }

    /// Whether one of `least` base64 characters (up to 64) or more begins with a character that `is`: at a word's start, or behind one of
    /// [`cuts`](Self::cuts). Of a line of more than 64 characters it says that there is one.
    pub(in crate::scrub) fn may_begin(&self, least: usize, is: impl Fn(usize) -> bool) -> bool {
        let [Kinds { word, cut, .. }] = self.parts[..] else { return !self.parts.is_empty() };
        let mut starts = series(word, least) & (!(word << 1) | cut << 1);
        while starts != 0 {
            if is(starts.trailing_zeros() as usize) {
                return true;
            }
            starts &= starts - 1;
        }
        false
    }

    /// Where in `word`, ascending, the last two digits of either alphabet stand: "+/-_". Only in its first 64 characters.
    pub(in crate::scrub) fn cuts(&self, word: &Range<usize>) -> impl Iterator<Item = usize> {
        let start = word.start;
        let bits = (self.two(start / 64, |part| part.cut) >> (start % 64)) as u64;
        let mut bits = if word.len() < 64 { bits & !(u64::MAX << word.len()) } else { bits };
        std::iter::from_fn(move || {
            let at = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(start + at)
        })
    }

    /// The same in all of `word`, descending.
    pub(in crate::scrub) fn cuts_from_end(&self, word: &Range<usize>) -> impl Iterator<Item = usize> {
        let Range { start, end } = *word;
        let parts = (start / 64..end.div_ceil(64)).rev();
        parts.flat_map(move |part| {
            let base = part * 64;
            let mut bits = self.parts.get(part).map_or(0, |part| part.cut);
            if base < start {
                bits &= u64::MAX << (start - base);
            }
            if end - base < 64 {
                bits &= !(u64::MAX << (end - base));
            }
            std::iter::from_fn(move || {
                let at = (bits != 0).then(|| 63 - bits.leading_zeros() as usize)?;
                bits &= !(1 << at);
                Some(base + at)
            })
        })
    }

    /// The places in a part at which `least` characters in a row begin.
    fn series(&self, part: usize, least: usize, bits: impl Fn(&Kinds) -> u64) -> u64 {
        if part + 1 < self.parts.len() {
            return series(self.two(part, bits), least) as u64;
        }
        // Of most lines there is one part.
        series(self.parts.get(part).map_or(0, bits), least)
    }

    fn two(&self, part: usize, bits: impl Fn(&Kinds) -> u64) -> u128 {
        let bits = |part: usize| u128::from(self.parts.get(part).map_or(0, &bits));
        bits(part) | bits(part + 1) << 64
    }
}

/// The places at which `least` bits in a row begin.
fn series<T>(bits: T, least: usize) -> T
where
    T: Copy + Shr<usize, Output = T> + BitAnd<Output = T>,
{
    let (mut series, mut length) = (bits, 1);
    while length < least {
        let more = length.min(least - length);
        series = series & series >> more;
        length += more;
    }
    series
}

/// Characters that are counted in a line, each in a byte of a word.
#[derive(Debug, Clone, Copy)]
pub(in crate::scrub) enum Class {
    At,
    Digit,
    /// Or a backslash.
    Slash,
    Colon,
    Dot,
    Dash,
    /// A plus sign or an opening bracket, before a telephone number; or a percent sign.
    Sign,
    Angle,
}

/// The most that is counted of a class.
const MOST: u8 = 127;
/// Of each count the bit that it never has.
const HIGHEST: u64 = 0x8080_8080_8080_8080;

/// How many characters of each class something needs: a byte each.
#[derive(Debug, Clone, Copy)]
pub(in crate::scrub) struct Needs(u64);

impl Needs {
    /// Each count is 127 at most.
    pub(in crate::scrub) const fn new(classes: &[(Class, u8)]) -> Self {
        let (mut needs, mut at) = (0, 0);
        while at < classes.len() {
            let (class, least) = classes[at];
            assert!(least <= MOST);
            needs |= (least as u64) << (class as u32 * 8);
            at += 1;
        }
        Self(needs)
    }
}

/// For each byte a word with a one in the byte of its class.
const ONES: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = b'0';
    while byte <= b'9' {
        table[byte as usize] = one(Digit);
        byte += 1;
    }
    table[b'@' as usize] = one(At);
    table[b'/' as usize] = one(Slash);
    table[b'\\' as usize] = one(Slash);
    table[b':' as usize] = one(Colon);
    table[b'.' as usize] = one(Dot);
    table[b'-' as usize] = one(Dash);
    table[b'+' as usize] = one(Sign);
    table[b'(' as usize] = one(Sign);
    table[b'%' as usize] = one(Sign);
    table[b'<' as usize] = one(Angle);
    table
};

const fn one(class: Class) -> u64 {
    1 << (class as u32 * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(line: &[u8], set: &Trigrams) -> Line {
        let mut looked = Line::default();
        looked.look(line, set);
        looked
    }

    #[test]
    fn everything_of_a_set_is_found_where_it_begins() {
        let mut set = Trigrams::new();
        ["token", "al", "key", "né le"].iter().for_each(|text| set.insert(text.as_bytes()));
        let starts = |line: &str| {
            let starts = looked(line.as_bytes(), &set).starts;
            assert!(starts.iter().all(|start| set.begins(line.as_bytes(), start)));
            assert_eq!(starts.is_empty(), starts.iter().count() == 0);
            starts.iter().collect::<Vec<_>>()
        };
        assert_eq!(starts("a TOKen and tok al"), [2, 12, 16]);
        assert_eq!(starts("alx né le"), [0, 4]);
        assert_eq!(starts(&format!("{}token{}key", "-".repeat(63), "-".repeat(100))), [63, 168]);
        assert_eq!(starts("al"), [0]);
        assert_eq!(starts(&format!("{}al", "-".repeat(62))), [62]);
        for line in ["", "a", "k", "  ", "ke"] {
            assert!(starts(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn characters_are_counted_up_to_127() {
        let line = looked(&b"a1:%b".repeat(300), &Trigrams::new());
        assert!(line.has(Class::Digit, 127) && line.has(Class::Colon, 127) && !line.has(Class::At, 1));
        let line = looked(b"12 x", &Trigrams::new());
        assert!(line.has(Class::Digit, 2) && !line.has(Class::Digit, 3));
        assert!(looked(&b"1".repeat(126), &Trigrams::new()).has(Class::Digit, 126));
        assert!(!looked(&b"1".repeat(126), &Trigrams::new()).has(Class::Digit, 127));
    }

    #[test]
    fn all_that_is_needed_is_there_or_not() {
        let line = looked(b"a@b.co <1:2.3>", &Trigrams::new());
        for (needs, there) in [
            (&[][..], true),
            (&[(Class::At, 1), (Class::Dot, 2)], true),
            (&[(Class::At, 1), (Class::Dot, 3)], false),
            (&[(Class::At, 2)], false),
            (&[(Class::Digit, 3), (Class::Colon, 1), (Class::Angle, 1)], true),
            (&[(Class::Slash, 1)], false),
            (&[(Class::Digit, 127)], false),
        ] {
            assert_eq!(line.has_all(Needs::new(needs)), there, "{needs:?}");
            assert_eq!(needs.iter().all(|&(class, least)| line.has(class, least)), there, "{needs:?}");
        }
        assert!(looked(&b"<a".repeat(64), &Trigrams::new()).has_all(Needs::new(&[(Class::Angle, 64)])));
        let most = looked(&b"1@/:.-+<".repeat(200), &Trigrams::new());
        assert!(most.has_all(Needs::new(&[(Class::At, 127), (Class::Angle, 127), (Class::Digit, 127)])));
    }

    #[test]
    fn words_are_those_of_a_naive_search() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let is = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        for _ in 0..300 {
            let mut bytes = Vec::new();
            for _ in 0..random(12) {
                let most = if random(4) == 0 { 400 } else { 30 };
                let length = random(most);
                bytes.extend((0..length).map(|_| b"abcXYZ09+/-_"[random(12) as usize]));
                bytes.push(b" =%@\x80"[random(5) as usize]);
            }
            let words = looked(&bytes, &Trigrams::new()).words;
            for least in [1, 6, 26, 64] {
                let (mut naive, mut found, mut at) = (Vec::new(), Vec::new(), 0);
                for word in bytes.split(|byte| !is(byte)) {
                    if word.len() >= least {
                        naive.push(at..at + word.len());
                    }
                    at += word.len() + 1;
                }
                words.each(least, |word| found.push(word));
                assert_eq!(found, naive);
                assert_eq!(words.has(least), !naive.is_empty());
            }
        }
    }
}
