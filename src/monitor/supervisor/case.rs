//! A crash on its way to a report, and the worker that has it.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use super::super::worker::Handle;
use super::client::{Client, Number};
use crate::blackbox::Blackbox;

/// A crash that has no report yet.
pub(super) struct Case {
    /// Whose it is.
    pub(super) owner: Number,
    /// And what that noted.
    pub(super) blackbox: Rc<Blackbox>,
    pub(super) pid: libc::pid_t,
    pub(super) request: Vec<u8>,
    /// A copy of the application's socket, so that a second worker can answer too.
    pub(super) client: OwnedFd,
    /// Which monitor the application took us for when it asked; `None` if it did not.
    pub(super) monitor: Option<u32>,
    /// The application's memory, once a worker has read it.
    pub(super) bundle: Option<OwnedFd>,
    /// The other end is a copy of the application, which tells its memory.
    pub(super) memory: Option<OwnedFd>,
    /// Workers that died over it.
    pub(super) deaths: u32,
    /// Those that may have died by their own doing.
    pub(super) faults: u32,
    /// When the application stops waiting and writes its own record.
    pub(super) waits_until: Instant,
}

/// A worker with a case in its hands.
pub(super) struct Busy {
    pub(super) worker: Handle,
    pub(super) case: Case,
    pub(super) deadline: Instant,
    /// When to see whether somebody has stopped it.
    pub(super) next_look: Instant,
    /// When it was given the case.
    pub(super) since: Instant,
    /// Where it stood still at the last look.
    pub(super) stood_at: Option<u64>,
}

impl Case {
    /// Of a process that has not asked, or of which no more is known yet.
    pub(super) fn new(owner: &Client, pid: libc::pid_t, request: Vec<u8>, client: OwnedFd) -> Self {
        Self::of(owner.number, owner.blackbox.clone(), pid, request, client)
    }

    pub(super) fn of(
        owner: Number,
        blackbox: Rc<Blackbox>,
        pid: libc::pid_t,
        request: Vec<u8>,
        client: OwnedFd,
    ) -> Self {
        Self {
            owner,
            blackbox,
            pid,
            request,
            client,
            monitor: None,
            bundle: None,
            memory: None,
            deaths: 0,
            faults: 0,
            waits_until: Instant::now(),
        }
    }
}
