//! A report under its temporary name: being written, or what a writer that died has left, which is a report that is whole
//! all the same, or rubbish.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use super::container;
use super::key::LocalKey;
use super::name::Name;
use crate::error::{Error, Result};
use crate::private_file::{self, steps};
use crate::report::ReportId;

/// The name of a report that is being written.
pub(super) fn temporary(id: ReportId) -> String {
    format!(".{id}.tmp")
}

/// Whether a file of that name is one.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(b".") && name.ends_with(b".tmp")
}

/// Writes `bytes` there, to the disk. What was written of them stays if it fails.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<File> {
    let mut options = OpenOptions::new();
    let mut file = private_file::open(path, options.write(true).create_new(true))?
        .ok_or_else(|| Error::file(path, "create", io::ErrorKind::NotFound.into()))?;
    steps::at("commit: created");
    for piece in bytes.chunks(1 << 20) {
        file.write_all(piece).map_err(|e| Error::file(path, "write", e))?;
        steps::at("commit: wrote a piece");
    }
    file.sync_all().map_err(|e| Error::file(path, "write", e))?;
    steps::at("commit: synced");
    Ok(file)
}

/// The report in the temporary file at `path`, if it is all there, of at most `limit` bytes: every byte of a container is
/// authenticated, so that neither a missing end nor blocks that a power cut left empty go unnoticed. The caller holds the
/// spool's lock, under which nobody is writing it.
pub(super) fn whole(dir: &Path, path: &Path, limit: u64) -> Option<Name> {
    let file = private_file::open(path, OpenOptions::new().read(true)).ok()??;
    if file.metadata().ok()?.len() > limit {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    let id = container::header(&bytes).ok()?.id;
    let named = path.file_name()?.to_str()? == temporary(id);
    let key = LocalKey::load(dir).ok()??;
    (named && container::verify(&bytes, &key).is_ok()).then(|| Name::new(id))
}
