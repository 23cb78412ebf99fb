//! Core files that the kernel writes, and gdb to read them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// Why the kernel would leave no core file where it can be found; nothing is changed on the machine to have one.
pub(crate) fn not_applicable() -> Option<String> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if !pattern.starts_with("core") || pattern.contains('/') {
        return Some(format!("core files go to {}", pattern.trim_end()));
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the local.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) }, 0);
    (limit.rlim_max < 1 << 30).then(|| format!("core files are limited to {} bytes", limit.rlim_max))
}

/// Lets the program leave a core file as large as it may be.
pub(crate) fn allow(command: &mut Command) {
    // SAFETY: getrlimit(2) and setrlimit(2) are system calls; they write and read a value on the stack.
    unsafe {
        command.pre_exec(|| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
            limit.rlim_cur = limit.rlim_max;
            match libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

/// The core file in a program's working folder.
pub(crate) fn in_folder(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b"core"))
}

/// gdb as it comes, without network and without anybody's settings.
pub(crate) fn gdb() -> Command {
    let mut command = Command::new("gdb");
    command.args(["--batch", "--nx", "-iex", "set auto-load no", "-iex", "set debuginfod enabled off"]);
    command
}
