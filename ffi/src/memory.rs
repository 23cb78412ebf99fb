//! Secret memory, and one monitor for several processes.

use std::ffi::{c_int, c_void};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use crate::options::{cenotaph_options, change};
use crate::panic::guarded;
use crate::status::{Failure, cenotaph_status};
use crate::text::not_null;

/// Registers memory that must never leave the device: `length` bytes from `start` on, whatever is in them at the time of a
/// crash. 64 ranges at most. They read as zeros in dumps and to pmodules, and words in them are left out of minimal records;
/// copies of texts in them are removed like registered values, copies of anything else are not. The memory is not touched.
///
/// Ownership: the memory stays the caller's; it may be freed at any time. Threads: any. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_register_secret_range(start: *const c_void, length: usize) -> cenotaph_status {
    guarded(|| {
        not_null(start, "start")?;
        Ok(cenotaph::register_secret_range(start.cast(), length)?)
    })
}

/// Takes back cenotaph_register_secret_range() with the same arguments.
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_unregister_secret_range(start: *const c_void, length: usize) -> cenotaph_status {
    guarded(|| {
        not_null(start, "start")?;
        Ok(cenotaph::unregister_secret_range(start.cast(), length)?)
    })
}

/// Makes a descriptor by which other processes of this application share this process's monitor, and writes it to
/// `descriptor`. It is closed on exec: hand it on as a child's standard input, by dup2(), or over a socket. Any number of
/// processes may use it.
///
/// Ownership: the descriptor is the caller's, to be closed. Threads: any. Signal handlers: no.
///
/// # Safety
/// `descriptor` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_share_monitor(descriptor: *mut c_int) -> cenotaph_status {
    guarded(|| {
        not_null(descriptor, "descriptor")?;
        let seat = cenotaph::share_monitor()?;
        // SAFETY: the caller's promise, and not NULL.
        unsafe { descriptor.write(seat.into_raw_fd()) };
        Ok(())
    })
}

/// Shares the monitor of another process of the same application, with the same settings and user: `descriptor` is one that
/// cenotaph_share_monitor() made there. Where that monitor does not take this process, or is gone, cenotaph_install() starts
/// one as usual; it waits up to a second for the answer.
///
/// Ownership: takes the descriptor, unless it is refused. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live; the descriptor is open and nobody else closes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_share_monitor(
    options: *mut cenotaph_options,
    descriptor: c_int,
) -> cenotaph_status {
    let seat = || {
        if descriptor < 0 {
            let text = format!("`descriptor` is {descriptor}");
            return Err(Failure::new(cenotaph_status::InvalidArgument, text));
        }
        // Where there is no /proc the caller's word must do.
        let all = Path::new("/proc/self/fd");
        if all.exists() && all.join(descriptor.to_string()).symlink_metadata().is_err() {
            let text = format!("`descriptor` {descriptor} is not open");
            return Err(Failure::new(cenotaph_status::InvalidArgument, text));
        }
        // SAFETY: the caller's promise: open, and ours from here on.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    };
    // SAFETY: the caller's promise.
    unsafe { change(options, seat, cenotaph::Config::share_monitor) }
}
