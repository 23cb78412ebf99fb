//! A look at the stack of the thread that crashed, from inside the dying process: wherever its stack pointer points, the
//! process goes on to its end.
//!
//! Reached by handlers: nothing here allocates, locks or calls user code.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use super::{secret_ranges, signal_safe};
use crate::minimal_record::WORDS;

const PAGE: u64 = 4096;
/// Unreadable pages above the stack pointer that are passed over: an overflowing stack points into its guard.
const MOST_GUARD_PAGES: u64 = 64;

struct Shared<T>(UnsafeCell<T>);
// SAFETY: used by one thread at a time: the promise of who looks.
unsafe impl<T> Sync for Shared<T> {}
/// The stack that is looked at, and the one of the child that looks.
static LOOK: Shared<Look> = Shared(UnsafeCell::new(Look { sp: 0, start: 0, words: 0, copy: [0; WORDS] }));
static LOOKERS_STACK: Shared<[u128; 1024]> = Shared(UnsafeCell::new([0; 1024]));
/// Cleared once the child is done.
static LOOKED: AtomicU32 = AtomicU32::new(0);
/// How long looking at memory may take, in seconds.
const LOOKING: u32 = 1;

/// A stack's words, read once: other threads may be writing there.
pub(super) struct Look {
    sp: u64,
    /// Where the words begin,
    pub(super) start: u64,
    /// and how many there are.
    pub(super) words: u64,
    pub(super) copy: [u64; WORDS],
}

impl Look {
    /// Its words count from the end on: whoever is ended in the middle has seen nothing.
    fn take(&mut self) {
        let (start, words) = stack(self.sp);
        for (index, word) in (0..words).zip(&mut self.copy) {
            let address = start + index * 8;
            *word = if secret_ranges::holds(address) { 0 } else { signal_safe::peek(address) };
        }
        compiler_fence(Ordering::Release);
        (self.start, self.words) = (start, words);
    }
}

/// Looks at the stack from `sp` upwards.
///
/// # Safety
/// One call after the other, and what it returned before is not used any more.
pub(super) unsafe fn look_here(sp: u64) -> &'static Look {
    let look = LOOK.0.get();
    // SAFETY: the caller's promise.
    unsafe {
        (*look).sp = sp;
        (*look).take();
        &*look
    }
}

/// As [`look_here`], but memory that faults or never comes costs a child, and this process no more than [`LOOKING`].
///
/// # Safety
/// As for [`look_here`].
pub(super) unsafe fn look_from_a_child(sp: u64) -> &'static Look {
    // SAFETY: the caller's promise.
    unsafe { look_into(LOOK.0.get(), LOOKERS_STACK.0.get().wrapping_add(1).cast(), sp) }
}

/// Has a child on `stack` look. Where none can be made it is this process that ends when it takes too long: later and by another
/// signal than it would have, but it ends.
///
/// # Safety
/// `look` and the memory below `stack` are the caller's alone.
unsafe fn look_into(look: *mut Look, stack: *mut c_void, sp: u64) -> &'static Look {
    // SAFETY: the caller's promise; the child has ended when `call_in_child` returns.
    unsafe {
        ((*look).sp, (*look).start, (*look).words) = (sp, 0, 0);
        let blocked = signal_safe::block_all_signals();
        let looked = signal_safe::call_in_child(on_look, stack, look.cast(), &LOOKED);
        signal_safe::set_signals(blocked);
        if !looked {
            let before = signal_safe::end_in(LOOKING);
            (*look).take();
            signal_safe::end_no_more(&before);
        }
        &*look
    }
}

extern "C" fn on_look(look: *mut c_void) -> c_int {
    signal_safe::end_in(LOOKING);
    // SAFETY: `look_into` waits for the end of this function.
    unsafe { (*look.cast::<Look>()).take() };
    0
}

/// Address and number of the words of the stack from `sp` upwards that can be read.
fn stack(sp: u64) -> (u64, u64) {
    let page_of = |address: u64| address & !(PAGE - 1);
    let mut start = sp & !7;
    for _ in 0..MOST_GUARD_PAGES {
        if start >> 47 != 0 {
            break;
        }
        if signal_safe::is_readable(start) {
            let mut end = page_of(start) + PAGE;
            while end - start < WORDS as u64 * 8 && end >> 47 == 0 && signal_safe::is_readable(end) {
                end += PAGE;
            }
            return (start, ((end - start) / 8).min(WORDS as u64));
        }
        start = page_of(start) + PAGE;
    }
    (0, 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;

    use super::*;

    #[test]
    fn stacks_end_where_memory_does() {
        let page = PAGE as usize;
        // SAFETY: a fresh mapping of four pages, of which the second and third become readable.
        let start = unsafe {
            let start = libc::mmap(
                std::ptr::null_mut(),
                4 * page,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_eq!(libc::mprotect(start.byte_add(page), 2 * page, libc::PROT_READ), 0);
            start as u64
        };
        assert_eq!(stack(start + 16), (start + PAGE, 1024), "a stack pointer in the guard");
        assert_eq!(stack(start + PAGE + 9), (start + PAGE + 8, 1023));
        assert_eq!(stack(start + 3 * PAGE - 8), (start + 3 * PAGE - 8, 1));
        for odd in [0, 7, u64::MAX, 1 << 47, u64::MAX - 4096] {
            assert_eq!(stack(odd), (0, 0), "{odd:#x}");
        }
        // SAFETY: the mapping made above.
        unsafe { libc::munmap(start as *mut libc::c_void, 4 * page) };
    }

    /// Memory whose pages are somebody's to bring (userfaultfd(2)), and nobody does: whoever touches it in the kernel sleeps
    /// until it is killed. In a process of its own, which the test can end.
    #[test]
    fn memory_that_never_comes_is_given_up() {
        use std::io::Read;
        use std::os::fd::AsRawFd;
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        // SAFETY: the child makes system calls only.
        let child = unsafe {
            match libc::fork() {
                0 => {
                    let said = awaited_memory().map_or(u64::MAX, |start| look_from_a_child(start + 64).words);
                    signal_safe::write(theirs.as_raw_fd(), &said.to_le_bytes());
                    libc::_exit(0)
                }
                child => child,
            }
        };
        ours.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let mut words = [0; 8];
        let read = ours.read_exact(&mut words);
        // SAFETY: the child made above.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        read.expect("it hangs");
        match u64::from_le_bytes(words) {
            u64::MAX => println!("this user may not have a userfaultfd: nothing to see"),
            words => assert_eq!(words, 0),
        }
    }

    /// Two pages, of which the first is nobody's to bring. `None` if that cannot be had.
    fn awaited_memory() -> Option<u64> {
        // `UFFDIO_API`, `UFFDIO_REGISTER` and their structures, <linux/userfaultfd.h>.
        const API: libc::c_ulong = 0xc018_aa3f;
        const REGISTER: libc::c_ulong = 0xc020_aa00;
        const MISSING: u64 = 1;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping, a descriptor that stays open, structures of the kernel's size.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), 2 * PAGE as usize, prot, flags, -1, 0) as u64;
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as RawFd;
            let (mut api, mut register) = ([0xaa_u64, 0, 0], [start, PAGE, MISSING, 0]);
            let is_set = fd >= 0
                && libc::ioctl(fd, API, api.as_mut_ptr()) == 0
                && libc::ioctl(fd, REGISTER, register.as_mut_ptr()) == 0;
            is_set.then_some(start)
        }
    }
}
