//! The log of outcomes, if the application asked for one: a JSON object a line, never report contents.
#![forbid(unsafe_code)]

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::Serialize;

/// Appends to the configured file; several processes may do so at once.
#[derive(Debug, Clone)]
pub(super) struct Log(Option<PathBuf>);

#[derive(Serialize)]
struct Line<'a, T> {
    time_ms: u64,
    process: &'a str,
    #[serde(flatten)]
    what: T,
}

impl Log {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    /// Writes one line. A log that cannot be written is no reason to fail.
    pub(super) fn line(&self, process: &str, what: impl Serialize) {
        let Some(path) = &self.0 else { return };
        let line = Line { time_ms: crate::sys::process::unix_ms(), process, what };
        let Ok(mut text) = serde_json::to_string(&line) else { return };
        text.push('\n');
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        if let Ok(mut file) = file {
            // One write, so that lines of several processes do not mix (O_APPEND, open(2)).
            let _ = file.write_all(text.as_bytes());
        }
    }

    /// Makes the file if there is none: whoever confines itself names it before.
    pub(super) fn touch(&self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        }
    }

    /// A line with a name and a sentence.
    pub(super) fn event(&self, process: &str, event: &str, message: impl std::fmt::Display) {
        self.line(process, serde_json::json!({ "event": event, "message": message.to_string() }));
    }
}
