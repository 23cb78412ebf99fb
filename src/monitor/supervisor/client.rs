//! A process of the application, as the supervisor knows it: the one that started this monitor, and others that share it.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::Duration;

use super::super::application::Application;
use super::super::hang::Hangs;
use crate::blackbox::Blackbox;
use crate::generation;
use crate::protocol::{self, ClientMessage, MAX_MESSAGE};
use crate::sys::socket::{Message, Received, Socket};

/// Which client. [`FIRST`] is the one that started this monitor.
pub(super) type Number = u32;
/// The one whose life is noted on disk.
pub(super) const FIRST: Number = 0;
/// Messages of others over a client's sockets that are logged.
const MOST_LOGGED: u32 = 8;

/// What came over one of a client's sockets.
pub(super) enum Heard {
    Message(Message, ClientMessage),
    Nothing,
    /// Another process holds a copy of the socket, and is no client: what it says is not listened to.
    Foreign,
    Closed,
    /// Something that no client says.
    Bad(String),
}

/// Gone when both sockets are at their end.
pub(super) struct Client {
    pub(super) number: Number,
    pub(super) crash: Option<Socket>,
    pub(super) control: Option<Socket>,
    pub(super) blackbox: Rc<Blackbox>,
    pub(super) application: Application,
    pub(super) hangs: Hangs,
    pub(super) flushes: Vec<u64>,
    /// Which monitor it took us for when it came (`generation`).
    monitor: u32,
    /// The last numbered message over each socket: its number, and whether descriptors came along.
    last: [Option<(u64, bool)>; 2],
    foreign: u32,
    /// A record of its own was found: it has told of a crash, or of a panic that it may survive.
    pub(super) recorded: bool,
}

impl Client {
    pub(super) fn new(
        number: Number,
        pid: libc::pid_t,
        crash: Option<Socket>,
        control: Socket,
        blackbox: Rc<Blackbox>,
    ) -> Self {
        let application = Application::new(pid);
        let (hangs, flushes, last, foreign, recorded) = (Hangs::default(), Vec::new(), [None; 2], 0, false);
        let (control, monitor) = (Some(control), generation::current(blackbox.generation()));
        Self {
            number,
            crash,
            control,
            blackbox,
            application,
            hangs,
            flushes,
            monitor,
            last,
            foreign,
            recorded,
        }
    }

    /// Takes a message, if there is one.
    pub(super) fn hear(&mut self, crash: bool) -> Heard {
        let Some(socket) = self.socket(crash) else { return Heard::Nothing };
        let message = match socket.receive(MAX_MESSAGE, Duration::ZERO) {
            Ok(Received::Message(message)) => message,
            Ok(Received::Nothing) => return Heard::Nothing,
            Ok(Received::Closed) => return Heard::Closed,
            Ok(Received::Malformed(why)) => return Heard::Bad(why.to_owned()),
            Err(error) => return Heard::Bad(error.to_string()),
        };
        // The kernel says who it is (unix(7), SCM_CREDENTIALS).
        if message.pid != self.application.pid() {
            self.foreign = self.foreign.saturating_add(1);
            return if self.foreign > MOST_LOGGED { Heard::Nothing } else { Heard::Foreign };
        }
        let parsed = match protocol::parse(&message.bytes) {
            Ok(parsed) => parsed,
            Err(error) => return Heard::Bad(error.to_string()),
        };
        let sequence = match &parsed {
            ClientMessage::Capture(request) => Some(request.sequence),
            ClientMessage::Flush { sequence } => Some(*sequence),
            _ => None,
        };
        if let Some(sequence) = sequence {
            let this = Some((sequence, !message.fds.is_empty()));
            let last = &mut self.last[usize::from(crash)];
            if !is_new(*last, this) {
                return Heard::Bad("a message that was there before".to_owned());
            }
            *last = this;
        }
        Heard::Message(message, parsed)
    }

    /// Whether it has found itself another monitor since it came. The first one's word is not asked for: it may have been
    /// overwritten, and nobody else would tell of its end.
    pub(super) fn has_moved_on(&self) -> bool {
        self.number != FIRST && generation::current(self.blackbox.generation()) != self.monitor
    }

    pub(super) fn is_there(&self) -> bool {
        self.crash.is_some() || self.control.is_some()
    }

    /// Nothing is to be heard of it any more, its end included.
    pub(super) fn is_over(&self) -> bool {
        !self.is_there() && !self.application.is_awaited()
    }

    pub(super) fn socket(&self, crash: bool) -> Option<&Socket> {
        if crash { self.crash.as_ref() } else { self.control.as_ref() }
    }

    /// Closes one of the sockets. Whether it was open.
    pub(super) fn close(&mut self, crash: bool) -> bool {
        let slot = if crash { &mut self.crash } else { &mut self.control };
        slot.take().is_some()
    }

    /// Hears nothing of it any more.
    pub(super) fn close_both(&mut self) {
        (self.crash, self.control) = (None, None);
    }
}

/// Numbers grow. The same request comes a second time where a copy of the application is to tell its memory, then with a
/// descriptor.
fn is_new(last: Option<(u64, bool)>, this: Option<(u64, bool)>) -> bool {
    last < this
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_not_new() {
        for (last, this, expected) in [
            (None, (0, false), true),
            (Some((1, false)), (2, false), true),
            (Some((1, false)), (1, true), true),
            (Some((1, true)), (2, false), true),
            (Some((1, false)), (1, false), false),
            (Some((1, true)), (1, true), false),
            (Some((1, true)), (1, false), false),
            (Some((2, false)), (1, true), false),
            (Some((u64::MAX, true)), (u64::MAX, true), false),
        ] {
            assert_eq!(is_new(last, Some(this)), expected, "{last:?} {this:?}");
        }
    }
}
