//! Children of the harness: starting this program in another role, ending what is left over, being interrupted.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The user pressed Ctrl-C.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

pub(crate) fn check_interrupted() -> Result<(), Interrupted> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
}

/// Notes SIGINT and SIGTERM instead of dying of them, and becomes the parent of orphans: Cenotaph's monitor is no child
/// of its application, and the next victim should not share the machine with it.
pub(crate) fn prepare() -> io::Result<()> {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    // SAFETY: an all-zero sigaction is valid (no flags: waiting calls return); the handler stores to an atomic.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as *const () as usize;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// This program in another role. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Role {
    child: Child,
    pidfd: OwnedFd,
}

impl Role {
    /// Starts it, with `variable` set if there is one, and waits until it says that it is ready.
    pub(crate) fn start(
        role: &str,
        arguments: &[String],
        variable: Option<&str>,
        limit: Duration,
    ) -> Result<Self, Failure> {
        let child = Command::new(std::env::current_exe()?)
            .arg(role)
            .args(arguments)
            .envs(variable.map(|name| (name, "1")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pidfd = pidfd(child.id())?;
        let mut started = Self { child, pidfd };
        started.await_ready(role, limit)?;
        Ok(started)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable when it has ended.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Sends the byte that it waits for.
    pub(crate) fn go(&mut self) -> io::Result<()> {
        self.child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"!"))
    }

    /// Collects it, once it has ended by itself.
    pub(crate) fn join(mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        if !poll_in(&self.pidfd, limit)? {
            return Err("a child of the harness did not end".into());
        }
        Ok(self.child.wait()?)
    }

    fn await_ready(&mut self, role: &str, limit: Duration) -> Result<(), Failure> {
        let stdout = self.child.stdout.as_mut().ok_or("no pipe from a child")?;
        let limit = Instant::now() + limit;
        let mut said = Vec::new();
        while !said.ends_with(b"ready\n") {
            let mut byte = [0];
            if !poll_in(stdout, limit.saturating_duration_since(Instant::now()))? {
                return Err(format!("the {role} is not ready after the time limit").into());
            }
            if stdout.read(&mut byte)? == 0 {
                return Err(format!("the {role} ended early: {}", self.child.wait()?).into());
            }
            said.extend(byte);
        }
        Ok(())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Errors: it has ended and was collected.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for orphans to end. Those that stay beyond the limit are ended. Call it without children of one's own.
pub(crate) fn collect_orphans(limit: Duration) -> Result<(), Failure> {
    let limit = Instant::now() + limit;
    loop {
        // SAFETY: a null status pointer is allowed.
        let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
        if pid < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) {
            return Ok(());
        }
        if pid == 0 {
            if Instant::now() > limit {
                end_orphans();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn end_orphans() {
    let children = format!("/proc/self/task/{}/children", std::process::id());
    let children = std::fs::read_to_string(children).unwrap_or_default();
    for pid in children.split_ascii_whitespace().filter_map(|pid| pid.parse::<libc::pid_t>().ok()) {
        // SAFETY: plain values; a child that was not collected keeps its number.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a process id and no flags; returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: pidfd_open returned it and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether `fd` became readable within the time.
fn poll_in(fd: &impl AsRawFd, limit: Duration) -> Result<bool, Failure> {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one entry and a time.
    let ready = unsafe { libc::poll(&raw mut polled, 1, limit) };
    let error = io::Error::last_os_error();
    check_interrupted()?;
    if ready < 0 { Err(error.into()) } else { Ok(ready > 0) }
}
