//! What stands for a value that was removed: `[email#317]`, where 317 is the number of the value within one report.
//!
//! Equal values have the same number, in whatever encoding and place they stood, so that a reader sees what belongs together.
//! The number is drawn from a hash of the value under a key that each report has for itself and that nobody keeps: it tells neither
//! which value it was, nor whether another report has it too.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::edit::Encoding;

/// Rules whose names aliases have, sorted. Of others they have the number alone: names from outside could hold anything.
pub(super) const KINDS: &[&str] = &[
    "anthropic-key",
    "aws-key-id",
    "aws-secret",
    "bitcoin-address",
    "cookie",
    "date-of-birth",
    "discord-token",
    "discord-webhook",
    "echo",
    "email",
    "environment-value",
    "ethereum-address",
    "gcp-key",
    "github-token",
    "gitlab-token",
    "http-auth",
    "iban",
    "imei",
    "ipv4",
    "ipv6",
    "jwt",
    "known-value",
    "lat-long",
    "mac",
    "mnemonic",
    "mrz",
    "npm-token",
    "openai-key",
    "password",
    "payment-card",
    "pem-private-key",
    "phone",
    "pypi-token",
    "secret",
    "sendgrid-key",
    "slack-token",
    "slack-webhook",
    "ssid",
    "steam-id",
    "stripe-key",
    "telegram-token",
    "twilio-key",
    "url-secret",
    "url-user-info",
    "us-itin",
    "us-ssn",
    "user-path",
    "windows-sid",
];

/// Rules that remove whole places or what is left of values: nothing that one could be equal to another.
const NO_VALUES: &[&str] = &["command-line", "cut-off", "dropped", "environment"];

/// Numbers, from the shorter ones on: the next are drawn from when no free one is found soon.
const NUMBERS: [Range<u32>; 3] = [100..1000, 1000..10_000, 10_000..100_000];
/// Numbers of each that are looked at for a value.
const TRIES: u32 = 16;
/// Digits of a number that is recognized: more could hide something.
const DIGITS: usize = 5;
/// Characters of the shortest alias, `[#100]`. Shorter values are filled with `*` alone.
pub(super) const SHORTEST: usize = 6;
/// Bytes that a character of an alias may have. None stands in UTF-32: eight bytes of that are two characters, and two of an
/// alias are soon two of some value, so that who searches a report for pieces of values would find them everywhere.
const WIDTHS: [usize; 2] = [1, 2];
/// The longest value that gets a number, in bytes. A longer one is no single value.
const LONGEST_VALUE: usize = 32 << 10;
/// Aliases in one dump or text that are recognized. More are text like any other.
pub(super) const MOST: usize = 1 << 16;

/// A value, without the value: a keyed hash of its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity([u8; 16]);

impl Identity {
    /// The numbers that it may have, in the order in which they are to be tried.
    fn numbers(self) -> impl Iterator<Item = u32> {
        let drawn = self.0.as_chunks::<4>().0.iter().copied().map(u32::from_le_bytes);
        NUMBERS.into_iter().zip(drawn.collect::<Vec<_>>()).flat_map(|(range, drawn)| {
            let count = range.end - range.start;
            let first = drawn % count;
            (0..TRIES).map(move |at| range.start + (first + at) % count)
        })
    }
}

/// The values of one report and their numbers.
#[derive(Default)]
pub(super) struct Aliases {
    off: bool,
    /// Random, made at first use, wiped afterwards; without one there are no numbers.
    key: Option<Zeroizing<[u8; 32]>>,
    numbers: HashMap<Identity, u32>,
    /// Numbers that were given, and those that the text had before: they may mean something else.
    taken: HashSet<u32>,
}

impl Aliases {
    /// Whose value it is that `rule` found. `None` if it gets no number.
    pub(super) fn identity(&mut self, rule: &str, bytes: &[u8], encoding: Encoding) -> Option<Identity> {
        if self.off || bytes.len() > LONGEST_VALUE || NO_VALUES.contains(&rule) {
            return None;
        }
        if !WIDTHS.contains(&encoding.stride()) || bytes.len() / encoding.stride() < SHORTEST {
            return None;
        }
        if self.key.is_none() {
            let mut key = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *key).ok()?;
            self.key = Some(key);
        }
        let mut hash = <Hmac<Sha256> as KeyInit>::new_from_slice(&**self.key.as_ref()?).ok()?;
        hash.update(&Zeroizing::new(characters(bytes, encoding)));
        let digest: [u8; 32] = hash.finalize().into_bytes().into();
        digest.first_chunk().copied().map(Identity)
    }

    /// Keeps a number from being given.
    pub(super) fn take(&mut self, number: u32) {
        self.taken.insert(number);
    }

    /// The alias of a value in `room` characters: `[kind#n]`, else `[#n]`, else none.
    pub(super) fn name(&mut self, identity: Identity, rule: &str, room: usize) -> Option<String> {
        if room < SHORTEST {
            return None;
        }
        let number = match self.numbers.get(&identity) {
            Some(&number) => number,
            None => {
                let number = identity.numbers().find(|number| !self.taken.contains(number))?;
                self.taken.insert(number);
                self.numbers.insert(identity, number);
                number
            }
        };
        let kind = if KINDS.binary_search(&rule).is_ok() { rule } else { "" };
        [kind, ""].iter().map(|kind| format!("[{kind}#{number}]")).find(|name| name.len() <= room)
    }
}

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aliases").field("values", &self.numbers.len()).finish_non_exhaustive()
    }
}

/// [`Aliases`] for several threads. A clone is about another report: it has a key and numbers of its own.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Aliases>);

impl Shared {
    /// Gives no numbers.
    pub(super) fn off() -> Self {
        Self(Mutex::new(Aliases { off: true, ..Aliases::default() }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Aliases> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        if self.lock().off { Self::off() } else { Self::default() }
    }
}

/// The text in UTF-8, so that it is the same in every encoding that aliases stand in.
fn characters(bytes: &[u8], encoding: Encoding) -> Vec<u8> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks::<2>().0.iter().map(|&bytes| unit(bytes));
        let text: String =
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        text.into_bytes()
    };
    match encoding {
        Encoding::Utf16Le => utf16(u16::from_le_bytes),
        Encoding::Utf16Be => utf16(u16::from_be_bytes),
        Encoding::Utf8 | Encoding::Utf32Le | Encoding::Utf32Be => bytes.to_vec(),
    }
}

/// An alias in some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    /// Of the bracket.
    offset: usize,
    stride: usize,
    /// Characters.
    length: usize,
    number: u32,
}

impl Spot {
    /// Where its characters stand.
    fn characters(self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.length).map(move |at| self.offset + at * self.stride)
    }
}

/// The aliases that some bytes held.
#[derive(Debug, Default)]
pub(super) struct Masked {
    spots: Vec<Spot>,
    /// Their characters, one after another.
    text: Vec<u8>,
}

impl Masked {
    /// Fills the aliases in `bytes` with `*`, so that no rule sees one: neither as something to find nor as context.
    pub(super) fn mask(bytes: &mut [u8]) -> Self {
        let (mut masked, mut at) = (Self::default(), 0);
        while let Some(found) = memchr::memchr(b'#', &bytes[at..]).filter(|_| masked.spots.len() < MOST) {
            let hash = at + found;
            at = hash + 1;
            let Some(spot) = WIDTHS.iter().find_map(|&stride| spot(bytes, hash, stride)) else { continue };
            for place in spot.characters() {
                masked.text.push(std::mem::replace(&mut bytes[place], b'*'));
            }
            masked.spots.push(spot);
        }
        masked
    }

    /// The numbers of the aliases.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.spots.iter().map(|spot| spot.number)
    }

    /// The aliases with where each of their characters stood.
    pub(super) fn each(&self) -> impl Iterator<Item = Vec<(usize, u8)>> {
        let mut rest = &self.text[..];
        self.spots.iter().map(move |spot| {
            let (own, more) = rest.split_at(spot.length.min(rest.len()));
            rest = more;
            spot.characters().zip(own.iter().copied()).collect()
        })
    }
}

/// `text` as rules are to see it.
pub(super) fn masked(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    Masked::mask(&mut bytes);
    // Only ASCII characters were replaced, by another.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Whether `name` is an alias.
pub(super) fn is_alias(name: &str) -> bool {
    let bytes = name.as_bytes();
    let whole =
        |hash| spot(bytes, hash, 1).is_some_and(|spot| spot.offset == 0 && spot.length == bytes.len());
    memchr::memchr(b'#', bytes).is_some_and(whole)
}

/// The alias whose `#` stands at `hash`, with characters `stride` bytes from each other and zeros between.
fn spot(bytes: &[u8], hash: usize, stride: usize) -> Option<Spot> {
    let character = |at: usize| bytes.get(at).copied();
    let (mut number, mut at, mut digits) = (0u32, hash.checked_add(stride)?, 0);
    loop {
        match character(at)? {
            b']' if digits > 0 => break,
            b'0' if digits == 0 => return None,
            digit @ b'0'..=b'9' if digits < DIGITS => number = number * 10 + u32::from(digit - b'0'),
            _ => return None,
        }
        (digits, at) = (digits + 1, at.checked_add(stride)?);
    }
    let last = at;
    let (mut at, mut kind) = (hash.checked_sub(stride)?, Vec::new());
    while character(at)? != b'[' {
        kind.push(character(at)?);
        // No kind is longer.
        if kind.len() > 17 {
            return None;
        }
        at = at.checked_sub(stride)?;
    }
    kind.reverse();
    let known = kind.is_empty() || KINDS.binary_search_by(|known| known.as_bytes().cmp(&kind)).is_ok();
    let narrow = || (at..last).all(|place| (place - at).is_multiple_of(stride) || bytes[place] == 0);
    (known && narrow()).then(|| Spot { offset: at, stride, length: (last - at) / stride + 1, number })
}

/// `text` with numbers from 1 on, in the order of their appearance, in place of those that were drawn: what can be compared with
/// something written down. Where an alias gets shorter a `*` follows.
#[cfg(test)]
pub(super) fn in_order(text: &str) -> String {
    let (mut bytes, mut seen) = (text.as_bytes().to_vec(), Vec::new());
    while let Some(spot) = (0..bytes.len())
        .filter(|&at| bytes[at] == b'#')
        .find_map(|hash| spot(&bytes, hash, 1).filter(|spot| NUMBERS[0].contains(&spot.number)))
    {
        let at = seen.iter().position(|&number| number == spot.number).unwrap_or(seen.len());
        if at == seen.len() {
            seen.push(spot.number);
        }
        let end = spot.offset + spot.length;
        let short = format!("{}]", at + 1);
        let stars = "*".repeat(4 - short.len());
        bytes.splice(end - 4..end, short.bytes().chain(stars.bytes()));
    }
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests;
