//! Payment cards and bank accounts.
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

/// The end of a grouped card number that begins with the four digits at `start`.
fn grouped(line: &[u8], start: usize) -> Option<usize> {
    let separator = *line.get(start + 4).filter(|&&byte| byte == b' ' || byte == b'-')?;
    // The ends of up to five groups, each of up to six digits.
    let (mut lengths, mut ends, mut from) = ([0; 5], [0; 5], start);
    for group in 0..5 {
        let digits = line[from..].iter().take(7).take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits == 7 {
            break;
        }
        (lengths[group], ends[group]) = (digits, from + digits);
        if line.get(from + digits) != Some(&separator) {
            break;
        }
        from += digits + 1;
    }
    GROUPS
        .iter()
        .find_map(|shape| {
            let end = ends[shape.len() - 1];
            (lengths[..shape.len()] == **shape && is_card(&line[start..end])).then_some(end)
        })
        .or_else(|| {
            let end = start + 19;
            (lengths[..3] == [4, 4, 4] && lengths[3] > 4 && is_card(&line[start..end])).then_some(end)
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

/// International bank account numbers: country, length and check digits (ISO 7064 MOD 97-10), in one piece or in
/// groups of four.
pub(super) fn iban(line: &[u8], hits: &mut Vec<Hit>) {
    let mut floor = 0;
    // Two letters, two digits: the digits are rarer.
    for (at, four) in line.array_windows::<4>().enumerate() {
        let shape = four[2].is_ascii_digit() && four[3].is_ascii_digit() && four[1].is_ascii_alphabetic();
        let starts = || before(line, at).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        if !shape || at < floor || !four[0].is_ascii_alphabetic() || !starts() {
            continue;
        }
        if let Some(end) = iban_end(line, at) {
            hits.push(Hit { range: at..end, rule: "iban" });
            floor = end;
        }
    }
}

/// ISO 13616 allows as many characters.
const LONGEST_IBAN: usize = 34;

fn iban_end(line: &[u8], start: usize) -> Option<usize> {
    let head = line.get(start..start + 4)?;
    let country = [head[0].to_ascii_uppercase(), head[1].to_ascii_uppercase()];
    let at = COUNTRIES.binary_search_by_key(&country, |(code, _)| **code).ok()?;
    let (_, length) = &COUNTRIES[at];
    if !head[3].is_ascii_digit() {
        return None;
    }
    let separator = line.get(start + 4).copied().filter(|&byte| byte == b' ' || byte == b'-');
    let (mut text, mut at) = ([0; LONGEST_IBAN], start);
    let text = text.get_mut(..*length)?;
    for (count, character) in text.iter_mut().enumerate() {
        if count > 0 && count % 4 == 0 && separator.is_some() && line.get(at).copied() == separator {
            at += 1;
        }
        *character = *line.get(at).filter(|byte| byte.is_ascii_alphanumeric())?;
        at += 1;
    }
    // A number in capitals ends where its country says so, even if an older text's rest follows.
    let exact = !text.iter().any(u8::is_ascii_lowercase);
    if !exact && line.get(at).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    text.rotate_left(4);
    let remainder = text.iter().fold(0, |rest, &byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    (remainder == 1).then_some(at)
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
                "4111 1111 1111 11123",
                "4111111111111111e0",
            ],
        );
    }

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
        assert!(COUNTRIES.iter().all(|(_, length)| (15..=34).contains(length)));
    }

    #[test]
    fn countries_are_sorted_and_no_number_is_longer_than_the_longest() {
        assert!(super::COUNTRIES.is_sorted_by_key(|(code, _)| **code));
        assert!(super::COUNTRIES.iter().all(|(_, length)| *length <= super::LONGEST_IBAN));
    }
}
