//! What the collector writes: a folder for each request, there either whole or not at all.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;

use super::http::Request;
use super::protocol::{Answer, Decoded, Protocol, is_minidump};
use crate::failure::{Failure, Result};

/// A folder for what arrives.
pub(crate) struct Store {
    dir: PathBuf,
    /// The next folder's number, and the open `connections.log`.
    inner: Mutex<(u64, File)>,
}

/// `request.json`.
#[derive(Serialize)]
struct RequestJson<'a> {
    received_ms: u64,
    peer: String,
    tls: &'a str,
    method: &'a str,
    path: &'a str,
    headers: Vec<[&'a str; 2]>,
    chunked: bool,
    body_bytes: usize,
    decoded_bytes: usize,
    protocol: Protocol,
    report: Option<String>,
    parts: Vec<PartJson<'a>>,
    fault: Option<&'a str>,
    answer: &'a Answer,
}

#[derive(Serialize)]
struct PartJson<'a> {
    name: &'a str,
    file_name: Option<&'a str>,
    content_type: Option<&'a str>,
    bytes: usize,
    file: String,
}

/// One request and what was made of it.
pub(crate) struct Record<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) tls: &'a str,
    pub(crate) request: &'a Request,
    pub(crate) decoded: &'a Decoded,
    pub(crate) protocol: Protocol,
    pub(crate) answer: &'a Answer,
}

impl Store {
    /// Opens or makes a folder. Numbers go on where an earlier collector stopped.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| Failure::file(dir, "make the folder", e))?;
        let mut next = 1;
        for entry in fs::read_dir(dir).map_err(|e| Failure::file(dir, "list the folder", e))? {
            let entry = entry.map_err(|e| Failure::file(dir, "list the folder", e))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let digits = name.trim_start_matches(".incoming-").split('-').next().unwrap_or_default();
            if let Ok(number) = digits.parse::<u64>() {
                next = next.max(number.saturating_add(1));
            }
        }
        let path = dir.join("connections.log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Failure::file(&path, "open for writing", e))?;
        Ok(Self { dir: dir.to_path_buf(), inner: Mutex::new((next, log)) })
    }

    /// One line in `connections.log`: a connection leaves a trace even if no request came of it.
    pub(crate) fn connection(&self, peer: SocketAddr, what: &str) -> Result<()> {
        let line = format!("{} {peer} {}\n", now_ms(), crate::output::printable(what));
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.1.write_all(line.as_bytes()).map_err(|e| Failure::file(&self.dir, "write connections.log", e))
    }

    /// Writes a request's folder and returns its path. It appears under its name only when it is whole.
    pub(crate) fn request(&self, record: &Record<'_>) -> Result<PathBuf> {
        let number = {
            let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let number = inner.0;
            inner.0 = number.saturating_add(1);
            number
        };
        let id = record.decoded.report.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        let temporary = self.dir.join(format!(".incoming-{number:06}"));
        let folder = self.dir.join(format!("{number:06}-{id}"));
        fs::create_dir(&temporary).map_err(|e| Failure::file(&temporary, "make the folder", e))?;
        self.fill(&temporary, record)?;
        fs::rename(&temporary, &folder).map_err(|e| Failure::file(&folder, "rename the folder to", e))?;
        Ok(folder)
    }

    fn fill(&self, folder: &Path, record: &Record<'_>) -> Result<()> {
        let Record { request, decoded, .. } = record;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(|e| Failure::file(&path, "write", e))
        };
        write("body", &request.body)?;
        if let Some(plain) = &decoded.plain {
            write("body.decoded", plain)?;
        }
        let content = decoded.content(request);
        let mut taken: HashSet<String> =
            ["body", "body.decoded", "request.json"].into_iter().map(str::to_owned).collect();
        let mut parts = Vec::new();
        for part in &decoded.parts {
            let bytes = content.get(part.content.clone()).unwrap_or_default();
            let dump = is_minidump(bytes);
            let wanted = match (&part.file_name, part.name.as_str()) {
                (Some(file), _) => file.clone(),
                (None, "") => "body.part".to_owned(),
                (None, name) => format!("{name}.txt"),
            };
            let file = file_name(&wanted, dump, &mut taken);
            write(&file, bytes)?;
            parts.push(PartJson {
                name: &part.name,
                file_name: part.file_name.as_deref(),
                content_type: part.content_type.as_deref(),
                bytes: bytes.len(),
                file,
            });
        }
        let json = RequestJson {
            received_ms: now_ms(),
            peer: record.peer.to_string(),
            tls: record.tls,
            method: &request.method,
            path: &request.target,
            headers: request.headers.iter().map(|(name, value)| [name.as_str(), value.as_str()]).collect(),
            chunked: request.chunked,
            body_bytes: request.body.len(),
            decoded_bytes: content.len(),
            protocol: record.protocol,
            report: decoded.report.map(|id| id.to_string()),
            parts,
            fault: decoded.fault.as_ref().map(|(_, reason)| reason.as_str()),
            answer: record.answer,
        };
        let mut text = serde_json::to_vec_pretty(&json)
            .map_err(|e| Failure::file(&folder.join("request.json"), "write as JSON", e))?;
        text.push(b'\n');
        write("request.json", &text)
    }
}

/// A name from the wire as a file name: no folder, no dot in front, nothing that a shell or a terminal acts on, not
/// taken yet (whatever the case). A minidump ends in `.dmp`.
fn file_name(wanted: &str, dump: bool, taken: &mut HashSet<String>) -> String {
    let last = wanted.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let clean: String = last.chars().take(100).map(|c| if plain(c) { c } else { '_' }).collect();
    let clean = clean.trim_start_matches(['.', '-']);
    let clean = if clean.is_empty() { "part" } else { clean };
    let (stem, extension) = match clean.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, extension),
        _ => (clean, ""),
    };
    let extension = if dump { "dmp" } else { extension };
    let dot = if extension.is_empty() { "" } else { "." };
    let mut name = format!("{stem}{dot}{extension}");
    let mut number = 2_u32;
    while !taken.insert(name.to_ascii_lowercase()) {
        name = format!("{stem}-{number}{dot}{extension}");
        number = number.saturating_add(1);
    }
    name
}

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_wire_stay_in_the_folder() {
        let mut taken: HashSet<String> = ["body".to_owned(), "request.json".to_owned()].into();
        for (wanted, dump, expected) in [
            ("a.dmp", true, "a.dmp"),
            ("A.DMP", true, "A-2.dmp"),
            ("../../etc/passwd", false, "passwd"),
            ("..\\..\\boot.ini", false, "boot.ini"),
            ("", false, "part"),
            ("..", false, "part-2"),
            ("/", false, "part-3"),
            (".hidden", false, "hidden"),
            ("-rf", false, "rf"),
            ("request.json", false, "request-2.json"),
            ("BODY", false, "BODY-2"),
            ("a\u{1b}[31m b\n.txt", false, "a__31m_b_.txt"),
            ("dump", true, "dump.dmp"),
            ("x.exe", true, "x.dmp"),
        ] {
            assert_eq!(file_name(wanted, dump, &mut taken), expected, "{wanted:?}");
        }
        let long = file_name(&"x".repeat(5000), false, &mut taken);
        assert!(long.len() <= 100);
    }
}
