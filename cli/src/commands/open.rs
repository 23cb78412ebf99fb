//! `cenotaph open`: unseals a report on the device that has its key.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use cenotaph::spool::key::LocalKey;
use cenotaph::spool::{PartKind, container};
use lexopt::prelude::*;

use super::{missing, read, take, unfinished};
use crate::failure::{Failure, Result};
use crate::output;

pub(crate) fn open(mut arguments: lexopt::Parser) -> Result<()> {
    let (mut input, mut key, mut dir) = (None, None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("key") => key = Some(PathBuf::from(arguments.value()?)),
            Short('o') | Long("output") => dir = Some(PathBuf::from(arguments.value()?)),
            Value(value) => take(&mut input, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let input = input.ok_or_else(|| missing("open", "CONTAINER"))?;
    let key = key.ok_or_else(|| missing("open", "--key K (the file 'key' of the spool)"))?;
    let dir = dir.ok_or_else(|| missing("open", "-o DIR"))?;
    let bytes = read(&input)?;
    let key = LocalKey::from_file(&key)?;
    let parts =
        container::open(&bytes, &key).map_err(|e| Failure::Failed(format!("{}: {e}", input.display())))?;
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(Failure::file(&dir, "make the folder", e));
        }
        _ => {}
    }
    let mut rows = Vec::new();
    for part in parts {
        let path = dir.join(file_name(part.kind));
        // In the clear, so for this user alone.
        unfinished::write(&path, &part.bytes)?;
        rows.push(vec![path.display().to_string(), part.bytes.len().to_string()]);
    }
    output::table(&["file", "bytes"], &rows)
}

fn file_name(kind: PartKind) -> String {
    match kind {
        PartKind::Report => "report.json".to_owned(),
        PartKind::Receipt => "receipt.json".to_owned(),
        PartKind::StackTrace => "stack-trace.dmp".to_owned(),
        PartKind::Pointers => "pointers.dmp".to_owned(),
        PartKind::Minidump => "minidump.dmp".to_owned(),
        other => format!("{other:?}.part").to_lowercase(),
    }
}
