//! Sets of three characters that something may begin with, of each character the five bits that letters share in upper and
//! lower case. Hardly a place in a line passes.
#![forbid(unsafe_code)]

/// A set of such triples: for each pair of first characters a bit for each third.
#[derive(Debug, Clone)]
pub(super) struct Trigrams(Box<[u32; 1024]>);

impl Trigrams {
    pub(super) fn new() -> Self {
        Self(Box::new([0; 1024]))
    }

    /// What begins with `text` begins at a place of the set; of two characters with any third, and at a line's end with none.
    pub(super) fn insert(&mut self, text: &[u8]) {
        let mut put = |first: u8, second: u8, thirds: u32| {
            self.0[Pair::default().and(first).and(second).row()] |= thirds;
        };
        match text {
            [first, second, third, ..] => put(*first, *second, 1 << (third & 31)),
            [first, second] => put(*first, *second, u32::MAX),
            _ => {}
        }
    }

    pub(super) fn unite(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(row, other)| *row |= other);
    }

    /// Whether it holds the triple of a pair and a third character.
    #[inline]
    pub(super) fn contains(&self, pair: Pair, third: u8) -> bool {
        self.0[pair.row()] >> (third & 31) & 1 == 1
    }

    /// Whether something of the set may begin at `start` of `line`.
    pub(super) fn begins(&self, line: &[u8], start: usize) -> bool {
        let third = line.get(start + 2).copied().unwrap_or(0);
        let pair = |two: &[u8]| Pair::default().and(two[0]).and(two[1]);
        line.get(start..start + 2).is_some_and(|two| self.contains(pair(two), third))
    }
}

/// The last two characters of a text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pair(u32);

impl Pair {
    /// With one more.
    #[inline]
    pub(super) fn and(self, byte: u8) -> Self {
        Self(self.0 << 5 | u32::from(byte & 31))
    }

    fn row(self) -> usize {
        self.0 as usize % 1024
    }
}

/// A number of 15 bits for three characters.
pub(super) fn index(three: &[u8; 3]) -> u16 {
    let [a, b, c] = three.map(|byte| u16::from(byte & 31));
    a << 10 | b << 5 | c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_in_any_case() {
        let (mut set, mut more) = (Trigrams::new(), Trigrams::new());
        for text in ["token", "al", "x"] {
            set.insert(text.as_bytes());
        }
        more.insert(b"key");
        set.unite(&more);
        for (line, start, expected) in [
            ("a TOKen", 2, true),
            ("a TOKen", 1, false),
            ("al", 0, true),
            ("alx", 0, true),
            ("a", 0, false),
            ("KEY", 0, true),
            ("KE", 0, false),
            ("x", 0, false),
        ] {
            assert_eq!(set.begins(line.as_bytes(), start), expected, "{line} from {start}");
        }
    }
}
