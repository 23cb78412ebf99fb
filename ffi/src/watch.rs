//! Watched threads, and what the application may know of its earlier starts.

use std::cell::RefCell;
use std::time::Duration;

use cenotaph::{Config, Watch};

use crate::options::{cenotaph_options, change};
use crate::panic::guarded;
use crate::status::{Failure, cenotaph_status};
use crate::text::not_null;

thread_local! {
    /// The calling thread's; it ends with the thread.
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Watches the calling thread until it ends or calls cenotaph_unwatch_thread(): if it does not call cenotaph_beat() for
/// `limit_ms` milliseconds, a report is made of the process as it is, with this thread's frames first, and the process lives
/// on. Once a hang: the next beat begins anew. At least 20 ms (a shorter limit counts as that); 32 threads at once
/// (CENOTAPH_STATUS_LIMIT). A second call changes the limit. While a thread is watched the monitor wakes up four times within
/// the limit, and never otherwise. Looking at the process stops its threads for some milliseconds: calls that wait may
/// return EINTR, as with cenotaph_capture().
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_watch_thread(limit_ms: u32) -> cenotaph_status {
    guarded(|| {
        WATCH.with_borrow_mut(|watch| {
            // The old one first: there are not many.
            *watch = None;
            *watch = Some(cenotaph::watch_thread(Duration::from_millis(limit_ms.into()))?);
            Ok(())
        })
    })
}

/// The calling thread, which is watched, is alive. Stores a word in memory: no system call, no allocation, no lock.
/// CENOTAPH_STATUS_NOT_INSTALLED for a thread that is not watched.
///
/// Ownership: nothing to own. Threads: a watched one. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_beat() -> cenotaph_status {
    guarded(|| WATCH.with_borrow(|watch| watch.as_ref().map(Watch::beat).ok_or_else(not_watched)))
}

fn not_watched() -> Failure {
    let text = "this thread is not watched; call cenotaph_watch_thread() in it first";
    Failure::new(cenotaph_status::NotInstalled, text.to_owned())
}

/// Ends the calling thread's watch, if there is one.
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_unwatch_thread() -> cenotaph_status {
    guarded(|| {
        WATCH.with_borrow_mut(|watch| *watch = None);
        Ok(())
    })
}

/// A crash within so many milliseconds after cenotaph_install() is one of the start: the next cenotaph_install() then waits up
/// to 2 s until what can be delivered is delivered. Default: 5000; 0 switches this and cenotaph_safe_mode() off.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_start_up_ms(
    options: *mut cenotaph_options,
    window_ms: u32,
) -> cenotaph_status {
    let window = Duration::from_millis(window_ms.into());
    // SAFETY: the caller's promise.
    unsafe { change(options, || Ok(window), Config::start_up) }
}

/// After more than so many crashes of the start in a row cenotaph_safe_mode() is true. Default: 3.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_safe_mode_after(
    options: *mut cenotaph_options,
    crashes: u32,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || Ok(crashes), Config::safe_mode_after) }
}

/// Writes to `safe` whether the last starts ended in a crash soon after, more often than
/// cenotaph_options_set_safe_mode_after() allows: the application may want to leave out what could be at fault.
///
/// Ownership: the variable is the caller's. Threads: any. Signal handlers: no.
///
/// # Safety
/// `safe` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_safe_mode(safe: *mut bool) -> cenotaph_status {
    guarded(|| {
        not_null(safe, "safe")?;
        let status = cenotaph::status()?;
        // SAFETY: the caller's promise, and not NULL.
        unsafe { safe.write(status.safe_mode) };
        Ok(())
    })
}
