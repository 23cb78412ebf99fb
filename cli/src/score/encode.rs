//! Text as bytes in every form that it is planted in, with where each character went.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::random::Random;

/// How text stands in bytes: five encodings, and four layers over UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    Utf8,
    Utf16Le,
    Utf16Be,
    Utf32Le,
    Utf32Be,
    Base64,
    Percent,
    Hex,
    Json,
}

impl Form {
    pub(crate) const PLAIN: [Self; 5] =
        [Self::Utf8, Self::Utf16Le, Self::Utf16Be, Self::Utf32Le, Self::Utf32Be];
    pub(crate) const LAYERS: [Self; 4] = [Self::Base64, Self::Percent, Self::Hex, Self::Json];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf16Le => "utf-16le",
            Self::Utf16Be => "utf-16be",
            Self::Utf32Le => "utf-32le",
            Self::Utf32Be => "utf-32be",
            Self::Base64 => "base64",
            Self::Percent => "percent",
            Self::Hex => "hex",
            Self::Json => "json",
        }
    }
}

/// Encoded text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// For each character of the text the bytes that tell it.
    pub(crate) characters: Vec<Range<usize>>,
}

/// Encodes `text`. Percent and JSON escapes are written as programs do for some texts (only what needs it), and for the
/// others throughout.
pub(crate) fn encode(text: &str, form: Form, random: &mut Random) -> Encoded {
    let mut out = Encoded::default();
    let every = random.below(2) == 0;
    let upper = random.below(2) == 0;
    if form == Form::Base64 {
        return base64(text);
    }
    for c in text.chars() {
        let start = out.bytes.len();
        let mut utf8 = [0; 4];
        let utf8 = c.encode_utf8(&mut utf8).as_bytes();
        match form {
            Form::Utf8 | Form::Base64 => out.bytes.extend(utf8),
            Form::Utf16Le => {
                out.bytes.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|u| u.to_le_bytes()))
            }
            Form::Utf16Be => {
                out.bytes.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|u| u.to_be_bytes()))
            }
            Form::Utf32Le => out.bytes.extend(u32::from(c).to_le_bytes()),
            Form::Utf32Be => out.bytes.extend(u32::from(c).to_be_bytes()),
            Form::Percent if !every && (c.is_ascii_alphanumeric() || "-._~".contains(c)) => {
                out.bytes.extend(utf8)
            }
            Form::Percent => {
                utf8.iter().for_each(|byte| out.bytes.extend(format!("%{byte:02X}").bytes()));
            }
            Form::Hex if upper => {
                utf8.iter().for_each(|byte| out.bytes.extend(format!("{byte:02X}").bytes()))
            }
            Form::Hex => utf8.iter().for_each(|byte| out.bytes.extend(format!("{byte:02x}").bytes())),
            Form::Json if !every && c.is_ascii_alphanumeric() => out.bytes.extend(utf8),
            Form::Json => {
                let units = c.encode_utf16(&mut [0; 2]).to_vec();
                units.iter().for_each(|unit| out.bytes.extend(format!("\\u{unit:04x}").bytes()));
            }
        }
        out.characters.push(start..out.bytes.len());
    }
    out
}

fn base64(text: &str) -> Encoded {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize];
            bytes.push(if at <= chunk.len() { digit } else { b'=' });
        }
    }
    let digit = |byte: usize| byte * 8 / 6;
    let characters = text
        .char_indices()
        .map(|(at, c)| digit(at)..((at + c.len_utf8()) * 8).div_ceil(6).min(bytes.len()))
        .collect();
    Encoded { bytes, characters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let encoded = |form| encode("a@b.c", form, &mut Random::new(3)).bytes;
        assert_eq!(encoded(Form::Base64), b"YUBiLmM=");
        assert_eq!(encoded(Form::Utf16Be)[..4], *b"\0a\0@");
        for form in Form::PLAIN.into_iter().chain(Form::LAYERS) {
            let all = encode("aé@b", form, &mut Random::new(9));
            assert_eq!(all.characters.len(), 4, "{form:?}");
            assert!(all.characters.iter().all(|c| !c.is_empty() && c.end <= all.bytes.len()), "{form:?}");
        }
    }
}
