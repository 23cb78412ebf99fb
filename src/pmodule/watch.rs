//! The tracer's side of a pmodule's process: waiting for its answer, no longer than allowed, and saying how it ended.
#![forbid(unsafe_code)]

use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::message::{Answer, Answered, LONGEST_ANSWER, PIECE, Phase, Said};
use super::runner::Why;
use crate::report::signal_name;
use crate::sys::confine;
use crate::sys::process::{self, Ended};
use crate::sys::socket::{self, Received, Socket};
use crate::target::Memory;

/// A pmodule's process.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) pid: libc::pid_t,
    pub(super) pidfd: OwnedFd,
    pub(super) socket: Socket,
    /// What it writes to its standard error.
    pub(super) complaints: PipeReader,
    /// What it may use besides what it started with, in bytes.
    pub(super) memory: u64,
    pub(super) is_reaped: bool,
}

impl Watched {
    /// Has a process that waits play the next phase.
    pub(super) fn tell(&self, phase: Phase, subject: BorrowedFd<'_>, length: usize) -> Result<(), Why> {
        // The copy that it makes, and room for what is made of that, are no use of its own.
        confine::allow_more_memory(self.pid, (length as u64).saturating_mul(2).saturating_add(1 << 20));
        self.socket
            .send(&phase.message(length), &[subject])
            .map_err(|_| Why::ours("its process had ended before"))
    }

    /// Waits for the answer, and reads `memory` for it meanwhile. Whatever comes instead ends the process.
    pub(super) fn answer(
        &mut self,
        limit: Duration,
        memory: Option<&dyn Memory>,
    ) -> Result<(Answered, bool), Why> {
        let until = Instant::now() + limit;
        let mut bytes = Vec::new();
        let mut polled = [self.socket.as_raw(), self.pidfd.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || socket::poll(&mut polled, Some(left)).is_ok_and(|ready| ready == 0) {
                process::kill_pidfd(self.pidfd.as_fd());
                return Err(Why::ours(format!("did not end within {} ms", limit.as_millis())));
            }
            match self.socket.receive(PIECE + 64, Duration::ZERO) {
                Ok(Received::Message(message)) => match Said::parse(&message.bytes) {
                    Some(Said::Piece { bytes: piece, last }) => {
                        bytes.extend_from_slice(piece);
                        if bytes.len() > LONGEST_ANSWER {
                            return Err(self.nonsense());
                        }
                        if last {
                            let answer = serde_json::from_slice::<Answer>(&bytes);
                            let Ok(Answer { unconfined, result }) = answer else {
                                return Err(self.nonsense());
                            };
                            return Ok((result, unconfined));
                        }
                    }
                    Some(Said::Read { address, length }) => {
                        let read = memory.map(|memory| memory.read(address, length)).unwrap_or_default();
                        // It waits for this one message; should it not take it, its time will be over.
                        let _ = self.socket.send(&[&[0], &read[..]].concat(), &[]);
                    }
                    None => return Err(self.nonsense()),
                },
                Ok(Received::Nothing) if polled[1].revents == 0 => {}
                Ok(Received::Nothing | Received::Closed) => return Err(self.end(until, limit)),
                Ok(Received::Malformed(_)) | Err(_) => return Err(self.nonsense()),
            }
        }
    }

    fn nonsense(&self) -> Why {
        process::kill_pidfd(self.pidfd.as_fd());
        Why::ours("answered nonsense")
    }

    /// It closed its socket, most likely because it ended.
    fn end(&mut self, until: Instant, limit: Duration) -> Why {
        let left = until.saturating_duration_since(Instant::now());
        if !socket::poll_readable(self.pidfd.as_fd(), left).unwrap_or(false) {
            process::kill_pidfd(self.pidfd.as_fd());
            return Why::ours(format!("did not end within {} ms", limit.as_millis()));
        }
        self.is_reaped = true;
        let ended = process::wait_end(self.pid);
        let mut said = [0; 1024];
        let length = self.complaints.read(&mut said).unwrap_or(0);
        Why::ours(why(ended, said.get(..length).unwrap_or_default(), self.memory))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.is_reaped {
            process::kill_pidfd(self.pidfd.as_fd());
            process::reap(self.pid, true);
        }
    }
}

/// How a process ended that owed an answer. `said` is what its runtime wrote to standard error, and is only looked at for
/// the words of Rust's and C++'s runtimes when memory is refused.
fn why(ended: Ended, said: &[u8], memory: u64) -> String {
    let has = |words: &[u8]| said.windows(words.len()).any(|window| window == words);
    match ended {
        Ended::Signal(libc::SIGABRT) if has(b"memory allocation of") || has(b"bad_alloc") => {
            format!("ran out of its {} MiB", memory >> 20)
        }
        Ended::Signal(libc::SIGSYS) => {
            "used a system call that pmodules may not: killed by SIGSYS".to_owned()
        }
        Ended::Signal(libc::SIGKILL) => "killed by SIGKILL".to_owned(),
        Ended::Signal(number) if signal_name(number) == "signal" => format!("killed by signal {number}"),
        Ended::Signal(number) => format!("killed by {}", signal_name(number)),
        Ended::Exit(code) => format!("ended by exit({code})"),
        Ended::Unknown => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let alloc = &b"memory allocation of 134217728 bytes failed\n"[..];
        let cases = [
            (Ended::Signal(libc::SIGSEGV), &b""[..], "killed by SIGSEGV"),
            (Ended::Signal(libc::SIGSEGV), alloc, "killed by SIGSEGV"),
            (Ended::Signal(libc::SIGABRT), b"", "killed by SIGABRT"),
            (Ended::Signal(libc::SIGABRT), alloc, "ran out of its 64 MiB"),
            (Ended::Signal(libc::SIGABRT), b"what():  std::bad_alloc", "ran out of its 64 MiB"),
            (Ended::Signal(libc::SIGSYS), b"", "used a system call that pmodules may not: killed by SIGSYS"),
            (Ended::Signal(libc::SIGKILL), b"", "killed by SIGKILL"),
            (Ended::Signal(libc::SIGVTALRM), b"", "killed by signal 26"),
            (Ended::Signal(libc::SIGXCPU), b"", "killed by SIGXCPU"),
            (Ended::Exit(3), b"", "ended by exit(3)"),
            (Ended::Exit(0), b"", "ended by exit(0)"),
        ];
        for (ended, said, expected) in cases {
            assert_eq!(why(ended, said, 64 << 20), expected);
        }
    }
}
