//! A new monitor for a process that is dying and finds the old one dead: rung 2a of the ladder.
//!
//! Reached by handlers: nothing here allocates, locks or calls user code. Program, arguments, environment and settings
//! were prepared by [`super::relaunch_kit`].

use std::cell::UnsafeCell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

use super::{limits, signal_safe};
use crate::protocol::HELLO;
use crate::sys::detach::{self, Plan};

/// A descriptor and what it should refer to.
pub(super) struct Known {
    fd: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

impl Known {
    const fn none() -> Self {
        Self { fd: AtomicI32::new(-1), device: AtomicU64::new(0), inode: AtomicU64::new(0) }
    }

    fn set(&self, fd: RawFd) {
        let (device, inode) = signal_safe::identity(fd).unwrap_or_default();
        self.device.store(device, Ordering::Relaxed);
        self.inode.store(inode, Ordering::Relaxed);
        self.fd.store(fd, Ordering::Release);
    }

    fn get(&self) -> Option<RawFd> {
        let fd = self.fd.load(Ordering::Acquire);
        let known = (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed));
        (fd >= 0 && signal_safe::identity(fd) == Some(known)).then_some(fd)
    }
}

struct Hello(UnsafeCell<[u8; HELLO]>);
// SAFETY: written while `PLAN` is null, read by who took it from there.
unsafe impl Sync for Hello {}

/// Taken by who uses it: a process starts one new monitor, at most.
static PLAN: AtomicPtr<Plan> = AtomicPtr::new(std::ptr::null_mut());
static HELLO_BYTES: Hello = Hello(UnsafeCell::new([0; HELLO]));
static SETTINGS: Known = Known::none();
static BLACKBOX: Known = Known::none();
/// The helper's file, if it is one by descriptor.
static FILE: Known = Known::none();

/// Publishes what is prepared; `plan` stays valid for ever. Not for handlers.
pub(super) fn publish(plan: *mut Plan, hello: [u8; HELLO], settings: RawFd, blackbox: RawFd) {
    retire();
    SETTINGS.set(settings);
    BLACKBOX.set(blackbox);
    // SAFETY: just made by the caller, and not yet known to anybody.
    FILE.set(unsafe { (*plan).file() }.unwrap_or(-1));
    // SAFETY: `PLAN` is null, so nobody reads it.
    unsafe { HELLO_BYTES.0.get().write(hello) };
    PLAN.store(plan, Ordering::Release);
}

/// From now on there is none.
pub(super) fn retire() {
    PLAN.store(std::ptr::null_mut(), Ordering::Release);
}

/// A monitor that was just started.
pub(super) struct Started {
    /// Our end of its crash socket.
    pub(super) socket: RawFd,
    pub(super) pid: libc::pid_t,
}

/// Whether there is one to be started.
pub(super) fn is_prepared() -> bool {
    !PLAN.load(Ordering::Acquire).is_null()
}

/// Starts a monitor, by `until_ns` (monotonic) or not at all. It finds the message that is sent into its socket when it is ready.
pub(super) fn start(until_ns: u64) -> Option<Started> {
    let plan = PLAN.swap(std::ptr::null_mut(), Ordering::AcqRel);
    if plan.is_null() {
        return None;
    }
    // The application may have used up all the descriptors that it allows itself.
    let _lifted = limits::lift_limits();
    let (settings, blackbox) = (SETTINGS.get()?, BLACKBOX.get()?);
    // SAFETY: prepared, never freed, and taken by this thread alone.
    let plan = unsafe { &mut *plan };
    if plan.file().is_some() && FILE.get() != plan.file() {
        return None;
    }
    let (control, their_control) = signal_safe::socket_pair()?;
    let (crash, their_crash) = signal_safe::socket_pair()?;
    // SAFETY: written before `PLAN` was.
    let hello = unsafe { &*HELLO_BYTES.0.get() };
    let sent = signal_safe::send_with(control, hello, &[settings, their_crash, blackbox]);
    let started = if sent { detach::start(plan, their_control, until_ns).ok() } else { None };
    // Its ends are its alone, or its death would not show. Ours of the control socket stays open until we are gone.
    signal_safe::close(their_control);
    signal_safe::close(their_crash);
    started.map(|pid| Started { socket: crash, pid })
}
