//! A small HTTP/1.1 server's reading side (RFC 9112): one request a connection, everything bounded.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read, Write};

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of request line, headers and trailers.
    pub(crate) head: usize,
    /// Bytes of the body on the wire.
    pub(crate) body: usize,
}

/// A request with its body, transfer coding removed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came in chunks.
    pub(crate) chunked: bool,
}

/// Why a request was not read to its end, and the status that says so.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

impl Request {
    /// The first header of this (lower-case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// Reads one request. What was read before a refusal stays in `request`, so that it can be recorded.
///
/// `Ok(false)` if the peer closed without a byte.
pub(crate) fn read<S: Read + Write>(
    stream: &mut BufReader<S>,
    limits: Limits,
    request: &mut Request,
) -> Result<bool, Refusal> {
    let mut budget = limits.head;
    let mut first = line(stream, &mut budget)?;
    // A client may send empty lines ahead (RFC 9112, section 2.2).
    while first.as_deref() == Some("") {
        first = line(stream, &mut budget)?;
    }
    let Some(first) = first else { return Ok(false) };
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(refuse(400, "the first line is no request line"));
    };
    method.clone_into(&mut request.method);
    target.clone_into(&mut request.target);
    if !version.starts_with("HTTP/1.") || !is_token(method) || target.is_empty() {
        return Err(refuse(400, "the first line is no HTTP/1 request line"));
    }
    headers(stream, &mut budget, &mut request.headers)?;
    let length = content_length(request)?;
    if request.values("transfer-encoding").next().is_some() {
        if length.is_some() {
            return Err(refuse(400, "both Content-Length and Transfer-Encoding"));
        }
        if request.values("transfer-encoding").any(|v| !v.trim().eq_ignore_ascii_case("chunked")) {
            return Err(refuse(501, "a transfer coding other than chunked"));
        }
        request.chunked = true;
    }
    if length.is_some_and(|length| length > limits.body) {
        return Err(refuse(413, "the body is larger than the limit"));
    }
    if request.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
        let stream = stream.get_mut();
        stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .and_then(|()| stream.flush())
            .map_err(|e| broken(&e))?;
    }
    if request.chunked {
        chunks(stream, limits, &mut budget, &mut request.body)?;
    } else if let Some(length) = length {
        exactly(stream, length, &mut request.body)?;
    }
    Ok(true)
}

fn headers<S: Read>(
    stream: &mut BufReader<S>,
    budget: &mut usize,
    into: &mut Vec<(String, String)>,
) -> Result<(), Refusal> {
    loop {
        let Some(text) = line(stream, budget)? else {
            return Err(refuse(400, "the connection ended within the headers"));
        };
        if text.is_empty() {
            return Ok(());
        }
        let Some((name, value)) = text.split_once(':') else {
            return Err(refuse(400, "a header line without a colon"));
        };
        // A folded line starts with white space and is refused here too (RFC 9112, section 5.2).
        if !is_token(name) {
            return Err(refuse(400, "a header name with characters that no name has"));
        }
        if into.len() >= 200 {
            return Err(refuse(431, "more than 200 headers"));
        }
        into.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

fn content_length(request: &Request) -> Result<Option<usize>, Refusal> {
    let mut length = None;
    for value in request.values("content-length") {
        let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let Some(this) = digits.then(|| value.parse::<usize>().ok()).flatten() else {
            return Err(refuse(400, "a Content-Length that is no number"));
        };
        if length.is_some_and(|length| length != this) {
            return Err(refuse(400, "two different Content-Lengths"));
        }
        length = Some(this);
    }
    Ok(length)
}

/// Adds `length` bytes to `body`. Memory grows with what arrives, not with what was announced.
fn exactly<S: Read>(stream: &mut BufReader<S>, length: usize, body: &mut Vec<u8>) -> Result<(), Refusal> {
    let wanted = u64::try_from(length).unwrap_or(u64::MAX);
    let got = stream.by_ref().take(wanted).read_to_end(body).map_err(|e| broken(&e))?;
    if got == length { Ok(()) } else { Err(refuse(400, "the connection ended within the body")) }
}

fn chunks<S: Read>(
    stream: &mut BufReader<S>,
    limits: Limits,
    budget: &mut usize,
    body: &mut Vec<u8>,
) -> Result<(), Refusal> {
    loop {
        // Each size line has its own small budget: their number is bounded by the body's limit, as every chunk but the
        // last has at least a byte.
        let mut line_budget = 256;
        let text = line(stream, &mut line_budget)?.unwrap_or_default();
        let digits = text.split(';').next().unwrap_or_default().trim();
        let hex = !digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let Some(size) = hex.then(|| usize::from_str_radix(digits, 16).ok()).flatten() else {
            return Err(refuse(400, "a chunk size that is no hexadecimal number"));
        };
        if size == 0 {
            return headers(stream, budget, &mut Vec::new());
        }
        if body.len().checked_add(size).is_none_or(|total| total > limits.body) {
            return Err(refuse(413, "the body is larger than the limit"));
        }
        exactly(stream, size, body)?;
        let mut end = Vec::new();
        exactly(stream, 2, &mut end)?;
        if end != b"\r\n" {
            return Err(refuse(400, "a chunk that is longer than its size"));
        }
    }
}

/// One line without its end, or `None` at the end of the stream. Bytes that are no UTF-8 are replaced.
fn line<S: Read>(stream: &mut BufReader<S>, budget: &mut usize) -> Result<Option<String>, Refusal> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(*budget).unwrap_or(u64::MAX);
    let read = stream.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(|e| broken(&e))?;
    *budget -= read;
    if read == 0 && *budget > 0 {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(match *budget {
            0 => refuse(431, "the headers are larger than the limit"),
            _ => refuse(400, "the connection ended within a line"),
        });
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn refuse(status: u16, reason: &str) -> Refusal {
    Refusal { status, reason: reason.to_owned() }
}

fn broken(error: &io::Error) -> Refusal {
    let late = matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
    if late {
        refuse(408, "the request did not arrive in time")
    } else {
        refuse(400, &format!("the connection broke: {error}"))
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
