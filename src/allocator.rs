//! An allocator that remembers the memory it was refused, so that the report of an abort can say how much that was.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Wraps an allocator and notes, without a system call while all goes well, when it returns nothing. Rust then usually
/// ends the process (`handle_alloc_error`), and its report says [`OutOfMemory`](crate::report::Origin::OutOfMemory) with
/// the bytes. In a program with symbols that reason is found without it, but not the bytes.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: cenotaph::WatchedAllocator = cenotaph::WatchedAllocator::system();
/// ```
#[derive(Debug, Default)]
pub struct WatchedAllocator<A = System>(A);

impl WatchedAllocator {
    /// Over the system's.
    pub const fn system() -> Self {
        Self(System)
    }
}

impl<A> WatchedAllocator<A> {
    /// Over another.
    pub const fn new(allocator: A) -> Self {
        Self(allocator)
    }

    /// The wrapped one.
    pub const fn inner(&self) -> &A {
        &self.0
    }
}

/// Read by the monitor, by its address.
#[repr(C)]
struct Refused {
    /// The thread (gettid(2)) that was refused memory and was given none since; 0: there is none.
    thread: AtomicU64,
    bytes: AtomicU64,
}

static REFUSED: Refused = Refused { thread: AtomicU64::new(0), bytes: AtomicU64::new(0) };

/// Where it is noted: two words, thread and bytes.
pub(crate) fn refused_memory() -> u64 {
    (&raw const REFUSED).addr() as u64
}

fn note(block: *mut u8, bytes: usize) {
    if block.is_null() {
        REFUSED.bytes.store(bytes as u64, Ordering::Relaxed);
        REFUSED.thread.store(thread(), Ordering::Release);
    } else if REFUSED.thread.load(Ordering::Relaxed) != 0 {
        given();
    }
}

/// The program coped with the refusal.
#[cold]
fn given() {
    let _ = REFUSED.thread.compare_exchange(thread(), 0, Ordering::Relaxed, Ordering::Relaxed);
}

fn thread() -> u64 {
    // SAFETY: always allowed.
    u64::from(unsafe { libc::gettid() }.unsigned_abs())
}

// SAFETY: every call is handed on as it is, and its result handed back as it is.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WatchedAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = unsafe { self.0.alloc(layout) };
        note(block, layout.size());
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(block, layout) };
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        note(block, layout.size());
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = unsafe { self.0.realloc(block, layout, size) };
        note(block, size);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_refusal_until_memory_is_given() {
        let allocator = WatchedAllocator::system();
        let huge = Layout::from_size_align(isize::MAX as usize - 4096, 16).unwrap();
        let small = Layout::new::<u64>();
        // SAFETY: layouts of more than no bytes; the block is freed with the layout that it was made with.
        unsafe {
            assert!(allocator.alloc(huge).is_null());
            assert_eq!(REFUSED.thread.load(Ordering::Relaxed), thread());
            assert_eq!(REFUSED.bytes.load(Ordering::Relaxed), huge.size() as u64);
            let block = allocator.alloc(small);
            assert_eq!(REFUSED.thread.load(Ordering::Relaxed), 0);
            assert!(allocator.realloc(block, small, huge.size()).is_null());
            assert_eq!(REFUSED.thread.load(Ordering::Relaxed), thread());
            assert!(allocator.alloc_zeroed(huge).is_null());
            allocator.dealloc(block, small);
        }
    }
}
