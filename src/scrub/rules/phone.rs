//! Telephone numbers.
#![forbid(unsafe_code)]

use super::{Hit, before, dates, end_of};

/// Country codes of ITU-T E.164 by their first digits: those of two digits; those that begin with the others have three (1 and
/// 7 have one).
const TWO: &[u8] = &[
    20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58,
    60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
];
/// First two digits of three-digit codes.
const THREE: &[u8] =
    &[21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 85, 87, 88, 96, 97, 99];

/// Numbers with a plus sign and a country code (ITU-T E.164, E.123), and North American ones with the area in brackets.
pub(super) fn international(line: &[u8], hits: &mut Vec<Hit>) {
    let mut floor = 0;
    for at in memchr::memchr2_iter(b'+', b'(', line) {
        let left = before(line, at);
        let inside = left.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/_$)".contains(&byte));
        if at < floor || inside {
            continue;
        }
        let end = if line[at] == b'+' { plus(line, at) } else { bracketed(line, at) };
        if let Some(end) = end {
            hits.push(Hit { range: at..end, rule: "phone" });
            floor = end;
        }
    }
}

fn plus(line: &[u8], at: usize) -> Option<usize> {
    // Where every number has eleven digits, what follows is another one: in memory texts lie side by side.
    let most = if matches!(line.get(at + 1), Some(b'1' | b'7')) { 11 } else { 15 };
    let (end, digits, count) = digits(line, at + 1, most)?;
    let first = u8::try_from(digits.iter().take(2).fold(0u32, |n, &d| n * 10 + u32::from(d))).ok()?;
    let plausible = match digits[0] {
        1 => count == 11 && digits[1] >= 2,
        7 => count == 11,
        0 => false,
        _ => TWO.contains(&first) && count >= 8 || THREE.contains(&first) && count >= 7,
    };
    (plausible && line.get(at + 1).is_some_and(u8::is_ascii_digit)).then_some(end)
}

/// `(NXX) NXX-XXXX`.
fn bracketed(line: &[u8], at: usize) -> Option<usize> {
    let text = line.get(at..at + 14)?;
    let shape = text.iter().zip(b"(ddd) ddd-dddd").all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        other => byte == other,
    });
    let follows = line.get(at + 14).is_some_and(u8::is_ascii_alphanumeric);
    (shape && !follows && text[1] >= b'2' && text[6] >= b'2').then_some(at + 14)
}

/// The end of a number that a word announces, which begins at `start`.
pub(super) fn national(line: &[u8], start: usize) -> Option<usize> {
    if line.get(start) == Some(&b'+') {
        return plus(line, start);
    }
    let (end, digits, count) = digits(line, start, 13)?;
    let same = digits[..count].iter().all(|&digit| digit == digits[0]);
    // A hexadecimal or decimal number, a date or a version goes on with something else.
    let one = line[start..end].iter().all(u8::is_ascii_digit);
    let goes_on = one && line.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    ((6..=13).contains(&count) && !same && !goes_on).then_some(end)
}

/// Digits in groups: where they end, which they are, and how many.
fn digits(line: &[u8], start: usize, most: usize) -> Option<(usize, [u8; 15], usize)> {
    let (mut digits, mut count, mut end, mut at) = ([0; 15], 0, start, start);
    // Where the group before the last one ended, and what was counted there.
    let mut before_last = None;
    let limit = line.len().min(start + 32);
    while at < limit {
        match line[at] {
            digit @ b'0'..=b'9' => {
                *digits.get_mut(count)? = digit - b'0';
                count += 1;
                at += 1;
                end = at;
            }
            b' ' | b'-' | b'.' | b'/' | b'(' | b')' => {
                // One separator, or two around a bracket.
                let next = end_of(&line[..limit], at, |byte| b" -./()".contains(&byte));
                let gap = &line[at..next];
                let brackets = gap.iter().filter(|byte| b"()".contains(byte)).count();
                if gap.len() - brackets > 1 || brackets > 2 || !line.get(next).is_some_and(u8::is_ascii_digit)
                {
                    break;
                }
                // What would make it too long begins something else: "5343 2024-05-06".
                let group = end_of(&line[..limit.max(next)], next, |byte| byte.is_ascii_digit());
                if count + group - next > most || (count >= 7 && dates::begins(&line[next..])) {
                    break;
                }
                // "+35236450.6" is a number of another kind.
                if gap == b"." && !line.get(next + 1).is_some_and(u8::is_ascii_digit) {
                    return None;
                }
                before_last = Some((end, count));
                at = next;
            }
            _ => break,
        }
    }
    // "+48126428777 0x7ffd": the last group begins something else.
    if let Some((before, counted)) = before_last
        && line[end - 1] == b'0'
        && line.get(end) == Some(&b'x')
    {
        (end, count) = (before, counted);
    }
    (count >= 5).then_some((end, digits, count))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn numbers() {
        check(
            super::international,
            &[
                "call «+49 30 1234567»!",
                "«+14155552671»",
                "tel:«+44 20 7946 0958».",
                "«(415) 555-2671»",
                "«+7 912 345-67-89»",
                "sms to «+17268609530».5",
                "«+1 726 860 9530».4111 1111",
                "«+7 912 345-67-89» 20:15",
                "«+48126428777» 2024-05-06T07:08:09Z",
                "«+216 20 991 050» 2024-05-06",
                "«+48 126 2024-15-06»",
                "+35236450.6",
                "+100 gold",
                "a+4930123456",
                "1e+4930123456",
                "+0123456789",
                "+1 health",
                "f(415) 555-2671",
                "+12345678",
                "+0100",
                "+999999",
                "(123) 456-7890",
            ],
        );
    }
}
