//! Names of threads.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::thread::JoinHandle;

use crate::sys::process;

/// From so many threads on, names are read by a thread of their own: they need no tracer.
const MANY: usize = 48;
/// Files are closed together, so many at a time.
const BATCH: usize = 256;

/// Names that are being read.
pub(super) struct Names {
    tids: Vec<libc::pid_t>,
    pid: libc::pid_t,
    beside: Option<JoinHandle<Vec<Option<String>>>>,
}

impl Names {
    /// Begins to read the names of threads of `pid`.
    pub(super) fn begin(pid: libc::pid_t, tids: Vec<libc::pid_t>) -> Self {
        let own = tids.clone();
        let beside = (tids.len() >= MANY).then(|| std::thread::Builder::new().spawn(move || read(pid, &own)));
        Self { tids, pid, beside: beside.and_then(Result::ok) }
    }

    /// The names, in the threads' order.
    pub(super) fn finish(self) -> Vec<Option<String>> {
        let read_beside = self.beside.and_then(|beside| beside.join().ok());
        read_beside.unwrap_or_else(|| read(self.pid, &self.tids))
    }
}

fn read(pid: libc::pid_t, tids: &[libc::pid_t]) -> Vec<Option<String>> {
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
        for count in [1, MANY, 2 * BATCH + 3] {
            let tids: Vec<_> = (0..count).map(|i| if i % 3 == 2 { libc::pid_t::MAX } else { pid }).collect();
            let expected: Vec<_> =
                (0..count).map(|i| (i % 3 != 2).then(|| own.trim_end().to_owned())).collect();
            assert_eq!(Names::begin(pid, tids).finish(), expected, "{count}");
        }
    }
}
