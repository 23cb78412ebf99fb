//! The application's side: installing, and what the application may say while it runs.
#![forbid(unsafe_code)]

mod consent;
mod control;
mod last_words;
mod request;
mod surroundings;
mod watch;

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, RwLock};
use std::time::Duration;

pub use consent::ConsentHandle;
use control::Control;
pub use last_words::note_loaded_modules;
pub use request::capture;
pub use watch::{Watch, watch_thread};

use crate::allocator;
use crate::blackbox::{Blackbox, Count, End, MonitorState};
use crate::capture::{self as handlers, Armament, panic_hook};
use crate::config::{Config, ReleaseAt, ValidConfig};
use crate::error::{Error, Result};
use crate::monitor;
use crate::privacy::{Audience, Mirror};
use crate::private_file;
use crate::report::{Level, ValueRef};
use crate::start_ups;
use crate::sys::errno::Errno;
use crate::sys::socket::Socket;
use crate::sys::{cxx, process, trusted};

/// The one client of this process.
static CLIENT: RwLock<Option<Arc<Client>>> = RwLock::new(None);

/// How long a start waits for the delivery of reports after a crash of the start before.
const AFTER_CRASH: Duration = Duration::from_secs(2);

/// What an installed Cenotaph holds.
pub(crate) struct Client {
    pub(crate) config: ValidConfig,
    pub(crate) blackbox: Blackbox,
    /// For one request and its answer at a time.
    control: Mutex<Control>,
    /// Numbers requests, so that a late answer is not taken for another's.
    sequence: AtomicU64,
    safe_mode: bool,
    /// `main` began with `monitor_entry()`.
    entered: bool,
}

/// Keeps Cenotaph installed. Dropping it shuts down: handlers are put back, the monitor finishes what it has.
#[must_use = "dropping the guard shuts Cenotaph down"]
#[derive(Debug)]
pub struct Guard {
    /// A forked child has a copy of its parent's guard; the child's own installation is not that guard's.
    process: u32,
}

/// What happened so far, counted by the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether a monitor is there.
    pub monitor: Monitor,
    /// Reports committed to the spool.
    pub spooled: u64,
    /// Reports accepted by every destination.
    pub delivered: u64,
    /// Reports that a server refused for good; they stay in the spool's `rejected` folder.
    pub rejected: u64,
    /// Deliveries that will be tried again.
    pub deferred: u64,
    /// Crashes of which nothing was kept because consent does not allow it.
    pub refused_by_consent: u64,
    /// Reports that could not be made or stored.
    pub failed: u64,
    /// Reports with less detail than configured because a stage failed.
    pub stepped_down: u64,
    /// Reports removed to stay within the limits of age, count and size.
    pub expired: u64,
    /// Crashes of which a pmodule did not want a report.
    pub vetoed: u64,
    /// Crashes that were counted and not stored, because there were many like them
    /// ([`Config::reports_per_signature`]).
    pub repeated: u64,
    /// The last starts ended in a crash soon after, more often than [`Config::safe_mode_after`] allows: the application may
    /// want to leave out what could be at fault.
    pub safe_mode: bool,
}

/// The monitor, as far as the application can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Monitor {
    /// Started, not yet waiting. A crash now is still reported.
    Starting,
    /// Waiting for a crash.
    Ready,
    /// It gave up because the program had started threads before it reached `install()` or `monitor_entry()`.
    RefusedThreads,
    /// The [helper](Config::helper) is of another version than this library, and gave up. A crash or a panic now leaves a minimal
    /// record, which the next start with a monitor of this version reports; [`capture`] is an error.
    OtherVersion,
    /// It ended. A crash, a panic or [`capture`] now starts another one; if that cannot be, a crash and a panic leave a minimal
    /// record for the next start to report.
    Gone,
}

impl Config {
    /// Starts the monitor, then installs the handlers. Takes a millisecond or less; nothing here uses the network or
    /// waits for the monitor, and no file is written. Only after a crash soon after the last start
    /// ([`start_up`](Self::start_up)) it waits until the report of that is delivered, for up to 2 s.
    ///
    /// In a process that was started as a monitor this does not return: see [`monitor_entry`](crate::monitor_entry).
    ///
    /// # Errors
    /// [`Error::InvalidConfig`], [`Error::File`] for a spool directory that cannot be used (as far as can be seen
    /// without writing),
    /// [`Error::MonitorUnavailable`], [`Error::AlreadyInstalled`], [`Error::System`]. The application is then as it was
    /// before and may go on without.
    pub fn install(self) -> Result<Guard> {
        let _errno = Errno::save();
        let (registered, asked, seat) = (self.pmodules.clone(), self.release_at, self.seat.clone());
        let mut config = self.validate()?;
        let entered = monitor::become_role(registered);
        entered.check(&config)?;
        let mut slot = CLIENT.write().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            if handlers::is_armed() {
                return Err(Error::AlreadyInstalled);
            }
            // Forked from the process that installed: what was copied serves the parent alone.
            handlers::disarm();
            handlers::unequip();
            handlers::forbid_records();
            slot.take();
        }
        check_spool(&config.spool)?;
        check_authorities(&config)?;
        check_plugins(&config)?;
        getrandom::fill(&mut config.session)
            .map_err(|e| Error::System { call: "getrandom", source: std::io::Error::other(e.to_string()) })?;
        config.program = std::env::current_exe().ok();
        config.release_at = surroundings::release_at(asked);
        let (blackbox, link) = process::without_file_size_signal(|| {
            let blackbox = Blackbox::create()?;
            blackbox.set_image(process::image());
            blackbox.set_places(cxx::exception_globals(), allocator::refused_memory());
            let own = || monitor::launch(&config, &blackbox, entered.is_entered());
            let link = match &seat {
                Some(seat) => {
                    monitor::join(seat.as_fd(), &config, &blackbox, entered.is_entered()).or_else(|_| own())
                }
                None => own(),
            }?;
            Ok::<_, Error>((blackbox, link))
        })?;
        last_words::note_modules(&config, &[]);
        handlers::arm(Armament {
            socket: link.crash.as_raw(),
            monitor: link.monitor,
            generation: std::ptr::from_ref(blackbox.generation()),
            deadline_ns: config.deadline_ms.saturating_mul(1_000_000),
            until_spooled: config.release_at == ReleaseAt::Spooled,
            no_core: config.audience == Audience::ChildDirected && !config.keep_core,
            signals: signal_bits(&config.signals),
            chain_first: config.chain_first,
            last_words: last_words::constants(&config)?,
        })?;
        static AT_EXIT: Once = Once::new();
        AT_EXIT.call_once(|| process::at_exit(say_good_bye));
        handlers::set_secret_ranges(&[]);
        handlers::equip(link.another, blackbox.as_fd().as_raw_fd());
        last_words::follow_consent(&config, Mirror::Silent);
        if config.panics {
            panic_hook::install(request::PANICS);
        }
        let crashes = if config.start_up_ms > 0 { start_ups::crashes_in_a_row(&config.spool) } else { 0 };
        *slot = Some(Arc::new(Client {
            safe_mode: crashes > config.safe_mode_after,
            config,
            blackbox,
            control: Mutex::new(Control::new(link.control, link.crash)),
            entered: entered.is_entered(),
            sequence: AtomicU64::new(1),
        }));
        drop(slot);
        if crashes > 0 {
            // The next crash may come before anything is sent. What cannot be sent now is no reason not to start.
            let _ = request::flush(AFTER_CRASH);
        }
        Ok(Guard { process: std::process::id() })
    }
}

/// The installed client, unless this is a forked child of the process that installed it.
pub(crate) fn client() -> Result<Arc<Client>> {
    // Before the lock: in a forked child another thread of the parent may have left it taken.
    if !handlers::is_armed() {
        return Err(Error::NotInstalled);
    }
    CLIENT.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::NotInstalled)
}

impl Client {
    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the monitor something that has no answer.
    pub(crate) fn tell(&self, message: &[u8]) -> Result<()> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.socket()?.send(message, &[]).map_err(|_| control::monitor_gone())
    }

    /// Asks the monitor something and returns the number of that. Numbers grow in the order in which they are sent.
    pub(crate) fn ask(&self, message: impl FnOnce(u64) -> Vec<u8>) -> Result<u64> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = self.next_sequence();
        control.socket()?.send(&message(sequence), &[]).map_err(|_| control::monitor_gone())?;
        Ok(sequence)
    }
}

impl Guard {
    /// Waits until everything that can be delivered now has been delivered, or the time is over.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::MonitorUnavailable`] if the monitor has ended.
    pub fn flush(&self, wait: Duration) -> Result<()> {
        request::flush(wait)
    }

    /// What happened so far. Takes one system call.
    pub fn status(&self) -> Status {
        status().unwrap_or(Status {
            monitor: Monitor::Gone,
            spooled: 0,
            delivered: 0,
            rejected: 0,
            deferred: 0,
            refused_by_consent: 0,
            failed: 0,
            stepped_down: 0,
            expired: 0,
            vetoed: 0,
            repeated: 0,
            safe_mode: false,
        })
    }

    /// Whether the last starts ended in a crash soon after, more often than [`Config::safe_mode_after`] allows: the application
    /// may want to leave out what could be at fault.
    pub fn safe_mode(&self) -> bool {
        client().is_ok_and(|client| client.safe_mode)
    }

    /// Puts the earlier signal handlers back and lets the monitor finish on its own. The same as dropping. An alternate signal
    /// stack that [`install`](Config::install) gave its thread goes if this is the same thread, else when that one ends.
    pub fn shutdown(self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !handlers::is_armed() || self.process != std::process::id() {
            // A forked child drops its copy: the handlers and the monitor are its parent's.
            return;
        }
        let _errno = Errno::save();
        // A panic that unwinds out of `main` takes the guard along: no clean end.
        say(if std::thread::panicking() { End::Reported } else { End::Clean });
        handlers::disarm();
        handlers::unequip();
        handlers::forbid_records();
        CLIENT.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Whoever leaves in an orderly way says so, for the monitor to tell such an end from a sudden one.
extern "C" fn say_good_bye() {
    say(End::Clean);
}

fn say(end: End) {
    if handlers::is_armed()
        && let Ok(slot) = CLIENT.try_read()
        && let Some(client) = &*slot
    {
        client.blackbox.set_end(end);
        if client.config.release_at == ReleaseAt::Spooled {
            // The monitor may be ended with us, before it has read that.
            monitor::forget_session(&client.config);
        }
    }
}

/// What happened so far.
///
/// # Errors
/// [`Error::NotInstalled`].
pub fn status() -> Result<Status> {
    let client = client()?;
    let counted = |counter| client.blackbox.counted(counter);
    let gone = {
        let control = client.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.socket().map_or(true, Socket::is_at_end)
    };
    Ok(Status {
        monitor: match client.blackbox.monitor_state() {
            MonitorState::RefusedThreads => Monitor::RefusedThreads,
            MonitorState::OtherVersion => Monitor::OtherVersion,
            _ if gone => Monitor::Gone,
            MonitorState::Starting => Monitor::Starting,
            MonitorState::Ready => Monitor::Ready,
        },
        spooled: counted(Count::Spooled),
        delivered: counted(Count::Delivered),
        rejected: counted(Count::Rejected),
        deferred: counted(Count::Deferred),
        refused_by_consent: counted(Count::RefusedByConsent),
        failed: counted(Count::Failed),
        stepped_down: counted(Count::SteppedDown),
        expired: counted(Count::Expired),
        vetoed: counted(Count::Vetoed),
        repeated: counted(Count::Repeated),
        safe_mode: client.safe_mode,
    })
}

/// Sets an attribute: 128 at most, a name of 1 to 64 bytes, a string value of up to 1024 bytes (longer ones are cut
/// at a character and marked). Takes no system call and does not allocate. Any thread may call it; no signal handler may.
///
/// # Errors
/// [`Error::Limit`], [`Error::NotInstalled`].
pub fn set_attribute<'a>(key: &str, value: impl Into<ValueRef<'a>>) -> Result<()> {
    client()?.blackbox.set_attribute(key, value.into())
}

/// Removes an attribute, if it is there.
///
/// # Errors
/// [`Error::NotInstalled`].
pub fn remove_attribute(key: &str) -> Result<()> {
    client()?.blackbox.remove_attribute(key);
    Ok(())
}

/// Adds a breadcrumb to the ring of the last 128: a category of up to 32 bytes, a message of up to 448 (longer ones are
/// cut). Takes no system call and does not allocate. In a child-directed application the message is not kept.
///
/// # Errors
/// [`Error::Limit`] for the category, [`Error::NotInstalled`].
pub fn add_breadcrumb(level: Level, category: &str, message: &str) -> Result<()> {
    let client = client()?;
    let message = if client.config.audience == Audience::ChildDirected { "" } else { message };
    client.blackbox.add_breadcrumb(process::unix_ms(), level, category, message)
}

/// Registers a value that must never leave the device, in any report from now on: 64 at most, up to 256 bytes.
///
/// # Errors
/// [`Error::Limit`], [`Error::NotInstalled`].
pub fn register_secret(value: &str) -> Result<()> {
    let client = client()?;
    client.blackbox.add_secret(value)?;
    handlers::hide_modules(value);
    Ok(())
}

/// Registers memory that must never leave the device: `len` bytes from `start` on, whatever is in them at the time of a
/// crash. They read as zeros in dumps and to pmodules, words in them are left out of minimal records, and the receipt of a
/// dump that would have had them names them (rule `secret-range`). Copies of texts in them are removed like registered
/// values; copies of anything else are not. 64 ranges at most. The memory is not touched; it may be freed and used anew.
///
/// # Errors
/// [`Error::Limit`] also for a length of 0 or one that does not fit behind `start`, [`Error::NotInstalled`].
pub fn register_secret_range(start: *const u8, len: usize) -> Result<()> {
    let range = address_range(start, len)?;
    let client = client()?;
    client.blackbox.add_secret_range(&range)?;
    handlers::set_secret_ranges(&client.blackbox.secret_ranges());
    Ok(())
}

/// Takes back [`register_secret_range`] with the same `start` and `len`: before the memory is used for something else.
///
/// # Errors
/// [`Error::Limit`] as there, [`Error::NotInstalled`].
pub fn unregister_secret_range(start: *const u8, len: usize) -> Result<()> {
    let range = address_range(start, len)?;
    let client = client()?;
    client.blackbox.remove_secret_range(&range);
    handlers::set_secret_ranges(&client.blackbox.secret_ranges());
    Ok(())
}

fn address_range(start: *const u8, len: usize) -> Result<std::ops::Range<u64>> {
    let start = start.addr() as u64;
    let end = start.checked_add(len as u64).filter(|&end| start != 0 && end > start);
    end.map(|end| start..end)
        .ok_or(Error::Limit { what: "a secret range in bytes (1 or more)", limit: isize::MAX as usize })
}

/// A descriptor by which other processes of this application share this process's monitor
/// ([`Config::share_monitor`]), so that a browser with ten workers has one monitor and not eleven. It is closed on exec; hand
/// it on as any descriptor: as a child's standard input, over a socket, by a fork. Any number of processes may use it, and each
/// proves its user to the kernel; a bad message over it harms nobody else. The monitor lives as long as the last of them;
/// whoever comes later starts another one.
///
/// `status()` counts each process's own reports; deliveries are counted where the monitor was started, and its consent
/// mirror is that process's (the record on disk is everybody's).
///
/// # Errors
/// [`Error::NotInstalled`], [`Error::MonitorUnavailable`], [`Error::System`].
pub fn share_monitor() -> Result<std::os::fd::OwnedFd> {
    let client = client()?;
    let (ours, theirs) = Socket::pair()?;
    let control = client.control.lock().unwrap_or_else(PoisonError::into_inner);
    let sent = control.socket()?.send(&crate::protocol::share(), &[theirs.as_fd()]);
    sent.map_err(|_| control::monitor_gone())?;
    ours.as_fd().try_clone_to_owned().map_err(|source| Error::System { call: "dup", source })
}

/// Gives the calling thread an alternate signal stack if it has none, so that its stack overflow is reported too.
/// Rust's own threads have one already; call this in threads made by C or C++.
///
/// # Errors
/// [`Error::System`] if memory is refused.
pub fn protect_thread() -> Result<()> {
    let _errno = Errno::save();
    handlers::protect_thread()
}

/// What the person said, and saying it.
///
/// # Errors
/// [`Error::NotInstalled`].
pub fn consent() -> Result<ConsentHandle> {
    Ok(ConsentHandle::new(client()?))
}

/// Bits of the handlers' own table.
fn signal_bits(signals: &[i32]) -> u32 {
    let all = handlers::ALL_SIGNALS.iter().enumerate();
    all.filter(|(_, signal)| signals.contains(signal)).map(|(index, _)| 1 << index).sum()
}

/// The directory itself if it is there, else the nearest one above it, must allow making files.
fn check_spool(spool: &Path) -> Result<()> {
    let mut path = spool;
    loop {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                process::is_writable(path).map_err(|e| Error::file(path, "write into", e))?;
                // One that others may write to would be refused at the first report, when nobody looks.
                return if path == spool { private_file::check_dir(path) } else { Ok(()) };
            }
            Ok(_) => {
                return Err(Error::file(
                    path,
                    "use as a directory",
                    std::io::ErrorKind::NotADirectory.into(),
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match path.parent() {
                Some(parent) => path = parent,
                None => return Err(Error::file(spool, "find", error)),
            },
            Err(error) => return Err(Error::file(path, "look at", error)),
        }
    }
}

/// The uploader would find out too, but nobody looks at it.
fn check_authorities(config: &ValidConfig) -> Result<()> {
    #[cfg(feature = "upload")]
    crate::upload::tls::check_authorities(&config.certificate_authorities)?;
    #[cfg(not(feature = "upload"))]
    let _ = config;
    Ok(())
}

/// The monitor will look again, and at what is inside; but whom it tells is a log.
fn check_plugins(config: &ValidConfig) -> Result<()> {
    let check = |path: &std::path::PathBuf| match trusted::open(path) {
        Ok(_) => Ok(()),
        Err(reason) => Err(Error::InvalidConfig { field: "plugin", reason }),
    };
    config.plugins.iter().try_for_each(check)
}
