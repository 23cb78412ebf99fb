//! When an uploader runs: after a commit, after a grant, at the next retry; and for how long the monitor stays
//! for it after the application has ended.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::log::Log;
use super::stages;
use crate::blackbox::Blackbox;
use crate::config::ValidConfig;
use crate::error::Result;
use crate::privacy::{Stage, Verdict};
use crate::spool::file::Spool;
use crate::sys::process;
use crate::sys::socket::{Received, Socket};

/// An uploader that keeps dying is not started again before the application's next start.
const MAX_DEATHS: u32 = 5;
/// How long after the lingering an uploader that does not end is waited for: a request has a time limit of 60 s.
const STUCK: Duration = Duration::from_secs(90);
/// The wait before an uploader that died is replaced.
const AFTER_DEATH: Duration = Duration::from_millis(500);

/// An uploader's last message.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Pass {
    /// When the next waiting report is due (Unix milliseconds).
    pub(super) next_due_ms: Option<u64>,
    /// What it learnt of the servers (when they want to be asked again), for the next one.
    #[serde(default)]
    pub(super) learnt: serde_json::Value,
}

/// Ended, if need be, when this is dropped.
struct Uploader {
    socket: Socket,
    pidfd: OwnedFd,
    pass: Option<Pass>,
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // It has said all that it has to say, or is late, or no longer wanted. Killing one that is at its end changes nothing.
        process::kill_pidfd(self.pidfd.as_fd());
    }
}

/// The supervisor's view of delivery.
pub(super) struct Delivery {
    config: ValidConfig,
    log: Log,
    uploader: Option<Uploader>,
    next: Option<Instant>,
    again: bool,
    deaths: u32,
    gone: Option<Instant>,
    learnt: serde_json::Value,
}

impl Delivery {
    pub(super) fn new(config: &ValidConfig, log: Log) -> Self {
        Self {
            next: None,
            config: config.clone(),
            log,
            uploader: None,
            again: false,
            deaths: 0,
            gone: None,
            learnt: serde_json::Value::Null,
        }
    }

    /// Reports of earlier runs are due at once.
    pub(super) fn look_back(&mut self) {
        let spool = Spool::new(&self.config.spool).with_limits(stages::limits(&self.config));
        // Reports that wait for consent, or for a destination to be named, have their age limit all the same.
        let _ = spool.expire();
        if spool.list().is_ok_and(|items| !items.is_empty()) {
            self.next = Some(Instant::now());
        }
    }

    pub(super) fn socket(&self) -> Option<&Socket> {
        self.uploader.as_ref().map(|uploader| &uploader.socket)
    }

    pub(super) fn is_running(&self) -> bool {
        self.uploader.is_some()
    }

    /// When something has to be done without being told, if ever.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let linger = self.gone.map(|gone| gone + Duration::from_millis(self.config.linger_ms));
        match (self.next, linger) {
            (_, Some(linger)) if self.is_running() => Some(linger + STUCK),
            (_, None) if self.is_running() => None,
            (Some(next), Some(linger)) => Some(next.min(linger)),
            (next, _) => next,
        }
    }

    pub(super) fn application_gone(&mut self) {
        self.gone.get_or_insert_with(Instant::now);
    }

    /// Another process of the application has come.
    pub(super) fn application_back(&mut self) {
        self.gone = None;
    }

    /// Whether the monitor of an application that is gone has nothing left to wait for.
    pub(super) fn may_end(&self, linger: Duration) -> bool {
        let limit = self.gone.map(|gone| gone + linger);
        !self.is_running()
            && !self.again
            && self.next.is_none_or(|next| limit.is_some_and(|limit| next > limit))
    }

    /// Starts an uploader that is due; ends one that has been stuck for long after the application has gone.
    pub(super) fn start_if_due(&mut self, blackbox: &Blackbox) {
        let linger = Duration::from_millis(self.config.linger_ms);
        let stuck = self.gone.is_some_and(|gone| gone.elapsed() >= linger + STUCK);
        if stuck && self.uploader.take().is_some() {
            self.log.event("supervisor", "uploader-stuck", "ended; its report goes back to pending");
            self.again = false;
            self.next = None;
        }
        if !self.is_running() && self.next.is_some_and(|at| at <= Instant::now()) {
            self.start(blackbox);
        }
    }

    /// Starts an uploader, or has the running one followed by another.
    pub(super) fn start(&mut self, blackbox: &Blackbox) {
        self.next = None;
        if self.config.destinations.is_empty() {
            return;
        }
        if self.is_running() {
            self.again = true;
            return;
        }
        self.again = false;
        match launch(&self.config, blackbox, &self.learnt) {
            Ok(uploader) => self.uploader = Some(uploader),
            Err(error) => self.log.event("supervisor", "no-uploader", error),
        }
    }

    /// A withdrawal ends a delivery that is under way; a grant starts one.
    pub(super) fn consent_changed(&mut self, blackbox: &Blackbox) {
        if stages::ask(Stage::Upload, &self.config, blackbox) == Verdict::Drop {
            self.uploader = None;
            self.next = None;
            self.again = false;
        } else {
            self.start(blackbox);
        }
    }

    /// Takes what a poll announced: the uploader's last words, or its end.
    pub(super) fn handle_message(&mut self) {
        let Some(uploader) = &mut self.uploader else { return };
        match uploader.socket.receive(16 * 1024, Duration::ZERO) {
            Ok(Received::Message(message)) => {
                uploader.pass = serde_json::from_slice(&message.bytes).ok();
            }
            Ok(Received::Nothing) => {}
            Ok(Received::Closed | Received::Malformed(_)) | Err(_) => {
                let pass = uploader.pass.take();
                self.uploader = None;
                self.ended(pass);
            }
        }
    }

    fn ended(&mut self, pass: Option<Pass>) {
        let now = Instant::now();
        match pass {
            Some(pass) => {
                self.deaths = 0;
                self.learnt = pass.learnt;
                self.next = pass
                    .next_due_ms
                    .map(|due| now + Duration::from_millis(due.saturating_sub(process::unix_ms())));
            }
            None => {
                self.deaths += 1;
                self.log.event("supervisor", "uploader-died", format!("death {}", self.deaths));
                self.next = (self.deaths < MAX_DEATHS).then(|| now + AFTER_DEATH);
            }
        }
        if self.again {
            self.again = false;
            self.next = Some(now);
        }
    }
}

#[cfg(feature = "upload")]
fn launch(config: &ValidConfig, blackbox: &Blackbox, learnt: &serde_json::Value) -> Result<Uploader> {
    let (pid, socket) = super::launch::launch_uploader(config, blackbox, learnt)?;
    Ok(Uploader { socket, pidfd: process::pidfd(pid)?, pass: None })
}

#[cfg(not(feature = "upload"))]
fn launch(_: &ValidConfig, _: &Blackbox, _: &serde_json::Value) -> Result<Uploader> {
    Err(crate::error::Error::Upload("this build has no uploader; enable the feature `upload`".into()))
}
