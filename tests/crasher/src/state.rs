//! A global with text in it, of which a pmodule knows the name and the layout.

use std::cell::UnsafeCell;

/// What a game keeps of itself.
#[repr(C)]
pub(crate) struct State {
    /// Text at the edge of what is kept of memory may be cut off, and is scrubbed as such.
    pub(crate) before: UnsafeCell<[u8; 64]>,
    /// "castle".
    pub(crate) level: UnsafeCell<[u8; 32]>,
    /// A secret.
    pub(crate) password: UnsafeCell<[u8; 32]>,
    /// Numbers.
    pub(crate) frame: UnsafeCell<[u8; 8]>,
}

// SAFETY: written by `fill` alone, before there is a second thread, and read by nobody in this process.
unsafe impl Sync for State {}

pub(crate) static STATE: State = State {
    before: UnsafeCell::new([0; 64]),
    level: UnsafeCell::new([0; 32]),
    password: UnsafeCell::new([0; 32]),
    frame: UnsafeCell::new([0; 8]),
};

/// Bytes that no secret has.
pub(crate) const LEVEL: &[u8] = b"castle-of-the-north-7";
/// As two halves, so that the program's file does not hold it.
const PASSWORD: [&[u8]; 2] = [b"zq-hollow", b"-lantern-42"];

/// Fills it, early in main.
pub(crate) fn fill() {
    // SAFETY: there is one thread still, and the targets are longer than what goes into them.
    unsafe {
        std::ptr::copy_nonoverlapping(LEVEL.as_ptr(), STATE.level.get().cast(), LEVEL.len());
        let password: *mut u8 = STATE.password.get().cast();
        let [first, second] = PASSWORD;
        std::ptr::copy_nonoverlapping(first.as_ptr(), password, first.len());
        std::ptr::copy_nonoverlapping(second.as_ptr(), password.add(first.len()), second.len());
        STATE.frame.get().write_volatile(0x0123_4567_89ab_cdef_u64.to_le_bytes());
    }
}
