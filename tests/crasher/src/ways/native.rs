//! Dying by what C and C++ notice themselves: native/ways.cpp, and the C library's heap.

use std::ffi::{c_char, c_int};
use std::hint::black_box;

/// What the exception of `cxx-throw` says.
const WHAT: &std::ffi::CStr = c"crasher: an exception was asked for";

unsafe extern "C" {
    safe fn crasher_throw(what: *const c_char);
    safe fn crasher_smash(length: usize) -> c_int;
}

/// An exception that nobody catches: SIGABRT by `std::terminate`.
#[inline(never)]
pub(super) fn throw() {
    crasher_throw(WHAT.as_ptr());
    black_box("throw");
}

/// An overflowing buffer on the stack: SIGABRT by the stack protector.
#[inline(never)]
pub(super) fn smash() {
    // Over the guard, which lies within these bytes, and not much further: what reports the crash must be able to unwind.
    black_box(crasher_smash(black_box(40)));
}

/// A block freed twice: SIGABRT by malloc.
#[inline(never)]
pub(super) fn double_free() {
    // SAFETY: deliberately wrong, which is the point: glibc notices the second call and aborts.
    unsafe {
        let block = libc::malloc(black_box(40));
        libc::free(block);
        libc::free(black_box(block));
    }
}
