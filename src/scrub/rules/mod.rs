//! What personal data and secrets look like: one table of rules, one file a family.
//!
//! A rule gets a line (one byte a character; bytes from 0x80 on are part of something that is not ASCII) and says
//! which characters of it to blank. Rules are linear: each starts from a rare character or literal and never
//! looks at the same characters again for another start. There is nothing to compile but one automaton of literals,
//! made once per process.
#![forbid(unsafe_code)]

pub(super) mod anchors;
mod contact;
mod context;
mod credentials;
mod dates;
mod documents;
mod financial;
mod iban;
mod identity;
mod keys;
mod line;
mod location;
mod network;
mod paths;
mod phone;
mod shapes;
mod tokens;
mod wallets;
mod words;

use std::ops::Range;

pub(in crate::scrub) use context::{COOKIE, MNEMONIC};
pub(in crate::scrub) use financial::luhn;
pub(in crate::scrub) use keys::{HTTP_AUTH, values_of_pairs};
pub(super) use line::Class;
use line::Class::*;
use line::Needs;
pub(super) use line::{Line, Starts, Words};

use super::trigrams::Trigrams;

/// Characters of a line to blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) range: Range<usize>,
    pub(super) rule: &'static str,
}

/// A rule, or several that share a search.
struct Rule {
    /// Characters of each class without as many of which there can be no hit.
    needs: Needs,
    find: fn(&[u8], &mut Vec<Hit>),
}

const RULES: &[Rule] = &[
    Rule { needs: Needs::new(&[(At, 1), (Dot, 1)]), find: contact::email },
    Rule { needs: Needs::new(&[(Digit, 12)]), find: financial::payment_card },
    // Besides the check digits there may be letters alone.
    Rule { needs: Needs::new(&[(Digit, 2)]), find: iban::iban },
    Rule { needs: Needs::new(&[(Digit, 9), (Dash, 2)]), find: identity::us_itin },
    Rule { needs: Needs::new(&[(Digit, 9)]), find: identity::us_ssn },
    Rule { needs: Needs::new(&[(Colon, 5)]), find: network::mac },
    Rule { needs: Needs::new(&[(Dash, 5)]), find: network::mac },
    Rule { needs: Needs::new(&[(Digit, 1), (Dot, 2)]), find: network::dotted_mac },
    Rule { needs: Needs::new(&[(Digit, 7), (Sign, 1)]), find: phone::international },
    Rule { needs: Needs::new(&[(Dot, 2)]), find: wallets::discord },
    Rule { needs: Needs::new(&[(Angle, 1)]), find: documents::mrz },
    Rule { needs: Needs::new(&[(Digit, 4), (Dot, 3)]), find: network::ipv4 },
    Rule { needs: Needs::new(&[(Digit, 1), (Colon, 2)]), find: network::ipv6 },
    Rule { needs: Needs::new(&[(At, 1), (Slash, 2), (Colon, 1)]), find: network::url_user_info },
    Rule { needs: Needs::new(&[(Slash, 2)]), find: paths::user_path },
];

/// Compiles what there is to compile, so that it is not done at crash time.
pub(super) fn prepare() {
    credentials::prepare();
}

/// What rules may begin with: for [`Line::look`].
pub(super) fn begins() -> &'static Trigrams {
    credentials::begins()
}

/// All hits of all rules in `text`.
pub(super) fn find_in(text: &[u8], hits: &mut Vec<Hit>) {
    let mut line = Line::default();
    line.look(text, begins());
    find(text, &line, hits);
}

/// All hits of all rules in `text`, which `line` is about.
pub(super) fn find(text: &[u8], line: &Line, hits: &mut Vec<Hit>) {
    for rule in RULES {
        if line.has_all(rule.needs) {
            (rule.find)(text, hits);
        }
    }
    if text.len() >= wallets::SHORTEST && line.words.has(wallets::SHORTEST) {
        wallets::words(text, hits);
    }
    if line.has(Digit, documents::DIGITS) && line.words.has(documents::SHORTEST) {
        documents::unfilled(text, hits);
    }
    if !line.starts.is_empty() {
        credentials::all(text, &line.starts, hits);
    }
    // "user:pass@db.intra" in a URL is no address, and its host stays.
    if hits.iter().any(|hit| hit.rule == network::USER_INFO) {
        let inside: Vec<Range<usize>> =
            hits.iter().filter(|hit| hit.rule == network::USER_INFO).map(|hit| hit.range.clone()).collect();
        // They come in their order, and none overlaps the next.
        let is_inside = |at: usize| {
            let next = inside.partition_point(|range| range.end <= at);
            inside.get(next).is_some_and(|range| range.contains(&at))
        };
        hits.retain(|hit| hit.rule != contact::EMAIL || !is_inside(hit.range.start));
    }
}

/// A character as one byte: itself in ASCII, else one from 0x80 on, by which words of other scripts can be told.
pub(super) fn narrow(c: char) -> u8 {
    if c.is_ascii() { c as u8 } else { 0x80 | (u32::from(c) ^ u32::from(c) >> 7) as u8 }
}

/// The characters from `start` on that are `class`, as the index behind the last.
fn end_of(line: &[u8], start: usize, class: impl Fn(u8) -> bool) -> usize {
    line[start..].iter().position(|&byte| !class(byte)).map_or(line.len(), |length| start + length)
}

/// The characters before `end` and not before `floor` that are `class`, as the index of the first.
fn start_of(line: &[u8], floor: usize, end: usize, class: impl Fn(u8) -> bool) -> usize {
    line[floor..end].iter().rposition(|&byte| !class(byte)).map_or(floor, |at| floor + at + 1)
}

fn before(line: &[u8], at: usize) -> Option<u8> {
    at.checked_sub(1).map(|at| line[at])
}

fn digit_at(line: &[u8], at: usize) -> bool {
    line.get(at).is_some_and(u8::is_ascii_digit)
}

/// Whether one of `words` (lower case) ends in the `window` characters before `at`.
pub(super) fn preceded_by(line: &[u8], at: usize, window: usize, words: &[&str]) -> bool {
    let window = &line[at.saturating_sub(window)..at];
    words.iter().any(|word| {
        !word.is_empty()
            && window.windows(word.len()).any(|candidate| candidate.eq_ignore_ascii_case(word.as_bytes()))
    })
}

#[cfg(test)]
mod testing {
    use super::*;

    pub(super) fn credentials(text: &[u8], hits: &mut Vec<Hit>) {
        let mut line = Line::default();
        line.look(text, begins());
        credentials::all(text, &line.starts, hits);
    }

    /// What a rule blanks of a text, as `*`.
    pub(super) fn blanked(find: fn(&[u8], &mut Vec<Hit>), text: &str) -> String {
        let (mut hits, mut bytes) = (Vec::new(), text.as_bytes().to_vec());
        find(text.as_bytes(), &mut hits);
        for hit in hits {
            bytes[hit.range].fill(b'*');
        }
        String::from_utf8(bytes).unwrap()
    }

    /// `«»` mark what must be blanked; nothing else may be.
    pub(super) fn check(find: fn(&[u8], &mut Vec<Hit>), cases: &[&str]) {
        for case in cases {
            let (mut text, mut expected, mut inside) = (String::new(), String::new(), false);
            for c in case.chars() {
                match c {
                    '«' => inside = true,
                    '»' => inside = false,
                    _ => {
                        text.push(c);
                        let star = |out: &mut String| (0..c.len_utf8()).for_each(|_| out.push('*'));
                        if inside { star(&mut expected) } else { expected.push(c) }
                    }
                }
            }
            assert_eq!(blanked(find, &text), expected, "{case}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_stays() {
        for text in include_str!("negatives.txt").lines() {
            let mut hits = Vec::new();
            find_in(text.as_bytes(), &mut hits);
            assert_eq!(hits, [], "{text}");
        }
    }

    #[test]
    fn hostile_text_gives_no_more_hits_than_it_has_characters() {
        for unit in [
            "a",
            "1",
            "1234-",
            "@",
            "a@",
            "a@b.",
            "a@b.co",
            ".",
            "1.",
            "1.1.1.1.",
            ":",
            "::",
            "1:",
            "a:",
            "/",
            "\\",
            "/home/",
            "://",
            "://a@",
            "eyJ",
            "eyJa.",
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            "-----BEGIN ",
            "-----",
            "AKIA",
            "aws_secret",
            "ghp_",
            "github_pat_",
            "xoxb-",
            "xapp-",
            "hooks.slack.com/",
            "sk_live_",
            "whsec_",
            "authorization: ",
            "authorization:",
            "bearer ",
            "basic ",
            "DE89",
            "DE89 ",
            "123-45-",
            "4111 1111 1111 1111 ",
            "ssn ",
            "authorization=digest ",
            "bc1",
            "7656119",
            ":AA",
            "s-1-5-21-",
            "password=",
            "geo:1.",
            "a://b@ d@e.de ",
            "<",
            "A1",
        ] {
            let line = unit.repeat(200_000 / unit.len());
            let mut hits = Vec::new();
            find_in(line.as_bytes(), &mut hits);
            assert!(hits.len() <= line.len(), "{unit}");
            // Quadratic blanking would show as coverage far beyond the line.
            let covered: usize = hits.iter().map(|hit| hit.range.len()).sum();
            assert!(covered <= 4 * line.len(), "{unit}: {covered}");
        }
    }
}
