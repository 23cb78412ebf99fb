//! `errno` as it was. Handlers reach this file.

/// Keeps this thread's `errno` for the code that a signal interrupted, or that called the library and has yet to look at its own.
pub(crate) struct Errno(libc::c_int);

impl Errno {
    pub(crate) fn save() -> Self {
        // SAFETY: points at this thread's errno for as long as the thread lives.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: as in `save`.
        unsafe { *libc::__errno_location() = self.0 };
    }
}
