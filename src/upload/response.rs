//! What a server's reply means. Acceptance is parsed, never assumed from a status.
#![forbid(unsafe_code)]

use serde_json::Value;

use super::http_date;
use crate::config::Protocol;

/// A reply, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The first bytes of the body.
    pub body: Vec<u8>,
}

/// The meaning of a reply, or of its absence. All text is short, printable and fit for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server has stored the report under this name.
    Accepted {
        /// The server's name for it.
        server_id: String,
    },
    /// The server took it and threw it away by a rule of its own: trying again changes nothing.
    Discarded {
        /// The server's word.
        reason: String,
    },
    /// Not now.
    Later {
        /// Cause and way out.
        reason: String,
        /// How long the server wants to be left alone.
        retry_after: Option<RetryAfter>,
        /// Whether other reports would fare the same.
        scope: Scope,
    },
    /// Not this report, or not with this configuration.
    Rejected {
        /// Cause and way out.
        reason: String,
    },
}

/// What a temporary failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This report only, as far as one can tell.
    Report,
    /// The server or the way to it: no use in sending the next report now.
    Destination,
}

/// A `Retry-After` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Seconds from now.
    Seconds(u64),
    /// A point in time, Unix seconds.
    At(u64),
}

/// Reads a reply. `now_ms` (Unix time) is used only for dates with a two-digit year.
pub fn classify(protocol: Protocol, reply: &Reply, now_ms: u64) -> Outcome {
    let retry_after = reply.retry_after.as_deref().and_then(|text| retry_after(text, now_ms / 1_000));
    let later = |scope, reason: String| Outcome::Later { reason, retry_after, scope };
    let status = reply.status;
    match status {
        200..=299 => match accepted(protocol, &reply.body) {
            Parsed::Accepted(server_id) => Outcome::Accepted { server_id },
            Parsed::Discarded(reason) => Outcome::Discarded { reason },
            Parsed::Unknown => later(Scope::Destination, unparsed(reply)),
        },
        300..=399 => later(
            Scope::Destination,
            format!("status {status}: redirects are not followed; configure the final https URL"),
        ),
        408 | 425 => later(Scope::Report, format!("status {status}{}", quoted(&reply.body))),
        429 => later(Scope::Destination, "status 429: the server's rate limit is reached".to_owned()),
        503 if protocol == Protocol::Backtrace => later(
            Scope::Destination,
            "status 503: busy, or the URL's universe or format is wrong (Backtrace answers both alike)"
                .to_owned(),
        ),
        // 500 may be about this report alone. But where it is not, every report would ask a server in trouble at once;
        // and where it is, the report waits longer each time while the others go ahead.
        500..=599 => later(Scope::Destination, format!("status {status}{}", quoted(&reply.body))),
        400 => rejected(status, "the server finds the report malformed", reply),
        401 | 403 => {
            rejected(status, "the server does not know the token; check the destination's URL", reply)
        }
        404 | 405 | 410 => rejected(status, "nobody takes reports there; check the destination's URL", reply),
        413 => {
            rejected(status, "the report is too large for the server; lower the detail or its limit", reply)
        }
        415 => rejected(status, "the server does not take this kind of body; check the protocol", reply),
        _ => rejected(status, "the server does not want it", reply),
    }
}

/// Text of a server, cut to 80 characters, without anything that could break or forge a log line.
pub fn sanitise(text: &str) -> String {
    let mut clean: String =
        text.chars().take(80).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    if text.chars().nth(80).is_some() {
        clean.push_str("...");
    }
    clean
}

enum Parsed {
    Accepted(String),
    Discarded(String),
    Unknown,
}

fn accepted(protocol: Protocol, body: &[u8]) -> Parsed {
    let Ok(text) = std::str::from_utf8(body) else { return Parsed::Unknown };
    let text = text.trim();
    let id = match protocol {
        Protocol::Crashpad => match form_reply(text) {
            Parsed::Unknown => json_id(text, "id").or_else(|| json_id(text, "crash_id")),
            known => return known,
        },
        Protocol::Backtrace => match serde_json::from_str::<Value>(text) {
            Ok(json) if json.get("response").and_then(Value::as_str) == Some("ok") => {
                json.get("_rxid").and_then(Value::as_str).and_then(identifier)
            }
            _ => None,
        },
    };
    id.map_or(Parsed::Unknown, Parsed::Accepted)
}

/// Antenna's lines (`CrashID=bp-...`, `Discarded=rule_...`; unknown keys are ignored), else an id alone, as classic
/// Breakpad servers answer.
fn form_reply(text: &str) -> Parsed {
    let value = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    // A discard wins: a reply that says both has thrown the report away.
    if let Some(reason) = value("Discarded=") {
        return Parsed::Discarded(sanitise(reason));
    }
    let named = value("CrashID=").and_then(identifier);
    // Nothing but hexadecimal digits and hyphens, long enough to be no number or word.
    let bare = || {
        let hex = |t: &str| t.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
        let plain = text.strip_prefix("bp-").unwrap_or(text);
        (hex(plain) && digits >= 16).then(|| identifier(text)).flatten()
    };
    named.or_else(bare).map_or(Parsed::Unknown, Parsed::Accepted)
}

fn json_id(text: &str, key: &str) -> Option<String> {
    match serde_json::from_str::<Value>(text).ok()?.get(key)? {
        Value::String(id) => identifier(id),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// A server's name for a report: a word without surprises.
fn identifier(text: &str) -> Option<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    (!text.is_empty() && text.len() <= 128 && text.bytes().all(word)).then(|| text.to_owned())
}

fn unparsed(reply: &Reply) -> String {
    let status = reply.status;
    let html = reply.content_type.as_deref().is_some_and(|t| t.to_ascii_lowercase().contains("html"))
        || reply.body.trim_ascii_start().first() == Some(&b'<');
    if html {
        return format!("status {status} with a web page: a captive portal or the wrong URL answered");
    }
    if reply.body.trim_ascii().is_empty() {
        return format!("status {status} without a word of acceptance: check the destination's URL");
    }
    format!("status {status}, but not this protocol's acceptance{}", quoted(&reply.body))
}

fn rejected(status: u16, meaning: &str, reply: &Reply) -> Outcome {
    Outcome::Rejected { reason: format!("status {status}: {meaning}{}", quoted(&reply.body)) }
}

/// The first line of a body as `: "..."`, or nothing.
fn quoted(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(512)).unwrap_or_default());
    match text.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) if !line.starts_with('<') => format!(" (it said \"{}\")", sanitise(line)),
        _ => String::new(),
    }
}

fn retry_after(text: &str, now: u64) -> Option<RetryAfter> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than 64 bits hold still mean "long".
        return Some(RetryAfter::Seconds(text.parse().unwrap_or(u64::MAX)));
    }
    http_date::parse(text, now).map(RetryAfter::At)
}

#[cfg(test)]
mod tests;
