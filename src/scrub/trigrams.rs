//! Sets of three characters that something may begin with, of each character the five bits that letters share in upper and
//! lower case. Hardly a place in a line passes.
#![forbid(unsafe_code)]

/// A set of such triples.
#[derive(Debug, Clone)]
pub(super) struct Trigrams(Box<[u64; 512]>);

impl Trigrams {
    pub(super) fn new() -> Self {
        Self(Box::new([0; 512]))
    }

    /// What begins with `text` begins at a place of the set; of two characters with any third, and at a line's end with none.
    pub(super) fn insert(&mut self, text: &[u8]) {
        let mut put = |three: &[u8; 3]| {
            let at = index(three);
            self.0[usize::from(at / 64)] |= 1 << (at % 64);
        };
        match text {
            [first, second, third, ..] => put(&[*first, *second, *third]),
            [first, second] => (0..32).for_each(|third| put(&[*first, *second, third])),
            _ => {}
        }
    }

    pub(super) fn unite(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word |= other);
    }

    /// Whether it holds the triple with this [`index`].
    pub(super) fn contains(&self, index: u16) -> bool {
        self.0[usize::from(index / 64 % 512)] >> (index % 64) & 1 == 1
    }

    /// Whether something of the set may begin at `start` of `line`.
    pub(super) fn begins(&self, line: &[u8], start: usize) -> bool {
        let third = line.get(start + 2).copied().unwrap_or(0);
        line.get(start..start + 2).is_some_and(|two| self.contains(index(&[two[0], two[1], third])))
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
