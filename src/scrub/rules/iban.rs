//! International bank account numbers (ISO 13616): country, check digits, length, in one piece or in groups of four.
#![forbid(unsafe_code)]

use super::{Hit, before};

/// Numbers of a country that has any, with the right length and check digits (ISO 7064 MOD 97-10).
pub(super) fn iban(line: &[u8], hits: &mut Vec<Hit>) {
    search(line, hits);
}

/// Finds the numbers and says how many characters were read for it: no more than three for each of the line's, however many
/// numbers seem to begin in it.
fn search(line: &[u8], hits: &mut Vec<Hit>) -> usize {
    let (mut floor, mut read) = (0, 0);
    // Made when the first number seems to begin: most lines have none.
    let (mut groups, mut piece) = (None, None);
    // Two letters, two digits: the digits are rarer.
    for (at, four) in line.array_windows::<4>().enumerate() {
        let shape = four[2].is_ascii_digit() && four[3].is_ascii_digit() && four[1].is_ascii_alphabetic();
        let starts = || before(line, at).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        if !shape || at < floor || !four[0].is_ascii_alphabetic() || !starts() {
            continue;
        }
        let Some(length) = length_of(four[0], four[1]) else { continue };
        let end = match line.get(at + 4).copied().filter(|&byte| byte == b' ' || byte == b'-') {
            None => {
                let piece = piece.get_or_insert_with(Series::default);
                read += piece.read(line, at, None, length);
                piece.number(line, 0, length)
            }
            separator => {
                // What one number's groups are may be another's that begins with a later one of them.
                let groups = groups.get_or_insert_with(Series::default);
                let mut index = groups.index(at, separator, length);
                if index.is_none() {
                    read += groups.read(line, at, separator, MOST);
                    index = Some(0);
                }
                index.and_then(|index| groups.number(line, index, length))
            }
        };
        if let Some(end) = end {
            hits.push(Hit { range: at..end, rule: "iban" });
            floor = end;
        }
    }
    read
}

/// ISO 13616 allows as many characters.
const LONGEST: usize = 34;
/// Characters that are read together. Of as many a number takes few, so that few are read again for those that begin near the end.
const MOST: usize = 128;

/// Letters and digits in a row, with a separator or none between fours, and sums from which the remainder of any part of them follows.
struct Series {
    /// Where the first stands in the line.
    start: usize,
    separator: Option<u8>,
    /// How many there are.
    count: usize,
    /// Whether there may be more.
    cut: bool,
    /// How far behind the first each stands.
    places: [u8; MOST],
    /// Before each, and behind the last: the remainder by 97 of all so far as one decimal number (a letter being two digits), its
    /// digits, and how many small letters there are.
    sums: [Sum; MOST + 1],
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    remainder: u8,
    digits: u16,
    small: u8,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            start: 0,
            separator: None,
            count: 0,
            cut: false,
            places: [0; MOST],
            sums: [Sum::default(); MOST + 1],
        }
    }
}

impl Series {
    /// Reads from `start` on, `most` characters at most. Gives how many there were.
    fn read(&mut self, line: &[u8], start: usize, separator: Option<u8>, most: usize) -> usize {
        let (mut at, mut sum) = (start, Sum::default());
        (self.start, self.separator, self.count, self.cut) = (start, separator, 0, true);
        for count in 0..most.min(MOST) {
            if count > 0 && count % 4 == 0 && separator.is_some() && line.get(at).copied() == separator {
                at += 1;
            }
            let Some(&byte) = line.get(at).filter(|byte| byte.is_ascii_alphanumeric()) else {
                self.cut = false;
                break;
            };
            // A separator for each four: 160 at most.
            self.places[count] = (at - start) as u8;
            let (value, digits) = match byte {
                b'0'..=b'9' => (u32::from(sum.remainder) * 10 + u32::from(byte - b'0'), 1),
                _ => (u32::from(sum.remainder) * 100 + u32::from(byte.to_ascii_uppercase() - b'A') + 10, 2),
            };
            sum = Sum {
                remainder: (value % 97) as u8,
                digits: sum.digits + digits,
                small: sum.small + u8::from(byte.is_ascii_lowercase()),
            };
            self.sums[count + 1] = sum;
            (self.count, at) = (count + 1, at + 1);
        }
        self.count
    }

    /// The index of what stands at `start` in the line, if all of a number from there on that can be had was read.
    fn index(&self, start: usize, separator: Option<u8>, length: usize) -> Option<usize> {
        let offset = u8::try_from(start.checked_sub(self.start)?).ok()?;
        let index = self.places[..self.count].binary_search(&offset).ok()?;
        let enough = !self.cut || index + length <= self.count;
        (self.separator == separator && index % 4 == 0 && enough).then_some(index)
    }

    /// The end of a whole number of `length` characters from `index` on.
    fn number(&self, line: &[u8], index: usize, length: usize) -> Option<usize> {
        let last = index.checked_add(length).filter(|&last| last <= self.count)?;
        let [first, head, whole] = [index, index + 4, last].map(|at| self.sums[at]);
        // The first four come last for the check (ISO 13616-1, 6).
        let remainder = between(head, whole) * power(head.digits - first.digits) + between(first, head);
        if remainder % 97 != 1 {
            return None;
        }
        let end = self.start + usize::from(self.places[last - 1]) + 1;
        // A number in capitals ends where its country says so, even if an older text's rest follows.
        let exact = first.small == whole.small;
        (exact || !line.get(end).is_some_and(u8::is_ascii_alphanumeric)).then_some(end)
    }
}

/// The remainder of what lies between two sums.
fn between(from: Sum, to: Sum) -> u32 {
    (u32::from(to.remainder) + 97 * 97 - u32::from(from.remainder) * power(to.digits - from.digits)) % 97
}

/// The remainder of a power of ten.
fn power(digits: u16) -> u32 {
    // As many digits as a number has whose characters all are letters.
    const POWERS: [u8; 2 * LONGEST + 1] = {
        let (mut powers, mut at) = ([1; 2 * LONGEST + 1], 1);
        while at < powers.len() {
            powers[at] = (powers[at - 1] as u32 * 10 % 97) as u8;
            at += 1;
        }
        powers
    };
    POWERS.get(usize::from(digits)).map_or(0, |&power| u32::from(power))
}

/// How long a country's numbers are. The case of the letters is ignored.
fn length_of(first: u8, second: u8) -> Option<usize> {
    const LENGTHS: [[u8; 32]; 32] = {
        let (mut lengths, mut at) = ([[0; 32]; 32], 0);
        while at < COUNTRIES.len() {
            let (code, length) = COUNTRIES[at];
            lengths[(code[0] & 31) as usize][(code[1] & 31) as usize] = length as u8;
            at += 1;
        }
        lengths
    };
    let length = LENGTHS[usize::from(first & 31)][usize::from(second & 31)];
    (length > 0).then_some(usize::from(length))
}

/// Countries of the IBAN registry (ISO 13616, SWIFT's registry, release 99) and the length of their numbers.
const COUNTRIES: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn ibans() {
        check(
            iban,
            &[
                "«DE89370400440532013000»",
                "«GB82 WEST 1234 5698 7654 32»",
                "iban:«FR1420041010050500013M02606»,",
                "«de89370400440532013000»",
                "«NO9386011117947»",
                "«MT84MALT011000012345MTLCAST001S»",
                "«CH93-0076-2011-6238-5295-7»",
                "«DE89370400440532013000»XYZ",
                "(«NL91ABNA0417164300»)",
                "«DE89 3704 0044 0532 0130 00»",
            ],
        );
    }

    #[test]
    fn no_ibans() {
        check(
            iban,
            &[
                "DE89370400440532013001",
                "XX89370400440532013000",
                "aDE89370400440532013000",
                "DE8937040044053201300",
                "DE89 3704 00440532 0130 0",
                "de89370400440532013000x",
                "DE89",
                "de12b2de12b2",
                "AD99",
            ],
        );
    }

    #[test]
    fn later_groups_of_no_number_may_begin_one() {
        check(
            iban,
            &[
                "DE89 «DE89 3704 0044 0532 0130 00»",
                "DE89 DE89 DE89 DE89 DE89 DE89 «GB82 WEST 1234 5698 7654 32»",
                "DE89-«DE89 3704 0044 0532 0130 00»",
                "DE89 «DE89370400440532013000» «GB82 WEST 1234 5698 7654 32»",
                "DE89 3704 «NO9386011117947»",
            ],
        );
        // Wherever what is read together ends.
        for groups in 0..80 {
            let before = "DE89 ".repeat(groups);
            check(iban, &[&format!("{before}«DE89 3704 0044 0532 0130 00» {before}«NO93 8601 1117 947»")]);
        }
    }

    #[test]
    fn no_character_is_read_more_than_three_times() {
        for unit in [
            "DE89 ",
            "DE89-",
            "DE89",
            "de89 ",
            "LC99 ",
            "NO93 ",
            "DE89  ",
            "DE89 DE89-",
            "DE89 DE893704 ",
            "DE89 DE89x ",
            "DE89,",
            "DE89 LC89LC89LC89LC89LC89LC89 ",
            "LC89LC89LC89LC89LC89LC89LC89LC89LC89 ",
            "MT84 MALT-",
            "DE89 3704 0044 0532 0130 00 ",
        ] {
            let line = unit.repeat(20_000 / unit.len());
            let read = search(line.as_bytes(), &mut Vec::new());
            assert!(read <= 3 * line.len(), "{unit}: {read} of {}", line.len());
        }
    }

    #[test]
    fn countries_are_sorted_and_no_number_is_longer_than_the_longest() {
        assert!(COUNTRIES.is_sorted_by_key(|(code, _)| **code));
        assert!(COUNTRIES.iter().all(|(_, length)| (15..=LONGEST).contains(length)));
        assert_eq!([length_of(b'D', b'e'), length_of(b'x', b'x')], [Some(22), None]);
    }
}
