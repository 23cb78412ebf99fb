//! Reading `multipart/form-data` (RFC 7578 on RFC 2046), strictly: a development collector should find faults.
#![forbid(unsafe_code)]

use std::ops::Range;

use memchr::memmem;

/// More parts than any report has.
const PARTS_LIMIT: usize = 1000;
const HEAD_LIMIT: usize = 16 * 1024;

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) file_name: Option<String>,
    pub(crate) content_type: Option<String>,
    /// Where its content lies in the body.
    pub(crate) content: Range<usize>,
}

/// The boundary of a `multipart/form-data` content type; `None` for other types.
pub(crate) fn boundary(content_type: &str) -> Option<Result<String, String>> {
    let (kind, rest) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters(rest).into_iter().find(|(name, _)| name == "boundary").map(|(_, value)| value);
    Some(match boundary {
        Some(b) if !b.is_empty() && b.len() <= 70 && !b.contains(['\r', '\n']) => Ok(b),
        _ => Err("multipart/form-data without a boundary of 1 to 70 characters".to_owned()),
    })
}

/// The parts of a body.
pub(crate) fn parse(body: &[u8], boundary: &str) -> Result<Vec<Part>, String> {
    let delimiter = format!("--{boundary}");
    // Every delimiter but one at the very start follows a line end, which belongs to it.
    let inner = format!("\r\n{delimiter}");
    let finder = memmem::Finder::new(inner.as_bytes());
    let mut at = if body.starts_with(delimiter.as_bytes()) {
        delimiter.len()
    } else {
        let start = finder.find(body).ok_or("the boundary does not occur in the body")?;
        start + inner.len()
    };
    let mut parts = Vec::new();
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        if parts.len() >= PARTS_LIMIT {
            return Err(format!("more than {PARTS_LIMIT} parts"));
        }
        // White space may follow a boundary (RFC 2046, section 5.1.1).
        let padding = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        if !rest.get(padding..).unwrap_or_default().starts_with(b"\r\n") {
            return Err("a boundary that is not followed by a line end".to_owned());
        }
        // The line end stays, so that a part without headers has its empty line.
        let head_start = at + padding;
        let head = body.get(head_start..).unwrap_or_default();
        let window = head.get(..head.len().min(HEAD_LIMIT)).unwrap_or_default();
        let head_length = memmem::find(window, b"\r\n\r\n").ok_or("a part without an end of its headers")?;
        let start = head_start + head_length + 4;
        // A part may be empty: its delimiter's line end is then the one that ended the headers' empty line.
        let search = start - 2;
        let end = finder
            .find(body.get(search..).unwrap_or_default())
            .map(|found| search + found)
            .ok_or("the last part is not closed by a boundary")?;
        let text = String::from_utf8_lossy(head.get(..head_length).unwrap_or_default()).into_owned();
        parts.push(part(&text, start..end.max(start))?);
        at = end + inner.len();
    }
}

fn part(head: &str, content: Range<usize>) -> Result<Part, String> {
    let header = |wanted: &str| {
        head.lines().filter_map(|l| l.split_once(':')).find(|(n, _)| n.trim().eq_ignore_ascii_case(wanted))
    };
    let disposition = header("content-disposition").map(|(_, v)| v.trim()).unwrap_or_default();
    let (kind, rest) = disposition.split_once(';').unwrap_or((disposition, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err("a part without 'Content-Disposition: form-data'".to_owned());
    }
    let (mut name, mut file_name) = (None, None);
    for (key, value) in parameters(rest) {
        match key.as_str() {
            "name" => name = Some(value),
            "filename" => file_name = Some(value),
            _ => {}
        }
    }
    let name = name.ok_or("a part without a name")?;
    let content_type = header("content-type").map(|(_, v)| v.trim().to_owned());
    Ok(Part { name, file_name, content_type, content })
}

/// `; key=value; key="quoted value"`. Keys in lower case; of two equal keys the first counts for callers that `find`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let Some((key, after)) = rest.split_once('=') else { return found };
        let value;
        if let Some(quoted) = after.strip_prefix('"') {
            // Browsers and we write %22 for a quote; curl and RFC 2183 a backslash before it.
            let mut text = String::new();
            let mut end = quoted.len();
            let mut chars = quoted.char_indices();
            while let Some((index, c)) = chars.next() {
                match c {
                    '"' => {
                        end = index + 1;
                        break;
                    }
                    '\\' => text.extend(chars.next().map(|(_, c)| c)),
                    c => text.push(c),
                }
            }
            value = text;
            rest = quoted.get(end..).unwrap_or_default();
        } else {
            let end = after.find(';').unwrap_or(after.len());
            value = after.get(..end).unwrap_or_default().trim().to_owned();
            rest = after.get(end..).unwrap_or_default();
        }
        found.push((key.trim().to_ascii_lowercase(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Content-Disposition: form-data; name=";

    fn parsed(body: &str) -> Result<Vec<(String, Option<String>, String)>, String> {
        let parts = parse(body.as_bytes(), "B")?;
        Ok(parts.into_iter().map(|p| (p.name, p.file_name, body[p.content].to_owned())).collect())
    }

    #[test]
    fn parts_are_found() {
        let body = format!(
            "--B\r\n{HEAD}\"a\"\r\n\r\none\r\ntwo\r\n--B\r\n{HEAD}\"f\"; filename=\"x\\\"y.dmp\"\r\n\
             Content-Type: application/octet-stream\r\n\r\nMDMP\r\n--b\r\n--B \t\r\n{HEAD}empty\r\n\r\n\r\n--B--\r\n"
        );
        let expected = [
            ("a".to_owned(), None, "one\r\ntwo".to_owned()),
            ("f".to_owned(), Some("x\"y.dmp".to_owned()), "MDMP\r\n--b".to_owned()),
            ("empty".to_owned(), None, String::new()),
        ];
        assert_eq!(parsed(&body).unwrap(), expected);
        assert_eq!(parsed(&format!("preamble\r\n{body}epilogue")).unwrap(), expected);
        assert_eq!(parsed("--B--").unwrap(), []);
    }

    #[test]
    fn a_part_without_a_byte_between_headers_and_boundary() {
        assert_eq!(parsed(&format!("--B\r\n{HEAD}\"a\"\r\n\r\n--B--")).unwrap()[0].2, "");
    }

    #[test]
    fn faults_are_found() {
        for body in [
            String::new(),
            "--".to_owned(),
            "--B".to_owned(),
            "--B\r\n".to_owned(),
            "--Bx\r\n".to_owned(),
            "--B\r\n\r\nno name\r\n--B--".to_owned(),
            "--B\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n--B--".to_owned(),
            format!("--B\r\n{HEAD}\"a\"\r\n\r\nx"),
            format!("--B\r\n{HEAD}\"a\"\r\n\r\nx\r\n--B"),
            format!("--B\r\n{HEAD}\"a\"\r\nx\r\n--B--"),
            format!("--B\r\n{HEAD}\"{}\"\r\n\r\nx\r\n--B--", "a".repeat(20_000)),
            format!("{}--B--", format!("--B\r\n{HEAD}\"a\"\r\n\r\nx\r\n").repeat(1001)),
        ] {
            assert!(parse(body.as_bytes(), "B").is_err(), "{body:.60}");
        }
    }

    #[test]
    fn no_prefix_of_a_form_panics() {
        let body =
            format!("--B\r\n{HEAD}\"a\"; filename=\"\\\r\n\r\none\r\n--B\r\n{HEAD}\"\"\r\n\r\n\r\n--B--");
        for end in 0..=body.len() {
            let _ = parse(&body.as_bytes()[..end], "B");
        }
    }

    #[test]
    fn boundaries_are_read() {
        let of = |text| boundary(text).map(|b| b.ok());
        assert_eq!(of("multipart/form-data; boundary=abc"), Some(Some("abc".to_owned())));
        assert_eq!(of("Multipart/Form-Data; charset=x; Boundary=\"a b\""), Some(Some("a b".to_owned())));
        assert_eq!(of("multipart/form-data"), Some(None));
        assert_eq!(of("multipart/form-data; boundary="), Some(None));
        assert_eq!(of("multipart/mixed; boundary=a"), None);
        assert_eq!(of("application/octet-stream"), None);
    }
}
