//! Checks by which a match is told from what only looks like one.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::scrub::rules::luhn;

/// A check of what a pattern matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Check {
    /// The digits end in a check digit after Luhn (ISO/IEC 7812-1, annex B).
    Luhn,
    /// Letters and digits leave 1 modulo 97 after the first four were moved to the end (ISO 13616-1).
    Iban,
    /// Letters and digits leave 1 modulo 97 as they stand (ISO/IEC 7064, MOD 97-10).
    Mod97,
    /// The digits end in a check digit after Verhoeff.
    Verhoeff,
    /// There are lower-case and upper-case letters, and digits.
    Mixed,
}

impl Check {
    pub(super) fn passes(self, text: &[u8]) -> bool {
        let digits =
            || text.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0').collect::<Vec<u8>>();
        let has = |class: fn(&u8) -> bool| text.iter().any(class);
        match self {
            Self::Luhn => digits().len() >= 2 && luhn(&digits()),
            Self::Iban => {
                let plain: Vec<u8> = text.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
                plain.len() > 4 && modulo_97(plain[4..].iter().chain(&plain[..4])) == 1
            }
            Self::Mod97 => modulo_97(text.iter()) == 1,
            Self::Verhoeff => digits().len() >= 2 && verhoeff(&digits()),
            Self::Mixed => {
                has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit)
            }
        }
    }
}

/// A letter counts as two digits, 10 for A to 35 for Z.
fn modulo_97<'a>(text: impl Iterator<Item = &'a u8>) -> u32 {
    let digits = text.filter_map(|byte| char::from(*byte).to_digit(36));
    digits.fold(0, |rest, digit| (rest * if digit > 9 { 100 } else { 10 } + digit) % 97)
}

/// J. Verhoeff, Error Detecting Decimal Codes, 1969: multiplication in the dihedral group of order 10, and a permutation.
fn verhoeff(digits: &[u8]) -> bool {
    const PERMUTATION: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let product = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b) % 5,
        (false, true) => 5 + (a + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    let permuted =
        |digit: u8, times: usize| (0..times % 8).fold(digit, |digit, _| PERMUTATION[usize::from(digit % 10)]);
    digits.iter().rev().enumerate().fold(0, |sum, (at, &digit)| product(sum, permuted(digit, at))) == 0
}

/// Shannon's entropy of the characters, in bits per character.
pub(super) fn entropy(text: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    text.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    let length = text.len().max(1) as f64;
    let share = |count: &u32| f64::from(*count) / length;
    counts.iter().filter(|count| **count > 0).map(share).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks() {
        for (check, text, expected) in [
            (Check::Luhn, "4111-1111-1111-1111", true),
            (Check::Luhn, "4111-1111-1111-1112", false),
            (Check::Luhn, "x", false),
            (Check::Iban, "DE89 3704 0044 0532 0130 00", true),
            (Check::Iban, "DE88 3704 0044 0532 0130 00", false),
            (Check::Iban, "DE", false),
            // A legal entity identifier (ISO 17442).
            (Check::Mod97, "5493001KJTIIGC8Y1R12", true),
            (Check::Mod97, "5493001KJTIIGC8Y1R13", false),
            (Check::Verhoeff, "2363", true),
            (Check::Verhoeff, "2364", false),
            (Check::Verhoeff, "3", false),
            (Check::Mixed, "aB3", true),
            (Check::Mixed, "ab3", false),
        ] {
            assert_eq!(check.passes(text.as_bytes()), expected, "{check:?} {text}");
        }
    }

    #[test]
    fn entropy_is_in_bits_per_character() {
        for (text, expected) in [("", 0.0), ("aaaa", 0.0), ("abab", 1.0), ("abcdefgh", 3.0)] {
            assert!((entropy(text.as_bytes()) - expected).abs() < 1e-9, "{text}");
        }
    }
}
