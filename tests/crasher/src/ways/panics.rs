//! Panics that end the process.

use std::hint::black_box;

/// A panic that cannot unwind: SIGABRT. In a program built with `panic=abort` every panic is one; otherwise it meets a
/// function of C's on its way.
#[inline(never)]
pub(super) fn abort() {
    if cfg!(panic = "abort") {
        panic();
    } else {
        through_c();
    }
}

extern "C" fn through_c() {
    panic();
    black_box("through_c");
}

#[inline(never)]
#[allow(clippy::panic, reason = "this is what was asked for")]
fn panic() {
    panic!("crasher: a panic was asked for");
}

/// A panic while another one unwinds: SIGABRT.
#[inline(never)]
#[allow(clippy::panic, reason = "this is what was asked for")]
pub(super) fn in_panic() {
    let _second = PanicsWhenDropped;
    panic!("crasher: the first of two panics");
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    #[allow(clippy::panic, reason = "this is what was asked for")]
    fn drop(&mut self) {
        panic!("crasher: the second of two panics");
    }
}
