//! Secrets that software is given: tokens by their prefixes, found with one search for all literals.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use super::anchors::Anchors;
use super::context::Announced;
use super::keys::{self, Pem};
use super::line::Starts;
use super::tokens::{AWS_ID, TOKENS, Token, is_base64};
use super::words::{Meaning, WORDS};
use super::{Hit, before, end_of};
use super::{identity, wallets};
use crate::scrub::trigrams::Trigrams;

/// A literal that something may begin with. The search for it ignores case.
struct Anchor {
    text: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Token(&'static Token),
    AwsSecret,
    Jwt,
    PemBegin,
    PemEnd,
    Authorization,
    Bearer,
    Basic,
    Word(Meaning),
    Bech32,
    Telegram,
    Sid,
    SteamId,
}

/// At most [`MOST`].
fn anchors() -> impl Iterator<Item = Anchor> {
    let others = [
        ("aws_secret", Kind::AwsSecret),
        ("aws secret", Kind::AwsSecret),
        ("awssecret", Kind::AwsSecret),
        ("secret_access_key", Kind::AwsSecret),
        ("secretaccesskey", Kind::AwsSecret),
        ("eyj", Kind::Jwt),
        ("-----begin ", Kind::PemBegin),
        ("-----end ", Kind::PemEnd),
        ("authorization", Kind::Authorization),
        ("bearer", Kind::Bearer),
        ("basic", Kind::Basic),
        ("bc1", Kind::Bech32),
        (":aa", Kind::Telegram),
        ("s-1-5-21-", Kind::Sid),
        ("7656119", Kind::SteamId),
    ];
    let tokens = TOKENS.iter().map(|token| (token.prefix, Kind::Token(token)));
    let words = WORDS.iter().map(|(word, meaning)| (*word, Kind::Word(*meaning)));
    let utf8 = tokens.chain(others).chain(words.clone());
    let utf8 = utf8.map(|(text, kind)| Anchor { text: text.as_bytes().to_vec(), kind });
    // In lines of one byte a character.
    let wide = words.filter(|(word, _)| !word.is_ascii());
    utf8.chain(wide.map(|(text, kind)| Anchor { text: text.chars().map(super::narrow).collect(), kind }))
        .take(MOST)
}

/// Room for as many anchors.
const MOST: usize = 320;

struct Compiled {
    anchors: Anchors,
    kinds: Vec<Kind>,
}

fn compiled() -> &'static Compiled {
    static COMPILED: OnceLock<Compiled> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let (texts, kinds): (Vec<_>, Vec<_>) = anchors().map(|anchor| (anchor.text, anchor.kind)).unzip();
        Compiled { anchors: Anchors::new(texts), kinds }
    })
}

/// See [`super::prepare`].
pub(super) fn prepare() {
    compiled();
}

/// What any of the literals begins with.
pub(super) fn begins() -> &'static Trigrams {
    compiled().anchors.begins()
}

/// Every kind of this file and of [`keys`]; `starts` are where a literal may begin.
pub(super) fn all(line: &[u8], starts: &Starts, hits: &mut Vec<Hit>) {
    let Compiled { anchors, kinds } = compiled();
    let mut pem = Pem::default();
    // For each kind of anchor up to where it has been looked at, whatever came of it: no later anchor of
    // that kind in between can do better.
    // Made for the first: most lines have none.
    let mut examined: Option<[usize; MOST]> = None;
    let mut announced = Announced::new(line);
    anchors.each(line, starts, |start, end, index| {
        let examined = examined.get_or_insert([0; MOST]);
        if start < examined[index] {
            return;
        }
        examined[index] = match kinds[index] {
            Kind::Token(token) => find_token(line, start, token, hits),
            Kind::AwsSecret => aws_secret(line, end, hits),
            Kind::Jwt => keys::jwt(line, start, hits),
            Kind::PemBegin => pem.begin(line, start, hits),
            Kind::PemEnd => pem.end(line, start, hits),
            Kind::Authorization => keys::authorization(line, end, hits),
            Kind::Bearer => keys::bearer(line, start, end, hits),
            Kind::Basic => keys::basic(line, start, end, hits),
            Kind::Word(meaning) => announced.by(line, start..end, meaning, hits),
            Kind::Bech32 => {
                let found = wallets::bech32(line, start).map(|end| start..end);
                hits.extend(found.map(|range| Hit { range, rule: "bitcoin-address" }));
                0
            }
            Kind::Telegram => {
                wallets::telegram(line, start, hits);
                0
            }
            Kind::Sid => identity::windows_sid(line, start, hits),
            Kind::SteamId => {
                identity::steam_id(line, start, hits);
                0
            }
        };
    });
    pem.finish(line, hits);
}

fn find_token(line: &[u8], start: usize, token: &Token, hits: &mut Vec<Hit>) -> usize {
    let behind = start + token.prefix.len();
    if !line[start..].starts_with(token.prefix.as_bytes()) {
        return 0;
    }
    let end = end_of(line, behind, token.body);
    let inside = before(line, start).is_some_and(|byte| byte.is_ascii_alphanumeric());
    let (least, most) = token.length;
    if (least..=most).contains(&(end - behind))
        && (token.inside_words || !inside)
        && (token.rule == AWS_ID || is_random(&line[behind..end]))
    {
        hits.push(Hit { range: start..end, rule: token.rule });
        if token.rule == AWS_ID {
            aws_secret(line, end, hits);
        }
    }
    end
}

/// Words alone are no token: "task_live_queueconsumer". One in a hundred of those with few characters has no digit.
fn is_random(body: &[u8]) -> bool {
    let has = |class: fn(&u8) -> bool| body.iter().any(class);
    let both = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    body.len() >= 30 || has(u8::is_ascii_digit) || body.len() >= 16 && both
}

/// Whether capitals stand in the middle of words again and again.
fn is_mixed(body: &[u8]) -> bool {
    body.windows(2).filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()).count() >= 2
}

/// AWS's secret access keys have no prefix: 40 characters of base64, near behind a word that names them or an access key
/// id, and perhaps an older text's rest behind them. Returns 0, as the search is bounded.
fn aws_secret(line: &[u8], from: usize, hits: &mut Vec<Hit>) -> usize {
    let window = &line[..line.len().min(from + 128)];
    let mut at = from;
    while at < window.len().min(from + 80) {
        let end = end_of(window, at, is_base64);
        let text = &window[at..end];
        if text.len() >= 40 && (text.iter().any(u8::is_ascii_digit) || is_mixed(text)) {
            hits.push(Hit { range: at..end, rule: "aws-secret" });
            break;
        }
        at = end + 1;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, credentials as all};

    #[test]
    fn tokens() {
        check(
            all,
            &[
                "id «AKIAIOSFODNN7EXAMPLE» x",
                "«ASIAY34FZKBOKMUTVV7A»,",
                "«AKIAIOSFODNN7EXAMPLE1» «AKIAIOSFODNN7EXAMPLE7QZ»e",
                "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»",
                "\"SecretAccessKey\": \"«wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»\"",
                "«AKIAIOSFODNN7EXAMPLE»:«wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»",
                "t=«ghp_16C7e42F292c6912E7710c838347Ae178B4a»;",
                "«github_pat_11ABCDEFG0abcdefghijkl_MNOPQRSTUVWXYZ0123456789»",
                "«gho_16C7e42F292c6912E7710c838347Ae178B4a» «ghs_16C7e42F292c6912E7710c838347Ae178B4a»",
                "«xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx»",
                "«xoxe.xoxp-1-Mi0yLTEyMzQ1Njc4OTA» «xapp-1-A0123456789-1234567890123-abcdef»",
                "https://«hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX»",
                "«sk_live_51H8abcdEFGHijklMNOP» «pk_live_0123456789abcdef» «whsec_0123456789abcdef01»",
                "x«sk_test_4eC39HqLyjWDarjtT1zdp7dc»\"",
                "\"key\":\"«glpat-voFTB-bjywrxjpq_GFmo»\"",
            ],
        );
    }

    #[test]
    fn there_is_room_for_all_anchors() {
        assert!(super::anchors().count() < super::MOST);
        assert!(super::anchors().all(|anchor| anchor.text.len() >= 2));
    }

    #[test]
    fn no_tokens() {
        check(
            all,
            &[
                "AKIAIOSFODNN7EXAMPL",
                "AKIAIOSFODNN7EXAMPLEXABCDEFGHIJ",
                "XAKIAIOSFODNN7EXAMPLE",
                "akiaiosfodnn7example",
                "ghp_short",
                "GHP_16C7e42F292c6912E7710c838347Ae178B4a",
                "xoxb-abc",
                "desk_live_performance",
                "hooks.slack.com/",
                "aws_secret_access_key = unset",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "sk_live_short1",
            ],
        );
    }
}
