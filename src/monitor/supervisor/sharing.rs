//! Several processes of one application with one monitor: a client asks for a *seat*, a socket that it hands on to other
//! processes; whoever sends its own sockets and blackbox over a seat becomes a client, if it is this user's and has the
//! same settings.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::super::share;
use super::Supervisor;
use super::client::Client;
use crate::blackbox::{Blackbox, MonitorState};
use crate::protocol::{self, Answer, AnswerKind, ClientMessage, MAX_MESSAGE};
use crate::report::ReportId;
use crate::sys::process;
use crate::sys::socket::{Message, Received, Socket};

/// Clients at once, and seats.
const MOST_CLIENTS: usize = 256;
const MOST_SEATS: usize = 64;
/// Refusals over one seat that are logged.
const MOST_LOGGED: u32 = 8;

/// Where processes may join.
pub(super) struct Seat {
    pub(super) socket: Socket,
    refusals: u32,
}

impl Supervisor {
    /// A client wants a seat; the other end is in its hands already.
    pub(super) fn open_seat(&mut self, fd: Option<OwnedFd>) -> Result<(), &'static str> {
        let socket = fd.and_then(|fd| Socket::from_fd(fd).ok()).ok_or("a seat without a socket")?;
        self.seats.retain(|seat| !seat.socket.is_at_end());
        // Whoever finds no seat starts a monitor of its own.
        if self.seats.len() < MOST_SEATS {
            self.seats.push(Seat { socket, refusals: 0 });
        }
        Ok(())
    }

    /// Each message over a seat is a connection of its own, so that a bad one harms nobody else who has the seat.
    pub(super) fn handle_seat(&mut self, index: usize) {
        let Some(seat) = self.seats.get(index) else { return };
        let joined = match seat.socket.receive(MAX_MESSAGE, Duration::ZERO) {
            Ok(Received::Message(message)) => self.join(message),
            Ok(Received::Nothing) => return,
            Ok(Received::Malformed(why)) => Err(why),
            Ok(Received::Closed) | Err(_) => {
                self.seats.swap_remove(index);
                return;
            }
        };
        if let (Err(why), Some(seat)) = (joined, self.seats.get_mut(index)) {
            seat.refusals = seat.refusals.saturating_add(1);
            if seat.refusals <= MOST_LOGGED {
                self.log.event("supervisor", "not-joined", why);
            }
        }
    }

    fn join(&mut self, message: Message) -> Result<(), &'static str> {
        let Ok(ClientMessage::Join { settings }) = protocol::parse(&message.bytes) else {
            return Err("not a request to join of this version");
        };
        let mut fds = message.fds.into_iter();
        let mut socket = || fds.next().and_then(|fd| Socket::from_fd(fd).ok()).ok_or("too few sockets");
        let (control, crash) = (socket()?, socket()?);
        let blackbox = fds.next().map(Blackbox::from_fd);
        let judged = match blackbox {
            // The kernel says who it is (unix(7), SCM_CREDENTIALS).
            _ if message.uid != process::euid() => Err("a process of another user"),
            _ if message.pid <= 0 => Err("a process that cannot be seen from here"),
            _ if share::digest(&self.config) != Some(settings) => Err("a process with other settings"),
            _ if self.clients.len() >= MOST_CLIENTS => Err("too many processes"),
            Some(Ok(blackbox)) => Ok(blackbox),
            _ => Err("no blackbox"),
        };
        let kind = if judged.is_ok() { AnswerKind::Joined } else { AnswerKind::Refused };
        let answer = Answer { kind, sequence: 0, report: ReportId([0; 16]) };
        let blackbox = judged.inspect_err(|_| {
            let _ = control.send(&protocol::answer(answer), &[]);
        })?;
        if control.send(&protocol::answer(answer), &[]).is_err() {
            return Err("it did not wait");
        }
        blackbox.set_monitor_state(MonitorState::Ready);
        self.next_number += 1;
        self.clients.push(Client::new(
            self.next_number,
            message.pid,
            Some(crash),
            control,
            Rc::new(blackbox),
        ));
        self.delivery.application_back();
        self.log.event("supervisor", "joined", format!("{} processes", self.clients.len()));
        Ok(())
    }

    /// Forgets clients of which nothing more is to be heard.
    pub(super) fn forget_gone(&mut self) {
        let busy: Vec<_> = self.busy.iter().map(|busy| busy.case.owner).collect();
        self.clients.retain(|client| !client.is_over() || busy.contains(&client.number));
    }
}
