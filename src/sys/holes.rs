//! Holes of sparse files: `SEEK_DATA` and `SEEK_HOLE` of lseek(2).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The first bytes from `offset` on that are no hole, up to the next one; `None` if only a hole is left, or nothing.
/// Everything outside such ranges reads as zeros. The file's position moves, for everyone who shares it.
///
/// # Errors
/// Of lseek(2); where a file system knows no holes, the kernel counts all of a file as data.
pub(crate) fn next_data(file: &File, offset: u64) -> io::Result<Option<Range<u64>>> {
    let start = match seek(file, offset, libc::SEEK_DATA) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
        other => other?,
    };
    // The end of a file is a hole.
    Ok(Some(start..seek(file, start, libc::SEEK_HOLE)?))
}

fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<u64> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::ENXIO))?;
    // SAFETY: lseek takes three numbers and touches no memory; the descriptor is open while `file` is borrowed.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn data_between_holes() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(next_data(&file, 0).unwrap(), None, "an empty file");
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"data", 32 << 20).unwrap();
        let found = next_data(&file, 0).unwrap().unwrap();
        assert!(found.start <= 32 << 20 && found.end >= (32 << 20) + 4, "{found:?}");
        let inside = next_data(&file, (32 << 20) + 2).unwrap().unwrap();
        assert_eq!(inside, (32 << 20) + 2..found.end);
        assert_eq!(next_data(&file, 64 << 20).unwrap(), None, "the end");
        assert_eq!(next_data(&file, u64::MAX).unwrap(), None, "no offset at all");
    }
}
