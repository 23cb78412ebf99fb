//! Numbers that stand for a person.
#![forbid(unsafe_code)]

use super::{Hit, before, digit_at, preceded_by};

/// United States social security numbers, `AAA-GG-SSSS`; also with spaces or in one piece behind a word that names
/// them. Areas 000, 666 and 900 to 999, group 00 and serial 0000 were never issued (SSA, POMS RM 10201.035).
pub(super) fn us_ssn(line: &[u8], hits: &mut Vec<Hit>) {
    let mut at = 0;
    while let Some(start) = line[at..].iter().position(u8::is_ascii_digit).map(|skip| at + skip) {
        let digits = line[start..].iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
        at = start + digits;
        let (length, certain) = match (digits, line.get(start + 3)) {
            (3, Some(b'-')) => (11, true),
            (3, Some(b' ')) => (11, false),
            (9, _) => (9, false),
            _ => {
                // A longer number: none of its digits begins another.
                at = super::end_of(line, start, |byte| byte.is_ascii_digit());
                continue;
            }
        };
        let Some(text) = line.get(start..start + length) else { continue };
        if is_ssn(text)
            && !touches_number(line, start, start + length)
            && (certain || preceded_by(line, start, 32, &["ssn", "social", "s.s.n"]))
        {
            hits.push(Hit { range: start..start + length, rule: "us-ssn" });
            at = start + length;
        }
    }
}

/// United States taxpayer numbers `9AA-GG-SSSS` (IRS, IRM 3.21.263.8): groups 50 to 65, 70 to 88, 90 to 92 and 94 to 99.
pub(super) fn us_itin(line: &[u8], hits: &mut Vec<Hit>) {
    let mut floor = 0;
    for dash in memchr::memchr_iter(b'-', line) {
        let Some(start) = dash.checked_sub(3).filter(|&start| start >= floor) else { continue };
        let Some(text) = line.get(start..start + 11) else { break };
        let digits = text
            .iter()
            .enumerate()
            .all(|(at, b)| if at == 3 || at == 6 { *b == b'-' } else { b.is_ascii_digit() });
        let group = text[4..6].iter().fold(0, |n: u32, digit| n * 10 + u32::from(digit & 0xf));
        let issued = matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99);
        // 987-65-4320 to 4329 are set aside for advertisements.
        let advertised = text.starts_with(b"987-65-432");
        if digits && text[0] == b'9' && issued && !advertised && !touches_number(line, start, start + 11) {
            hits.push(Hit { range: start..start + 11, rule: "us-itin" });
            floor = start + 11;
        }
    }
}

/// The number of a mobile device behind the word that ends at `end`: 15 digits with a check digit (3GPP TS 23.003, annex B).
pub(super) fn imei(line: &[u8], end: usize) -> Option<std::ops::Range<usize>> {
    let window = &line[..line.len().min(end + 8)];
    let start = super::end_of(window, end, |byte| !byte.is_ascii_digit() && byte > 0x1f);
    let (mut digits, mut count, mut at) = ([0u8; 15], 0, start);
    while let Some(&byte) =
        // What follows the last digit may be an older text's rest.
        line.get(at).filter(|&&b| count < 15 && (b.is_ascii_digit() || b == b'-' || b == b' '))
    {
        if byte.is_ascii_digit() {
            *digits.get_mut(count)? = byte - b'0';
            count += 1;
        } else if !digit_at(line, at + 1) {
            break;
        }
        at += 1;
    }
    (count == 15 && super::financial::luhn(&digits)).then_some(start..at)
}

/// A Steam account of the public universe (Valve, "SteamID"): 17 digits, the first seven at `start`.
pub(super) fn steam_id(line: &[u8], start: usize, hits: &mut Vec<Hit>) {
    // One digit more than there may be is enough to know.
    let end = super::end_of(&line[..line.len().min(start + 18)], start, |byte| byte.is_ascii_digit());
    let free = before(line, start).is_none_or(|byte| !byte.is_ascii_digit() && byte != b'.');
    if end - start == 17 && free && line.get(end) != Some(&b'.') {
        hits.push(Hit { range: start..end, rule: "steam-id" });
    }
}

/// A security identifier of an account, `S-1-5-21-a-b-c-RID` (MS-DTYP, section 2.4.2.1), at `start`.
pub(super) fn windows_sid(line: &[u8], start: usize, hits: &mut Vec<Hit>) -> usize {
    let end = super::end_of(line, start + 9, |byte| byte.is_ascii_digit() || byte == b'-');
    let end = end - line[start..end].iter().rev().take_while(|&&byte| byte == b'-').count();
    if line[start + 9..end.max(start + 9)].split(|&byte| byte == b'-').count() >= 3 {
        hits.push(Hit { range: start..end, rule: "windows-sid" });
    }
    end
}

/// `text` is 9 characters, or 11 with a separator after the third.
fn is_ssn(text: &[u8]) -> bool {
    let (area, group, serial) = if text.len() == 9 {
        (&text[..3], &text[3..5], &text[5..])
    } else if text[6] == text[3] {
        (&text[..3], &text[4..6], &text[7..])
    } else {
        return false;
    };
    [area, group, serial].iter().all(|part| part.iter().all(u8::is_ascii_digit))
        && area != b"000"
        && area != b"666"
        && area[0] != b'9'
        && group != b"00"
        && serial != b"0000"
}

/// Whether the digits around belong to a longer number.
fn touches_number(line: &[u8], start: usize, end: usize) -> bool {
    let left = match before(line, start) {
        Some(b'-' | b'.') => start.checked_sub(2).is_some_and(|at| line[at].is_ascii_digit()),
        other => other.is_some_and(|byte| byte.is_ascii_digit()),
    };
    left || digit_at(line, end) || (line.get(end) == Some(&b'-') && digit_at(line, end + 1))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn numbers() {
        check(
            super::us_ssn,
            &[
                "«123-45-6789»",
                "ssn=«078-05-1120»,",
                "x«123-45-6789»y",
                "Social Security: «123 45 6789»",
                "SSN: «123456789»",
                "a-«899-99-9999»",
                "«123-45-6789»-",
            ],
        );
    }

    #[test]
    fn other_numbers() {
        check(
            super::us_itin,
            &[
                "itin «921-75-2868».",
                "987-65-4321",
                "921-69-2868",
                "921-75-28681",
                "1921-75-2868",
                "821-75-2868",
            ],
        );
        check(
            super::super::testing::credentials,
            &[
                "imei=«490154203237518»;",
                "IMEI: «49-015420-323751-8»",
                "imei 490154203237519",
                "490154203237518",
                "«76561197960287930»",
                "0.76561197960287930",
                "176561197960287930",
                "sid «S-1-5-21-3623811015-3361044348-30300820-1013»",
                "S-1-5-21-",
                "S-1-5-18",
            ],
        );
    }

    #[test]
    fn no_numbers() {
        check(
            super::us_ssn,
            &[
                "000-45-6789",
                "666-45-6789",
                "900-45-6789",
                "123-00-6789",
                "123-45-0000",
                "123 45 6789",
                "123456789",
                "1123-45-6789",
                "123-45-67891",
                "1-123-45-6789",
                "123-45-6789-1",
                "123-45 6789",
                "12-345-6789",
                "123-45-678",
                "3.123-45-6789",
            ],
        );
    }
}
