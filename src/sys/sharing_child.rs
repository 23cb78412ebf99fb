//! A child that shares this process's memory, waited for until a deadline.
//!
//! As `clone(CLONE_VM | CLONE_VFORK)` (clone(2)), but for the wait: of that one only the child's exec or end frees the caller, and
//! whoever stops the child holds the caller for good. Here the kernel clears a word and wakes its waiter at either
//! (`CLONE_CHILD_CLEARTID`), and a child that is late is killed.
//!
//! Signal handlers reach this file: system calls alone.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::monotonic_ns;

/// What became of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// It has ended, or runs another program.
    Over,
    /// It was late, and was killed.
    Late,
    /// None could be made: `errno`.
    NotMade(c_int),
}

/// Runs `function` in a child on a stack that ends at `stack`, and waits until `until_ns` (monotonic). The child tells nobody when it
/// ends. Call it with all signals blocked: the child begins so.
///
/// # Safety
/// Nobody else uses the stack, `argument` and what the function reaches through it. They and `word` stay valid for ever if the child is
/// late: it may be at its end for a while yet.
pub(crate) unsafe fn run(
    function: extern "C" fn(*mut c_void) -> c_int,
    stack: *mut c_void,
    argument: *mut c_void,
    word: &AtomicU32,
    until_ns: u64,
) -> Course {
    word.store(1, Ordering::Release);
    let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID;
    let nowhere = std::ptr::null_mut::<c_void>();
    // SAFETY: the caller's promise. Parent's and child's errno are one: the parent only waits until the child is done with it.
    let child = unsafe { libc::clone(function, stack, flags, argument, nowhere, nowhere, word.as_ptr()) };
    if child < 0 {
        // SAFETY: this thread's errno.
        return Course::NotMade(unsafe { *libc::__errno_location() });
    }
    let over = wait(word, until_ns);
    if !over {
        // SAFETY: plain values. It has not been collected, so its number is its own. SIGKILL ends a stopped process too.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    // One that was killed may be held by a device: it is left to whoever collects orphans.
    let patience = if over { 0 } else { libc::WNOHANG };
    // SAFETY: waits for exactly that child; __WALL because its exit signal is none.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::__WALL | patience) } < 0
        // SAFETY: this thread's errno.
        && unsafe { *libc::__errno_location() } == libc::EINTR
    {}
    if over { Course::Over } else { Course::Late }
}

/// Whether the kernel has cleared `word` by `until_ns`.
fn wait(word: &AtomicU32, until_ns: u64) -> bool {
    while word.load(Ordering::Acquire) != 0 {
        let left = until_ns.saturating_sub(monotonic_ns());
        if left == 0 {
            return false;
        }
        let timeout =
            libc::timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 };
        // SAFETY: the word is valid; not FUTEX_PRIVATE_FLAG, which the kernel does not wake with.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, 1, &raw const timeout) };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn run_it(function: extern "C" fn(*mut c_void) -> c_int, time_ns: u64) -> (Course, u32) {
        // What a late child may still use is never freed.
        let stack = Box::leak(vec![0_u128; 4096].into_boxed_slice());
        let (done, word) = (Box::leak(Box::new(0_u32)), Box::leak(Box::new(AtomicU32::new(0))));
        let end = stack.as_mut_ptr_range().end.cast();
        // SAFETY: leaked, and nobody else's.
        let course = unsafe { run(function, end, (&raw mut *done).cast(), word, monotonic_ns() + time_ns) };
        // SAFETY: the child is over or killed.
        (course, unsafe { std::ptr::read_volatile(done) })
    }

    extern "C" fn works(done: *mut c_void) -> c_int {
        // SAFETY: the word that `run_it` gave.
        unsafe { done.cast::<u32>().write_volatile(7) };
        0
    }

    extern "C" fn is_stopped(done: *mut c_void) -> c_int {
        // SAFETY: stops this child alone; the word that `run_it` gave.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGSTOP);
            done.cast::<u32>().write_volatile(7);
        }
        0
    }

    #[test]
    fn what_it_did_is_there() {
        assert_eq!(run_it(works, 60 * SECOND), (Course::Over, 7));
    }

    #[test]
    fn a_stopped_one_does_not_hold_its_parent() {
        assert_eq!(run_it(is_stopped, SECOND / 20), (Course::Late, 0));
    }
}
