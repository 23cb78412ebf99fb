//! One search for all literals that rules begin with: by the first three characters, of which five bits each make an index.
//! The five bits are those that letters share in upper and lower case.
#![forbid(unsafe_code)]

/// Literals of at least three bytes, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Anchors {
    /// A bit for each index that a literal has: nearly all of a line ends here.
    filter: Box<[u64; 512]>,
    /// Literals with their numbers, by index.
    literals: Vec<(u16, Vec<u8>, usize)>,
}

impl Anchors {
    /// Compiles literals; the case of ASCII letters does not count. Shorter ones than three bytes are never found.
    pub(crate) fn new<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut anchors = Self { filter: Box::new([0; 512]), literals: Vec::new() };
        for (number, text) in texts.into_iter().enumerate() {
            let text = text.as_ref().to_ascii_lowercase();
            let Some(start) = text.first_chunk() else { continue };
            let index = index(start);
            anchors.filter[usize::from(index) / 64] |= 1 << (index % 64);
            anchors.literals.push((index, text, number));
        }
        anchors.literals.sort();
        anchors
    }

    /// Calls `found` with the start, the end and the number of every literal in `line`, in the order of their starts.
    pub(crate) fn each(&self, line: &[u8], mut found: impl FnMut(usize, usize, usize)) {
        for (start, three) in line.array_windows::<3>().enumerate() {
            let index = index(three);
            if self.filter[usize::from(index) / 64] >> (index % 64) & 1 == 0 {
                continue;
            }
            let first = self.literals.partition_point(|(other, ..)| *other < index);
            for (_, text, number) in self.literals[first..].iter().take_while(|(other, ..)| *other == index) {
                let end = start + text.len();
                if line.get(start..end).is_some_and(|here| here.eq_ignore_ascii_case(text)) {
                    found(start, end, *number);
                }
            }
        }
    }
}

fn index(three: &[u8; 3]) -> u16 {
    let [a, b, c] = three.map(|byte| u16::from(byte & 31));
    a << 10 | b << 5 | c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found_in_any_case_with_all_that_begin_alike() {
        let anchors = Anchors::new(["token", "tok", "né le", ":aa", "x"]);
        let mut all = Vec::new();
        anchors
            .each("a TOKEN né LE :Aa x TO".as_bytes(), |start, end, number| all.push((start, end, number)));
        assert_eq!(all, [(2, 5, 1), (2, 7, 0), (8, 14, 2), (15, 18, 3)]);
        anchors.each(b"to", |_, _, _| panic!("shorter than any"));
    }
}
