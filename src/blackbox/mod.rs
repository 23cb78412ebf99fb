//! What the application noted before it died, in memory that outlives it.
//!
//! The blackbox is a sealed memfd shared with the monitor. Setting an attribute or adding a breadcrumb writes
//! memory and takes no system call; every entry is guarded by a sequence number, so that the monitor can tell a
//! whole entry from one that a dying thread left half-written.
#![deny(unsafe_code)]

mod attributes;
mod breadcrumbs;
mod entry;
mod layout;
mod secret_ranges;
mod secrets;
mod watches;

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::privacy::Mirror;
use crate::report::{Attribute, Breadcrumb, Level, ValueRef};
use crate::sys::memory::SharedMemory;
use layout::{Counter, Header};

pub(crate) use layout::{Counter as Count, End, MonitorState};
pub(crate) use watches::Watched;

/// The application's or the monitor's view of the shared memory.
#[derive(Debug)]
pub(crate) struct Blackbox {
    memory: SharedMemory,
    /// Serialises writers of this process. A spin lock because a mutex may enter the kernel, and because the
    /// critical sections are a few hundred nanoseconds.
    writing: AtomicBool,
}

/// Everything in a blackbox, copied.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Attributes in the order they were first set.
    pub(crate) attributes: Vec<Attribute>,
    /// Breadcrumbs, oldest first.
    pub(crate) breadcrumbs: Vec<Breadcrumb>,
    /// Values that the application registered as secret.
    pub(crate) secrets: Vec<String>,
    /// Entries that were being written when the process stopped.
    pub(crate) torn: u32,
}

impl Blackbox {
    /// How it shows in `/proc/PID/maps` of a process that has it.
    pub(crate) const MAPPED_NAME: &str = "/memfd:cenotaph-blackbox";

    pub(crate) fn create() -> Result<Self> {
        let memory = SharedMemory::create(c"cenotaph-blackbox", layout::WORDS)?;
        let blackbox = Self { memory, writing: AtomicBool::new(false) };
        blackbox.header().initialise();
        Ok(blackbox)
    }

    /// Maps a blackbox received from the application.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let memory = SharedMemory::from_fd(fd, layout::WORDS)?;
        let blackbox = Self { memory, writing: AtomicBool::new(false) };
        if !blackbox.header().is_ours() {
            return Err(Error::malformed("blackbox", "another version of Cenotaph wrote it"));
        }
        Ok(blackbox)
    }

    /// Whether its descriptor is still this one, in a program that may have closed it and opened something else there.
    pub(crate) fn is_open(&self) -> bool {
        self.memory.is_open()
    }

    /// Processes that are forked from now on do not have it.
    pub(crate) fn keep_from_children(&self) {
        self.memory.keep_from_children();
    }

    pub(crate) fn set_attribute(&self, key: &str, value: ValueRef<'_>) -> Result<()> {
        let _lock = self.lock();
        attributes::set(self.memory.words(), key, value)
    }

    pub(crate) fn remove_attribute(&self, key: &str) {
        let _lock = self.lock();
        attributes::remove(self.memory.words(), key);
    }

    pub(crate) fn add_breadcrumb(
        &self,
        time_ms: u64,
        level: Level,
        category: &str,
        message: &str,
    ) -> Result<()> {
        let _lock = self.lock();
        breadcrumbs::add(self.memory.words(), time_ms, level, category, message)
    }

    pub(crate) fn add_secret(&self, value: &str) -> Result<()> {
        let _lock = self.lock();
        secrets::add(self.memory.words(), value)
    }

    /// Registers memory as secret.
    pub(crate) fn add_secret_range(&self, range: &Range<u64>) -> Result<()> {
        let _lock = self.lock();
        secret_ranges::add(self.memory.words(), range)
    }

    pub(crate) fn remove_secret_range(&self, range: &Range<u64>) {
        let _lock = self.lock();
        secret_ranges::remove(self.memory.words(), range);
    }

    pub(crate) fn secret_ranges(&self) -> Vec<Range<u64>> {
        secret_ranges::read(self.memory.words())
    }

    /// Copies everything; never waits for a writer, who may be dead.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut torn = 0;
        Snapshot {
            attributes: attributes::read(self.memory.words(), &mut torn),
            breadcrumbs: breadcrumbs::read(self.memory.words(), &mut torn),
            secrets: secrets::read(self.memory.words(), &mut torn),
            torn,
        }
    }

    /// Watches a thread from now on. The slot is for [`beat`](Self::beat) and [`unwatch`](Self::unwatch).
    pub(crate) fn watch(&self, thread: u32, limit_ms: u64) -> Result<usize> {
        let _lock = self.lock();
        watches::add(self.memory.words(), thread, limit_ms)
    }

    pub(crate) fn unwatch(&self, slot: usize) {
        watches::remove(self.memory.words(), slot);
    }

    /// The thread of the slot lives. A store.
    pub(crate) fn beat(&self, slot: usize) {
        watches::beat(self.memory.words(), slot);
    }

    pub(crate) fn watched(&self) -> Vec<Watched> {
        watches::read(self.memory.words())
    }

    pub(crate) fn mirror(&self) -> Mirror {
        self.header().mirror()
    }

    pub(crate) fn set_mirror(&self, mirror: Mirror) {
        self.header().set_mirror(mirror);
    }

    pub(crate) fn end(&self) -> End {
        self.header().end()
    }

    pub(crate) fn set_end(&self, end: End) {
        self.header().set_end(end);
    }

    /// When (by the request about it) a panic happened that was no event of its own: it came while an earlier one unwound,
    /// and the process aborts because of that.
    pub(crate) fn superseded(&self) -> Option<u64> {
        Some(self.header().superseded()).filter(|&happened_ns| happened_ns != 0)
    }

    pub(crate) fn set_superseded(&self, monotonic_ns: u64) {
        self.header().set_superseded(monotonic_ns);
    }

    pub(crate) fn monitor_state(&self) -> MonitorState {
        self.header().monitor_state()
    }

    pub(crate) fn set_monitor_state(&self, state: MonitorState) {
        self.header().set_monitor_state(state);
    }

    /// For the monitor: the offset of a thread's C++ exceptions from its control block, and the address of the note about
    /// refused memory.
    pub(crate) fn set_places(&self, exception_globals: Option<i64>, refused_memory: u64) {
        self.header().set_places(exception_globals, refused_memory);
    }

    /// What the application said with [`set_places`](Self::set_places). It may be any number.
    pub(crate) fn places(&self) -> (Option<i64>, Option<u64>) {
        self.header().places()
    }

    /// For the monitor: where this program has its random bytes (AT_RANDOM, getauxval(3)), which tells it from another one
    /// that the same process executes.
    pub(crate) fn set_image(&self, address: u64) {
        self.header().image().store(address, Ordering::Release);
    }

    /// What the application said with [`set_image`](Self::set_image).
    pub(crate) fn image(&self) -> Option<u64> {
        Some(self.header().image().load(Ordering::Acquire)).filter(|&address| address != 0)
    }

    /// The word that says which monitor is the application's (`generation`).
    pub(crate) fn generation(&self) -> &AtomicU64 {
        self.header().generation()
    }

    pub(crate) fn count(&self, counter: Counter, more: u64) {
        self.header().counter(counter).fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn counted(&self, counter: Counter) -> u64 {
        self.header().counter(counter).load(Ordering::Relaxed)
    }

    fn header(&self) -> Header<'_> {
        Header(self.memory.words())
    }

    fn lock(&self) -> impl Drop + '_ {
        struct Unlock<'a>(&'a AtomicBool);
        impl Drop for Unlock<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        let mut spins = 0u32;
        while self.writing.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spins += 1;
            // The holder may have been descheduled; let it run rather than burn its core.
            if spins.is_multiple_of(1000) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        Unlock(&self.writing)
    }
}

impl AsFd for Blackbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

#[cfg(test)]
mod tests;
