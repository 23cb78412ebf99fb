//! Addresses of wallets, and tokens without a literal to look for.
#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};

use super::tokens::is_dashed_word;
use super::{Hit, before, end_of, start_of};

/// Characters of the shortest that [`words`] finds.
pub(super) const SHORTEST: usize = 26;

/// Words of letters and digits that prove themselves: Bitcoin addresses (Base58Check), Twilio's identifiers.
pub(super) fn words(line: &[u8], hits: &mut Vec<Hit>) {
    let mut at = 0;
    while at < line.len() {
        if !line[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let end = end_of(line, at, |byte| byte.is_ascii_alphanumeric());
        let word = &line[at..end];
        if word.len() >= SHORTEST {
            // An older text's rest may follow.
            let mut lengths =
                (SHORTEST..=35.min(word.len())).rev().filter(|_| matches!(word[0], b'1' | b'3'));
            if let Some(length) = lengths.find(|&length| is_base58check(&word[..length])) {
                hits.push(Hit { range: at..at + length, rule: "bitcoin-address" });
            }
            let twilio = word.len() >= 34 && (word.starts_with(b"SK") || word.starts_with(b"AC"));
            if twilio && word[2..34].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                hits.push(Hit { range: at..at + 34, rule: "twilio-key" });
            }
        }
        at = end;
    }
}

/// 25 bytes, the last four of which are a double SHA-256 of the others.
fn is_base58check(word: &[u8]) -> bool {
    const DIGITS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut bytes = [0u8; 25];
    for byte in word {
        let Some(digit) = DIGITS.iter().position(|known| known == byte) else { return false };
        let mut carry = digit as u32;
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 58;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return false;
        }
    }
    Sha256::digest(Sha256::digest(&bytes[..21]))[..4] == bytes[21..]
}

/// `bc1...`, with the check of BIP 173 or BIP 350, at `start`: its end.
pub(super) fn bech32(line: &[u8], start: usize) -> Option<usize> {
    if before(line, start).is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    // BIP 173 allows 90 characters; no more are looked at, or a line of beginnings would take its square.
    let window = &line[..line.len().min(start + 91)];
    let whole = end_of(window, start, |byte| byte.is_ascii_alphanumeric());
    // Programs of 20 and 32 bytes, behind which an older text's rest may follow.
    let ends = [start + 42, start + 62, whole];
    ends.into_iter().filter(|&end| end <= whole).find(|&end| is_bech32(line, start, end))
}

fn is_bech32(line: &[u8], start: usize, end: usize) -> bool {
    const DIGITS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    if !(14..=90).contains(&(end - start)) {
        return false;
    }
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let mut check = 1u32;
    let mut feed = |value: u32| {
        let top = check >> 25;
        check = (check & 0x1ff_ffff) << 5 ^ value;
        for (bit, generator) in GENERATOR.iter().enumerate() {
            check ^= if top >> bit & 1 == 1 { *generator } else { 0 };
        }
    };
    // "bc", expanded.
    [3, 3, 0, 2, 3].into_iter().for_each(&mut feed);
    for byte in &line[start + 3..end] {
        let Some(digit) = DIGITS.iter().position(|known| *known == byte.to_ascii_lowercase()) else {
            return false;
        };
        feed(digit as u32);
    }
    check == 1 || check == 0x2bc8_30a3
}

/// Discord's bot tokens: a user's number in base64, six characters, a signature, with points between.
pub(super) fn discord(line: &[u8], hits: &mut Vec<Hit>) {
    let mut floor = 0;
    for point in memchr::memchr_iter(b'.', line) {
        if point < floor
            || line.get(point + 7) != Some(&b'.')
            || !line[point + 1..point + 7].iter().all(|b| is_dashed_word(*b))
        {
            continue;
        }
        let start = start_of(line, floor.max(point.saturating_sub(40)), point, is_dashed_word);
        let end = end_of(line, point + 8, is_dashed_word);
        let number = (23..=28).contains(&(point - start)) && matches!(line[start], b'M' | b'N' | b'O');
        if number && end - point >= 8 + 27 {
            hits.push(Hit { range: start..end, rule: "discord-token" });
            floor = end;
        }
    }
}

/// Telegram's bot tokens: a number, `:AA` at `colon`, 33 characters more.
pub(super) fn telegram(line: &[u8], colon: usize, hits: &mut Vec<Hit>) {
    let start = start_of(line, colon.saturating_sub(11), colon, |byte| byte.is_ascii_digit());
    let end = end_of(line, colon + 1, is_dashed_word);
    if (8..=10).contains(&(colon - start)) && end - colon >= 30 && line[colon + 1..].starts_with(b"AA") {
        hits.push(Hit { range: start..end, rule: "telegram-token" });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn addresses_and_tokens() {
        check(
            super::words,
            &[
                "pay «1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2».",
                "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
                "17234567890123456789012345678901",
                "«3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy»",
                "SK0123456789abcdef0123456789abcdeg",
                "«SK0123456789abcdef0123456789abcdef»",
            ],
        );
        check(
            super::super::testing::credentials,
            &[
                "«bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4»",
                "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
                "bc1 and abc1",
                "«110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw»",
                "x:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
                "12:AA",
            ],
        );
    }
}
