//! How often in a row the application crashed soon after its start: a file of the spool directory that the monitor writes
//! and the next start reads.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::Result;
use crate::private_file;

const FILE: &str = "start-ups";
/// A decimal number.
const LONGEST: usize = 16;

/// How often. 0 also where the file is missing or damaged: nothing worse follows than a start as usual.
pub(crate) fn crashes_in_a_row(spool: &Path) -> u32 {
    let bytes = private_file::read(&file(spool), LONGEST).ok().flatten();
    bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok()).unwrap_or(0)
}

/// Writes it down. Not synced: the application has just ended, and its report is about to be committed.
pub(crate) fn set_crashes_in_a_row(spool: &Path, count: u32) -> Result<()> {
    if count == 0 {
        return forget(spool);
    }
    let text = Zeroizing::new(count.to_string().into_bytes());
    private_file::update_unsynced(&file(spool), LONGEST, |_| Ok(Some(text)))
}

/// Removes it.
pub(crate) fn forget(spool: &Path) -> Result<()> {
    private_file::destroy(&file(spool)).map(|_| ())
}

fn file(spool: &Path) -> PathBuf {
    spool.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_and_damage_counts_as_none() {
        let spool = tempfile::tempdir().unwrap();
        assert_eq!(crashes_in_a_row(spool.path()), 0);
        set_crashes_in_a_row(spool.path(), 4).unwrap();
        assert_eq!(crashes_in_a_row(spool.path()), 4);
        set_crashes_in_a_row(spool.path(), 0).unwrap();
        assert!(!file(spool.path()).exists());
        set_crashes_in_a_row(spool.path(), 1).unwrap();
        for damage in ["", "x", "-1", "99999999999999999999999999"] {
            std::fs::write(file(spool.path()), damage).unwrap();
            assert_eq!(crashes_in_a_row(spool.path()), 0, "{damage}");
        }
    }
}
