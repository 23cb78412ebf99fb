//! The body of a form with files: `multipart/form-data` (RFC 7578 on RFC 2046).
#![forbid(unsafe_code)]

use memchr::memmem;

use crate::error::{Error, Result};

/// A form: fields first, then files, each in the given order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Names and values.
    pub fields: Vec<(String, String)>,
    /// Files.
    pub files: Vec<File>,
}

/// One file of a form.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// The field's name.
    pub name: String,
    /// The file's name.
    pub file_name: String,
    /// Its media type.
    pub media_type: &'static str,
    /// Its contents.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for File {
    /// Without the contents: they may be large, and are nobody's business in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "File({:?}, {:?}, {}, {} bytes)",
            self.name,
            self.file_name,
            self.media_type,
            self.bytes.len()
        )
    }
}

/// An encoded form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The `Content-Type`, with the boundary.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Form {
    /// Writes the form with a boundary that occurs nowhere in it.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn encode(&self) -> Result<Encoded> {
        self.encode_with(random_boundary)
    }

    /// As [`encode`](Self::encode), with boundaries from `candidates`.
    pub(crate) fn encode_with(&self, mut candidates: impl FnMut() -> Result<String>) -> Result<Encoded> {
        // A random boundary meets the content once in 2^128; a few tries are for a broken source of randomness.
        for _ in 0..8 {
            let boundary = candidates()?;
            if !self.contains(boundary.as_bytes()) {
                return Ok(self.write(&boundary));
            }
        }
        Err(Error::Upload("no boundary could be found that is not part of the report".to_owned()))
    }

    fn contains(&self, needle: &[u8]) -> bool {
        let finder = memmem::Finder::new(needle);
        let within = |text: &str| finder.find(text.as_bytes()).is_some();
        self.fields.iter().any(|(name, value)| within(name) || within(value))
            || self.files.iter().any(|file| {
                within(&file.name) || within(&file.file_name) || finder.find(&file.bytes).is_some()
            })
    }

    fn write(&self, boundary: &str) -> Encoded {
        let size = self.fields.iter().map(|(n, v)| n.len() + v.len() + 128).sum::<usize>()
            + self.files.iter().map(|f| f.bytes.len() + 256).sum::<usize>();
        let mut body = Vec::with_capacity(size);
        let line = |body: &mut Vec<u8>, text: &str| body.extend_from_slice(text.as_bytes());
        for (name, value) in &self.fields {
            let name = escape(name);
            line(
                &mut body,
                &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n"),
            );
            line(&mut body, value);
            line(&mut body, "\r\n");
        }
        for file in &self.files {
            let (name, file_name) = (escape(&file.name), escape(&file.file_name));
            line(
                &mut body,
                &format!(
                    "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
                     Content-Type: {}\r\n\r\n",
                    file.media_type
                ),
            );
            body.extend_from_slice(&file.bytes);
            line(&mut body, "\r\n");
        }
        line(&mut body, &format!("--{boundary}--\r\n"));
        Encoded { content_type: format!("multipart/form-data; boundary={boundary}"), body }
    }
}

/// Escapes a name as browsers do (WHATWG HTML, "multipart/form-data encoding algorithm").
/// Other control characters are no part of a name that anyone means, and become `_`.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '"' => out.push_str("%22"),
            '\r' => out.push_str("%0D"),
            '\n' => out.push_str("%0A"),
            c if c.is_control() => out.push('_'),
            c => out.push(c),
        }
    }
    out
}

fn random_boundary() -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::System { call: "getrandom", source: std::io::Error::other(e.to_string()) })?;
    let mut boundary = String::from("cenotaph-");
    for byte in bytes {
        boundary.push_str(&format!("{byte:02x}"));
    }
    Ok(boundary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)], bytes: &[u8]) -> Form {
        Form {
            fields: fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            files: vec![File {
                name: "upload_file_minidump".to_owned(),
                file_name: "a.dmp".to_owned(),
                media_type: "application/octet-stream",
                bytes: bytes.to_vec(),
            }],
        }
    }

    #[test]
    fn exact_bytes() {
        let encoded = form(&[("prod", "skyforge"), ("note", "two\nlines")], b"MDMP\x00\r\n--B")
            .encode_with(|| Ok("BB".to_owned()))
            .unwrap();
        assert_eq!(encoded.content_type, "multipart/form-data; boundary=BB");
        let expected: &[u8] = b"--BB\r\nContent-Disposition: form-data; name=\"prod\"\r\n\r\nskyforge\r\n\
            --BB\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\ntwo\nlines\r\n\
            --BB\r\nContent-Disposition: form-data; name=\"upload_file_minidump\"; filename=\"a.dmp\"\r\n\
            Content-Type: application/octet-stream\r\n\r\nMDMP\x00\r\n--B\r\n--BB--\r\n";
        assert_eq!(encoded.body, expected);
    }

    #[test]
    fn the_boundary_occurs_nowhere_else() {
        for form in
            [form(&[("a", "xx first xx")], b""), form(&[("first", "")], b""), form(&[], b"MDMP first")]
        {
            let mut candidates = ["first", "second"].into_iter();
            let encoded = form.encode_with(|| Ok(candidates.next().unwrap().to_owned())).unwrap();
            assert!(encoded.content_type.ends_with("boundary=second"));
        }
        let stuck = form(&[("a", "first")], b"").encode_with(|| Ok("first".to_owned()));
        assert!(matches!(stuck, Err(Error::Upload(_))));
    }

    #[test]
    fn names_cannot_break_out() {
        let encoded = form(&[("a\"; filename=\"x\r\nEvil: 1\0", "v")], b"").encode().unwrap();
        let text = String::from_utf8(encoded.body).unwrap();
        assert!(text.contains("name=\"a%22; filename=%22x%0D%0AEvil: 1_\"\r\n"), "{text}");
        assert!(!text.contains("\r\nEvil"));
    }

    #[test]
    fn boundaries_differ_and_are_legal() {
        let (a, b) = (form(&[], b"").encode().unwrap(), form(&[], b"").encode().unwrap());
        assert_ne!(a.content_type, b.content_type);
        // RFC 2046: at most 70 characters.
        assert!(a.content_type.len() <= "multipart/form-data; boundary=".len() + 70);
    }
}
