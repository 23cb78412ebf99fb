//! Values that only the words before them tell: passwords, dates of birth, telephone numbers, coordinates.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::shapes::{is_name, is_no_value, is_opaque};
use super::words::Meaning;
use super::{Hit, before, end_of};
use super::{dates, identity, location, phone};

pub(in crate::scrub) const COOKIE: &str = "cookie";
pub(in crate::scrub) const MNEMONIC: &str = "mnemonic";

/// The longest value that is assigned to a word.
const LONGEST: usize = 256;
/// And the longest password.
const LONGEST_PASSWORD: usize = 128;

/// What the search for announced values remembers along a line.
pub(super) struct Announced {
    /// Characters that words may look at in all, so that a line of nothing but words costs no more than another.
    budget: usize,
    /// A part of the line without what ends an unquoted value: no later word need read it again.
    plain: Range<usize>,
}

impl Announced {
    pub(super) fn new(line: &[u8]) -> Self {
        Self { budget: line.len().saturating_add(4096), plain: 0..0 }
    }

    /// What the word at `word` of `line` announces. Returns up to where no later word of its kind need look.
    pub(super) fn by(
        &mut self,
        line: &[u8],
        word: Range<usize>,
        meaning: Meaning,
        hits: &mut Vec<Hit>,
    ) -> usize {
        let longest = LONGEST.min(self.budget + 24);
        let line = &line[..line.len().min(word.end.saturating_add(longest))];
        let mut looked = 1;
        let hit = match meaning {
            Meaning::Password => {
                let value = self.value(line, &word, &mut looked);
                let value = value.map(|value| whole_password(line, value, &mut looked));
                value.and_then(|value| password(line, &word, value))
            }
            Meaning::Secret => self.value(line, &word, &mut looked).and_then(|value| secret(line, value)),
            Meaning::Parameter if is_parameter(line, &word) => {
                self.value(line, &word, &mut looked).and_then(|value| secret(line, value))
            }
            Meaning::Parameter => None,
            Meaning::Network => {
                self.value(line, &word, &mut looked).and_then(|value| network(line, &word, value))
            }
            Meaning::Birth => birth(line, &word),
            Meaning::Phone => number(line, &word),
            Meaning::Position => location::position(line, &word),
            Meaning::Coordinate => location::coordinate(line, &word),
            Meaning::Mnemonic => mnemonic(line, &word, &mut looked),
            Meaning::Device => identity::imei(line, word.end),
            Meaning::Wallet => ethereum(line, &word),
            Meaning::Cookie => cookie(line, &word, &mut looked),
        };
        // A value that was found is passed once; one that was not may be passed again for each word in it.
        self.budget = self.budget.saturating_sub(if hit.is_some() { 8 } else { looked });
        let Some(range) = hit else { return 0 };
        let end = range.end;
        hits.push(Hit { range, rule: rule(meaning) });
        end
    }

    /// What is assigned to a word: up to the closing quote, or to what ends a value in forms, URLs and logs.
    fn value(&mut self, line: &[u8], word: &Range<usize>, looked: &mut usize) -> Option<Value> {
        let (quote, start, formal) = assigned(line, word.end)?;
        let limit = line.len().min(start + LONGEST);
        let end = match quote {
            Some(quote) => {
                let end = end_of(&line[..limit], start, |byte| byte != quote && byte >= b' ');
                // Escaped quotes: {\"password\":\"x\"}.
                if end > start && line[end - 1] == b'\\' && line.get(end) == Some(&quote) {
                    end - 1
                } else {
                    end
                }
            }
            None => {
                if !self.plain.contains(&start) {
                    self.plain = start..start;
                }
                let end = end_of(&line[..limit], self.plain.end.min(limit), is_plain);
                self.plain.end = self.plain.end.max(end);
                end
            }
        };
        *looked = (end - start).max(1);
        Some(Value { range: start..end, quote, formal })
    }
}

/// A value that a word assigns.
struct Value {
    range: Range<usize>,
    quote: Option<u8>,
    /// See [`assigned`].
    formal: bool,
}

fn rule(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::Password => "password",
        Meaning::Secret => "secret",
        Meaning::Parameter => "url-secret",
        Meaning::Birth => "date-of-birth",
        Meaning::Phone => "phone",
        Meaning::Position | Meaning::Coordinate => "lat-long",
        Meaning::Network => "ssid",
        Meaning::Mnemonic => MNEMONIC,
        Meaning::Device => "imei",
        Meaning::Wallet => "ethereum-address",
        Meaning::Cookie => COOKIE,
    }
}

/// Passwords have `&` and commas in them; in a form or a URL what follows one is the name of the next field, and in HTML an entity.
fn whole_password(line: &[u8], value: Value, looked: &mut usize) -> Value {
    /// The longest name of a field.
    const NAME: usize = 40;
    /// What stands for characters that mean something in HTML and XML.
    const ENTITIES: [&[u8]; 6] = [b"amp;", b"lt;", b"gt;", b"quot;", b"apos;", b"#"];
    let Value { range, quote, formal } = value;
    let most = line.len().min(range.start + LONGEST_PASSWORD + 1);
    let mut end = range.end;
    while quote.is_none() && end < most && matches!(line[end], b'&' | b',') {
        let comma = line[end] == b',';
        if comma && !line.get(end + 1).copied().is_some_and(|byte| is_plain(byte) && byte != b'}') {
            break;
        }
        let name = &line[..line.len().min(end + 1 + NAME)];
        let named = end_of(name, end + 1, |byte| byte.is_ascii_alphanumeric() || b"_.-%[]".contains(&byte));
        *looked += named - end;
        let field =
            named > end + 1 && line.get(named).is_some_and(|&byte| byte == b'=' || (comma && byte == b':'));
        if field || (!comma && ENTITIES.iter().any(|entity| line[end + 1..].starts_with(entity))) {
            break;
        }
        end = end_of(&line[..most], end + 1, is_plain);
    }
    *looked += end - range.end;
    Value { range: range.start..end, quote, formal }
}

/// Whether a character goes on in a value without quotes.
fn is_plain(byte: u8) -> bool {
    byte > b' ' && !matches!(byte, 0x7f | b'&' | b'"' | b'\'' | b'<' | b'>' | b';' | b',' | b'`' | b'\\')
}

/// The assignment behind a word: `word = "value"`, `"word": 'value'`, `word=value`. Gives the quote, if there is one, and
/// where the value begins; and whether the assignment is one of a program or a form (`=`, or quotes).
pub(super) fn assigned(line: &[u8], end: usize) -> Option<(Option<u8>, usize, bool)> {
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

fn password(line: &[u8], word: &Range<usize>, value: Value) -> Option<Range<usize>> {
    let Value { range, quote, formal } = value;
    let text = &line[range.clone()];
    let mixed = text.iter().skip(1).any(|byte| !byte.is_ascii_lowercase());
    // Short words are the end of other ones ("enclave"), and PWD is a directory.
    let whole = word.len() > 5 || starts_word(line, word.start);
    let path = word.len() == 3 && matches!(text.first(), Some(b'/' | b'~'));
    // "password: required" is prose, "password=sunshine" is not.
    (whole
        && !path
        && text.len() >= 4
        && text.len() <= LONGEST_PASSWORD
        && !is_no_value(text, quote)
        && (formal || mixed)
        && prose(text, quote))
    .then_some(range)
}

/// Whether a quoted text is no sentence.
fn prose(text: &[u8], quote: Option<u8>) -> bool {
    quote.is_none() || text.iter().filter(|&&byte| byte == b' ').count() < 4
}

fn secret(line: &[u8], value: Value) -> Option<Range<usize>> {
    let text = &line[value.range.clone()];
    (text.len() >= 8 && is_opaque(text) && !is_no_value(text, value.quote) && !is_name(text))
        .then_some(value.range)
}

fn is_parameter(line: &[u8], word: &Range<usize>) -> bool {
    matches!(before(line, word.start), Some(b'?' | b'&')) && line.get(word.end) == Some(&b'=')
}

pub(super) fn starts_word(line: &[u8], start: usize) -> bool {
    before(line, start).is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

/// What may stand between a word and its value.
pub(super) fn separators(line: &[u8], end: usize, most: usize) -> usize {
    end_of(&line[..line.len().min(end + most)], end, |byte| b" \t:=\"'\\.(#".contains(&byte))
}

fn birth(line: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let start = separators(line, word.end, 8);
    (start > word.end && starts_word(line, word.start))
        .then(|| dates::end(line, start))
        .flatten()
        .map(|end| start..end)
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

fn network(line: &[u8], word: &Range<usize>, value: Value) -> Option<Range<usize>> {
    // A process's session in /proc/PID/status.
    if word.start.checked_sub(1).is_some_and(|start| line[start..].starts_with(b"NSsid:")) {
        return None;
    }
    let range = value.range;
    // 32 bytes (IEEE 802.11, section 9.4.2.2).
    ((2..=32).contains(&range.len()) && !is_no_value(&line[range.clone()], value.quote)).then_some(range)
}

/// 12 to 24 lower-case words of 3 to 8 letters (BIP 39); malloc's next block may put its size, an `a`, behind the last one.
fn mnemonic(line: &[u8], word: &Range<usize>, looked: &mut usize) -> Option<Range<usize>> {
    let start = separators(line, word.end, 6);
    let (mut at, mut words) = (start, 0);
    let mut whole = start;
    while words < 24 {
        let next = end_of(line, at, |byte| byte.is_ascii_lowercase());
        let glued = usize::from(words >= 11 && words % 3 == 2 && line.get(next) != Some(&b' '));
        if !(3..=8 + glued).contains(&(next - at)) {
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
    *looked = (at - start).max(1);
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
fn cookie(line: &[u8], word: &Range<usize>, looked: &mut usize) -> Option<Range<usize>> {
    let (quote, start, _) = assigned(line, word.end)?;
    if line.get(word.end) == Some(&b'=') {
        return None;
    }
    let sets = line[..word.start].ends_with(b"-") || line[..word.start].ends_with(b"_");
    let mut pair = |at: usize| {
        let name = end_of(line, at, |b| b.is_ascii_alphanumeric() || b"-_.!#$%&*+^|~".contains(&b));
        let end = end_of(line, name, |b| b > b' ' && b != b';' && b != b',' && b != 0x7f && Some(b) != quote);
        *looked = (end - start).max(1);
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
mod tests;
