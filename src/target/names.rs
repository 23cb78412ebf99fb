//! Names of threads.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;

use crate::sys::process;

/// Files are closed together, so many at a time.
const BATCH: usize = 256;

/// The names of threads of `pid`, in their order.
pub(super) fn read(pid: libc::pid_t, tids: &[libc::pid_t]) -> Vec<Option<String>> {
    let mut names = Vec::with_capacity(tids.len());
    for batch in tids.chunks(BATCH) {
        let mut open = Vec::with_capacity(batch.len());
        names.extend(batch.iter().map(|tid| name(pid, *tid, &mut open)));
        process::close_together(open);
    }
    names
}

/// The kernel's name of a thread, by one read. The file is left open.
fn name(pid: libc::pid_t, tid: libc::pid_t, open: &mut Vec<File>) -> Option<String> {
    let path = format!("/proc/{pid}/task/{tid}/comm");
    let mut file = File::open(&path).or_else(|error| {
        if error.raw_os_error() == Some(libc::EMFILE) {
            process::close_together(std::mem::take(open));
            return File::open(&path);
        }
        Err(error)
    });
    let mut buffer = [0; 64];
    let length = file.as_mut().ok()?.read(&mut buffer).ok()?;
    open.extend(file);
    Some(String::from_utf8_lossy(buffer.get(..length)?).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_in_their_order() {
        let pid = std::process::id().cast_signed();
        let own = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/comm")).unwrap();
        for count in [1, 2 * BATCH + 3] {
            let tids: Vec<_> = (0..count).map(|i| if i % 3 == 2 { libc::pid_t::MAX } else { pid }).collect();
            let expected: Vec<_> =
                (0..count).map(|i| (i % 3 != 2).then(|| own.trim_end().to_owned())).collect();
            assert_eq!(read(pid, &tids), expected, "{count}");
        }
    }
}
