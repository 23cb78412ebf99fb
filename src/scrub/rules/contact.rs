//! E-mail addresses.
#![forbid(unsafe_code)]

use super::{Hit, end_of, start_of};

pub(super) const EMAIL: &str = "email";

/// What follows a dot in file names and units that are written with `@`: "icon@2x.png", "getty@tty1.service".
const NO_TOP_LEVEL_DOMAIN: &[&[u8]] = &[
    b"png", b"jpg", b"jpeg", b"gif", b"webp", b"svg", b"service", b"socket", b"timer", b"mount", b"slice",
    b"scope", b"target", b"device", b"path", b"swap",
];

/// `local@label.tld` (RFC 5321, section 4.1.2, unquoted), with non-ASCII letters (RFC 6531) in both parts.
pub(super) fn email(line: &[u8], hits: &mut Vec<Hit>) {
    let mut floor = 0;
    for at in memchr::memchr_iter(b'@', line) {
        // Neither part holds an '@', so each character is looked at twice at most.
        let start = start_of(line, floor, at, is_local);
        let end = domain_end(&line[at + 1..]).map(|length| at + 1 + length);
        if let Some(end) = end
            && line[start..at].iter().any(|&byte| byte.is_ascii_alphanumeric() || byte >= 0x80)
        {
            hits.push(Hit { range: start..end, rule: EMAIL });
        }
        floor = at + 1;
    }
}

/// All `atext` of RFC 5322 but what separates fields in URLs and logs (`=`, `/`, `?`, `|`, braces, grave accent).
fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b".!#$%&'*+-^_~".contains(&byte)
}

/// The length of the domain name that `rest` begins with.
fn domain_end(rest: &[u8]) -> Option<usize> {
    let whole = end_of(rest, 0, |b| b.is_ascii_alphanumeric() || b >= 0x80 || b == b'-' || b == b'.');
    let (mut start, mut end) = (0, None);
    for label in rest[..whole].split(|&byte| byte == b'.') {
        if label.is_empty() {
            break;
        }
        let letters = label.iter().take_while(|&&b| b.is_ascii_alphabetic() || b >= 0x80).count();
        let file = NO_TOP_LEVEL_DOMAIN.iter().any(|no| label.eq_ignore_ascii_case(no));
        // Behind the letters there may be leftovers of an older text: they go too.
        if start > 0 && letters >= 2 && !file {
            end = Some(start + label.len());
        }
        start += label.len() + 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn addresses() {
        check(
            super::email,
            &[
                "«wilhelmina.vogel@example.com»",
                "<«a@b.co»>,«x.y+tag@sub.example.co.uk»; mailto:«o'neill@example.org»?x",
                "email=«jane@example.com»&x",
                "{\"e\":\"«jane_doe-1@ex-ample.io»\"}",
                "\"«jürgen@müller.de»\"",
                "«root@mail.example.com». Next",
                "«a@example.com»..",
                "«a@example.xn--p1ai»",
                "«a@b.comGARBAGE9»",
                "//user:«pass@db.example.com»/x",
                "«a@b.com.12»".replace(".12»", "».12").as_str(),
                "(«john.smith@example.museum»)",
            ],
        );
    }

    #[test]
    fn no_addresses() {
        check(
            super::email,
            &[
                "icon@2x.png",
                "getty@tty1.service",
                "lodash@4.17.21",
                "memcpy@@GLIBC_2.14",
                "user@localhost",
                "@example.com",
                "a@",
                "a@b",
                "a@.com",
                "yaml.v2@v2.4.0",
                "@@@@",
                "-@-.-",
            ],
        );
    }
}
