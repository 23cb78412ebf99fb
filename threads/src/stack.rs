//! One alternate signal stack: a mapping with a guard page at each end.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Job;

const PAGE: usize = 4096;
/// The kernel's frame with AVX-512 takes 3.5 KiB, with AMX 11 KiB (`AT_MINSIGSTKSZ`); earlier handlers run here too.
const STACK: usize = 64 * 1024;
const WHOLE: usize = STACK + 2 * PAGE;
/// So much of the upper end is touched in advance: the first touch must not happen while the process is dying for want
/// of memory. The rest costs nothing until it is used.
const TOUCHED: usize = 16 * 1024;

/// The key whose destructor frees the stack, plus one; 0: not made yet.
static KEY: AtomicU64 = AtomicU64::new(0);
/// There are no keys left (PTHREAD_KEYS_MAX).
const NO_KEY: u64 = u64::MAX;

/// Points at the mapping. No `Drop`: who has one decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stack(*mut c_void);

impl Stack {
    /// `None` where memory or keys are short.
    pub(crate) fn map() -> Option<Self> {
        key()?;
        // SAFETY: a fresh mapping without access; only its inner part is then opened, and only that is written to.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
            let base = libc::mmap(std::ptr::null_mut(), WHOLE, libc::PROT_NONE, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return None;
            }
            let stack = Self(base);
            if libc::mprotect(stack.start(), STACK, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                stack.free();
                return None;
            }
            for page in (STACK - TOUCHED..STACK).step_by(PAGE) {
                stack.start().cast::<u8>().wrapping_add(page).write_volatile(0);
            }
            Some(stack)
        }
    }

    pub(crate) fn from_base(base: *mut c_void) -> Self {
        Self(base)
    }

    pub(crate) fn base(self) -> *mut c_void {
        self.0
    }

    /// Leaves a job for the thread, at the upper end, which has its pages.
    pub(crate) fn put(self, job: Job) {
        // SAFETY: inside the mapping, aligned, and nobody else uses it yet.
        unsafe { self.job().write(job) };
    }

    /// What [`put`](Self::put) left.
    pub(crate) fn take(self) -> Job {
        // SAFETY: as in `put`, which the creating thread called before this one began.
        unsafe { self.job().read() }
    }

    /// Makes it the calling thread's alternate stack until the thread ends, unless it has one. Else it is freed.
    pub(crate) fn adopt(self) {
        let adopted = key().is_some_and(|key| {
            // SAFETY: our key. Its destructor frees the stack.
            let kept = unsafe { libc::pthread_setspecific(key, self.0) == 0 };
            let ours = libc::stack_t { ss_sp: self.start(), ss_flags: 0, ss_size: STACK };
            // SAFETY: the memory lives until the destructor has switched the stack off.
            let set = kept
                && current().ss_flags & libc::SS_DISABLE != 0
                && unsafe { libc::sigaltstack(&raw const ours, std::ptr::null_mut()) == 0 };
            if kept && !set {
                // SAFETY: our key.
                unsafe { libc::pthread_setspecific(key, std::ptr::null()) };
            }
            set
        });
        if !adopted {
            self.free();
        }
    }

    /// Gives the memory back. Must not be in use as anybody's alternate stack.
    pub(crate) fn free(self) {
        // SAFETY: the whole mapping that `map` made, which nobody uses any more (the caller's promise). munmap fails where
        // the process has too many mappings to split one; then at least the pages go.
        unsafe {
            if libc::munmap(self.0, WHOLE) != 0 {
                libc::madvise(self.start(), STACK, libc::MADV_DONTNEED);
            }
        }
    }

    fn start(self) -> *mut c_void {
        self.0.wrapping_byte_add(PAGE)
    }

    fn job(self) -> *mut Job {
        self.start().wrapping_byte_add(STACK - 64).cast()
    }
}

/// The key's destructor: on the thread that ends.
extern "C" fn release(base: *mut c_void) {
    let stack = Stack(base);
    let current = current();
    if current.ss_sp == stack.start() {
        let off = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: STACK };
        // SAFETY: switches off only.
        if unsafe { libc::sigaltstack(&raw const off, std::ptr::null_mut()) } != 0 {
            // The thread ends from within a handler: it stands on this stack, which therefore stays.
            return;
        }
    }
    stack.free();
}

fn current() -> libc::stack_t {
    let mut current = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: asks only; cannot fail with a valid pointer.
    unsafe { libc::sigaltstack(std::ptr::null(), &raw mut current) };
    current
}

/// Made at the first call.
fn key() -> Option<libc::pthread_key_t> {
    match KEY.load(Ordering::Acquire) {
        NO_KEY => None,
        0 => {
            let mut key: libc::pthread_key_t = 0;
            // SAFETY: a place for the key and a destructor of the right type.
            let made = unsafe { libc::pthread_key_create(&raw mut key, Some(release)) } == 0;
            let value = if made { u64::from(key) + 1 } else { NO_KEY };
            match KEY.compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => made.then_some(key),
                Err(_) => {
                    if made {
                        // SAFETY: made above and used by nobody.
                        unsafe { libc::pthread_key_delete(key) };
                    }
                    // Another thread has made one.
                    self::key()
                }
            }
        }
        value => libc::pthread_key_t::try_from(value - 1).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(stack: Stack) -> bool {
        let start = format!("{:x}-", stack.start() as usize);
        std::fs::read_to_string("/proc/self/maps").unwrap().lines().any(|line| line.starts_with(&start))
    }

    // One test: another would map at the address that this one expects to be free.
    #[test]
    fn is_freed_at_the_end_of_its_thread_and_never_replaces_one() {
        let stack = std::thread::spawn(|| {
            // Rust's threads have one already; this thread is to be one of C.
            let off =
                libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: STACK };
            let before = current();
            // SAFETY: no handler runs on it now; put back below, as std frees it.
            unsafe { libc::sigaltstack(&raw const off, std::ptr::null_mut()) };
            let stack = Stack::map().unwrap();
            stack.adopt();
            assert_eq!((current().ss_sp, current().ss_size), (stack.start(), STACK));
            // SAFETY: what std had set.
            unsafe { libc::sigaltstack(&raw const before, std::ptr::null_mut()) };
            assert!(mapped(stack));
            stack.0 as usize
        });
        let stack = Stack(stack.join().unwrap() as *mut c_void);
        assert!(!mapped(stack));

        std::thread::spawn(|| {
            let before = current();
            assert_eq!(before.ss_flags & libc::SS_DISABLE, 0, "std gave it one");
            let stack = Stack::map().unwrap();
            stack.adopt();
            assert_eq!(current().ss_sp, before.ss_sp);
            assert!(!mapped(stack));
        })
        .join()
        .unwrap();
    }
}
