//! For tests of this repository: the dump before scrubbing, into a pipe that the test holds.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use crate::sys::spawn::CHILD_TAP;

/// Writes the dump to the inherited pipe, if there is one, and closes this process's copy.
pub(crate) fn write(dump: &[u8]) {
    let path = PathBuf::from(format!("/proc/self/fd/{CHILD_TAP}"));
    let is_pipe = std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with("pipe:"));
    if is_pipe && let Ok(mut pipe) = std::fs::OpenOptions::new().write(true).open(path) {
        let _ = pipe.write_all(dump);
    }
}
