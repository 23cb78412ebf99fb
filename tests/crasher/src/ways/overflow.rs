//! Running out of stack by real recursion.

use std::hint::black_box;

/// Calls itself until the guard page stops it: std's handler then prints its message and aborts.
#[allow(unconditional_recursion, reason = "this is what was asked for")]
#[inline(never)]
pub(super) fn recurse(depth: u64) -> u64 {
    // A frame smaller than a page, so that it cannot step over the guard; used after the call, so that
    // it is no tail call.
    let frame = black_box([depth; 16]);
    let below = recurse(black_box(depth + 1));
    below.wrapping_add(black_box(frame)[0])
}
