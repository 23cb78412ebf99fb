//! Coordinates, in degrees, that a word announces.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::context::{assigned, separators, starts_word};
use super::end_of;

/// Latitude and longitude, one behind the other.
pub(super) fn position(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let start = separators(line, word.end, 6);
    let start = start + usize::from(matches!(line.get(start), Some(b'[' | b'{')));
    if (start == word.end && line[start - 1] != b'=') || !starts_word(line, word.start) {
        return None;
    }
    let end = decimal(line, start, 3, 90)?;
    let next = end_of(&line[..line.len().min(end + 3)], end, |byte| b", ;/".contains(&byte));
    (next > end).then(|| decimal(line, next, 3, 180)).flatten().map(|end| start..end)
}

/// One of them.
pub(super) fn coordinate(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let (_, start, _) = assigned(line, word.end)?;
    starts_word(line, word.start).then(|| decimal(line, start, 3, 180)).flatten().map(|end| start..end)
}

/// `-12.345678`, with at least `least` digits behind the point, up to `limit`: where it ends.
fn decimal(line: &[u8], start: usize, least: usize, limit: u32) -> Option<usize> {
    let digits = start + usize::from(matches!(line.get(start), Some(b'-' | b'+')));
    let point = end_of(&line[..line.len().min(digits + 3)], digits, |byte| byte.is_ascii_digit());
    let whole = line[digits..point].iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    let end = end_of(
        &line[..line.len().min(point + 20)],
        point + usize::from(line.get(point) == Some(&b'.')),
        |b| b.is_ascii_digit(),
    );
    (point > digits && line.get(point) == Some(&b'.') && end - point > least && whole <= limit).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, credentials as all};

    #[test]
    fn coordinates() {
        check(
            all,
            &[
                "gps=[«48.137154, 11.576124»]",
                "ll=«48.137154,11.576124»&z=3",
                "\"lon\": «-122.419418»}",
                "location «48.137154; 11.576124» x",
                "lat=91x.123",
                "gps 91.137154, 11.576124",
                "latitude: 48.1",
                "flat=48.137154",
                "geo:1.geo:1.",
            ],
        );
    }
}
