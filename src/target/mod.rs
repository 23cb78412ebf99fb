//! A stopped process as an object: threads with their registers, memory, mappings, modules.
//!
//! Everything is read while all threads stand still, once; what is kept here stays when they go on. Whatever cannot be
//! read is left out and named in [`Target::notes`]: a target that dies in the middle is no error, as long as something
//! of it was there.
//!
//! The views know nothing of where they came from but [`Memory`], so that a core file can give the same.
#![forbid(unsafe_code)]

mod binary_file;
pub(crate) mod core_file;
mod elf;
mod hidden;
pub mod known_modules;
mod link_map;
mod mapped_files;
mod maps;
mod memory;
mod modules;
mod names;
mod registers;
mod rehearsal;
mod sections;
mod stop;
mod symbols;
mod told;
mod unwind_tables;

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::time::Duration;

use crash_context::CrashContext;

pub use binary_file::{noted_id, open_regular};
pub(crate) use hidden::{Hidden, hide};
pub use link_map::{LinkMap, Linked};
pub use maps::{FileId, Mapping, find};
pub use memory::Memory;
pub use modules::{Module, VDSO};
pub use registers::{FLOAT_LEN, Float, GENERAL_LEN, Registers, Traced};
pub use sections::Section;
pub use symbols::{Symbol, SymbolKind};
pub use unwind_tables::UnwindTables;

use crate::error::{Error, Result};
use crate::sys::{process, procfs};
use memory::Live;
use stop::{State, Stopped};

/// How long stopping all threads may take, unless [`Request::stop_timeout`] says otherwise.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// What to stop.
pub struct Request {
    /// The process. It may not be the caller's own.
    pub pid: i32,
    /// The thread that crashed or asked.
    pub tid: i32,
    /// Its context, for a crash: the thread itself sits in a signal handler.
    pub context: Option<CrashContext>,
    /// How long to wait for all threads to stop.
    pub stop_timeout: Duration,
    /// Where the program that crashed has its random bytes (AT_RANDOM, getauxval(3)), if that is known. A process that has
    /// executed another program since is not looked at.
    pub image: Option<u64>,
    /// Whether to read memory in the slower way that waits for nobody. It is chosen without that too where the process has
    /// a userfaultfd(2).
    pub never_wait: bool,
}

impl Request {
    /// With the usual patience.
    pub fn new(pid: i32, tid: i32, context: Option<CrashContext>) -> Self {
        Self { pid, tid, context, stop_timeout: STOP_TIMEOUT, image: None, never_wait: false }
    }
}

/// A process that stands still.
///
/// Dropping it, or [`release`](Self::release), lets every thread go on as it was: with the signal that it was about to
/// take, or in the stop that job control had put it in. If this process is killed the kernel does that.
///
/// Stays on the thread that made it, since tracing belongs to a thread.
pub struct Target {
    /// The process.
    pub pid: i32,
    /// The thread that crashed or asked.
    pub tid: i32,
    /// The signal and where it happened; `None` if the target did not crash.
    pub crash: Option<CrashContext>,
    /// In the kernel's order.
    pub threads: Vec<Thread>,
    /// Ascending.
    pub maps: Vec<Mapping>,
    /// The program first.
    pub modules: Vec<Module>,
    /// `/proc/PID/maps`.
    pub maps_text: Vec<u8>,
    /// `/proc/PID/auxv`: pairs of 8-byte words.
    pub auxv: Vec<u8>,
    /// `/proc/PID/status`.
    pub status: Vec<u8>,
    /// Where the strings that it was started with lie, unless the kernel hides that.
    pub start_up: Option<StartUp>,
    /// What could not be had.
    pub notes: Vec<String>,
    memory: Box<dyn Memory>,
    symbols: symbols::Cache,
    stopped: Option<Stopped>,
}

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id, as we see it.
    pub id: i32,
    /// Its name; the kernel keeps 15 bytes.
    pub name: Option<String>,
    /// Its registers: where it crashed, for the thread that did. `None` if it could not be stopped.
    pub registers: Option<Registers>,
    /// The signal that it was about to take.
    pub signal: Option<i32>,
    /// Where its control block is (the base of `fs`), if it could be stopped. glibc puts it on top of the thread's stack,
    /// behind all frames.
    pub control_block: Option<u64>,
}

/// Addresses of the strings that a process was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartUp {
    /// Arguments, each with a zero byte behind.
    pub arguments: Range<u64>,
    /// Environment variables, each with a zero byte behind.
    pub environment: Range<u64>,
}

impl Target {
    /// Stops a process and reads what is read of every process.
    ///
    /// # Errors
    /// [`Error::System`] if nothing of it can be had: it is gone (ESRCH), or none of its threads may be traced and its memory
    /// may not be read (EPERM). The process then runs as before.
    pub fn stop(request: Request) -> Result<Self> {
        if request.pid == std::process::id().cast_signed() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "a process cannot stop itself");
            return Err(Error::System { call: "ptrace(SEIZE)", source });
        }
        let mut notes = Vec::new();
        let stopped = Stopped::all(request.pid, request.stop_timeout, &mut notes);
        // The first thread may be a zombie, and with it the process's memory and mappings are hidden under its id.
        let listed = |tid| stopped.tracees.iter().any(|tracee| tracee.tid == tid);
        let any = stopped.tracees.first().map_or(request.tid, |tracee| tracee.tid);
        let via = if listed(request.tid) { request.tid } else { any };
        let never_wait = request.never_wait || has_userfaultfd(via);
        let memory = if never_wait { Live::that_never_waits(via) } else { Live::new(via) };
        let maps_text = file(via, "maps", &mut notes);
        let maps = maps::parse(&maps_text);
        if maps.is_empty() {
            let refused = stopped.tracees.iter().any(|tracee| tracee.state == State::Untraceable);
            let source = io::Error::from_raw_os_error(if refused { libc::EPERM } else { libc::ESRCH });
            return Err(Error::System { call: "ptrace(SEIZE)", source });
        }
        let auxv = file(via, "auxv", &mut notes);
        let is_another = request.image.is_some_and(|image| self::auxv(&auxv, AT_RANDOM) != Some(image));
        if stopped.tracees.is_empty() || (is_another && !auxv.is_empty()) {
            return Err(gone());
        }
        let threads = threads(&stopped, &request, &mut notes);
        let modules =
            modules::read(&memory, &maps, self::auxv(&auxv, AT_ENTRY), self::auxv(&auxv, AT_SYSINFO_EHDR));
        if modules.is_empty() {
            notes.push("no modules could be read".to_owned());
        }
        let stat = file(via, "stat", &mut notes);
        let start_up = procfs::parse_strings(&String::from_utf8_lossy(&stat));
        Ok(Self {
            pid: request.pid,
            tid: request.tid,
            crash: request.context,
            threads,
            modules,
            maps,
            maps_text,
            auxv,
            status: file(via, "status", &mut notes),
            start_up: start_up.map(|(arguments, environment)| StartUp { arguments, environment }),
            notes,
            memory: Box::new(memory),
            symbols: symbols::Cache::default(),
            stopped: Some(stopped),
        })
    }

    /// Its memory. After [`release`](Self::release) it changes while it is read, or is gone.
    pub fn memory(&self) -> &dyn Memory {
        &*self.memory
    }

    /// A reader of the same memory for a forked child that may make no system call but `pread`; it is opened now. For a
    /// live process that is `/proc/PID/mem`, for a core file its files. `None` if opening was refused: reads then have
    /// to be asked of this process.
    pub(crate) fn memory_by_pread(&self) -> Option<Box<dyn Memory>> {
        self.memory.by_pread()
    }

    /// In a forked child: reads `memory` from here on, and leaves the threads to the parent, who stopped them. Dropping
    /// the child's copy lets nobody go.
    pub(crate) fn with_memory(&mut self, memory: Box<dyn Memory>) {
        self.memory = memory;
        std::mem::forget(self.stopped.take());
    }

    /// Puts something between this and its memory.
    pub(crate) fn wrap_memory(&mut self, wrap: impl FnOnce(Box<dyn Memory>) -> Box<dyn Memory>) {
        self.memory = wrap(std::mem::replace(&mut self.memory, Box::new(memory::Nowhere)));
    }

    /// The first value of `key` in the auxiliary vector (getauxval(3)).
    pub fn auxv(&self, key: u64) -> Option<u64> {
        auxv(&self.auxv, key)
    }

    /// The thread that crashed or asked.
    pub fn crashed(&self) -> Option<&Thread> {
        self.threads.iter().find(|thread| thread.id == self.tid)
    }

    /// Lets all threads go on. What was read stays.
    pub fn release(&mut self) {
        self.stopped = None;
    }

    /// Lets the thread that crashed go on, and then the others. For a process that ends by that, so that nothing waits for
    /// the others to be let go; in one that does not end they go on a moment later. May leave a thread behind that waits for
    /// the process's end: the caller may not fork any more.
    pub fn release_crashed_first(mut self) {
        let Some(mut stopped) = self.stopped.take() else { return };
        stopped.release_one(self.tid);
        process::make_way(self.pid, self.tid);
        stopped.release_dying();
    }
}

/// Entry point of the program (`<linux/auxvec.h>`).
const AT_ENTRY: u64 = 9;
/// Random bytes that lie below the program's arguments.
const AT_RANDOM: u64 = 25;
/// Address of the vdso.
const AT_SYSINFO_EHDR: u64 = 33;

/// The first value of `key` in an auxiliary vector.
fn auxv(bytes: &[u8], key: u64) -> Option<u64> {
    let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    words.as_chunks().0.iter().find(|[found, _]| *found == key).map(|[_, value]| *value)
}

/// Whether `pid` still runs the program whose random bytes were at `image`. One that may not be asked is believed to.
pub(crate) fn is_still(pid: i32, image: Option<u64>) -> bool {
    let found = std::fs::read(format!("/proc/{pid}/auxv")).ok().and_then(|bytes| auxv(&bytes, AT_RANDOM));
    found.is_none() || image.is_none() || found == image
}

/// Of a process that has executed another program, or that is no more.
fn gone() -> Error {
    Error::System { call: "ptrace(SEIZE)", source: io::Error::from_raw_os_error(libc::ESRCH) }
}

/// Whether somebody may have to bring this process's pages. One that has handed the descriptor on and closed its own is
/// not found out.
fn has_userfaultfd(pid: i32) -> bool {
    /// Looking at each costs a microsecond, and who opens many opens this one early.
    const MOST: usize = 256;
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let is_one = |path: std::path::PathBuf| path.as_os_str() == "anon_inode:[userfaultfd]";
    let entries = entries.map_while(io::Result::ok).take(MOST);
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(is_one)
}

/// Names and registers of all threads.
fn threads(stopped: &Stopped, request: &Request, notes: &mut Vec<String>) -> Vec<Thread> {
    let mut lost = 0;
    let tids: Vec<_> = stopped.tracees.iter().map(|tracee| tracee.tid).collect();
    let mut threads: Vec<Thread> = Vec::with_capacity(stopped.tracees.len());
    for (tracee, name) in stopped.tracees.iter().zip(names::read(request.pid, &tids)) {
        let crash = request.context.as_ref().filter(|_| tracee.tid == request.tid);
        let (mut registers, mut signal) = (None, None);
        if let State::Stopped { signal: taking } = tracee.state {
            registers = Stopped::registers(tracee.tid);
            lost += usize::from(registers.is_none());
            signal = (taking != 0).then_some(taking);
        }
        let control_block = registers.as_ref().and_then(|r| r.traced).map(|traced| traced.fs_base);
        if let Some(context) = crash {
            registers = Some(Registers::from_crash(context));
        }
        threads.push(Thread { id: tracee.tid, name, registers, signal, control_block });
    }
    if lost > 0 {
        notes.push(format!("the registers of {lost} threads could not be read"));
    }
    threads
}

/// Room for the first bytes of a file of `/proc`: `maps` has some 50 KiB with a hundred libraries.
const FILE: usize = 64 << 10;

/// A file of `/proc/TID`; empty if it cannot be read.
fn file(tid: i32, name: &str, notes: &mut Vec<String>) -> Vec<u8> {
    // The size of these files is unknown before they are read, and growing from nothing doubles the calls.
    let mut bytes = Vec::with_capacity(FILE);
    let read = File::open(format!("/proc/{tid}/{name}")).and_then(|mut file| file.read_to_end(&mut bytes));
    if let Err(error) = read {
        notes.push(format!("/proc/PID/{name} could not be read: {error}"));
        bytes.clear();
    }
    bytes
}

#[cfg(test)]
mod tests;
