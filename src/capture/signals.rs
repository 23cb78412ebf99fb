//! The signal handlers: which signals, installing them, putting back what was there.

use std::cell::UnsafeCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::handler::{self, Armament};
use crate::error::{Error, Result};

/// The signals that end a process because of what it did (signal(7)), then those that are handled on request only: the
/// keyboard's quit, and limits of processor time and file size.
pub(crate) const ALL: [libc::c_int; 10] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGQUIT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];
const FIRST_ON_REQUEST: usize = 7;

struct Previous(UnsafeCell<[libc::sigaction; ALL.len()]>);
// SAFETY: written under `CHANGING` before `INSTALLED` is set, read after it was seen set.
unsafe impl Sync for Previous {}
static PREVIOUS: Previous =
    // SAFETY: a sigaction is integers and nullable function pointers; all-zero is SIG_DFL.
    Previous(UnsafeCell::new(unsafe { std::mem::MaybeUninit::zeroed().assume_init() }));
static INSTALLED: AtomicBool = AtomicBool::new(false);
/// Those of [`ALL`] that are ours, as bits. Written as `PREVIOUS` is.
static HANDLED: AtomicU32 = AtomicU32::new(0);
static CHANGING: Mutex<Option<usize>> = Mutex::new(None);

/// Installs the handlers. They are in force when this returns.
///
/// # Errors
/// If memory or a handler is refused; then everything is as before.
pub(crate) fn arm(armament: Armament) -> Result<()> {
    let mut page = CHANGING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let word = wiped_on_fork()?;
    *page = Some(word.addr());
    super::alt_stack::lend()?;
    handler::prepare(armament, word);
    HANDLED.store(armament.signals, Ordering::Relaxed);
    for (index, signal) in handled() {
        let action = action();
        // SAFETY: the index is inside the array; all pointers are to live memory.
        unsafe {
            let previous = PREVIOUS.0.get().cast::<libc::sigaction>().add(index);
            let mut found: libc::sigaction = std::mem::zeroed();
            let result = libc::sigaction(signal, &raw const action, &raw mut found);
            // Ours from an earlier time is not what was there before us.
            if result == 0 && found.sa_sigaction != action.sa_sigaction {
                *previous = found;
            }
            if result != 0 {
                let error = Error::last_os("sigaction");
                for (undo, signal) in handled().take_while(|(undo, _)| *undo < index) {
                    let previous = PREVIOUS.0.get().cast::<libc::sigaction>().add(undo);
                    libc::sigaction(signal, previous, std::ptr::null_mut());
                }
                handler::retire();
                super::alt_stack::withdraw();
                return Err(error);
            }
        }
    }
    INSTALLED.store(true, Ordering::Release);
    Ok(())
}

/// Removes the handlers, as far as they are still ours: one installed later keeps working.
pub(crate) fn disarm() {
    let mut page = CHANGING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if INSTALLED.swap(false, Ordering::AcqRel) {
        restore_ours();
    }
    handler::retire();
    super::alt_stack::withdraw();
    // The page stays mapped: a handler may have loaded its address just now. One page an install, once.
    page.take();
}

/// Puts back the earlier actions before `signal` is met again; signal-safe.
///
/// The first call restores those that are still ours. A further call comes from a handler that was installed after
/// ours and calls it: then its turn is over too, and `signal` gets the action from before us. If that is the very one
/// that is in force, it calls us in a ring (it was installed over an earlier installation of ours), and the default
/// ends the process.
pub(super) fn restore(signal: libc::c_int) {
    if INSTALLED.swap(false, Ordering::AcqRel) {
        restore_ours();
    } else if let Some(index) = index_of(signal) {
        // SAFETY: `PREVIOUS` was written before any handler was installed.
        unsafe {
            let previous = PREVIOUS.0.get().cast::<libc::sigaction>().add(index);
            let mut current: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, previous, &raw mut current);
            if current.sa_sigaction == (*previous).sa_sigaction {
                current.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const current, std::ptr::null_mut());
            }
        }
    }
}

/// Whether the application ignored `signal` before we came; signal-safe.
pub(super) fn was_ignored(signal: libc::c_int) -> bool {
    index_of(signal).is_some_and(|index| {
        // SAFETY: as in `restore`.
        unsafe { (*PREVIOUS.0.get())[index].sa_sigaction == libc::SIG_IGN }
    })
}

/// Whether `signal` is one that is handled on request only; signal-safe.
pub(super) fn is_on_request(signal: libc::c_int) -> bool {
    ALL[FIRST_ON_REQUEST..].contains(&signal)
}

/// Gives the handler its siginfo back, if somebody installed it again without SA_SIGINFO: then what lies there is left from
/// before. Returns whether it had none; signal-safe.
pub(super) fn repair(signal: libc::c_int) -> bool {
    // SAFETY: all-zero is a valid sigaction to be overwritten; the handler has the form that SA_SIGINFO asks for.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        let found = libc::sigaction(signal, std::ptr::null(), &raw mut current) == 0;
        let ours = found && current.sa_sigaction == handler::on_signal as *const () as usize;
        if !ours || current.sa_flags & libc::SA_SIGINFO != 0 {
            return false;
        }
        let right = action();
        libc::sigaction(signal, &raw const right, std::ptr::null_mut());
        true
    }
}

/// Has `signal` end the process, whatever anybody wanted; signal-safe.
pub(super) fn set_default(signal: libc::c_int) {
    // SAFETY: an all-zero sigaction is SIG_DFL.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &raw const default, std::ptr::null_mut());
    }
}

/// Calls the handler that was there before ours. Returns whether it left the thread where it was: then the signal means a
/// crash to it, too. (A runtime that handles a fault of its own code has the thread go on elsewhere.) Without an earlier
/// handler everything is a crash.
///
/// This is the one place where a handler of ours runs code of others, and only if the application has asked for it.
pub(super) fn is_crash_to_earlier(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) -> bool {
    let Some(index) = index_of(signal) else { return true };
    // SAFETY: `PREVIOUS` was written before any handler was installed.
    let earlier = unsafe { (*PREVIOUS.0.get())[index] };
    if matches!(earlier.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
        return true;
    }
    let place = || {
        // SAFETY: the kernel's ucontext, of which libc's type has the registers in the same place.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        (registers[libc::REG_RIP as usize], registers[libc::REG_RSP as usize])
    };
    let before = place();
    // SAFETY: it was installed as a handler, of the form that its flags say.
    unsafe {
        if earlier.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(earlier.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(libc::c_int) = std::mem::transmute(earlier.sa_sigaction);
            handler(signal);
        }
    }
    place() == before
}

/// Those that are ours, with their index in [`ALL`].
fn handled() -> impl Iterator<Item = (usize, libc::c_int)> {
    let bits = HANDLED.load(Ordering::Relaxed);
    ALL.into_iter().enumerate().filter(move |(index, _)| bits & (1 << index) != 0)
}

fn index_of(signal: libc::c_int) -> Option<usize> {
    handled().find(|(_, ours)| *ours == signal).map(|(index, _)| index)
}

/// How our handler is installed.
fn action() -> libc::sigaction {
    // SAFETY: an all-zero sigaction is valid; the handler has the three-argument form that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler::on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // No signal may interrupt the handler, but the faults that it lets through itself.
        libc::sigfillset(&raw mut action.sa_mask);
        action
    }
}

fn restore_ours() {
    for (index, signal) in handled() {
        // SAFETY: `PREVIOUS` was written before `INSTALLED` was set; all pointers are to live memory.
        unsafe {
            let mut current: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut current);
            if current.sa_sigaction == handler::on_signal as *const () as usize {
                let previous = PREVIOUS.0.get().cast::<libc::sigaction>().add(index);
                libc::sigaction(signal, previous, std::ptr::null_mut());
            }
        }
    }
}

/// A word that reads 1 here and 0 in forked children.
fn wiped_on_fork() -> Result<*mut AtomicU32> {
    const PAGE: usize = 4096;
    // SAFETY: a fresh private anonymous mapping; MADV_WIPEONFORK applies to exactly such (madvise(2)).
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return Err(Error::last_os("mmap"));
        }
        if libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) != 0 {
            let error = Error::last_os("madvise(MADV_WIPEONFORK)");
            libc::munmap(page, PAGE);
            return Err(error);
        }
        let word = page.cast::<AtomicU32>();
        (*word).store(1, Ordering::Release);
        Ok(word)
    }
}
