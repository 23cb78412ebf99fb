//! The dump before scrubbing, as the library's feature `raw-tap` lets it out: through an inherited pipe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};

use super::scene::DEADLINE;

/// Where the victim finds the pipe's writing end: above what std uses for itself between fork and exec.
const VICTIM_DESCRIPTOR: RawFd = 113;

/// The reading end. A thread empties the pipe, so that nobody who writes has to wait.
pub(crate) struct Tap {
    write: Option<OwnedFd>,
    bytes: Receiver<Vec<u8>>,
}

impl Tap {
    /// A pipe whose writing end `command` will hold.
    pub(crate) fn on(command: &mut Command) -> Self {
        let (mut read, write) = io::pipe().unwrap();
        let (sender, bytes) = mpsc::channel();
        std::thread::spawn(move || {
            let mut all = Vec::new();
            read.read_to_end(&mut all).unwrap();
            let _ = sender.send(all);
        });
        let write = OwnedFd::from(write);
        let raw = write.as_raw_fd();
        command.env("CENOTAPH_RAW_TAP_FD", VICTIM_DESCRIPTOR.to_string());
        // SAFETY: dup2(2) is async-signal-safe; `raw` is open in the parent until `started`.
        unsafe {
            command.pre_exec(move || match libc::dup2(raw, VICTIM_DESCRIPTOR) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        Self { write: Some(write), bytes }
    }

    /// Everything that was written, once all of the victim's processes have ended. Call it after the victim's start.
    pub(crate) fn read(mut self) -> Vec<u8> {
        drop(self.write.take().map(File::from));
        self.bytes
            .recv_timeout(DEADLINE)
            .expect("the end of the pipe: all processes of the victim have ended")
    }
}
