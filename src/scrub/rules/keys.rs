//! Secrets with an inner structure: HTTP authorization, JSON Web Tokens, PEM private keys.
#![forbid(unsafe_code)]

use super::{Hit, before, end_of};

pub(in crate::scrub) const HTTP_AUTH: &str = "http-auth";

/// Schemes whose credentials are one token (RFC 6750, RFC 7617, RFC 4559, and what services made up).
const ONE_TOKEN: &[&[u8]] = &[
    b"bearer",
    b"basic",
    b"token",
    b"apikey",
    b"api-key",
    b"key",
    b"negotiate",
    b"ntlm",
    b"jwt",
    b"bot",
    b"splunk",
];
/// Schemes whose credentials are a list (RFC 7616, RFC 5849, RFC 9421, AWS Signature Version 4).
const LIST: &[&[u8]] =
    &[b"digest", b"oauth", b"signature", b"hawk", b"aws4-hmac-sha256", b"mac", b"gssapi", b"sharedkey"];

/// The value of an `Authorization` header or field whose name ends at `name_end`, without the scheme's name. Returns up to
/// where it looked.
pub(super) fn authorization(line: &[u8], name_end: usize, hits: &mut Vec<Hit>) -> usize {
    let quote_or_space = |byte: u8| b" \t\"'\\".contains(&byte);
    let separator = end_of(line, name_end, quote_or_space);
    if !matches!(line.get(separator), Some(b':' | b'=')) {
        return name_end;
    }
    let start = end_of(line, separator + 1, quote_or_space);
    let scheme = end_of(line, start, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is = |schemes: &[&[u8]]| schemes.iter().any(|known| line[start..scheme].eq_ignore_ascii_case(known));
    let value = end_of(line, scheme, |byte| byte == b' ' || byte == b'\t');
    let (start, end) = if value > scheme && is(ONE_TOKEN) {
        (value, end_of(line, value, is_value))
    } else if value > scheme && is(LIST) {
        (value, list_end(line, value))
    } else {
        (start, end_of(line, start, is_value))
    };
    if end - start >= 4 {
        hits.push(Hit { range: start..end, rule: HTTP_AUTH });
    }
    end.max(name_end)
}

/// The end of `name=value, name="value"` (RFC 9110, section 11.2) that begins at `start`; of what is no such list, the end of the
/// line.
fn list_end(line: &[u8], start: usize) -> usize {
    let (mut at, mut end) = (start, start);
    loop {
        let name = end_of(line, at, |byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte));
        if name == at || line.get(name) != Some(&b'=') {
            break;
        }
        end = match line.get(name + 1) {
            Some(b'"') => {
                let quoted = end_of(line, name + 2, |byte| byte != b'"' && byte != b'\n' && byte != b'\r');
                line.len().min(quoted + 1)
            }
            _ => end_of(line, name + 1, is_value),
        };
        let next = end_of(&line[..line.len().min(end + 4)], end, |byte| byte == b',' || byte == b' ');
        if !line[end..next].contains(&b',') {
            break;
        }
        at = next;
    }
    if end > start { end } else { end_of(line, start, |byte| byte != b'\n' && byte != b'\r') }
}

/// Longest name of a pair, in characters: what is longer before an equals sign is a value itself.
const LONGEST_NAME: usize = 24;

/// Calls `found` with each value of a list of `name=value` (RFC 6265, section 4.2.1; RFC 9110, section 11.2), and with what in it
/// is no such pair, whole.
pub(in crate::scrub) fn values_of_pairs(list: &[u8], mut found: impl FnMut(&[u8])) {
    for pair in list.split(|&byte| byte == b';' || byte == b',').map(<[u8]>::trim_ascii) {
        let name = end_of(pair, 0, |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let value = pair.get(name..).and_then(|rest| rest.strip_prefix(b"="));
        // Equals signs alone are the end of base64.
        let value = value.filter(|value| name <= LONGEST_NAME && value.iter().any(|&byte| byte != b'='));
        found(value.unwrap_or(pair));
    }
}

fn is_value(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && !b"\"'\\,;<>".contains(&byte)
}

/// `token68` of RFC 9110, section 11.2.
fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// The token behind a scheme's name, and its end; 8 characters at least.
fn token_behind(line: &[u8], start: usize, end: usize) -> (Option<std::ops::Range<usize>>, usize) {
    let value = end_of(line, end, |byte| byte == b' ' || byte == b'\t');
    let behind = end_of(line, value, is_token68);
    let word = before(line, start).is_some_and(|byte| byte.is_ascii_alphanumeric());
    let long = value > end && behind - value >= 8 && !word;
    (long.then_some(value..behind), if value > end { behind } else { end })
}

/// `Bearer TOKEN` (RFC 6750). A short word in one case is prose.
pub(super) fn bearer(line: &[u8], start: usize, end: usize, hits: &mut Vec<Hit>) -> usize {
    let (token, looked) = token_behind(line, start, end);
    if let Some(range) = token {
        let text = &line[range.clone()];
        let mixed = text.iter().skip(1).any(|byte| !byte.is_ascii_lowercase() && *byte != b'.');
        if mixed || text.len() >= 20 {
            hits.push(Hit { range, rule: HTTP_AUTH });
        }
    }
    looked
}

/// `Basic BASE64` (RFC 7617), if it decodes to text with a colon.
pub(super) fn basic(line: &[u8], start: usize, end: usize, hits: &mut Vec<Hit>) -> usize {
    let (token, looked) = token_behind(line, start, end);
    if let Some(range) = token
        && decodes_to_credentials(&line[range.clone()])
    {
        hits.push(Hit { range, rule: HTTP_AUTH });
    }
    looked
}

/// Whether base64 text holds a colon and no control characters, as far as it can be read.
fn decodes_to_credentials(text: &[u8]) -> bool {
    let (mut bits, mut count, mut colon) = (0u32, 0, false);
    for &byte in text.iter().take_while(|&&byte| byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return false,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            let decoded = (bits >> count) as u8;
            if decoded < b' ' {
                return false;
            }
            colon |= decoded == b':';
        }
    }
    colon
}

/// A JSON Web Token that begins at `start` (RFC 7519): a header that decodes to `{"`, a payload, a signature; or without
/// its signature, if the payload begins like a header. Returns up to where it looked.
pub(super) fn jwt(line: &[u8], start: usize, hits: &mut Vec<Hit>) -> usize {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !line[start..].starts_with(b"eyJ") {
        return 0;
    }
    let header = end_of(line, start, is_part);
    if line.get(header) != Some(&b'.') || header - start < 8 {
        return header;
    }
    let payload = end_of(line, header + 1, is_part);
    let (mut end, mut parts) = (payload, 2);
    // Encrypted tokens have five parts (RFC 7516).
    while parts < 5 && line.get(end) == Some(&b'.') {
        end = end_of(line, end + 1, is_part);
        parts += 1;
    }
    // A key may be empty in an encrypted one, the payload in a detached one.
    if parts > 2 || line[header + 1..].starts_with(b"eyJ") {
        hits.push(Hit { range: start..end, rule: "jwt" });
    }
    end
}

/// Follows the armour of private keys through a line (RFC 7468; OpenPGP's of RFC 9580).
#[derive(Default)]
pub(super) struct Pem {
    /// Where an open block began.
    open: Option<usize>,
    /// The end of the last block.
    floor: usize,
}

impl Pem {
    /// `-----BEGIN ` at `at`.
    pub(super) fn begin(&mut self, line: &[u8], at: usize, _hits: &mut Vec<Hit>) -> usize {
        if label_end(line, at).is_some() {
            self.open.get_or_insert(at);
        }
        0
    }

    /// `-----END ` at `at`: what is open ends, and what has no beginning began before the line.
    pub(super) fn end(&mut self, line: &[u8], at: usize, hits: &mut Vec<Hit>) -> usize {
        if let Some(end) = label_end(line, at) {
            let start = self.open.take().unwrap_or(self.floor);
            hits.push(Hit { range: start..end, rule: PEM });
            self.floor = end;
        }
        0
    }

    /// The line's end: what is open was cut off.
    pub(super) fn finish(self, line: &[u8], hits: &mut Vec<Hit>) {
        if let Some(start) = self.open {
            hits.push(Hit { range: start..line.len(), rule: PEM });
        }
    }
}

const PEM: &str = "pem-private-key";

/// The end of an armour line that names a private key, or that the line's end cuts off.
fn label_end(line: &[u8], at: usize) -> Option<usize> {
    let label = &line[at + 5..line.len().min(at + 80)];
    match label.windows(5).position(|window| window == b"-----") {
        Some(length) => {
            let private = label[..length].windows(11).any(|w| w.eq_ignore_ascii_case(b"PRIVATE KEY"));
            private.then_some(at + 5 + length + 5)
        }
        None if at + 80 >= line.len() && !label.contains(&b'\n') => Some(line.len()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, credentials as all};

    #[test]
    fn http_authorization() {
        check(
            all,
            &[
                "Authorization: Bearer «abcdef123456»",
                "authorization: bearer «x.y.z» Host: a",
                "\"Authorization\":\"Basic «YWxpY2U6aHVudGVyMg==»\"",
                "{\\\"authorization\\\":\\\"token «abc123»\\\"}",
                "Proxy-Authorization: Digest «username=\"alice\", realm=\"x\"»\nHost",
                "authorization=«s3cr3t»&x".replace("»&x", "&x»").as_str(),
                "curl -H 'Bearer «0123456789»' x",
                "Basic «YWxpY2U6aHVudGVyMg==» x",
                "bearer  «abcdefghijklmnopqrstu»",
            ],
        );
        check(
            all,
            &[
                "authorization failed",
                "Basic authentication",
                "bearer authentication",
                "Basic knowledge",
                "authorization: ",
                "forbearer 0123456789",
                "basic_string 1",
                "Bearer short1",
            ],
        );
    }

    #[test]
    fn names_in_lists_are_no_values() {
        let long = "n".repeat(super::LONGEST_NAME + 1) + "=v";
        for (list, expected) in [
            ("JSESSIONID=0123; state=IDLE", vec!["0123", "IDLE"]),
            ("username=\"alice\", uri=\"/a=b\"", vec!["\"alice\"", "\"/a=b\""]),
            ("YWxpY2U6aHVudGVyMg==", vec!["YWxpY2U6aHVudGVyMg=="]),
            ("a/b=c", vec!["a/b=c"]),
            ("=x", vec!["x"]),
            ("", vec![""]),
            (&long, vec![&long]),
        ] {
            let mut found = Vec::new();
            super::values_of_pairs(list.as_bytes(), |value| found.push(value.to_vec()));
            assert_eq!(found, expected.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(), "{list}");
        }
    }

    #[test]
    fn json_web_tokens() {
        check(
            all,
            &[
                "t=«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P»;",
                "«eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.»",
                "«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx»",
                "«eyJhbGciOiJkaXIifQ..48V1_ALb6US04U3b.5eym8TW.XFBoMYUZo»",
                "x«eyJhbGciOiJIUzI1NiJ9.e30.abc»",
            ],
        );
        check(
            all,
            &["eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJIUzI1NiJ9.json", "EYJhbGciOiJIUzI1NiJ9.a.b", "eyJ.a.b"],
        );
    }

    #[test]
    fn private_keys() {
        check(
            all,
            &[
                "a «-----BEGIN RSA PRIVATE KEY-----\nMIIE\nAAAA\n-----END RSA PRIVATE KEY-----»\nb",
                "«-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----»",
                "«-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n-----END PGP PRIVATE KEY BLOCK-----»",
                "x «-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz»",
                "«3BlbnNz\n-----END OPENSSH PRIVATE KEY-----» y",
                "x «-----BEGIN EC PRI»",
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN PUBLIC KEY-----\nMII",
            ],
        );
    }
}
