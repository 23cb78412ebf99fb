//! Stamps of CLOCK_MONOTONIC in memory that the harness shares with a victim and that outlives it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a victim stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Its last instruction before the fault.
    Crash = 0,
    /// The first instruction of its own handler, which runs after the SDK's.
    Released = 1,
}

const LENGTH: usize = 4096;

/// The shared page. Never unmapped: a victim's handler may use it at any time.
#[derive(Debug)]
pub(crate) struct Clock {
    words: &'static [AtomicU64; 2],
    file: OwnedFd,
}

impl Clock {
    /// A fresh page, all zero.
    pub(crate) fn create() -> io::Result<Self> {
        // SAFETY: a NUL-terminated name and a valid flag.
        let fd = unsafe { libc::memfd_create(c"crash-latency".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above returned this descriptor and nobody else knows it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len(LENGTH as u64)?;
        Self::map(file.into())
    }

    /// The harness's page, by the name that [`path`](Self::path) gave.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::map(File::options().read(true).write(true).open(path)?.into())
    }

    /// Where the victim finds it. The harness must be alive.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Writes the time; signal-safe.
    pub(crate) fn stamp(&self, stamp: Stamp) {
        let [crash, released] = self.words;
        let word = if stamp == Stamp::Crash { crash } else { released };
        word.store(now_ns(), Ordering::Release);
    }

    /// The time that was written, if it was.
    pub(crate) fn read(&self, stamp: Stamp) -> Option<u64> {
        let [crash, released] = self.words;
        let word = if stamp == Stamp::Crash { crash } else { released };
        Some(word.load(Ordering::Acquire)).filter(|&ns| ns != 0)
    }

    /// Makes the page ready for the next victim.
    pub(crate) fn reset(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Release));
    }

    fn map(file: OwnedFd) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice, of a file of this length. MAP_POPULATE: the
        // stamps must not wait for a page fault.
        let start = unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            libc::mmap(std::ptr::null_mut(), LENGTH, access, flags, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: page-aligned, long enough, never unmapped, and atomics allow writes by the other process.
        Ok(Self { words: unsafe { &*start.cast() }, file })
    }
}

/// Now, in nanoseconds; the same clock in all processes.
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the local; signal-safe (signal-safety(7)).
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
