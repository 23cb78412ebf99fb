//! Network addresses, and names and passwords in URLs.
#![forbid(unsafe_code)]

use std::net::Ipv6Addr;

use super::{Hit, before, end_of, preceded_by, start_of};

pub(super) const USER_INFO: &str = "url-user-info";

/// Dotted quads, but for loopback, unspecified and broadcast ones, and those that are said to be versions.
pub(super) fn ipv4(line: &[u8], hits: &mut Vec<Hit>) {
    let mut at = 0;
    while let Some(start) = line[at..].iter().position(u8::is_ascii_digit).map(|skip| at + skip) {
        // The whole series of digits and dots decides, so that "1.2.3.4.5" is nothing.
        let series = end_of(line, start, |byte| byte.is_ascii_digit() || byte == b'.');
        at = series;
        let end = start + line[start..series].iter().rposition(|&b| b != b'.').map_or(0, |last| last + 1);
        if let Some(quad) = quad(&line[start..end])
            && before(line, start) != Some(b'.')
            && !(quad[0] == 127 || quad == [0; 4] || quad == [255; 4])
            && !is_version(line, start, end)
        {
            hits.push(Hit { range: start..end, rule: "ipv4" });
        }
    }
}

fn quad(text: &[u8]) -> Option<[u8; 4]> {
    if !(7..=15).contains(&text.len()) {
        return None;
    }
    let mut quad = [0; 4];
    let mut parts = text.split(|&byte| byte == b'.');
    for value in &mut quad {
        let part = parts.next().filter(|part| (1..=3).contains(&part.len()))?;
        let number = part
            .iter()
            .try_fold(0u16, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u16::from(byte - b'0')));
        *value = u8::try_from(number?).ok()?;
    }
    parts.next().is_none().then_some(quad)
}

fn is_version(line: &[u8], start: usize, end: usize) -> bool {
    let file = |suffix: &[u8]| line[end..].starts_with(suffix);
    matches!(before(line, start), Some(b'v' | b'V'))
        || preceded_by(line, start, 10, &["version", "ver=", "ver.", "ver ", "ver:"])
        || file(b".so")
        || file(b".dll")
        || file(b".tar")
}

/// Addresses of RFC 4291, section 2.2, but for loopback and unspecified.
pub(super) fn ipv6(line: &[u8], hits: &mut Vec<Hit>) {
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    let mut floor = 0;
    for colon in memchr::memchr_iter(b':', line) {
        if colon < floor {
            continue;
        }
        let start = start_of(line, floor, colon, is_part);
        let end = end_of(line, colon, is_part);
        floor = end;
        if end - start < 3 || end - start > 80 || line.get(end).is_some_and(|&b| is_word(b)) {
            continue;
        }
        if let Some(range) = address(line, start, end) {
            hits.push(Hit { range, rule: "ipv6" });
        }
    }
}

fn address(line: &[u8], mut start: usize, mut end: usize) -> Option<std::ops::Range<usize>> {
    // The tail of a word such as "node:" is no group; a name such as "std::a" is no address.
    if before(line, start).is_some_and(is_word) {
        start += line[start..end].iter().position(|&byte| byte == b':')?;
        if line[start..end].starts_with(b"::") {
            return None;
        }
    }
    if line[start..end].starts_with(b":") && !line[start..end].starts_with(b"::") {
        start += 1;
    }
    while end > start
        && (line[end - 1] == b'.' || (line[end - 1] == b':' && !line[start..end].ends_with(b"::")))
    {
        end -= 1;
    }
    let text = std::str::from_utf8(&line[start..end]).ok()?;
    let address: Ipv6Addr = text.parse().ok()?;
    let groups = text.split(':').filter(|group| !group.is_empty()).count();
    let long_first = text.bytes().take_while(u8::is_ascii_hexdigit).count() >= 3;
    // "a::b" is a name in many languages.
    let plausible = text.bytes().any(|byte| byte.is_ascii_digit())
        && (groups >= 3 || (groups == 2 && long_first) || text.contains('.'));
    // Eight pairs are a digest or an EUI-64: addresses are written without leading zeros, or with four digits.
    let pairs = text.len() == 23 && text.split(':').all(|group| group.len() == 2);
    (plausible && !pairs && !address.is_loopback() && !address.is_unspecified()).then_some(start..end)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Six pairs of hexadecimal digits (IEEE 802 MAC-48) with colons or dashes, but for all-zero and broadcast ones and the one that
/// manuals use.
pub(super) fn mac(line: &[u8], hits: &mut Vec<Hit>) {
    let part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'-';
    let mut floor = 0;
    for at in memchr::memchr2_iter(b':', b'-', line) {
        if at < floor + 2 {
            continue;
        }
        let start = at - 2;
        let Some(text) = line.get(start..start + 17) else { break };
        let shape = text
            .iter()
            .enumerate()
            .all(|(i, &b)| if i % 3 == 2 { b == text[2] } else { b.is_ascii_hexdigit() });
        if !shape {
            continue;
        }
        // What is longer is a digest or an address of another kind.
        let (first, last) = (start_of(line, floor, start, part), end_of(line, start, part));
        floor = last;
        let inside = before(line, first).is_some_and(is_word) || line.get(last).copied().is_some_and(is_word);
        let same = text.iter().enumerate().all(|(i, byte)| i % 3 == 2 || *byte == text[0]);
        if first == start && last == start + 17 && !inside && !same && text != b"00:11:22:33:44:55" {
            hits.push(Hit { range: start..last, rule: "mac" });
        }
    }
}

/// Three groups of four hexadecimal digits with dots between, as routers print a MAC address: letters of one case and digits, and nothing
/// that goes on, or it is a version or part of a name.
pub(super) fn dotted_mac(line: &[u8], hits: &mut Vec<Hit>) {
    let mut floor = 0;
    for dot in memchr::memchr_iter(b'.', line) {
        let Some(start) = dot.checked_sub(4).filter(|&start| start >= floor) else { continue };
        let Some(text) = line.get(start..start + 14) else { break };
        let digits = || text.iter().enumerate().filter(|(at, _)| at % 5 != 4).map(|(_, byte)| byte);
        if text[9] != b'.' || !digits().all(u8::is_ascii_hexdigit) {
            continue;
        }
        let goes_on = |byte: u8| is_word(byte) || byte == b'-' || byte == b':' || byte == b'/';
        let behind = &line[start + 14..];
        let inside = before(line, start).is_some_and(|byte| goes_on(byte) || byte == b'.')
            || match behind {
                [b'.', next, ..] => is_word(*next),
                [next, ..] => goes_on(*next),
                [] => false,
            };
        let has = |class: fn(&u8) -> bool| digits().any(class);
        let mixed = has(u8::is_ascii_digit) && (has(u8::is_ascii_lowercase) != has(u8::is_ascii_uppercase));
        if mixed && !inside {
            hits.push(Hit { range: start..start + 14, rule: "mac" });
            floor = start + 14;
        }
    }
}

/// `user` or `user:password` between `://` and `@` (RFC 3986, section 3.2.1).
pub(super) fn url_user_info(line: &[u8], hits: &mut Vec<Hit>) {
    for scheme in memchr::memmem::find_iter(line, b"://") {
        let start = scheme + 3;
        // A slash ends the authority, so the search never passes the next "://".
        let end = end_of(line, start, |b| b > b' ' && b != 0x7f && !b"/?#\"'<>\\`".contains(&b));
        if let Some(length) = line[start..end].iter().rposition(|&byte| byte == b'@')
            && length > 0
            && before(line, scheme).is_some_and(|byte| byte.is_ascii_alphanumeric())
        {
            hits.push(Hit { range: start..start + length, rule: USER_INFO });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn quads() {
        check(
            ipv4,
            &[
                "«203.0.113.7»",
                "from «10.0.0.1»:8080 to «192.168.1.254».",
                "[«8.8.8.8»]",
                "ip=«1.2.3.4»,",
                "-«172.16.0.9»/24",
                "release «10.0.0.5»",
                "ffff:«198.51.100.4»",
                "x«10.1.2.3»y",
            ],
        );
        check(
            ipv4,
            &[
                "127.0.0.1",
                "0.0.0.0",
                "255.255.255.255",
                "1.2.3",
                "1.2.3.4.5",
                "256.1.1.1",
                "v1.2.3.4",
                "Version=4.0.0.0",
                "libicu.so.1.2.3.4",
                "lib-1.2.3.4.so",
                "1.2.3.1000",
                "1..2.3",
                "0.12345",
                "version: 10.2.3.4",
            ],
        );
    }

    #[test]
    fn addresses() {
        check(
            ipv6,
            &[
                "«2001:db8::8a2e:370:7334»",
                "[«fe80::1»]:443",
                "«2001:0db8:85a3:0000:0000:8a2e:0370:7334».",
                "addr:«2001:db8::1»",
                "node:«2001:db8::1:2»: down",
                "«::ffff:198.51.100.4»",
                "peer «fd00:1:2::» x",
                "«fe80::1ff:fe23:4567:890a»%eth0",
            ],
        );
        check(
            ipv6,
            &[
                "::1",
                "::",
                "std::a",
                "a::b",
                "12:34:56",
                "core::dec2::x",
                "00:11:22:33:44:55",
                "abc::def",
                "x::1f::2",
                "de:ad:be:ef:de:ad:be:ef:00:11",
                "f::1",
                "cafe::beef",
                "1:2",
                ":::::",
                "face::2g",
            ],
        );
    }

    #[test]
    fn hardware_addresses() {
        check(
            mac,
            &[
                "hw «4c:5d:01:64:ed:de» up",
                "«4C-5D-01-64-ED-DE»",
                "mac=«4c:5d:01:64:ed:de»;",
                "00:11:22:33:44:55",
                "ff:ff:ff:ff:ff:ff",
                "4c:5d:01:64:ed",
                "4c:5d:01:64:ed:de:01",
                "x4c:5d:01:64:ed:de",
                "4c:5d-01:64:ed:de",
                "10-20-30",
                "550e8400-e29b-41d4-a716-446655440000",
                "12:34:56",
            ],
        );
    }

    #[test]
    fn hardware_addresses_of_routers() {
        check(
            dotted_mac,
            &[
                "mac «4c5d.0164.edde» DYNAMIC",
                "«4C5D.0164.EDDE».",
                "(«0050.56be.6e01»)",
                "10 «4c5d.0164.edde» «4c5d.0164.eddf»",
                "4c5d.0164.EDDE",
                "2024.1115.1230",
                "dead.beef.cafe",
                "x4c5d.0164.edde",
                "4c5d.0164.eddef",
                "4c5d.0164.edde.0001",
                "1.4c5d.0164.edde",
                "v-4c5d.0164.edde",
                "4c5d.0164.edde-rc1",
                "lib/4c5d.0164.edde",
                "4c5d.0164",
                "4c5d.01640.edd",
                "4c5d.0164.edge",
            ],
        );
    }

    #[test]
    fn user_info() {
        check(
            url_user_info,
            &[
                "https://«alice:hunter2»@example.com/x@y",
                "ftp://«bob»@host",
                "postgres://«u:p@ss»@db:5432/x?y=z@w",
                "a://«x»@b c://«y»@d",
            ],
        );
        check(
            url_user_info,
            &["https://example.com/@user", "https://@host", "://a@b", "http://h?m=a@b.co", "x@y://z"],
        );
    }
}
