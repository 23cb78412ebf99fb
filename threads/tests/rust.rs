//! A Rust program that uses the package: its own threads run on the larger stack.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cenotaph_threads as _;

#[test]
fn rusts_threads_have_one_of_ours() {
    let size = std::thread::spawn(|| {
        let mut found = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: asks only.
        unsafe { libc::sigaltstack(std::ptr::null(), &raw mut found) };
        found.ss_size
    });
    assert_eq!(size.join().unwrap(), 64 * 1024);
}
