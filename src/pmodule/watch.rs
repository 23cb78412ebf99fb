//! The tracer's side of a pmodule's process: waiting for its answer, no longer than allowed, and saying how it ended.
#![forbid(unsafe_code)]

use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::Event;
use super::message::{Answer, Answered, LONGEST_ANSWER, PIECE, Phase, Said};
use super::runner::Why;
use crate::report::signal_name;
use crate::sys::confine;
use crate::sys::fault::{self, Fault};
use crate::sys::process::{self, Ended};
use crate::sys::socket::{self, Received, Socket};
use crate::target::Memory;

/// A pmodule's process.
#[derive(Debug)]
pub(super) struct Watched {
    pid: libc::pid_t,
    pub(super) pidfd: OwnedFd,
    pub(super) socket: Socket,
    /// What it writes to its standard error.
    complaints: PipeReader,
    /// What it may use besides what it started with, in bytes.
    memory: u64,
    /// What to call its own code.
    label: Option<String>,
    /// What it writes is shown.
    aloud: bool,
    /// The last event that it began.
    event: Option<Event>,
    /// What it said of its end.
    fault: Option<Fault>,
    is_reaped: bool,
}

impl Watched {
    pub(super) fn new(
        pid: libc::pid_t,
        pidfd: OwnedFd,
        socket: Socket,
        complaints: PipeReader,
        memory: u64,
        label: Option<String>,
        aloud: bool,
    ) -> Self {
        let (event, fault, is_reaped) = (None, None, false);
        Self { pid, pidfd, socket, complaints, memory, label, aloud, event, fault, is_reaped }
    }

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
        let result = self.listen(limit, memory);
        self.show();
        result
    }

    fn listen(&mut self, limit: Duration, memory: Option<&dyn Memory>) -> Result<(Answered, bool), Why> {
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
                return Err(self.late(limit));
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
                    Some(Said::Event(event)) => self.event = Some(event),
                    Some(Said::Fault(fault)) => self.fault = Some(fault),
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
            return self.late(limit);
        }
        self.is_reaped = true;
        let ended = process::wait_end(self.pid);
        let mut said = [0; 1024];
        let length = self.complaints.read(&mut said).unwrap_or(0);
        let said = said.get(..length).unwrap_or_default();
        self.repeat(said);
        let fault =
            self.fault.filter(|fault| matches!(ended, Ended::Signal(signal) if signal == fault.signal));
        let what = why(ended, said, self.memory, fault.as_ref());
        let place = fault.and_then(|fault| place(&fault, self.label.as_deref()));
        Why::ours(format!("{what} {}{}", when(self.event), place.unwrap_or_default()))
    }

    fn late(&self, limit: Duration) -> Why {
        Why::ours(format!("did not end within {} ms; it was {}", limit.as_millis(), when(self.event)))
    }

    /// Shows what it has written so far.
    fn show(&mut self) {
        let mut said = [0; 4096];
        while self.aloud {
            match self.complaints.read(&mut said) {
                Ok(length @ 1..) => self.repeat(said.get(..length).unwrap_or_default()),
                _ => return,
            }
        }
    }

    fn repeat(&self, said: &[u8]) {
        if self.aloud {
            // Nobody to read it: then nobody misses it.
            let _ = std::io::stderr().write_all(said);
        }
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
fn why(ended: Ended, said: &[u8], memory: u64, fault: Option<&Fault>) -> String {
    let has = |words: &[u8]| said.windows(words.len()).any(|window| window == words);
    match ended {
        Ended::Signal(libc::SIGABRT) if has(b"memory allocation of") || has(b"bad_alloc") => {
            format!("ran out of its {} MiB", memory >> 20)
        }
        Ended::Signal(libc::SIGSYS) => {
            let call = fault.map(|fault| match confine::fatal_call(fault.call) {
                Some(name) => format!("used the system call {name}"),
                None => format!("used system call {}", fault.call),
            });
            let call = call.as_deref().unwrap_or("used a system call");
            format!("{call}, which pmodules may not: killed by SIGSYS")
        }
        Ended::Signal(libc::SIGSEGV) if fault.is_some_and(|fault| fault.refused) => {
            format!("killed by SIGSEGV, after memory beyond its {} MiB was refused,", memory >> 20)
        }
        Ended::Signal(libc::SIGKILL) => "killed by SIGKILL".to_owned(),
        Ended::Signal(number) if signal_name(number) == "signal" => format!("killed by signal {number}"),
        Ended::Signal(number) => format!("killed by {}", signal_name(number)),
        Ended::Exit(code) => format!("ended by exit({code})"),
        Ended::Unknown => "ended".to_owned(),
    }
}

/// Which event, for the end of a sentence.
fn when(event: Option<Event>) -> String {
    event.map_or_else(|| "while it was loaded".to_owned(), |event| format!("in {}", event.name()))
}

/// Where, behind that: in its own code, or in what this process, which is its parent, has too.
fn place(fault: &Fault, label: Option<&str>) -> Option<String> {
    let (name, offset) = match (fault.own, label) {
        (true, Some(label)) => (label.to_owned(), fault.offset),
        _ => fault::place(fault.instruction)?,
    };
    Some(format!(", at {name}+{offset:#x}"))
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
            (
                Ended::Signal(libc::SIGSYS),
                b"",
                "used a system call, which pmodules may not: killed by SIGSYS",
            ),
            (Ended::Signal(libc::SIGKILL), b"", "killed by SIGKILL"),
            (Ended::Signal(libc::SIGVTALRM), b"", "killed by signal 26"),
            (Ended::Signal(libc::SIGXCPU), b"", "killed by SIGXCPU"),
            (Ended::Exit(3), b"", "ended by exit(3)"),
            (Ended::Exit(0), b"", "ended by exit(0)"),
        ];
        for (ended, said, expected) in cases {
            assert_eq!(why(ended, said, 64 << 20, None), expected);
        }
        let fault = |signal, call, refused| Fault {
            signal,
            call,
            refused,
            own: true,
            instruction: 9,
            offset: 0x1139,
        };
        let (forked, crashed) = (fault(libc::SIGSYS, 57, false), fault(libc::SIGSEGV, 0, true));
        let call = why(Ended::Signal(libc::SIGSYS), b"", 1 << 20, Some(&forked));
        assert_eq!(call, "used the system call fork, which pmodules may not: killed by SIGSYS");
        let refused = why(Ended::Signal(libc::SIGSEGV), b"", 1 << 20, Some(&crashed));
        assert_eq!(refused, "killed by SIGSEGV, after memory beyond its 1 MiB was refused,");
        assert_eq!(place(&forked, Some("mod.so")).as_deref(), Some(", at mod.so+0x1139"));
        assert_eq!(place(&forked, None), None);
        assert_eq!((when(Some(Event::Frame)), when(None)), ("in frame".into(), "while it was loaded".into()));
    }
}
