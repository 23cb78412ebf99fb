//! Dumps before scrubbing, as the library's feature `raw-tap` lets them out: through an inherited pipe.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cenotaph::report::ReportId;

/// Where the victim finds the pipe's writing end: above what std uses for itself between fork and exec.
const VICTIM_DESCRIPTOR: RawFd = 113;
/// Before each dump; that of src/raw_tap.rs.
const MARK: &[u8; 16] = b"\x91cenotaph raw\x0d\x0a\x00";
/// For what was written to arrive.
const DEADLINE: Duration = Duration::from_secs(60);

/// The pipe. A thread empties it, so that nobody who writes has to wait.
pub(crate) struct Tap {
    write: OwnedFd,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    pub(crate) fn new() -> Self {
        let (mut read, write) = io::pipe().unwrap();
        // A victim may have become another user, and opens it again.
        let write = File::from(OwnedFd::from(write));
        write.set_permissions(Permissions::from_mode(0o666)).unwrap();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let all = bytes.clone();
        std::thread::spawn(move || {
            let mut piece = vec![0; 1 << 16];
            while let Ok(length @ 1..) = read.read(&mut piece) {
                all.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Self { write: OwnedFd::from(write), bytes }
    }

    /// Has `command`, which is to be started while this is here, hold the writing end.
    pub(crate) fn give(&self, command: &mut Command) {
        let raw = self.write.as_raw_fd();
        command.env("CENOTAPH_RAW_TAP_FD", VICTIM_DESCRIPTOR.to_string());
        // SAFETY: dup2(2) is async-signal-safe; `raw` is open in the parent.
        unsafe {
            command.pre_exec(move || match libc::dup2(raw, VICTIM_DESCRIPTOR) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
    }

    /// The dump of a report that was made: it was written before, but may still be in the pipe.
    pub(crate) fn of(&self, report: ReportId) -> Vec<u8> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = framed(&self.bytes.lock().unwrap()).into_iter().find(|(id, _)| *id == report);
            if let Some((_, dump)) = found {
                return dump;
            }
            assert!(Instant::now() < deadline, "no dump of report {report} went through the tap");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A dump of which only the beginning was written is left out.
fn framed(mut bytes: &[u8]) -> Vec<(ReportId, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(rest) = bytes.strip_prefix(MARK) {
        let whole = rest.split_first_chunk::<16>().and_then(|(id, rest)| {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            let (dump, rest) = rest.split_at_checked(length)?;
            // The next one's mark may not be all there yet.
            let ends = rest.iter().zip(MARK).all(|(a, b)| a == b);
            ends.then_some(((ReportId(*id), dump.to_vec()), rest))
        });
        match whole {
            Some((dump, rest)) => {
                found.push(dump);
                bytes = rest;
            }
            None => bytes = memchr::memmem::find(rest, MARK).map_or(&[], |at| &rest[at..]),
        }
    }
    found
}
