//! The descriptor of the folder for minimal records: there only while consent allows storing.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use super::last_words;

static CHANGING: Mutex<()> = Mutex::new(());

/// From now on a process that finds no monitor leaves a record in `directory`, below which it first makes the folders that
/// are `missing`: their names, each with a zero byte behind.
pub(crate) fn keep_records(directory: OwnedFd, missing: &[u8]) {
    let _one_at_a_time = CHANGING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let fd = directory.as_raw_fd();
    // For an application that closes every descriptor. Where /proc is hidden there is no name, and no harm.
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    close(last_words::set_directory(fd, name.as_os_str().as_bytes(), missing));
    // A handler may use the number at any time: whoever replaces it closes it.
    let _ = directory.into_raw_fd();
}

/// From now on it leaves none.
pub(crate) fn forbid_records() {
    let _one_at_a_time = CHANGING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    close(last_words::set_directory(-1, &[], &[]));
}

fn close(fd: Option<i32>) {
    // SAFETY: `set_directory` has looked at what the number refers to; it is what `keep_records` was given.
    drop(fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
}
