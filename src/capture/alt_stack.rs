//! An alternate signal stack with guard pages, for threads that have none (sigaltstack(2)).
//!
//! A stack overflow leaves no room for a handler on the thread's own stack. Rust gives its own threads an alternate
//! stack; threads made elsewhere have none until they call `protect_thread`. One that is there is never replaced: it
//! belongs to a runtime (ART, Go, Ruby) that relies on it.

use std::cell::Cell;

use crate::error::{Error, Result};

const PAGE: usize = 4096;
/// The kernel's frame with AVX-512 takes 3.5 KiB; earlier handlers run here too.
const STACK: usize = 64 * 1024;

/// The mapping behind a thread's stack: guard page, stack, guard page.
struct AltStack(*mut libc::c_void);

thread_local! {
    static OWN: Cell<Option<AltStack>> = const { Cell::new(None) };
    /// The thread itself has asked for it.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Gives the calling thread an alternate stack unless it has one. It is freed when the thread ends.
///
/// # Errors
/// If memory is refused.
pub(crate) fn protect_thread() -> Result<()> {
    ASKED.set(true);
    lend()
}

/// The same until [`withdraw`].
///
/// # Errors
/// If memory is refused.
pub(super) fn lend() -> Result<()> {
    // SAFETY: asks for the current stack; all-zero is a valid stack_t to be overwritten.
    let current = unsafe {
        let mut current: libc::stack_t = std::mem::zeroed();
        if libc::sigaltstack(std::ptr::null(), &raw mut current) != 0 {
            return Err(Error::last_os("sigaltstack"));
        }
        current
    };
    if current.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(());
    }
    let stack = AltStack::map()?;
    let ours = libc::stack_t { ss_sp: stack.start(), ss_flags: 0, ss_size: STACK };
    // SAFETY: `ours` describes memory that lives until this thread ends (`Drop` of the thread local).
    if unsafe { libc::sigaltstack(&raw const ours, std::ptr::null_mut()) } != 0 {
        return Err(Error::last_os("sigaltstack"));
    }
    OWN.set(Some(stack));
    Ok(())
}

/// Takes back what was [lent](lend) to the calling thread, unless it has asked for it itself.
pub(super) fn withdraw() {
    if !ASKED.get() {
        match OWN.take() {
            // A handler of others runs on it at the moment.
            Some(stack) if stack.is_in_use() => OWN.set(Some(stack)),
            stack => drop(stack),
        }
    }
}

impl AltStack {
    fn is_in_use(&self) -> bool {
        // SAFETY: asks for the current stack; all-zero is a valid stack_t to be overwritten.
        unsafe {
            let mut current: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(std::ptr::null(), &raw mut current);
            current.ss_sp == self.start() && current.ss_flags & libc::SS_ONSTACK != 0
        }
    }

    fn map() -> Result<Self> {
        let length = STACK + 2 * PAGE;
        // SAFETY: a fresh mapping without access; only its inner part is then opened.
        unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return Err(Error::last_os("mmap"));
            }
            let stack = Self(base);
            if libc::mprotect(stack.start(), STACK, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return Err(Error::last_os("mprotect"));
            }
            // The first touch of a page must not happen while the process is dying of memory exhaustion.
            for page in (0..STACK).step_by(PAGE) {
                stack.start().cast::<u8>().add(page).write_volatile(0);
            }
            Ok(stack)
        }
    }

    fn start(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(PAGE)
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        // SAFETY: this runs on the thread that owns the stack, in ordinary context, so the stack is not in use;
        // it is switched off before it is unmapped, unless someone replaced it meanwhile.
        unsafe {
            let mut current: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(std::ptr::null(), &raw mut current);
            if current.ss_sp == self.start() {
                let off =
                    libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: STACK };
                libc::sigaltstack(&raw const off, std::ptr::null_mut());
            }
            libc::munmap(self.0, STACK + 2 * PAGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> libc::stack_t {
        // SAFETY: asks only.
        unsafe {
            let mut current: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(std::ptr::null(), &raw mut current);
            current
        }
    }

    #[test]
    fn keeps_what_is_there_and_fills_what_is_missing() {
        std::thread::spawn(|| {
            // Rust's own threads have one: it stays.
            let before = current();
            protect_thread().unwrap();
            assert_eq!(current().ss_sp, before.ss_sp);
            // Without one, ours comes in, with guards around it.
            let off =
                libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: STACK };
            // SAFETY: switches the thread's alternate stack off; no handler runs on it now.
            unsafe { libc::sigaltstack(&raw const off, std::ptr::null_mut()) };
            protect_thread().unwrap();
            let ours = current();
            assert_eq!((ours.ss_flags, ours.ss_size), (0, STACK));
            // SAFETY: puts back the thread's own, which std frees at its end.
            unsafe { libc::sigaltstack(&raw const before, std::ptr::null_mut()) };
        })
        .join()
        .unwrap();
    }
}
