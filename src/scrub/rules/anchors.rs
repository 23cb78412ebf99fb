//! One search for all literals that rules begin with: by the first three characters, of which five bits each make an index.
//! The five bits are those that letters share in upper and lower case.
#![forbid(unsafe_code)]

use crate::scrub::trigrams::{Trigrams, index};

use super::line::Starts;

/// Literals of at least two bytes, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Anchors {
    /// What they begin with: nearly all of a line ends here.
    begins: Trigrams,
    /// Literals with their numbers, by index.
    literals: Vec<(u16, Vec<u8>, usize)>,
    /// For each index where in `literals` its own begin.
    first: Box<[u16; 1 << 15]>,
}

impl Anchors {
    /// Compiles literals; the case of ASCII letters does not count. Shorter ones than two bytes are never found, and such of
    /// two are where a third character follows.
    pub(crate) fn new<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let (mut begins, mut literals) = (Trigrams::new(), Vec::new());
        for (number, text) in texts.into_iter().enumerate() {
            let text = text.as_ref().to_ascii_lowercase();
            match text[..] {
                [] | [_] => continue,
                // Whatever follows.
                [first, second] => {
                    let each = (0..32).map(|third| (index(&[first, second, third]), text.clone(), number));
                    literals.extend(each);
                }
                [first, second, third, ..] => {
                    literals.push((index(&[first, second, third]), text.clone(), number))
                }
            }
            begins.insert(&text);
        }
        literals.sort();
        let mut first = Box::new([u16::MAX; 1 << 15]);
        for (at, (index, ..)) in literals.iter().enumerate().rev() {
            first[usize::from(*index)] = at as u16;
        }
        Self { begins, literals, first }
    }

    /// What the literals begin with.
    pub(crate) fn begins(&self) -> &Trigrams {
        &self.begins
    }

    /// Calls `found` with the start, the end and the number of every literal that begins at one of `starts` in `line`, in that order.
    pub(crate) fn each(&self, line: &[u8], starts: &Starts, mut found: impl FnMut(usize, usize, usize)) {
        for start in starts.iter() {
            let Some(three) = line[start..].first_chunk() else { continue };
            let index = index(three);
            let first = usize::from(self.first[usize::from(index)]);
            let own = self.literals.get(first..).unwrap_or_default().iter();
            for (_, text, number) in own.take_while(|(other, ..)| *other == index) {
                let end = start + text.len();
                // The last character tells most of those that begin alike apart.
                let last = text.last().zip(line.get(end - 1)).is_some_and(|(a, b)| (a ^ b) & 0xdf == 0);
                if !last {
                    continue;
                }
                if line.get(start..end).is_some_and(|here| here.eq_ignore_ascii_case(text)) {
                    found(start, end, *number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Line;
    use super::*;

    #[test]
    fn literals_are_found_in_any_case_with_all_that_begin_alike() {
        let anchors = Anchors::new(["token", "tok", "né le", ":aa", "x", "\u{96}"]);
        let mut all = Vec::new();
        let starts = |text: &[u8]| {
            let mut line = Line::default();
            line.look(text, anchors.begins());
            line.starts
        };
        let line = "a TOKEN né LE :Aa x \u{96}: \u{96} TO".as_bytes();
        anchors.each(line, &starts(line), |start, end, number| all.push((start, end, number)));
        assert_eq!(all, [(2, 5, 1), (2, 7, 0), (8, 14, 2), (15, 18, 3), (21, 23, 5), (25, 27, 5)]);
        anchors.each(b"to", &starts(b"to"), |_, _, _| panic!("shorter than any"));
    }
}
