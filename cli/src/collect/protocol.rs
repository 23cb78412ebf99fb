//! What a request is, and what its sender expects to hear.
#![forbid(unsafe_code)]

use std::io::Read;

use cenotaph::report::ReportId;
use serde::Serialize;

use super::http::Request;
use super::multipart::{self, Part};

/// Nothing decoded is larger.
const DECODED_LIMIT: u64 = 256 * 1024 * 1024;
/// Longest text that is looked at for a report id.
const ID_LENGTH: usize = 36;

/// The dialects that the collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Crashpad,
    Backtrace,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after: Option<u64>,
}

/// A request's content.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// The body without its content coding; `None` if it had none.
    pub(crate) plain: Option<Vec<u8>>,
    /// The parts of a form; one without a name for a body that is the dump itself.
    pub(crate) parts: Vec<Part>,
    /// The report's own id, if the request names one.
    pub(crate) report: Option<ReportId>,
    /// Why it cannot be accepted, with the status that says so.
    pub(crate) fault: Option<(u16, String)>,
}

impl Decoded {
    /// The bytes that the parts' ranges are about.
    pub(crate) fn content<'a>(&'a self, request: &'a Request) -> &'a [u8] {
        self.plain.as_deref().unwrap_or(&request.body)
    }
}

/// The dialect, by the address: Backtrace's are `/<universe>/<token>/<format>` and `/post?format=..&token=..` (also
/// `/api/post`, and the documented form with a bare format word); everything else is the Breakpad form.
pub(crate) fn protocol(target: &str) -> Protocol {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let token = query.split('&').any(|pair| pair.starts_with("token="));
    match *segments.as_slice() {
        ["post"] | ["api", "post"] if token => Protocol::Backtrace,
        // Sentry's `/api/<project>/minidump` has the same shape and is another protocol.
        [universe, _token, "minidump"] if universe != "api" => Protocol::Backtrace,
        _ => Protocol::Crashpad,
    }
}

/// Takes a request apart and finds its faults.
pub(crate) fn decode(request: &Request) -> Decoded {
    let mut decoded = Decoded::default();
    if request.method != "POST" {
        decoded.fault = Some((405, "reports are sent with POST".to_owned()));
        return decoded;
    }
    match request.header("content-encoding").map(str::to_ascii_lowercase).as_deref() {
        None | Some("identity") => {}
        Some("gzip") => match gunzip(&request.body) {
            Ok(plain) => decoded.plain = Some(plain),
            Err(fault) => {
                decoded.fault = Some(fault);
                return decoded;
            }
        },
        Some(_) => {
            decoded.fault = Some((415, "a Content-Encoding other than gzip".to_owned()));
            return decoded;
        }
    }
    let content_type = request.header("content-type").unwrap_or_default();
    let body = decoded.content(request);
    let parts = match multipart::boundary(content_type) {
        Some(boundary) => boundary.and_then(|boundary| multipart::parse(body, &boundary)),
        None => Ok(vec![Part {
            name: String::new(),
            file_name: None,
            content_type: Some(content_type.to_owned()),
            content: 0..body.len(),
        }]),
    };
    match parts {
        Ok(parts) => {
            let (fault, report) = (fault(&parts, body), report_id(&parts, body));
            decoded.fault = fault.map(|reason| (400, reason));
            decoded.report = report;
            decoded.parts = parts;
        }
        Err(reason) => decoded.fault = Some((400, reason)),
    }
    decoded
}

/// Whether bytes are a minidump, by its signature.
pub(crate) fn is_minidump(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MDMP")
}

/// The answer that a sender of `protocol` expects. `id` is the server's name for the report.
pub(crate) fn answer(protocol: Protocol, fault: Option<&(u16, String)>, id: ReportId) -> Answer {
    let (status, content_type, body) = match (protocol, fault) {
        (Protocol::Crashpad, None) => (200, "text/plain", format!("CrashID=bp-{id}\n")),
        (Protocol::Crashpad, Some((status, reason))) => {
            (*status, "text/plain", format!("Discarded={reason}\n"))
        }
        (Protocol::Backtrace, None) => {
            (200, "application/json", format!("{{\"response\":\"ok\",\"_rxid\":\"{id}\"}}\n"))
        }
        (Protocol::Backtrace, Some((status, reason))) => {
            let error = serde_json::json!({ "response": "error", "message": reason });
            (*status, "application/json", format!("{error}\n"))
        }
    };
    Answer { status, content_type, body, retry_after: None }
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, (u16, String)> {
    let mut plain = Vec::new();
    let decoder = flate2::bufread::MultiGzDecoder::new(bytes);
    decoder
        .take(DECODED_LIMIT + 1)
        .read_to_end(&mut plain)
        .map_err(|e| (400, format!("the body is no gzip stream: {e}")))?;
    if u64::try_from(plain.len()).unwrap_or(u64::MAX) > DECODED_LIMIT {
        return Err((413, "the decoded body is larger than the limit".to_owned()));
    }
    Ok(plain)
}

fn bytes<'a>(part: &Part, body: &'a [u8]) -> &'a [u8] {
    body.get(part.content.clone()).unwrap_or_default()
}

fn fault(parts: &[Part], body: &[u8]) -> Option<String> {
    let dump = parts.iter().find(|p| p.name == "upload_file_minidump" || p.name.is_empty());
    match dump {
        None => Some("malformed_no_minidump: no part is named upload_file_minidump".to_owned()),
        Some(part) if !is_minidump(bytes(part, body)) => {
            Some("malformed_minidump: it does not start with MDMP".to_owned())
        }
        Some(part) if !part.name.is_empty() && part.file_name.is_none() => {
            Some("malformed_minidump: the part has no file name".to_owned())
        }
        Some(_) => None,
    }
}

/// From a field, else from the dump's file name.
fn report_id(parts: &[Part], body: &[u8]) -> Option<ReportId> {
    let named = |name: &str| {
        let text = bytes(parts.iter().find(|p| p.name == name)?, body);
        // Only what can be an id is looked at.
        (text.len() == ID_LENGTH).then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
    };
    let from_file = || {
        let file = parts.iter().find(|p| p.name == "upload_file_minidump")?.file_name.as_deref()?;
        file.strip_suffix(".dmp")?.parse().ok()
    };
    named("cenotaph.report").or_else(|| named("uuid")).or_else(from_file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn addresses() {
        for (target, expected) in [
            ("/submit", Protocol::Crashpad),
            ("/", Protocol::Crashpad),
            ("", Protocol::Crashpad),
            ("/post", Protocol::Crashpad),
            ("/api/1/minidump/?sentry_key=x", Protocol::Crashpad),
            ("/post?format=minidump&token=abc", Protocol::Backtrace),
            ("/api/post?minidump&token=abc", Protocol::Backtrace),
            ("/universe/token/minidump", Protocol::Backtrace),
            ("/universe/token/minidump?a=b", Protocol::Backtrace),
        ] {
            assert_eq!(protocol(target), expected, "{target}");
        }
    }

    fn request(headers: &[(&str, &str)], body: &[u8]) -> Request {
        Request {
            method: "POST".to_owned(),
            target: "/submit".to_owned(),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: body.to_vec(),
            chunked: false,
        }
    }

    const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=B");
    const ID: &str = "90960866-c9f0-4e96-99b2-fc7830261121";

    fn form(dump: &str) -> String {
        format!(
            "--B\r\nContent-Disposition: form-data; name=\"uuid\"\r\n\r\n{ID}\r\n--B\r\nContent-Disposition: form-data; \
             name=\"upload_file_minidump\"; filename=\"x.dmp\"\r\n\r\n{dump}\r\n--B--\r\n"
        )
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn forms_and_raw_bodies() {
        let plain = decode(&request(&[FORM], form("MDMP...").as_bytes()));
        assert_eq!(plain.fault, None);
        assert_eq!(plain.report, Some(ID.parse().unwrap()));
        let zipped = gzip(form("MDMP...").as_bytes());
        let zipped = decode(&request(&[FORM, ("content-encoding", "gzip")], &zipped));
        assert_eq!(zipped.fault, None);
        assert_eq!(zipped.plain.as_deref(), Some(form("MDMP...").as_bytes()));
        let raw = decode(&request(&[("Content-Type", "application/octet-stream")], b"MDMP..."));
        assert_eq!((raw.fault, raw.parts.len(), raw.report), (None, 1, None));
    }

    #[test]
    fn faults() {
        let mut get = request(&[], b"");
        get.method = "GET".to_owned();
        let status = |request: &Request| decode(request).fault.map(|(status, _)| status);
        assert_eq!(status(&get), Some(405));
        assert_eq!(status(&request(&[], b"")), Some(400));
        assert_eq!(status(&request(&[FORM], b"--B--")), Some(400));
        assert_eq!(status(&request(&[FORM], form("ELF").as_bytes())), Some(400));
        assert_eq!(status(&request(&[("Content-Type", "multipart/form-data")], b"")), Some(400));
        assert_eq!(status(&request(&[FORM, ("Content-Encoding", "br")], b"")), Some(415));
        assert_eq!(status(&request(&[FORM, ("Content-Encoding", "gzip")], b"no gzip")), Some(400));
        let cut = &gzip(form("MDMP").as_bytes())[..30];
        assert_eq!(status(&request(&[FORM, ("Content-Encoding", "gzip")], cut)), Some(400));
    }

    #[test]
    fn answers_are_what_the_library_takes_for_acceptance() {
        use cenotaph::upload::response::{Outcome, Reply, classify};
        for (ours, theirs) in [
            (Protocol::Crashpad, cenotaph::Protocol::Crashpad),
            (Protocol::Backtrace, cenotaph::Protocol::Backtrace),
        ] {
            let reply = |answer: Answer| Reply {
                status: answer.status,
                retry_after: None,
                content_type: None,
                body: answer.body.into_bytes(),
            };
            let yes = answer(ours, None, ID.parse().unwrap());
            assert!(matches!(classify(theirs, &reply(yes), 0), Outcome::Accepted { .. }));
            let no = answer(ours, Some(&(400, "bad \"form\"".to_owned())), ID.parse().unwrap());
            assert!(matches!(classify(theirs, &reply(no), 0), Outcome::Rejected { .. }));
        }
    }
}
