//! The supervisor's side of minimal records: a worker at a time over what dying processes wrote themselves.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, RawFd};
use std::time::{Duration, Instant};

use super::job::{self, Progress};
use super::outcome::Outcome;
use super::pmodules::Pmodules;
use super::worker::Handle;
use crate::blackbox::Blackbox;
use crate::config::ValidConfig;
use crate::spool::records;

/// How long one record may take.
const TIME: Duration = Duration::from_secs(120);

/// The worker, while there is something to do.
#[derive(Default)]
pub(super) struct Leftovers {
    worker: Option<(Handle, Instant)>,
    /// To be looked for when no crash is in hand any more.
    pub(super) wanted: bool,
}

impl Leftovers {
    /// Each record gets a worker of its own: one that kills its worker costs no other.
    pub(super) fn look(&mut self, config: &ValidConfig, pmodules: &Pmodules, blackbox: &Blackbox) {
        if self.worker.is_some() || !records::is_any(&config.spool) {
            return;
        }
        let Ok(worker) = Handle::start(config, pmodules, blackbox, None) else { return };
        // One that could not be told is found dead by the next poll.
        let _ = job::send_leftover(&worker.socket, blackbox.as_fd());
        self.worker = Some((worker, Instant::now() + TIME));
    }

    pub(super) fn worker(&self) -> Option<&Handle> {
        self.worker.as_ref().map(|(worker, _)| worker)
    }

    /// Takes what the worker has to say, and ends it. `Nothing` left to do, or nothing to be had of this one: since a record
    /// is taken twice at most, asking again comes to an end.
    pub(super) fn finish(&mut self) -> Option<Outcome> {
        let (worker, _) = self.worker.take()?;
        Some(match job::progress(&worker.socket) {
            Progress::Done(outcome) => outcome,
            Progress::Read(_) | Progress::LetGo | Progress::Died => {
                Outcome::Failed { reason: "a worker died over a minimal record".to_owned() }
            }
        })
    }

    /// Ends a worker that is late. Returns whether one was.
    pub(super) fn kill_overdue(&mut self) -> bool {
        self.worker.take_if(|(_, deadline)| *deadline <= Instant::now()).is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.worker.is_none()
    }

    pub(super) fn as_raw(&self) -> Option<RawFd> {
        self.worker.as_ref().map(|(worker, _)| worker.socket.as_raw())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.worker.as_ref().map(|(_, deadline)| *deadline)
    }
}
