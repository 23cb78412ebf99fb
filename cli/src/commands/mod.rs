//! The subcommands: arguments in, one call into a library, a printed result.
#![forbid(unsafe_code)]

mod collect;
mod inspect;
mod open;
mod pmodule;
mod receipt;
mod scrub;
mod spool;
mod unfinished;

use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output;

pub(crate) use collect::collect;
pub(crate) use inspect::{frames, inspect};
pub(crate) use open::open;
pub(crate) use pmodule::pmodule;
pub(crate) use receipt::receipt;
pub(crate) use scrub::scrub;
pub(crate) use spool::spool;

/// A sealed report's first bytes (`spool::container`).
const CONTAINER_MAGIC: &[u8] = b"CENOTAPH";

fn missing(command: &str, what: &str) -> Failure {
    Failure::Usage(format!("{command}: {what} is missing"))
}

/// Takes the one positional argument of a command.
fn take(into: &mut Option<PathBuf>, value: std::ffi::OsString) -> Result<()> {
    match into {
        Some(_) => Err(Failure::Usage(format!("one argument too many: {}", value.display()))),
        None => {
            *into = Some(PathBuf::from(value));
            Ok(())
        }
    }
}

/// The longest file that is read: what is meant is a dump, not a device.
const MAX_FILE: u64 = 4 << 30;

fn read(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, MAX_FILE)
}

fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Failure::file(path, "read", e);
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() || metadata.file_type().is_char_device() {
        return Err(Failure::file(path, "read", "not a file with an end"));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(Failure::file(path, "read", format_args!("longer than {most} bytes")));
    }
    Ok(bytes)
}

/// Writes `value` as JSON into a file for this user alone, or to standard output for `-`.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::file(path, "write as JSON", e))?;
    if path == Path::new("-") {
        return output::line(text);
    }
    unfinished::write(path, (text + "\n").as_bytes())
}

/// Fails now where [`write_json`] would fail when the work is done.
pub(crate) fn check_writable(path: &Path) -> Result<()> {
    if path == Path::new("-") { Ok(()) } else { unfinished::check(path) }
}

/// A minidump's bytes, or words about what the file is instead, and `more`: what else would do.
fn read_minidump(path: &Path, more: &str) -> Result<Vec<u8>> {
    let bytes = read(path)?;
    if bytes.starts_with(CONTAINER_MAGIC) {
        return Err(Failure::Failed(format!(
            "{}: this is a sealed report; unseal it with 'cenotaph open {} --key SPOOL/key -o DIR' first",
            path.display(),
            path.display()
        )));
    }
    if !bytes.starts_with(b"MDMP") {
        return Err(Failure::Failed(format!(
            "{}: not a minidump (it does not start with MDMP){more}",
            path.display()
        )));
    }
    Ok(bytes)
}

/// Whether a file begins as an ELF file does.
fn is_elf(path: &Path) -> Result<bool> {
    let failed = |e: std::io::Error| Failure::file(path, "read", e);
    let file = std::fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(false);
    }
    let mut magic = Vec::new();
    file.take(4).read_to_end(&mut magic).map_err(failed)?;
    Ok(magic == b"\x7fELF")
}
