//! Machine-readable zones of travel documents (ICAO 9303).
#![forbid(unsafe_code)]

use super::{Hit, before, end_of, start_of};

/// The second line of a passport or a card (TD3: 44 characters, TD2: 36), which its check digits prove, and the first line of
/// either, which holds the name.
pub(super) fn mrz(line: &[u8], hits: &mut Vec<Hit>) {
    let part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'<';
    let mut floor = 0;
    for angle in memchr::memchr_iter(b'<', line) {
        if angle < floor {
            continue;
        }
        let (start, end) = (start_of(line, floor, angle, part), end_of(line, angle, part));
        floor = end;
        // An older text's rest may follow.
        let end = if is_second_line(&line[start..end.min(start + 44)]) { end.min(start + 44) } else { end };
        let text = &line[start..end];
        let inside = before(line, start).is_some_and(|byte| byte.is_ascii_alphanumeric());
        let names = (text.len() == 44 || text.len() == 36)
            && matches!(text[0], b'P' | b'I' | b'A' | b'C' | b'V')
            && text[5..].windows(2).any(|pair| pair == b"<<")
            && text[5..].iter().all(|byte| !byte.is_ascii_digit());
        if !inside && (names || is_second_line(text)) {
            hits.push(Hit { range: start..end, rule: "mrz" });
        }
    }
}

/// The shortest line that [`unfilled`] finds.
pub(super) const SHORTEST: usize = 36;
/// As many of its characters are digits at least: two dates and three check digits.
pub(super) const DIGITS: u8 = 15;

/// Second lines whose fields are all full, so that there is no `<` in them: identity cards with numbers of nine characters and
/// optional data to the end.
pub(super) fn unfilled(line: &[u8], hits: &mut Vec<Hit>) {
    let part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let mut at = 0;
    while at < line.len() {
        let end = end_of(line, at, part);
        let inside = [before(line, at), line.get(end).copied()];
        let inside = inside.iter().flatten().any(|&byte| byte.is_ascii_alphanumeric() || byte == b'<');
        let text = &line[at..end];
        let dates = || [13..19, 21..27].into_iter().all(|date| text[date].iter().all(u8::is_ascii_digit));
        if !inside && is_second_line(text) && dates() {
            hits.push(Hit { range: at..end, rule: "mrz" });
        }
        at = end + 1;
    }
}

fn is_second_line(text: &[u8]) -> bool {
    let fields = [0..9, 13..19, 21..27];
    (text.len() == 44 || text.len() == 36)
        && fields.iter().all(|field| text[field.end] == b'0' + check(&text[field.clone()]))
}

/// Weights 7, 3, 1 (ICAO 9303-3, section 4.9).
fn check(text: &[u8]) -> u8 {
    let value = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A'..=b'Z' => u32::from(byte - b'A') + 10,
        _ => 0,
    };
    let sum: u32 =
        text.iter().zip([7, 3, 1].iter().cycle()).map(|(&byte, weight)| value(byte) * weight).sum();
    (sum % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn zones() {
        check(
            super::mrz,
            &[
                "mrz=«L898902C36UTO7408122F1204159ZE184226B<<<<<10»;",
                "«P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<»",
                "L898902C37UTO7408122F1204159ZE184226B<<<<<10",
                "<<<<<<<<<<<<",
                "a<b",
                "«RX123456<9ROU8903129F270312121234563»",
                "«L898902C36UTO7408122F1204159ZE184226B1234<10»",
                "vector<<INT>>",
            ],
        );
    }

    #[test]
    fn lines_without_a_filler() {
        check(
            super::unfilled,
            &[
                "mrz: «E123456782CHN8903129F2703121MBPCLMMGNNOLA958».",
                "E123456782CHN8903129F2703121MBPCLMMGNNOLA95",
                "E123456783CHN8903129F2703121MBPCLMMGNNOLA958",
                "xE123456782CHN8903129F2703121MBPCLMMGNNOLA958",
                "E123456782CHN8903129F2703121MBPCLMMGNNOLA958<",
            ],
        );
    }
}
