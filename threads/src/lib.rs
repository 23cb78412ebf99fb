//! An alternate signal stack, with a guard page below it, for every thread that a program starts.
//!
//! A stack overflow leaves a signal handler no room on the thread's own stack. Without an alternate one the kernel ends
//! the process with SIGSEGV before any handler runs (sigaltstack(2)), so that no crash reporter sees the frames. Rust gives
//! one to the threads that it starts itself; C, C++ and the runtimes above them do not.
//!
//! This archive is the one part of Cenotaph that exports a name which is not its own: [`pthread_create`]. It is a package
//! of its own, because not every program may want that. A program that does links it before the C library:
//!
//! ```text
//! cc game.c libcenotaph_threads.a libcenotaph_ffi.a ...
//! c++ game.cpp libcenotaph_threads.a libcenotaph_ffi.a -Wl,--undefined=pthread_create -Wl,--export-dynamic-symbol=pthread_create ...
//! ```
//!
//! (The two options of the second line make shared libraries use it too, `std::thread` of libstdc++ among them.) A Rust
//! program says `use cenotaph_threads as _;`.
//!
//! * A stack that is there is never replaced. One that a runtime (ART, Go, Ruby) installs later replaces this one, and is
//!   not touched when the thread ends.
//! * A thread starts also where memory is short: then without an alternate stack.
//! * The stack is freed when the thread ends, however it ends, by the destructor of a `pthread_key_create` key. If the
//!   kernel refuses to unmap it, its pages are given back and its addresses stay reserved.
//! * Under AddressSanitizer, ThreadSanitizer, MemorySanitizer and HWAddressSanitizer, which interpose `pthread_create`
//!   themselves, it only passes calls on.
//! * Threads that existed before, and those of a statically linked C library, call `cenotaph_protect_thread()`.
//!
//! Linux with glibc 2.34 or newer, or musl, linked dynamically. Nothing here allocates, locks or calls anything of Cenotaph.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod next;
mod stack;

use std::ffi::{c_int, c_void};

use stack::Stack;

/// What a thread runs. It may be unwound through: `pthread_exit` and cancellation do that.
type Start = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// pthread_create(3). The new thread gets an alternate signal stack before `start` is called.
///
/// # Safety
/// As for the C library's.
// In a test program of Rust's harness the C library's serves better.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let Some(create) = next::create() else {
        // Only where the program is linked statically: there is no other to call.
        return libc::EAGAIN;
    };
    if next::is_sanitized() {
        // SAFETY: the caller's promise.
        return unsafe { create(thread, attributes, start, argument) };
    }
    let Some(stack) = Stack::map() else {
        // SAFETY: the caller's promise.
        return unsafe { create(thread, attributes, start, argument) };
    };
    // The job lies in the stack itself, whose memory is not in use before the thread adopts it.
    stack.put(Job { start, argument });
    // SAFETY: the caller's promise for `thread` and `attributes`; `begin` gets what it expects.
    let result = unsafe { create(thread, attributes, begin, stack.base()) };
    if result != 0 {
        stack.free();
    }
    result
}

/// What the caller wanted to be run.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    start: Start,
    argument: *mut c_void,
}

/// The new thread's first function. Nothing in its frame needs a destructor, as the thread may leave by `pthread_exit`.
extern "C-unwind" fn begin(base: *mut c_void) -> *mut c_void {
    let stack = Stack::from_base(base);
    let Job { start, argument } = stack.take();
    stack.adopt();
    start(argument)
}
