//! For tests of this repository: each dump before scrubbing, into a pipe that the test holds. One after the other, with a mark,
//! the report's id and the length (8 bytes, little-endian) before each: a worker may die in the middle of one.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use crate::report::ReportId;
use crate::sys::spawn::CHILD_TAP;

/// Before each dump.
const MARK: &[u8; 16] = b"\x91cenotaph raw\x0d\x0a\x00";

/// Writes the dump to the inherited pipe, if there is one.
pub(crate) fn write(id: ReportId, dump: &[u8]) {
    let path = PathBuf::from(format!("/proc/self/fd/{CHILD_TAP}"));
    let is_pipe = std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with("pipe:"));
    if is_pipe && let Ok(mut pipe) = std::fs::OpenOptions::new().write(true).open(path) {
        let head = [&MARK[..], &id.0, &(dump.len() as u64).to_le_bytes()].concat();
        // Workers of several processes with one monitor may be here at the same time.
        let _ = pipe.lock();
        let _ = pipe.write_all(&head).and_then(|()| pipe.write_all(dump));
    }
}
