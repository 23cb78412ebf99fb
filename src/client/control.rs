//! The way from ordinary code to the monitor: its sockets, waiting for answers, another monitor in the place of one that is
//! gone.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::Client;
use crate::blackbox::MonitorState;
use crate::capture as handlers;
use crate::error::{Error, Result};
use crate::monitor;
use crate::protocol::{ANSWER, Answer, AnswerKind, parse_answer};
use crate::sys::kept::Kept;
use crate::sys::process;
use crate::sys::socket::{Received, Socket};

/// Monitors that are started in the place of one that is gone, at most: what ends them may be this process's own doing.
const MOST_REPLACED: u32 = 8;
/// Answers kept for flushes that wait.
const MAX_FLUSHED: usize = 64;

/// The socket for requests, and answers that came while another request was waited for.
pub(super) struct Control {
    socket: Kept<Socket>,
    /// The handler's, kept open here.
    _crash: Kept<Socket>,
    /// Monitors that were started in the place of one that was gone.
    replaced: u32,
    /// Sequence numbers of flushes that were answered. A flush waits in short turns, so that a dying thread gets the
    /// socket in between.
    pub(super) flushed: Vec<u64>,
}

impl Control {
    pub(super) fn new(control: Socket, crash: Socket) -> Self {
        Self { socket: Kept::new(control), _crash: Kept::new(crash), replaced: 0, flushed: Vec::new() }
    }

    /// # Errors
    /// If the application has closed it.
    pub(super) fn socket(&self) -> Result<&Socket> {
        self.socket.get().ok_or_else(|| {
            Error::MonitorUnavailable(
                "the application has closed Cenotaph's descriptors; install it again".into(),
            )
        })
    }

    /// Starts another monitor in the place of one that is gone or given up.
    ///
    /// # Errors
    /// [`Error::MonitorUnavailable`], also where the next one would end like the last.
    pub(super) fn replace_monitor(&mut self, client: &Client) -> Result<()> {
        let refused = matches!(
            client.blackbox.monitor_state(),
            MonitorState::RefusedThreads | MonitorState::OtherVersion
        );
        if refused || self.replaced >= MOST_REPLACED || !client.blackbox.is_open() {
            return Err(monitor_gone());
        }
        self.replaced += 1;
        let link = process::without_file_size_signal(|| {
            monitor::launch(&client.config, &client.blackbox, client.entered)
        })?;
        handlers::serve(link.crash.as_raw(), link.monitor);
        // The handler's own means to start one stay as they are.
        (self.socket, self._crash) = (Kept::new(link.control), Kept::new(link.crash));
        Ok(())
    }

    /// Waits for the answer to request `sequence`.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::MonitorUnavailable`].
    pub(super) fn await_answer(
        &mut self,
        sequence: u64,
        until: Instant,
        mut is_final: impl FnMut(AnswerKind) -> bool,
    ) -> Result<Answer> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.socket()?.receive(ANSWER, left)? {
                Received::Message(message) => match parse_answer(&message.bytes) {
                    Some(answer) if answer.sequence == sequence && is_final(answer.kind) => {
                        return Ok(answer);
                    }
                    Some(answer) if answer.kind == AnswerKind::Flushed => {
                        // Nobody collects the answers of flushes that gave up.
                        self.flushed.truncate(MAX_FLUSHED - 1);
                        self.flushed.insert(0, answer.sequence);
                    }
                    _ => {}
                },
                Received::Nothing => return Err(Error::Timeout("the monitor")),
                Received::Closed => return Err(monitor_gone()),
                Received::Malformed(_) => {}
            }
        }
    }
}

pub(super) fn monitor_gone() -> Error {
    Error::MonitorUnavailable("it has ended; reports already stored are sent by the next start".into())
}
