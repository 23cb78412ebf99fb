//! Files that hold what somebody's process held, or what is left of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// A file only for this user that gets its name when it is whole, and is gone if that does not happen: half a dump should not
/// look like one, and what was there before stays until then. A symbolic link of that name is replaced, not followed.
pub(super) struct Unfinished {
    pub(super) file: File,
    temporary: PathBuf,
    path: PathBuf,
    is_finished: bool,
}

impl Unfinished {
    pub(super) fn create(path: &Path) -> Result<Self> {
        // A device that is replaced by a file is lost to the whole machine.
        if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
            return Err(Failure::file(path, "write", "it is there and no file; name another"));
        }
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary);
        let file = file.map_err(|e| Failure::file(path, "write", e))?;
        Ok(Self { file, temporary, path: path.to_path_buf(), is_finished: false })
    }

    pub(super) fn finish(mut self) -> Result<()> {
        fs::rename(&self.temporary, &self.path).map_err(|e| Failure::file(&self.path, "write", e))?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a whole file in that way. What is there and no file, such as a terminal or a pipe, is written to as it is.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: io::Error| Failure::file(path, "write", error);
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        return OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut to| to.write_all(bytes))
            .map_err(failed);
    }
    let mut unfinished = Unfinished::create(path)?;
    unfinished.file.write_all(bytes).map_err(failed)?;
    unfinished.finish()
}

/// Whether both names lead to one file that is there.
pub(super) fn is_same(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    id(a).is_some() && id(a) == id(b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let why = Unfinished::create(&socket).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("no file"), "{why}");
        assert!(!socket.metadata().unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
