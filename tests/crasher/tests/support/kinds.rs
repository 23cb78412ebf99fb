//! Kinds of personal data and secrets, and values of them that occur nowhere else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

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
pub(crate) const USER: &str = "vq7ossenkramp";
/// `HOME`. Not below /home, so that no other rule than the known value finds it.
pub(crate) const HOME: &str = "/wq/Xaverl9";
/// `HOSTNAME`.
pub(crate) const HOST: &str = "zwj4-kryxtop";
/// `--secret`.
pub(crate) const SECRET: &str = "Ydrz7 Quellmalz-Vexo";

/// All kinds. No two values share eight bytes, in any encoding.
pub(crate) fn all() -> Vec<Kind> {
    let kind = |name, rule, forms: &[(&str, &str, &str)]| Kind {
        name,
        rule,
        forms: forms
            .iter()
            .map(|(before, secret, after)| Form {
                before: (*before).to_owned(),
                secret: (*secret).to_owned(),
                after: (*after).to_owned(),
            })
            .collect(),
    };
    let card = with_luhn("453957817023664");
    let basic = "enF2bHRhbjpIeDlrd3lwNzM="; // "zqvltan:Hx9kwyp73"
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJadnE3d3hqIn0.W7kQzXv93hJpLt5MbYcR";
    // Not a key of anything: the letters of no DER.
    let pem = "Qz7vK2mXw9pTjL4hYbN8rGdF3sAcZ5uEoIqWnVxHt6kJyMgRfPzDl1CbSaUeOiTr\n\
               7XvWq3KzPn9LmYj2HtGr5FdSb8NcVx4MzQw6TyEk1JhUgRoIfPaLdZsCvXbWeQnM";
    vec![
        kind(
            "e-mail",
            "email",
            &[("to ", "quirk.ahlzfeldt77@mxz4.zyxtorp.example", " now"), ("", "jq7z@wkx4.vyz", "")],
        ),
        kind("payment-card", "payment-card", &[("card ", &spaced(&card), " exp"), ("", &card, "")]),
        kind("iban", "iban", &[("", &iban("GB", "WQZX60813319268174"), "")]),
        kind("us-ssn", "us-ssn", &[("ssn ", "618-43-7529", ""), ("", "618-43-7529", "")]),
        kind("ipv4", "ipv4", &[("peer ", "203.189.176.142", " up"), ("", "203.189.176.142", "")]),
        kind("ipv6", "ipv6", &[("from ", "2a0b:97c4:e71f:d3::91be", "")]),
        kind("user-path", "user-path", &[("/home/", "zkq9wexlytj", "/Plans/x.odt"), ("/home/", "zkq9wexlj", "")]),
        kind(
            "url-user-info",
            "url-user-info",
            &[("https://", "vjzoltanq:Hy9-kwzp73", "@intra.host/x"), ("ftp://", "vjzoltanq:Hy9", "@q")],
        ),
        kind(
            "bearer",
            "http-auth",
            &[("Authorization: Bearer ", "mF_9.B5fKq-4.1JqMxz7W", ""), ("Bearer ", "mF_9.B5fKq-4.1", "")],
        ),
        kind("basic", "http-auth", &[("Authorization: Basic ", basic, "")]),
        kind("jwt", "jwt", &[("token=", jwt, ";"), ("", jwt, "")]),
        kind("pem", "pem-private-key", &[("-----BEGIN PRIVATE KEY-----\n", pem, "\n-----END PRIVATE KEY-----\n")]),
        kind("aws-key-id", "aws-key-id", &[("id ", concat!("AK", "IAZQ7VWEXLYT4KD2MN"), ""), ("", concat!("AK", "IAZQ7VWEXLYT4KD2MN"), "")]),
        kind("aws-secret", "aws-secret", &[("aws_secret_access_key=", "vJ8/xKz3Qw+7LmNpRt5YhGbFcDsAe2uIoZkXq9Wj", "")]),
        kind("github", "github-token", &[("", concat!("gh", "p_Zx7QvK9mWpTj3hLbN5rYdGsFcA8uEoIq2nVt"), "")]),
        kind("slack", "slack-token", &[("", concat!("xo", "xb-739184620517-Wq8ZkVx3mTjPn6Ry"), ""), ("", concat!("xo", "xb-7391846205"), "")]),
        kind("stripe", "stripe-key", &[("", concat!("sk_", "live_8KzQw3VxTj6mRyPn9LbYdGh5"), ""), ("", concat!("sk_", "live_8KzQw3VxTj6"), "")]),
        kind("known-value", "known-value", &[("for ", SECRET, " only"), ("", SECRET, "")]),
        kind("user-name", "known-value", &[("hello ", USER, ", you"), ("", USER, "")]),
        kind("home", "known-value", &[("open ", HOME, "/x.txt"), ("", HOME, "")]),
        kind("host-name", "known-value", &[("at ", HOST, " up"), ("", HOST, "")]),
    ]
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
