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
