//! Running out of memory, as Rust's allocator does.

use std::hint::black_box;

/// Asks for more than any address space has: `handle_alloc_error` ends the process by SIGABRT.
#[inline(never)]
pub(super) fn exhaust() {
    let block: Vec<u8> = Vec::with_capacity(black_box(isize::MAX as usize));
    black_box(block);
}
