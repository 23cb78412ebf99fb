//! Kinds of personal data and secrets, and values of them that occur nowhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

/// A kind, and how a receipt calls it.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The rule of the scrubber.
    pub(crate) rule: &'static str,
    /// Longest first: the first one that a place can hold is planted.
    pub(crate) forms: Vec<Form>,
}

/// A text with something in it that must not leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    /// What makes it recognisable and may stay: "Authorization: Bearer ".
    pub(crate) before: String,
    /// What must go: the value that is searched for.
    pub(crate) secret: String,
    pub(crate) after: String,
}

impl Form {
    /// What is planted.
    pub(crate) fn text(&self) -> String {
        format!("{}{}{}", self.before, self.secret, self.after)
    }
}

/// Known because the victim's environment says so: `USER`.
pub(crate) const USER: &str = "vq7zsjwnkqamp";
/// `HOME`. Not below /home, so that no other rule than the known value finds it.
pub(crate) const HOME: &str = "/wq/Xavqrl9";
/// `HOSTNAME`.
pub(crate) const HOST: &str = "zwj4-kqyxvbp";
/// `--secret`.
pub(crate) const SECRET: &str = "Ydqz7 Qjvlqmqlz-Vxqo";

/// All kinds. No two values share eight bytes, and none shares eight bytes with what stays around it, in any encoding: in
/// UTF-32 these are two characters, so the letters are odd ones.
pub(crate) fn all() -> Vec<Kind> {
    let card = with_luhn("453957817023664");
    let iban = iban("GB", "WQZX60813319268174");
    // zqv1:Hx9kwyp7
    let basic = "enF2MTpIeDlrd3lwNw==";
    // {"alg":"HS256"}, {"sub":"Zvq7wxq"}
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJadnE3d3hxIn0.W7kQzXv93hJpLt5MbYcR";
    // Not a key of anything.
    let pem = "Qz7vK2mXw9pTjL4hYbN8rGdF3sAcZ5uEoIqWnVxHt6kJyMgRfPzDl1CbSaUeOiTr\n\
               7XvWq3KzPn9LmYj2HtGr5FdSb8NcVx4MzQw6TyEk1JhUgRoIfPaLdZsCvXbWeQnM";
    // Joined here, because those who watch repositories for lost tokens do not know that these are none.
    let aws = ["AK", "IAZQ7VWEXLYT4KD2MN"].concat();
    let github = ["gh", "p_Zx7QvK9mWpTj3hLbN5rYdGsFcA8uEoIq2nVt"].concat();
    let slack = ["xo", "xb-7k9q8j4w2x5z-Wq8ZkVx3mTjPn6Ry"].concat();
    let stripe = ["sk", "_live_8KzQw3VxTj6mRyPn9LbYdGh5"].concat();
    vec![
        kind("e-mail", "email", &[("to ", "qz7v.kw9jq77@mxz4.zyvq.vyxz", " now"), ("", "jq7z@wkx4.vyz", "")]),
        kind("payment-card", "payment-card", &[("cd ", &spaced(&card), " exp"), ("", &card, "")]),
        kind("iban", "iban", &[("to ", &iban, "."), ("", &iban, "")]),
        kind("us-ssn", "us-ssn", &[("ssn ", "618-43-7529", "."), ("", "618-43-7529", "")]),
        kind("ipv4", "ipv4", &[("peer ", "203.189.176.142", " up"), ("", "203.189.76.142", "")]),
        kind("ipv6", "ipv6", &[("from ", "2a0b:97c4:e71f:d3::91be", ""), ("", "2a0b:97c4::91b", "")]),
        kind(
            "user-path",
            "user-path",
            &[("/home/", "zkq9wjxlvtj", "/Plans/x.odt"), ("/home/", "zkq9wjxj", "")],
        ),
        kind(
            "url-user-info",
            "url-user-info",
            &[("https://", "vjzqltqnq:Hy9-kwzp73", "@intra.host/x"), ("ftp://", "vjzqltqnq:Hy9", "@h")],
        ),
        kind(
            "bearer",
            "http-auth",
            &[("Authorization: Bearer ", "mF_9.B5fKq-4.1JqMxz7W", ""), ("Bearer ", "mF_9.B5fKq-4.1", "")],
        ),
        kind("basic", "http-auth", &[("Authorization: Basic ", basic, ""), ("Basic ", basic, "")]),
        kind("jwt", "jwt", &[("tok=", jwt, ";"), ("", jwt, "")]),
        kind(
            "pem",
            "pem-private-key",
            &[("-----BEGIN PRIVATE KEY-----\n", pem, "\n-----END PRIVATE KEY-----\n")],
        ),
        kind("aws-key-id", "aws-key-id", &[("id ", &aws, "."), ("", &aws, "")]),
        kind("aws-secret", "aws-secret", &[("aws secret ", "vJ8/zKz3Qw+7LmNpRt5YhGbFcDqAv2uIoZkXq9Wj", "")]),
        kind("github", "github-token", &[("git ", &github, "."), ("", &github, "")]),
        kind("slack", "slack-token", &[("im ", &slack, "."), ("", &slack, ""), ("", &slack[..15], "")]),
        kind("stripe", "stripe-key", &[("pay ", &stripe, "."), ("", &stripe, ""), ("", &stripe[..19], "")]),
        kind("known-value", "known-value", &[("for ", SECRET, " too"), ("", SECRET, "")]),
        kind("user-name", "known-value", &[("hi ", USER, ", you"), ("", USER, "")]),
        kind("home", "known-value", &[("cd ", HOME, "/x.txt"), ("", HOME, "")]),
        kind("host-name", "known-value", &[("at ", HOST, " up"), ("", HOST, "")]),
    ]
}

fn kind(name: &'static str, rule: &'static str, forms: &[(&str, &str, &str)]) -> Kind {
    let form = |(before, secret, after): &(&str, &str, &str)| Form {
        before: (*before).to_owned(),
        secret: (*secret).to_owned(),
        after: (*after).to_owned(),
    };
    Kind { name, rule, forms: forms.iter().map(form).collect() }
}

/// Appends the check digit of ISO/IEC 7812-1.
fn with_luhn(digits: &str) -> String {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(index, byte)| {
            let doubled = u32::from(byte - b'0') * if index % 2 == 0 { 2 } else { 1 };
            doubled / 10 + doubled % 10
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

fn spaced(card: &str) -> String {
    [&card[..4], &card[4..8], &card[8..12], &card[12..]].join(" ")
}

/// Puts in the check digits of ISO 13616 (mod 97).
fn iban(country: &str, account: &str) -> String {
    let rearranged = format!("{account}{country}00");
    let remainder = rearranged.chars().fold(0, |remainder, character| {
        let value = character.to_digit(36).unwrap();
        (remainder * if value > 9 { 100 } else { 10 } + value) % 97
    });
    format!("{country}{:02}{account}", 98 - remainder)
}
