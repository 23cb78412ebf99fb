//! What the text behind a word looks like: no value at all, a token, a program's name.
#![forbid(unsafe_code)]

use super::end_of;
use super::words::NOT_A_VALUE;

/// What no value is: a word of prose, a call, a placeholder.
pub(super) fn is_no_value(text: &[u8], quote: Option<u8>) -> bool {
    let word = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    let known = |text: &[u8]| NOT_A_VALUE.iter().any(|no| text.eq_ignore_ascii_case(no.as_bytes()));
    let name = end_of(text, 0, |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
    let call = quote.is_none()
        && name >= 4
        && matches!(text.get(name), Some(b'(' | b'['))
        && !text[..name].iter().any(u8::is_ascii_digit)
        && are_arguments(&text[name + 1..]);
    let same = text.first().is_some_and(|first| text.iter().all(|byte| byte == first));
    known(text)
        || (known(&text[..word]) && text.get(word).is_some_and(|byte| b"().,:;[]!?%|".contains(byte)))
        || call
        || same
        || matches!(text.first(), Some(b'%' | b'$' | b'{' | b'<' | b'(' | b'[')) && text.len() < 8
        || is_placeholder(text)
}

/// What a program puts a value in the place of: `%(name)s`, `${NAME}`, `{{ name }}`, `$(command)`.
fn is_placeholder(text: &[u8]) -> bool {
    let rest = [&b"%("[..], b"${", b"{{", b"$("].iter().find_map(|opening| text.strip_prefix(*opening));
    // Without the rest of it, a password may begin so.
    rest.is_some_and(|rest| {
        let inside = rest.iter().position(|byte| b")}".contains(byte));
        inside.is_some_and(|end| rest[..end].iter().any(u8::is_ascii_alphabetic))
    })
}

/// What stands between the brackets of a call or an index: names, with digits at their ends, and numbers. Most passwords with a
/// bracket have something else, too.
fn are_arguments(text: &[u8]) -> bool {
    let is_name = |word: &[u8]| {
        let digits = word.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        !word[..word.len() - digits].iter().any(u8::is_ascii_digit) || word.starts_with(b"0x")
    };
    text.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"_.,:\"' ()[]&*<>+-=/".contains(&byte))
        && text.split(|byte| !byte.is_ascii_alphanumeric()).all(is_name)
}

/// Letters and digits as tokens have them.
pub(super) fn is_opaque(text: &[u8]) -> bool {
    const DIGIT: u8 = 1;
    const UPPER: u8 = 2;
    const LOWER: u8 = 4;
    const SPACE: u8 = 8;
    let classes = text.iter().fold(0, |classes, byte| {
        classes
            | match byte {
                b'0'..=b'9' => DIGIT,
                b'A'..=b'Z' => UPPER,
                b'a'..=b'z' => LOWER,
                b' ' => SPACE,
                _ => 0,
            }
    });
    let has = |class| classes & class != 0;
    let long = text.len() >= 16;
    !has(SPACE) && (has(DIGIT) && (has(UPPER | LOWER) || long) || has(UPPER) && has(LOWER) && long)
}

/// What has the shape of a program's name: dotted, called, or camel case without digits in one of its many parts.
pub(super) fn is_name(text: &[u8]) -> bool {
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
