//! Messages between the supervisor and its workers, which are forked copies of itself.
#![forbid(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::outcome::{Effort, Outcome};
use crate::error::{Error, Result};
use crate::protocol::MAX_MESSAGE;
use crate::sys::socket::{Message, Received, Socket};

const CAPTURE: u8 = 1;
const RESUME: u8 = 2;
const LEFTOVER: u8 = 3;
const READ: u8 = 1;
const DONE: u8 = 2;
const LET_GO: u8 = 3;

/// What a worker is to do.
pub(super) enum Job {
    /// Look at process `pid`, whose request is in `request`, and make its report.
    Capture {
        pid: libc::pid_t,
        request: Vec<u8>,
        /// Workers that died over it before by their own doing.
        faults: u8,
        /// For answering the application directly.
        client: OwnedFd,
        blackbox: OwnedFd,
        /// The other end is a copy of the process, which tells its memory.
        memory: Option<OwnedFd>,
    },
    /// Go on with memory that another worker has read.
    Resume {
        effort: Effort,
        bundle: OwnedFd,
        blackbox: OwnedFd,
        /// If the application still waits.
        client: Option<OwnedFd>,
    },
    /// Make a report of one minimal record that an earlier process left.
    Leftover { blackbox: OwnedFd },
}

/// What a worker reports.
pub(super) enum Progress {
    /// The application's memory is in this memfd. The application may stand still yet.
    Read(OwnedFd),
    /// The application goes on.
    LetGo,
    /// The end.
    Done(Outcome),
    /// The worker died, or speaks nonsense.
    Died,
}

pub(super) fn send_capture(
    worker: &Socket,
    pid: libc::pid_t,
    faults: u32,
    request: &[u8],
    client: BorrowedFd<'_>,
    blackbox: BorrowedFd<'_>,
    memory: Option<BorrowedFd<'_>>,
) -> std::io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = [client, blackbox].into_iter().chain(memory).collect();
    let bytes =
        [&[CAPTURE, u8::try_from(faults).unwrap_or(u8::MAX)], pid.to_ne_bytes().as_slice(), request].concat();
    worker.send(&bytes, &fds)
}

pub(super) fn send_resume(
    worker: &Socket,
    effort: Effort,
    bundle: BorrowedFd<'_>,
    blackbox: BorrowedFd<'_>,
    client: Option<BorrowedFd<'_>>,
) -> std::io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = [bundle, blackbox].into_iter().chain(client).collect();
    worker.send(&[RESUME, effort as u8], &fds)
}

pub(super) fn send_leftover(worker: &Socket, blackbox: BorrowedFd<'_>) -> std::io::Result<()> {
    worker.send(&[LEFTOVER], &[blackbox])
}

/// Waits for a job; `None` when the supervisor is gone.
pub(super) fn receive(supervisor: &Socket) -> Result<Option<Job>> {
    const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
    match supervisor.receive(MAX_MESSAGE + 8, FOR_EVER)? {
        Received::Message(message) => parse(message).map(Some),
        Received::Closed => Ok(None),
        Received::Nothing | Received::Malformed(_) => Err(Error::malformed("message", "no job")),
    }
}

fn parse(message: Message) -> Result<Job> {
    let malformed = || Error::malformed("message", "no job of this version");
    let mut fds = message.fds.into_iter();
    let mut next = || fds.next().ok_or_else(malformed);
    match message.bytes.split_first().ok_or_else(malformed)? {
        (&CAPTURE, [faults, rest @ ..]) => {
            let (pid, request) = rest.split_at_checked(4).ok_or_else(malformed)?;
            let pid = libc::pid_t::from_ne_bytes(pid.try_into().map_err(|_| malformed())?);
            Ok(Job::Capture {
                pid,
                faults: *faults,
                request: request.to_vec(),
                client: next()?,
                blackbox: next()?,
                memory: next().ok(),
            })
        }
        (&RESUME, &[effort]) => {
            let effort = Effort::from_byte(effort);
            Ok(Job::Resume { effort, bundle: next()?, blackbox: next()?, client: next().ok() })
        }
        (&LEFTOVER, []) => Ok(Job::Leftover { blackbox: next()? }),
        _ => Err(malformed()),
    }
}

pub(super) fn send_read(supervisor: &Socket, bundle: BorrowedFd<'_>) -> std::io::Result<()> {
    supervisor.send(&[READ], &[bundle])
}

pub(super) fn send_let_go(supervisor: &Socket) -> std::io::Result<()> {
    supervisor.send(&[LET_GO], &[])
}

/// Whether the supervisor got it.
pub(super) fn send_done(supervisor: &Socket, outcome: &Outcome) -> bool {
    let mut bytes = vec![DONE];
    serde_json::to_writer(&mut bytes, outcome).is_ok() && supervisor.send(&bytes, &[]).is_ok()
}

/// Takes a message that a poll announced.
pub(super) fn progress(worker: &Socket) -> Progress {
    let Ok(Received::Message(message)) = worker.receive(64 * 1024, Duration::ZERO) else {
        return Progress::Died;
    };
    match message.bytes.split_first() {
        Some((&READ, _)) => message.fds.into_iter().next().map_or(Progress::Died, Progress::Read),
        Some((&LET_GO, _)) => Progress::LetGo,
        Some((&DONE, json)) => serde_json::from_slice(json).map_or(Progress::Died, Progress::Done),
        _ => Progress::Died,
    }
}
