//! Values that only the words before them tell: passwords, dates of birth, telephone numbers, coordinates.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::words::{Meaning, NOT_A_VALUE};
use super::{Hit, before, digit_at, end_of};
use super::{identity, phone};

pub(in crate::scrub) const COOKIE: &str = "cookie";
pub(in crate::scrub) const MNEMONIC: &str = "mnemonic";

/// The longest value that is assigned to a word.
const LONGEST: usize = 256;

/// What the word at `word` of `line` announces. It may look at `budget` characters, and at a few more. Returns up
/// to where no later word of its kind need look.
pub(super) fn announced(
    line: &[u8],
    word: Range<usize>,
    meaning: Meaning,
    budget: &mut usize,
    hits: &mut Vec<Hit>,
) -> usize {
    let longest = LONGEST.min(*budget + 24);
    let line = &line[..line.len().min(word.end.saturating_add(longest))];
    let hit = match meaning {
        Meaning::Password => password(line, &word).map(|range| (range, "password")),
        Meaning::Secret => secret(line, &word, 8).map(|range| (range, "secret")),
        Meaning::Parameter => parameter(line, &word).map(|range| (range, "url-secret")),
        Meaning::Birth => birth(line, &word).map(|range| (range, "date-of-birth")),
        Meaning::Phone => number(line, &word).map(|range| (range, "phone")),
        Meaning::Position => position(line, &word).map(|range| (range, "lat-long")),
        Meaning::Coordinate => coordinate(line, &word).map(|range| (range, "lat-long")),
        Meaning::Network => network(line, &word).map(|range| (range, "ssid")),
        Meaning::Mnemonic => mnemonic(line, &word).map(|range| (range, MNEMONIC)),
        Meaning::Device => identity::imei(line, word.end).map(|range| (range, "imei")),
        Meaning::Wallet => ethereum(line, &word).map(|range| (range, "ethereum-address")),
        Meaning::Cookie => cookie(line, &word).map(|range| (range, COOKIE)),
    };
    // A value that was found is passed once; one that was not may be passed again for each word in it.
    let looked = if hit.is_some() { 8 } else { assigned_length(line, word.end) };
    *budget = budget.saturating_sub(looked);
    let Some((range, rule)) = hit else { return 0 };
    let end = range.end;
    hits.push(Hit { range, rule });
    end
}

/// The assignment behind a word: `word = "value"`, `"word": 'value'`, `word=value`. Gives the quote, if there is one, and
/// where the value begins; and whether the assignment is one of a program or a form (`=`, or quotes).
fn assigned(line: &[u8], end: usize) -> Option<(Option<u8>, usize, bool)> {
    let quote = |byte: u8| byte == b'"' || byte == b'\'' || byte == b'`';
    // A name may go on: "password_hash", "passwords", "api_key_id" name something else, but for a closing quote.
    let mut at = end;
    while line.get(at).is_some_and(|&b| b == b'\\' || quote(b) || b == b']' || b == b')') && at < end + 4 {
        at += 1;
    }
    let closed = at > end;
    at = end_of(&line[..line.len().min(at + 4)], at, |byte| byte == b' ' || byte == b'\t');
    let spaced = before(line, at).is_some_and(|byte| byte == b' ' || byte == b'\t');
    let separator = *line.get(at)?;
    if separator != b'=' && separator != b':' {
        return None;
    }
    at += 1;
    // "=>", ":=", "==" compares.
    match (separator, line.get(at)) {
        (b':', Some(b'=')) | (b'=', Some(b'>')) => at += 1,
        (b'=', Some(b'=')) | (b':', Some(b':')) => return None,
        _ => {}
    }
    at = end_of(&line[..line.len().min(at + 4)], at, |byte| byte == b' ' || byte == b'\t');
    // "token= HTTP/1.1" assigns nothing.
    if separator == b'=' && !spaced && before(line, at).is_some_and(|byte| byte == b' ') {
        return None;
    }
    let escaped = line.get(at) == Some(&b'\\');
    let opening = line.get(at + usize::from(escaped)).copied().filter(|&byte| quote(byte));
    let start = if opening.is_some() { at + usize::from(escaped) + 1 } else { at };
    (start < line.len()).then_some((opening, start, separator == b'=' || closed || opening.is_some()))
}

/// The value that begins at `start`: up to the closing quote, or to what ends a value in forms, URLs and logs.
fn value(line: &[u8], quote: Option<u8>, start: usize) -> Range<usize> {
    let limit = line.len().min(start + LONGEST);
    let plain = |byte: u8| {
        byte > b' ' && !matches!(byte, 0x7f | b'&' | b'"' | b'\'' | b'<' | b'>' | b';' | b',' | b'`' | b'\\')
    };
    let end = match quote {
        Some(quote) => {
            let end = end_of(&line[..limit], start, |byte| byte != quote && byte >= b' ');
            // Escaped quotes: {\"password\":\"x\"}.
            if end > start && line[end - 1] == b'\\' && line.get(end) == Some(&quote) { end - 1 } else { end }
        }
        None => end_of(&line[..limit], start, plain),
    };
    start..end
}

/// How far a value that begins about `end` goes.
fn assigned_length(line: &[u8], end: usize) -> usize {
    assigned(line, end).map_or(1, |(quote, start, _)| value(line, quote, start).len())
}

fn is_no_value(text: &[u8]) -> bool {
    let word = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    let known = |text: &[u8]| NOT_A_VALUE.iter().any(|no| text.eq_ignore_ascii_case(no.as_bytes()));
    let name = end_of(text, 0, |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
    let call = name >= 4
        && matches!(text.get(name), Some(b'(' | b'['))
        && !text[..name].iter().any(u8::is_ascii_digit);
    let same = text.first().is_some_and(|first| text.iter().all(|byte| byte == first));
    known(text)
        || (known(&text[..word]) && text.get(word).is_some_and(|byte| b"().,:;[]!?%|".contains(byte)))
        || call
        || same
        || matches!(text.first(), Some(b'%' | b'$' | b'{' | b'<' | b'(' | b'[')) && text.len() < 8
        || text.starts_with(b"%(")
        || text.starts_with(b"${")
        || text.starts_with(b"{{")
        || text.starts_with(b"$(")
}

fn password(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let (quote, start, formal) = assigned(line, word.end)?;
    let range = value(line, quote, start);
    let text = &line[range.clone()];
    let mixed = text.iter().skip(1).any(|byte| !byte.is_ascii_lowercase());
    // Short words are the end of other ones ("enclave"), and PWD is a directory.
    let whole = word.len() > 5 || starts_word(line, word.start);
    let path = word.len() == 3 && matches!(text.first(), Some(b'/' | b'~'));
    // "password: required" is prose, "password=sunshine" is not.
    (whole
        && !path
        && text.len() >= 4
        && text.len() <= 128
        && !is_no_value(text)
        && (formal || mixed)
        && prose(text, quote))
    .then_some(range)
}

/// Whether a quoted text is no sentence.
fn prose(text: &[u8], quote: Option<u8>) -> bool {
    quote.is_none() || text.iter().filter(|&&byte| byte == b' ').count() < 4
}

fn secret(line: &[u8], word: &Range<usize>, least: usize) -> Option<Range<usize>> {
    let (quote, start, _) = assigned(line, word.end)?;
    let range = value(line, quote, start);
    let text = &line[range.clone()];
    let opaque = |text: &[u8]| {
        let digit = text.iter().any(u8::is_ascii_digit);
        let letter = text.iter().any(u8::is_ascii_alphabetic);
        let (upper, lower) =
            (text.iter().any(u8::is_ascii_uppercase), text.iter().any(u8::is_ascii_lowercase));
        !text.contains(&b' ') && (digit && (letter || text.len() >= 16) || upper && lower && text.len() >= 16)
    };
    (text.len() >= least && opaque(text) && !is_no_value(text) && !is_name(text)).then_some(range)
}

/// What has the shape of a program's name: dotted, called, or camel case without digits in one of its many parts.
fn is_name(text: &[u8]) -> bool {
    let dotted = text.split(|&byte| byte == b'.' || byte == b':' || byte == b'/');
    let identifier = |part: &[u8]| {
        part.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
            && part.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && part.iter().filter(|byte| byte.is_ascii_digit()).count() <= 1
    };
    let parts: usize = dotted.clone().count();
    (parts >= 2 && dotted.clone().all(identifier))
        || (text.contains(&b'_') && identifier(text) && text.len() < 32)
}

fn parameter(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let named = matches!(before(line, word.start), Some(b'?' | b'&'));
    (named && line.get(word.end) == Some(&b'=')).then(|| secret(line, word, 8)).flatten()
}

fn starts_word(line: &[u8], start: usize) -> bool {
    before(line, start).is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

/// What may stand between a word and its value.
fn separators(line: &[u8], end: usize, most: usize) -> usize {
    end_of(&line[..line.len().min(end + most)], end, |byte| b" \t:=\"'\\.(#".contains(&byte))
}

fn birth(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let start = separators(line, word.end, 8);
    (start > word.end && starts_word(line, word.start))
        .then(|| date(line, start))
        .flatten()
        .map(|end| start..end)
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The end of a date of the years 1900 to 2099: 1990-12-31, 31.12.1990, 12/31/90, December 31, 1990.
fn date(line: &[u8], start: usize) -> Option<usize> {
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

fn number(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    // "phone_number", "phoneNumber", "phone no", "tel." go on a little.
    let mut end = word.end;
    for more in ["_number", "number", " number", " no", " nr", "phone", "nummer", "_no"] {
        let next = end + more.len();
        if line.get(end..next).is_some_and(|text| text.eq_ignore_ascii_case(more.as_bytes())) {
            end = next;
            break;
        }
    }
    let start = separators(line, end, 8);
    // A bracket belongs to the number: "(415) 555-2671".
    let start = if start > end && line[start - 1] == b'(' { start - 1 } else { start };
    if start == end || !starts_word(line, word.start) {
        return None;
    }
    phone::national(line, start).map(|end| start..end)
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

fn position(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let start = separators(line, word.end, 6);
    let start = start + usize::from(matches!(line.get(start), Some(b'[' | b'{')));
    if (start == word.end && line[start - 1] != b'=') || !starts_word(line, word.start) {
        return None;
    }
    let end = decimal(line, start, 3, 90)?;
    let next = end_of(&line[..line.len().min(end + 3)], end, |byte| b", ;/".contains(&byte));
    (next > end).then(|| decimal(line, next, 3, 180)).flatten().map(|end| start..end)
}

fn coordinate(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let (_, start, _) = assigned(line, word.end)?;
    starts_word(line, word.start).then(|| decimal(line, start, 3, 180)).flatten().map(|end| start..end)
}

fn network(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    // A process's session in /proc/PID/status.
    if word.start.checked_sub(1).is_some_and(|start| line[start..].starts_with(b"NSsid:")) {
        return None;
    }
    let (quote, start, _) = assigned(line, word.end)?;
    let range = value(line, quote, start);
    // 32 bytes (IEEE 802.11, section 9.4.2.2).
    ((2..=32).contains(&range.len()) && !is_no_value(&line[range.clone()])).then_some(range)
}

/// 12 to 24 lower-case words of 3 to 8 letters (BIP 39).
fn mnemonic(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let start = separators(line, word.end, 6);
    let (mut at, mut words) = (start, 0);
    let mut whole = start;
    while words < 24 {
        let next = end_of(line, at, |byte| byte.is_ascii_lowercase());
        if !(3..=8).contains(&(next - at)) {
            break;
        }
        words += 1;
        // 12, 15, 18, 21 or 24: what follows is prose.
        if words >= 12 && words % 3 == 0 {
            whole = next;
        }
        match line.get(next) {
            Some(b' ' | b',') => at = next + 1,
            _ => break,
        }
    }
    (words >= 12).then_some(start..whole)
}

/// `0x` and 40 hexadecimal digits behind a word of wallets.
fn ethereum(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let start = separators(line, word.end, 6);
    let end = end_of(line, (start + 2).min(line.len()), |byte| byte.is_ascii_hexdigit());
    (line.get(start..start + 2) == Some(b"0x")
        && end - start == 42
        && !line.get(end).is_some_and(u8::is_ascii_alphanumeric))
    .then_some(start..end)
}

/// `Cookie: a=b; c=d` and `Set-Cookie: a=b; Path=/` (RFC 6265): names and values, not attributes.
fn cookie(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let (quote, start, _) = assigned(line, word.end)?;
    if line.get(word.end) == Some(&b'=') {
        return None;
    }
    let sets = line[..word.start].ends_with(b"-") || line[..word.start].ends_with(b"_");
    let pair = |at: usize| {
        let name = end_of(line, at, |b| b.is_ascii_alphanumeric() || b"-_.!#$%&*+^|~".contains(&b));
        let end = end_of(line, name, |b| b > b' ' && b != b';' && b != b',' && b != 0x7f && Some(b) != quote);
        (name > at
            && line.get(name) == Some(&b'=')
            && end > name + 3
            && !line[name + 1..end].starts_with(b"="))
        .then_some(end)
    };
    let mut end = pair(start)?;
    while !sets && line[end..].starts_with(b"; ") {
        let Some(next) = pair(end + 2) else { break };
        end = next;
    }
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, credentials as all};

    #[test]
    fn passwords_and_secrets() {
        check(
            all,
            &[
                "password=«hunter2»",
                "Password: «Hunter2!» ok",
                "\"password\":\"«pass word 1»\"",
                "{\\\"password\\\":\\\"«abc1»\\\"}",
                "PGPASSWORD='«x y z»'",
                "mot de passe = '«secr3t»'",
                "contraseña: «Abc12»",
                "пароль=«Abc12»",
                "Server=db;Password=«a(b1c»;Encrypt=true",
                "client_secret=«abcdefg1»&x=1",
                "GET /x?code=«ce9e5805954»&b=2",
                "AccountKey=«abcdEFGH0123456789+/abcdEFGH==»;x",
                "ssid=\"«Miller WiFi»\"",
                "wifiSSID: «Miller-5G»",
            ],
        );
        check(
            all,
            &[
                "password must not be empty",
                "password=",
                "password: required",
                "password=None",
                "password=%s",
                "password=getpass(x)",
                "password == other",
                "password_hash=abc",
                "token: expected",
                "token=lexer.next",
                "secret: null",
                "code=ce9e5805954",
                "?code=404",
                "password='xxxxxxxx'",
                "passwords",
                "the password: a word",
                "NSsid:\t24993",
                "password=${PW}",
                "token::Kind1234",
            ],
        );
    }

    #[test]
    fn dates_numbers_and_places() {
        check(
            all,
            &[
                "date of birth: «1990-12-31»",
                "Geburtsdatum=«31.12.1990»",
                "né le «31/12/1990»",
                "born «December 31, 1990»",
                "\"dob\":\"«12/31/1990»\"",
                "doğum tarihi: «31.12.1990»",
                "phone: «(415) 555-2671»",
                "Tel. «030 1234567»",
                "\"telefon\":\"«0171 2345678»\"",
                "phone_number=«4155552671»;",
                "gps «48.137154, 11.576124»",
                "geo:«-24.2799,43.0336»",
                "\"latitude\": «48.137154»,",
                "mnemonic: «abandon ability able about above absent absorb abstract absurd abuse access accident»",
                "wallet «0x52908400098527886E0F7030069857D2E4169EE7»",
                "Cookie: «a=bcd; e=fgh»",
                "Set-Cookie: «sid=0123456789»; Path=/",
            ],
        );
        check(
            all,
            &[
                "born to run 12",
                "dob 1.2.3",
                "birthday party",
                "phone model 100",
                "mobile=0",
                "cell 42 of 4096",
                "phone: none",
                "position 1.5, 2.5",
                "position 0.25, 0.5, 0.75",
                "address 0x7ffd12345678",
                "cookie=abc",
                "location: here",
            ],
        );
    }
}
