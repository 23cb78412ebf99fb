//! A process of the application, as the supervisor knows it: the one that started this monitor, and others that share it.
#![forbid(unsafe_code)]

use std::rc::Rc;

use super::super::application::Application;
use super::super::hang::Hangs;
use crate::blackbox::Blackbox;
use crate::sys::socket::Socket;

/// Which client. [`FIRST`] is the one that started this monitor.
pub(super) type Number = u32;
/// The one whose life is noted on disk.
pub(super) const FIRST: Number = 0;

/// Gone when both sockets are at their end.
pub(super) struct Client {
    pub(super) number: Number,
    pub(super) crash: Option<Socket>,
    pub(super) control: Option<Socket>,
    pub(super) blackbox: Rc<Blackbox>,
    pub(super) application: Application,
    pub(super) hangs: Hangs,
    pub(super) flushes: Vec<u64>,
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
        let (hangs, flushes) = (Hangs::default(), Vec::new());
        Self { number, crash, control: Some(control), blackbox, application, hangs, flushes }
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
