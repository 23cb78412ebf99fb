//! The minimal record, written by the dying process itself when no monitor answers: rung 3 of the ladder.
//!
//! Reached by handlers: nothing here allocates, locks or calls user code. The file is made in a directory whose descriptor
//! was saved while the process was well and consent allowed to store; the descriptor's identity is looked at first, lest
//! the record go into a file of the application's. One that the application has closed is opened again by its name, and
//! has to be the same directory.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use crash_context::CrashContext;

use super::{context, limits, module_table, own_stack, signal_safe};
use crate::minimal_record::{
    Checksum, Event, HEAD, Head, MODULES, Module, TEXT, UNFINISHED, WHOLE, WORDS, Why, could_be_text,
};

const PAGE: u64 = 4096;
/// Records of one process, at most: it may live on after a panic.
const MOST_RECORDS: u32 = 8;
/// Bytes of the names of folders that are still to be made, at most.
const MOST_NAMES: usize = 1024;
/// Hex digits of a time and of a process id, with a dash between, the longer ending and the zero byte.
const NAME: usize = 16 + 1 + 8 + 7 + 1;

/// What every record of this process says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Constants {
    /// Of the first report that comes of a record.
    pub(crate) id: [u8; 16],
    pub(crate) application: [u8; TEXT],
    pub(crate) version: [u8; TEXT],
}

/// Where to, as a number: a handler may find it at any time.
static DIRECTORY: AtomicI32 = AtomicI32::new(-1);
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);
static WRITING: AtomicBool = AtomicBool::new(false);
static WRITTEN: AtomicU32 = AtomicU32::new(0);

struct Shared<T>(UnsafeCell<T>);
// SAFETY: the constants are written while no handler is installed; the buffer by who holds `WRITING`, the
// stack by the one thread that faults inside the handler.
unsafe impl<T> Sync for Shared<T> {}
static CONSTANTS: Shared<Constants> =
    Shared(UnsafeCell::new(Constants { id: [0; 16], application: [0; TEXT], version: [0; TEXT] }));
/// The directory's own name, from the root on, with a zero byte behind.
static PATH: Shared<[u8; MOST_NAMES]> = Shared(UnsafeCell::new([0; MOST_NAMES]));
/// Names of folders that are still to be made.
static MISSING: Shared<[u8; MOST_NAMES]> = Shared(UnsafeCell::new([0; MOST_NAMES]));
/// 32 KiB, aligned as stacks are.
type Stack = [u128; 2048];
/// Cleared once the child on that stack is done.
static WORKING: AtomicU32 = AtomicU32::new(0);
static STACK: Shared<Stack> = Shared(UnsafeCell::new([0; 2048]));
static BUFFER: Shared<[u8; PAGE as usize]> = Shared(UnsafeCell::new([0; PAGE as usize]));

/// Sets what does not change, before the handlers are installed.
pub(super) fn prepare(constants: Constants) {
    // SAFETY: no handler is installed, so nobody reads them.
    unsafe { CONSTANTS.0.get().write(constants) };
    WRITTEN.store(0, Ordering::Relaxed);
    WRITING.store(false, Ordering::Release);
}

/// Says where records go from now on: a descriptor that stays open, or -1 for nowhere; its name, if that is known; and the
/// names of the folders below that are still to be made, each with a zero byte behind. Returns the descriptor before, if its
/// number still belongs to what was given then.
pub(super) fn set_directory(fd: RawFd, path: &[u8], missing: &[u8]) -> Option<RawFd> {
    let before = directory();
    DIRECTORY.store(-1, Ordering::Release);
    // SAFETY: a handler that found the number before may read a mixture of names, all of them inside.
    let (own, room) = unsafe { (&mut *PATH.0.get(), &mut *MISSING.0.get()) };
    fill(own, path);
    let fits = fill(room, missing);
    if let (true, Some((device, inode))) = (fits, signal_safe::identity(fd)) {
        DEVICE.store(device, Ordering::Relaxed);
        INODE.store(inode, Ordering::Relaxed);
        DIRECTORY.store(fd, Ordering::Release);
    }
    before
}

/// Whether there is room, and a zero byte behind.
fn fill(room: &mut [u8; MOST_NAMES], bytes: &[u8]) -> bool {
    room.fill(0);
    let fits = bytes.len() < room.len();
    if fits {
        room[..bytes.len()].copy_from_slice(bytes);
    }
    fits
}

/// What was given, opened anew.
fn given() -> Option<RawFd> {
    if let Some(fd) = directory() {
        return signal_safe::open_folder(fd, b".\0");
    }
    // SAFETY: a name that is all inside, whoever writes it.
    let path: &[u8; MOST_NAMES] = unsafe { &*PATH.0.get() };
    if DIRECTORY.load(Ordering::Acquire) < 0 || path[0] != b'/' {
        return None;
    }
    let fd = signal_safe::open_folder(libc::AT_FDCWD, path)?;
    let known = (DEVICE.load(Ordering::Relaxed), INODE.load(Ordering::Relaxed));
    if signal_safe::identity(fd) == Some(known) {
        return Some(fd);
    }
    signal_safe::close(fd);
    None
}

/// The folder itself, opened anew; the missing ones are made.
fn folder() -> Option<RawFd> {
    // SAFETY: names that are all inside, whoever writes them.
    let all: &[u8; MOST_NAMES] = unsafe { &*MISSING.0.get() };
    let mut names = &all[..];
    let mut folder = given()?;
    while let Some(end) = names.iter().position(|&byte| byte == 0).filter(|&end| end > 0) {
        let (name, rest) = names.split_at_checked(end + 1)?;
        signal_safe::make_folder(folder, name);
        let next = signal_safe::open_folder(folder, name);
        signal_safe::close(folder);
        (folder, names) = (next?, rest);
    }
    Some(folder)
}

fn directory() -> Option<RawFd> {
    let fd = DIRECTORY.load(Ordering::Acquire);
    let known = (DEVICE.load(Ordering::Relaxed), INODE.load(Ordering::Relaxed));
    (fd >= 0 && signal_safe::identity(fd) == Some(known)).then_some(fd)
}

/// Writes a record about the thread in `crash`, which happened at `monotonic_ns`. Returns whether it is there, whole.
pub(super) fn write(
    crash: &CrashContext,
    monotonic_ns: u64,
    location: Option<&[u8; TEXT]>,
    why: Why,
) -> bool {
    if DIRECTORY.load(Ordering::Acquire) < 0 {
        return false;
    }
    let number = WRITTEN.fetch_add(1, Ordering::AcqRel);
    if number >= MOST_RECORDS || WRITING.swap(true, Ordering::AcqRel) {
        return false;
    }
    let _lifted = limits::lift_limits();
    let written = folder().is_some_and(|folder| {
        let written = write_into(folder, number, crash, monotonic_ns, location, why);
        signal_safe::close(folder);
        written
    });
    WRITING.store(false, Ordering::Release);
    written
}

/// Removes the record of process `pid` about what happened at `monotonic_ns`, if it is there.
pub(super) fn withdraw(pid: libc::pid_t, monotonic_ns: u64) {
    if WRITTEN.load(Ordering::Acquire) > 0
        && let Some(folder) = folder()
    {
        signal_safe::unlink(folder, &name(monotonic_ns, pid, WHOLE));
        signal_safe::close(folder);
    }
}

fn write_into(
    directory: RawFd,
    number: u32,
    crash: &CrashContext,
    monotonic_ns: u64,
    location: Option<&[u8; TEXT]>,
    why: Why,
) -> bool {
    let (unfinished, whole) =
        (name(monotonic_ns, crash.pid, UNFINISHED), name(monotonic_ns, crash.pid, WHOLE));
    let written = signal_safe::create(directory, &unfinished).is_some_and(|file| {
        let complete = limits::without_file_size_signal(|| write_to(file, crash, location, why, number));
        signal_safe::begin_writing(file);
        signal_safe::close(file);
        complete && signal_safe::rename(directory, &unfinished, &whole)
    });
    if !written {
        signal_safe::unlink(directory, &unfinished);
    }
    written
}

/// What a child on a stack of its own is to do.
struct Errand<'a> {
    crash: &'a CrashContext,
    monotonic_ns: u64,
    why: Why,
    written: bool,
}

/// As [`write`], for a thread that has little stack left and has faulted already: in a child that shares its memory, for as
/// long as this thread stands still. A fault there ends the child alone.
pub(super) fn write_elsewhere(crash: &CrashContext, monotonic_ns: u64, why: Why) -> bool {
    let mut errand = Errand { crash, monotonic_ns, why, written: false };
    let stack = STACK.0.get().cast::<u8>().wrapping_add(size_of::<Stack>());
    signal_safe::block_signals(false);
    // SAFETY: the one thread that faults inside the handler comes here, and dies next: should the child be late, it was killed and does
    // nothing more.
    unsafe { signal_safe::call_in_child(on_errand, stack.cast(), (&raw mut errand).cast(), &WORKING) };
    errand.written
}

extern "C" fn on_errand(errand: *mut c_void) -> c_int {
    // SAFETY: `write_elsewhere` waits for this function to end.
    let errand = unsafe { &mut *errand.cast::<Errand<'_>>() };
    errand.written = write(errand.crash, errand.monotonic_ns, None, errand.why);
    0
}

fn write_to(file: RawFd, crash: &CrashContext, location: Option<&[u8; TEXT]>, why: Why, number: u32) -> bool {
    let modules = module_table::modules();
    let registers = &crash.context.uc_mcontext.gregs;
    let register = |which: i32| registers.get(which as usize).map_or(0, |value| *value as u64);
    let (pc, sp, fp) = (register(libc::REG_RIP), register(libc::REG_RSP), register(libc::REG_RBP));
    // A panicking thread stands on that very stack; one that crashed may have pointed anywhere.
    // SAFETY: who writes a record holds `WRITING`, and looks once.
    let look = unsafe {
        if location.is_some() { own_stack::look_here(sp) } else { own_stack::look_from_a_child(sp) }
    };
    let (start, words) = (look.start, look.words);
    let end = start + words * 8;
    let on_stack = |address: u64| (start..end).contains(&address);
    let known = |address: u64| {
        on_stack(address) || modules.iter().any(|module| (module.start..module.end).contains(&address))
    };
    let shown = |address: u64| if known(address) || !could_be_text(address) { address } else { 0 };
    let signal = crash.siginfo.ssi_signo as i32;
    let fault = context::is_fault(signal, crash.siginfo.ssi_code);
    // SAFETY: written before the handlers were installed, and not since.
    let constants = unsafe { &*CONSTANTS.0.get() };
    let mut id = constants.id;
    id[15] ^= number as u8;
    let head = Head {
        id,
        time_ms: signal_safe::unix_ms(),
        event: match (location, fault) {
            (Some(_), _) => Event::Panic,
            (None, true) => Event::Fault,
            (None, false) => Event::Signal,
        },
        why,
        signal: if location.is_some() { 0 } else { signal },
        code: if location.is_some() { 0 } else { crash.siginfo.ssi_code },
        address: if fault { shown(crash.siginfo.ssi_addr) } else { 0 },
        thread: crash.tid as u32,
        pc: shown(pc),
        sp: if words > 0 { sp } else { 0 },
        fp: if on_stack(fp) { fp } else { 0 },
        stack_start: start,
        words: words as u32,
        modules: modules.len().min(MODULES) as u32,
        application: constants.application,
        version: constants.version,
        location: location.copied().unwrap_or([0; TEXT]),
    };
    let mut out = Out::new(file);
    let encoded: [u8; HEAD] = head.encode();
    out.put(&encoded);
    for index in 0..MODULES {
        out.put(&modules.get(index).unwrap_or(&Module::NONE).encode());
    }
    for index in 0..WORDS as u64 {
        let word = look.copy.get(index as usize).filter(|_| index < words).copied().unwrap_or(0);
        let kept = on_stack(word) || module_table::is_code(modules, word);
        out.put(&(if kept { word } else { 0 }).to_le_bytes());
    }
    out.finish()
}

/// A file's name: when it happened and to whom, so that the monitor can tell that it has made a report after all.
fn name(monotonic_ns: u64, pid: libc::pid_t, ending: &str) -> [u8; NAME] {
    let mut out = [0; NAME];
    let mut at = 0;
    let mut put = |byte: u8| {
        if let Some(room) = out.get_mut(at) {
            *room = byte;
        }
        at += 1;
    };
    let digit = |value: u64| b"0123456789abcdef"[(value & 15) as usize];
    (0..16).rev().for_each(|i| put(digit(monotonic_ns >> (4 * i))));
    put(b'-');
    let pid = pid as u64;
    (0..8).rev().for_each(|i| put(digit(pid >> (4 * i))));
    ending.bytes().for_each(put);
    out
}

/// Bytes on their way into a file, a page at a time, with their checksum.
struct Out {
    file: RawFd,
    filled: usize,
    checksum: Checksum,
    failed: bool,
}

impl Out {
    /// Only for who holds `WRITING`.
    fn new(file: RawFd) -> Self {
        Self { file, filled: 0, checksum: Checksum::new(), failed: false }
    }

    /// Takes a multiple of 8 bytes.
    fn put(&mut self, bytes: &[u8]) {
        self.checksum.add(bytes);
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // SAFETY: whoever holds `WRITING` alone uses the buffer.
            let buffer = unsafe { &mut *BUFFER.0.get() };
            if let Some(room) = buffer.get_mut(self.filled) {
                *room = byte;
            }
            self.filled += 1;
            if self.filled == buffer.len() {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        // SAFETY: as in `append`.
        let buffer = unsafe { &*BUFFER.0.get() };
        if !self.failed {
            self.failed = !signal_safe::write(self.file, &buffer[..self.filled.min(buffer.len())]);
        }
        self.filled = 0;
    }

    fn finish(mut self) -> bool {
        let sum = self.checksum.finish().to_le_bytes();
        self.append(&sum);
        self.flush();
        !self.failed
    }
}

#[cfg(test)]
mod tests;
