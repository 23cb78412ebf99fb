//! What a dying process needs to start a new monitor, prepared while it is well.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use super::relaunch;
use crate::protocol::HELLO;
use crate::sys::kept::Kept;
use crate::sys::spawn::Prepared;

/// A monitor that is not yet started.
#[derive(Debug)]
pub(crate) struct Kit {
    /// Program, arguments and environment.
    pub(crate) prepared: Box<Prepared>,
    /// The first message, with the nonce that the environment has too.
    pub(crate) hello: [u8; HELLO],
    /// Goes with the message, and so does the blackbox.
    pub(crate) settings: OwnedFd,
    /// The helper's file, to be kept open.
    pub(crate) file: Option<OwnedFd>,
}

/// Open for as long as a monitor may be needed.
static OPEN: Mutex<Vec<Kept<OwnedFd>>> = Mutex::new(Vec::new());

/// Has the handler use `kit` when it finds no monitor.
pub(crate) fn equip(kit: Kit, blackbox: RawFd) {
    let mut open = OPEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    relaunch::publish(kit.prepared.leak(), kit.hello, kit.settings.as_raw_fd(), blackbox);
    *open = kit.file.into_iter().chain([kit.settings]).map(Kept::new).collect();
}

/// Takes it away again.
pub(crate) fn unequip() {
    let mut open = OPEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    relaunch::retire();
    open.clear();
}
