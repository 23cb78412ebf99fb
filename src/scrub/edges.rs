//! What a piece of memory cuts off at its edges may be half of a secret: which characters go to be sure.
#![forbid(unsafe_code)]

/// The characters at the end of `line`, which something cut off behind, that may be part of a longer value: the index of
/// the first of them.
///
/// That is the last token; with groups of digits or capitals before it (a card, an IBAN), or lines of base64
/// (the body of a key).
pub(super) fn tail(line: &[u8]) -> usize {
    let token = |end: usize| {
        let end = end - trailing(&line[..end], |byte| byte == b' ').min(1);
        let length = trailing(&line[..end], |byte| !is_boundary(byte));
        end - length..end
    };
    let mut last = token(line.len());
    let mut start = last.start;
    let mut groups = 0;
    while let Some(gap) = gap_before(&line[..start]) {
        let before = token(start - gap);
        if before.is_empty()
            || !continues(&line[before.clone()], &line[last.clone()], &line[start - gap..start], groups)
        {
            break;
        }
        groups += 1;
        start = before.start;
        last = before;
    }
    start
}

/// The characters at the start of `line`, which something cut off before: the index behind the last of them. Besides what
/// [`tail`] takes, a token behind `=` or `:`, or an opaque one, may belong to a name that was cut.
pub(super) fn head(line: &[u8]) -> usize {
    let token = |start: usize| {
        let start = start + leading(&line[start..], |byte| byte == b' ').min(1);
        start..start + leading(&line[start..], |byte| !is_boundary(byte))
    };
    let mut last = token(0);
    let mut end = last.end;
    if !last.is_empty() && line[last.clone()].iter().all(|&byte| byte == b'*') {
        // What was cut off is gone, and with it went what may belong to it.
        return end;
    }
    let mut groups = 0;
    while let Some(gap) = gap_behind(&line[end..]) {
        let next = token(end + gap);
        // "ecret_key = wJalr...", "rer abc123def456"
        let assigns = |token: &[u8]| matches!(token, b"=" | b":" | b":=");
        let named = groups < 3
            && (matches!(line[..end].last(), Some(b'=' | b':')) || assigns(&line[next.clone()]))
            || groups == 0 && is_opaque(&line[next.clone()]);
        let joined = continues(&line[next.clone()], &line[last.clone()], &line[end..end + gap], groups);
        if next.is_empty() || !(named || joined) {
            break;
        }
        groups += 1;
        end = next.end;
        last = next;
    }
    // "ane Doe\\Documents", or "sers\\Jane Doe\\Documents": names of Windows users may hold spaces.
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b" ._-".contains(&byte);
    let from = if line[..end].contains(&b'\\') { end } else { 0 };
    let name = from + leading(&line[from..line.len().min(from + 64)], is_name);
    if line.get(name) == Some(&b'\\') { end.max(name) } else { end }
}

/// What ends a token: white space, and what quotes or brackets values.
fn is_boundary(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f || b"\"'`<>{}".contains(&byte)
}

/// One space, or a line break with indentation, that ends `text`: its length.
fn gap_before(text: &[u8]) -> Option<usize> {
    gap(trailing(text, |byte| byte.is_ascii_whitespace()), text.len())
}

fn gap_behind(text: &[u8]) -> Option<usize> {
    gap(leading(text, |byte| byte.is_ascii_whitespace()), text.len())
}

fn gap(length: usize, whole: usize) -> Option<usize> {
    ((1..=8).contains(&length) && length < whole).then_some(length)
}

/// Whether `next` and `last`, with `gap` between, look like parts of one value.
fn continues(next: &[u8], last: &[u8], gap: &[u8], groups: usize) -> bool {
    if gap.contains(&b'\n') {
        // Lines of armour are 64 or 76 characters long, but for the cut one; what a short last one belongs to has an
        // END line behind it.
        return next.len() >= 16 && is_base64_line(next) && is_base64_line(last);
    }
    gap == b" " && groups < 12 && is_group(next) && (is_group(last) || last.is_empty())
}

/// A group of a card number, an IBAN, a social security number, or a word of armour ("---BEGIN RSA PRIVATE KEY-----"); the last one may have punctuation behind it.
fn is_group(token: &[u8]) -> bool {
    let token = &token[..token.len() - trailing(token, |byte| b",.;:)]".contains(&byte))];
    (1..=9).contains(&token.len())
        && token.iter().all(|&b| b.is_ascii_digit() || b.is_ascii_uppercase() || b == b'-')
}

fn is_base64_line(token: &[u8]) -> bool {
    token.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"+/=-".contains(&byte))
}

fn is_opaque(token: &[u8]) -> bool {
    token.len() >= 8 && token.iter().any(u8::is_ascii_digit) && token.iter().any(u8::is_ascii_alphabetic)
}

fn trailing(text: &[u8], class: impl Fn(u8) -> bool) -> usize {
    text.iter().rev().take_while(|&&byte| class(byte)).count()
}

fn leading(text: &[u8], class: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|&&byte| class(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        let line64 = "M".repeat(64);
        for (kept, cut) in [
            ("mail to ", "alice.smi"),
            ("{\"mail\":\"", "alice.smi"),
            ("paid with ", "4111 1111 11"),
            ("paid with ", "4111 1111 1111 "),
            ("to ", "DE89 3704 0044 0"),
            ("the quick brown ", "fox"),
            ("", "eyJhbGciOiJI"),
            ("text\n", &format!("{line64}\n{line64}\nAAA")),
            ("a ", "b "),
        ] {
            let line = format!("{kept}{cut}");
            assert_eq!(&line[tail(line.as_bytes())..], cut, "{line}");
        }
    }

    #[test]
    fn heads() {
        let line64 = "M".repeat(64);
        for (cut, kept) in [
            ("ice@example.com", " wrote"),
            ("1111 1111 1111", " was declined"),
            (" 1111 1111 1111", " was declined"),
            ("rer abc123def456", " Host: x"),
            ("ecret= wJalrXUtn", " next"),
            ("over", " the lazy dog"),
            (&format!("MMM\n{line64}\n{line64}"), "\nnext line"),
            ("", "\"x\":1"),
            (&format!("--BEGIN ENCRYPTED PRIVATE KEY-----\n{line64}"), "\n"),
            ("ane Q. Doe", "\\Documents"),
            ("sers\\Jane Doe", "\\Documents"),
            ("lmulqdq avx512_vnni", " avx512_bitalg x"),
            ("*******************", " avx512_bitalg x"),
        ] {
            let line = format!("{cut}{kept}");
            assert_eq!(&line[..head(line.as_bytes())], cut, "{line}");
        }
    }

    #[test]
    fn a_line_may_be_all_of_it_or_nothing() {
        for line in ["", " ", "  ", "\n", "a", "a ", " a", "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"] {
            assert!(tail(line.as_bytes()) <= line.len());
            assert!(head(line.as_bytes()) <= line.len());
        }
    }
}
