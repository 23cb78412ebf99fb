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

    fn contains(&self, index: u16) -> bool {
        self.0[usize::from(index / 64 % 512)] >> (index % 64) & 1 == 1
    }

    /// Whether something of the set may begin at `start` of `line`.
    pub(super) fn begins(&self, line: &[u8], start: usize) -> bool {
        let third = line.get(start + 2).copied().unwrap_or(0);
        line.get(start..start + 2).is_some_and(|two| self.contains(index(&[two[0], two[1], third])))
    }
}

/// Where in a line something may begin.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// A bit for each place, two characters further on.
    bits: Vec<u64>,
    any: bool,
}

impl Starts {
    /// Whether there is no such place.
    pub(super) fn is_empty(&self) -> bool {
        !self.any
    }

    /// The places, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
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

    /// Looks at `line` for what `set` holds; `sums` gets the sums of `weights` over all characters, of up to 64 at a time. One
    /// pass without a branch that depends on a character.
    pub(super) fn look(
        &mut self,
        line: &[u8],
        set: &Trigrams,
        weights: &[u64; 256],
        mut sums: impl FnMut(u64),
    ) {
        self.bits.clear();
        let mut index = 0u16;
        for bytes in line.chunks(64) {
            let (mut sum, mut bits) = (0, 0u64);
            for (at, &byte) in bytes.iter().enumerate() {
                sum += weights[usize::from(byte)];
                index = index << 5 | u16::from(byte & 31);
                bits |= u64::from(set.contains(index & 0x7fff)) << at;
            }
            sums(sum);
            self.bits.push(bits);
        }
        // Two characters at the end.
        if set.contains(index << 5 & 0x7fff) {
            self.bits.resize(line.len() / 64 + 1, 0);
            self.bits[line.len() / 64] |= 1 << (line.len() % 64);
        }
        if let Some(first) = self.bits.first_mut() {
            *first &= !3;
        }
        self.any = self.bits.iter().any(|&bits| bits != 0);
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
    fn everything_of_a_set_is_found_where_it_begins() {
        let mut set = Trigrams::new();
        for text in ["token", "al", "x", "né le"] {
            set.insert(text.as_bytes());
        }
        let mut more = Trigrams::new();
        more.insert(b"key");
        set.unite(&more);
        let starts = |line: &str| {
            let mut starts = Starts::default();
            starts.look(line.as_bytes(), &set, &[1; 256], |_| ());
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
    fn weights_are_summed_up() {
        let mut weights = [0; 256];
        (weights[usize::from(b'a')], weights[usize::from(b'b')]) = (1, 1 << 32);
        let (mut total, mut parts) = (0, 0);
        Starts::default().look(&b"abb".repeat(50), &Trigrams::new(), &weights, |sum| {
            total += sum;
            parts += 1;
        });
        assert_eq!((total, parts), (50 + (100 << 32), 3));
    }
}
