//! Payment cards.
#![forbid(unsafe_code)]

use super::{Hit, before, digit_at, end_of};

/// Issuer identification numbers (ISO/IEC 7812): first and last prefix of a range, their digits, and the lengths
/// of whole numbers, as the networks publish them.
const ISSUERS: &[(u64, u64, u32, &[usize])] = &[
    (4, 4, 1, &[13, 16, 19]),                           // Visa
    (51, 55, 2, &[16]),                                 // Mastercard
    (2221, 2720, 4, &[16]),                             // Mastercard
    (34, 34, 2, &[15]),                                 // American Express
    (37, 37, 2, &[15]),                                 // American Express
    (6011, 6011, 4, &[16, 17, 18, 19]),                 // Discover
    (644, 649, 3, &[16, 17, 18, 19]),                   // Discover
    (65, 65, 2, &[16, 17, 18, 19]),                     // Discover, RuPay
    (62, 62, 2, &[16, 17, 18, 19]),                     // UnionPay
    (81, 81, 2, &[16]),                                 // UnionPay, RuPay
    (3500, 3599, 4, &[16, 17, 18, 19]),                 // JCB (3528 on today)
    (1800, 1800, 4, &[15]),                             // JCB, older
    (2131, 2131, 4, &[15]),                             // JCB, older
    (300, 305, 3, &[14, 16, 17, 18, 19]),               // Diners Club
    (3095, 3095, 4, &[14, 16, 17, 18, 19]),             // Diners Club
    (36, 36, 2, &[14, 15, 16, 17, 18, 19]),             // Diners Club
    (38, 39, 2, &[14, 16, 17, 18, 19]),                 // Diners Club
    (5018, 5018, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (5020, 5020, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (5038, 5038, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (5893, 5893, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (56, 58, 2, &[12, 13, 14, 15, 16, 17, 18, 19]),     // Maestro
    (6390, 6390, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (6304, 6304, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (6759, 6759, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (6761, 6763, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (2200, 2204, 4, &[16, 17, 18, 19]),                 // Mir
    (508, 508, 3, &[16]),                               // RuPay
    (60, 60, 2, &[16]),                                 // RuPay
    (82, 82, 2, &[16]),                                 // RuPay
    (5060, 5061, 4, &[16, 18, 19]),                     // Verve
    (9792, 9792, 4, &[16]),                             // Troy
];

/// How numbers are printed on cards, longest first.
const GROUPS: &[&[usize]] = &[&[4, 4, 4, 4, 3], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 1]];

/// Payment card numbers: issuer, length and Luhn check digit (ISO/IEC 7812-1, annex B), in one piece or in groups.
/// Digits behind a decimal point and inside hexadecimal are none.
pub(super) fn payment_card(line: &[u8], hits: &mut Vec<Hit>) {
    let mut at = 0;
    while let Some(start) = line[at..].iter().position(u8::is_ascii_digit).map(|skip| at + skip) {
        let end = end_of(line, start, |byte| byte.is_ascii_digit());
        at = end;
        if before(line, start) == Some(b'.') || in_hexadecimal(line, start) {
            continue;
        }
        let number = match end - start {
            12..=19 if is_card(&line[start..end]) => Some(end),
            4 => grouped(line, start),
            _ => None,
        };
        // Four groups of four say where the number ends, whatever older text has left right behind it.
        let overlong = number.is_some_and(|end| digit_at(line, end));
        let goes_on = |end: usize| {
            (line.get(end) == Some(&b'.') && digit_at(line, end + 1)) || followed_by_hexadecimal(line, end)
        };
        if let Some(end) = number
            && (overlong || !goes_on(end))
        {
            hits.push(Hit { range: start..end, rule: "payment-card" });
            at = end;
        }
    }
}

/// What stands between groups: spaces that do not break a line (U+00A0, U+202F) are two or three bytes of UTF-8, one in ISO 8859-1, and one
/// as other encodings are [narrowed](super::narrow).
const SEPARATORS: &[&[u8]] = &[b" ", b"-", b".", b"\xc2\xa0", b"\xe2\x80\xaf", b"\xa0", b"\xa1", b"\xef"];

/// The end of a grouped card number that begins with the four digits at `start`.
fn grouped(line: &[u8], start: usize) -> Option<usize> {
    let behind = line.get(start + 4..)?;
    let separator = SEPARATORS.iter().find(|separator| behind.starts_with(separator))?;
    // The ends of up to five groups, each of up to six digits.
    let (mut lengths, mut ends, mut from) = ([0; 5], [0; 5], start);
    for group in 0..5 {
        let digits = line[from..].iter().take(7).take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits == 7 {
            break;
        }
        (lengths[group], ends[group]) = (digits, from + digits);
        if !line[from + digits..].starts_with(separator) {
            break;
        }
        from += digits + separator.len();
    }
    // With dots there are numbers of many kinds in groups of other lengths.
    let shapes = if *separator == b"." { &GROUPS[1..2] } else { GROUPS };
    shapes
        .iter()
        .find_map(|shape| {
            let end = ends[shape.len() - 1];
            (lengths[..shape.len()] == **shape && is_card(&line[start..end])).then_some(end)
        })
        .or_else(|| {
            let end = start + 16 + 3 * separator.len();
            (*separator != b"." && lengths[..3] == [4, 4, 4] && lengths[3] > 4 && is_card(&line[start..end]))
                .then_some(end)
        })
}

fn is_card(text: &[u8]) -> bool {
    let (mut digits, mut count) = ([0; 19], 0);
    for digit in text.iter().filter(|byte| byte.is_ascii_digit()) {
        let Some(slot) = digits.get_mut(count) else { return false };
        *slot = digit - b'0';
        count += 1;
    }
    let digits = &digits[..count];
    let prefix =
        |length: u32| digits.iter().take(length as usize).fold(0, |n, &digit| n * 10 + u64::from(digit));
    let issued = ISSUERS.iter().any(|(first, last, length, counts)| {
        counts.contains(&count) && (*first..=*last).contains(&prefix(*length))
    });
    issued && luhn(digits)
}

pub(in crate::scrub) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| {
            let digit = u32::from(digit);
            if at % 2 == 0 { digit } else { digit * 2 - if digit > 4 { 9 } else { 0 } }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// One letter before a number may be anything; a longer word of hexadecimal letters makes it a hexadecimal number.
fn in_hexadecimal(line: &[u8], start: usize) -> bool {
    before(line, start).is_some_and(|b| b.is_ascii_hexdigit() || b == b'x' || b == b'X')
        && start.checked_sub(2).is_some_and(|at| line[at].is_ascii_alphanumeric())
}

fn followed_by_hexadecimal(line: &[u8], end: usize) -> bool {
    line.get(end).is_some_and(u8::is_ascii_hexdigit)
        && line.get(end + 1).is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn cards() {
        check(
            payment_card,
            &[
                "«4111111111111111»",
                "«4222222222222»",
                "«5555555555554444»",
                "«2223003122003222»",
                "«378282246310005»",
                "«6011111111111117»",
                "«3530111333300000»",
                "«30569309025904»",
                "«6200000000000005»",
                "«5018000000000009»",
                "card: «4111 1111 1111 1111»;",
                "«4111-1111-1111-1111»",
                "«3782 822463 10005»",
                "«3056 930902 5904»",
                "pan=«4111111111111111».",
                "x«4111111111111111»y",
                "«4111 1111 1111 1111» 12/27 123",
                "\"«4111111111111111»\"",
                "«4929 7242 4711 2357»2oml",
                "«4111-1111-1111-1111»23",
                "«4111.1111.1111.1111» x",
                "pay «4111.1111.1111.1111».",
                "«4111\u{a0}1111\u{a0}1111\u{a0}1111» x",
                "«3782\u{a0}822463\u{a0}10005»",
                "«4111\u{202f}1111\u{202f}1111\u{202f}1111»",
            ],
        );
    }

    #[test]
    fn no_cards() {
        check(
            payment_card,
            &[
                "4111111111111112",
                "0.4111111111111111",
                "4111111111111111.5",
                "14111111111111111",
                "41111111111111111",
                "1234567890123456",
                "4111 1111-1111 1111",
                "4111  1111 1111 1111",
                "0x4111111111111111",
                "deadbeef4111111111111111",
                "4111111111111111ab",
                "0000000000000000",
                "1700000000000000000",
                "4111 1111 1111 1112",
                "4111.1111.1111.1112",
                "1.4111.1111.1111.1111",
                "4111.1111.1111.1111.5",
                "4111.1111.1111.11111",
                "3782.822463.10005",
                "4111.1111 1111.1111",
                "4111\u{a0}1111\u{a0}1111\u{a0}1112",
                "4111\u{a9}1111\u{a9}1111\u{a9}1111",
                "4111 1111 1111 11123",
                "4111111111111111e0",
            ],
        );
    }

    /// In UTF-16 and UTF-32 a character is one byte of the line.
    #[test]
    fn spaces_that_do_not_break_are_known_when_narrowed() {
        for space in ['\u{a0}', '\u{202f}'] {
            let text = format!("4111{space}1111{space}1111{space}1111");
            let line: Vec<u8> = text.chars().map(crate::scrub::rules::narrow).collect();
            let mut hits = Vec::new();
            payment_card(&line, &mut hits);
            assert_eq!(hits.first().map(|hit| hit.range.clone()), Some(0..19), "{space:?}");
        }
    }

    #[test]
    fn every_issuer_range_can_be_met() {
        for (first, last, digits, lengths) in ISSUERS {
            assert!(first <= last && last.ilog10() + 1 == *digits, "{first}");
            for &length in *lengths {
                let mut number = first.to_string();
                number.push_str(&"0".repeat(length - number.len()));
                let found =
                    (0..10).any(|check| is_card(format!("{}{check}", &number[..length - 1]).as_bytes()));
                assert!(found, "{first} with {length}");
            }
        }
    }
}
