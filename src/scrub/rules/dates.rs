//! Dates of the years 1900 to 2099.
#![forbid(unsafe_code)]

use super::{digit_at, end_of};

/// The end of a date of the years 1900 to 2099: 1990-12-31, 31.12.1990, 12/31/90, December 31, 1990.
pub(super) fn end(line: &[u8], start: usize) -> Option<usize> {
    let month = |text: &[u8]| {
        text.get(..3)
            .is_some_and(|name| MONTHS.iter().any(|month| name.eq_ignore_ascii_case(month.as_bytes())))
    };
    let mut parts = [(0, 0); 3];
    let (mut at, mut words, mut first_is_year) = (start, 0, false);
    for (number, part) in parts.iter_mut().enumerate() {
        let text = end_of(line, at, |byte| byte.is_ascii_alphabetic());
        if text > at && month(&line[at..]) && text - at <= 9 {
            words += 1;
            *part = (1, 3);
            at = text;
        } else {
            let most = if number > 0 && first_is_year { 2 } else { 4 };
            let end = end_of(&line[..line.len().min(at + most)], at, |byte| byte.is_ascii_digit());
            let digits = line[at..end].iter().fold(0, |n: u32, digit| n * 10 + u32::from(digit - b'0'));
            *part = (digits, end - at);
            first_is_year |= number == 0 && end - at == 4;
            at = end;
        }
        if number < 2 {
            let gap = end_of(&line[..line.len().min(at + 2)], at, |byte| b"-./, ".contains(&byte));
            if gap == at {
                return None;
            }
            at = gap;
        }
    }
    let year = |(value, length): (u32, usize)| length == 4 && (1900..2100).contains(&value) || length == 2;
    let day = |(value, length): (u32, usize)| (1..=3).contains(&length) && (1..=31).contains(&value);
    let [a, b, c] = parts;
    let ordered = day(a) && day(b) && year(c) || a.1 == 4 && year(a) && day(b) && day(c);
    // What follows four digits may be the rest of an older text.
    (ordered && words <= 1 && (!digit_at(line, at) || first_is_year || year(c) && c.1 == 4)).then_some(at)
}

/// Whether `text` begins with a date of the years 1900 to 2099 (RFC 3339).
pub(super) fn begins(text: &[u8]) -> bool {
    let Some(date) = text.first_chunk::<10>() else { return false };
    let shape = date.iter().zip(b"dddd-dd-dd").all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        other => byte == other,
    });
    let number = |digits: &[u8]| digits.iter().fold(0, |n: u32, digit| n * 10 + u32::from(digit - b'0'));
    let goes_on = text.get(10).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-');
    shape
        && (1900..2100).contains(&number(&date[..4]))
        && (1..=12).contains(&number(&date[5..7]))
        && (1..=31).contains(&number(&date[8..]))
        && !goes_on
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

#[cfg(test)]
mod tests {
    #[test]
    fn dates_that_a_text_begins_with() {
        for (text, expected) in [
            ("2024-05-06T07:08:09Z", true),
            ("1999-12-31", true),
            ("2024-05-06 x", true),
            ("2024-13-06", false),
            ("2024-00-06", false),
            ("2024-05-32", false),
            ("2024-05-067", false),
            ("2024-05-06-7", false),
            ("3024-05-06", false),
            ("2024-05-0", false),
            ("2024 05 06", false),
        ] {
            assert_eq!(super::begins(text.as_bytes()), expected, "{text}");
        }
    }
}
