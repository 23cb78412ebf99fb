//! Installing, and what the application may say while it runs.

use std::ffi::{CStr, c_char};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use cenotaph::Guard;
use cenotaph::privacy::{Basis, Consent};
use cenotaph::report::{Level, ValueRef};

use crate::handle;
use crate::options::cenotaph_options;
use crate::panic::{guarded, value};
use crate::status::{Failure, cenotaph_status, last_error};
use crate::text::{choice, counted, fill, not_null, store, terminated};

/// Bytes of a report's id as text, with the NUL: a buffer for cenotaph_capture().
pub const CENOTAPH_REPORT_ID_SIZE: usize = 37;

/// How grave a breadcrumb is.
#[repr(i32)]
pub enum cenotaph_level {
    /// For developers.
    Debug = 0,
    /// Ordinary events.
    Info = 1,
    /// Something odd.
    Warning = 2,
    /// Something failed.
    Error = 3,
}

/// What the person said.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum cenotaph_consent {
    /// Not asked yet, or the record is missing, damaged or not authentic.
    Unknown = 0,
    /// Yes.
    Granted = 1,
    /// No.
    Denied = 2,
    /// Yes once, no longer.
    Withdrawn = 3,
}

/// On what ground a grant stands.
#[repr(i32)]
pub enum cenotaph_basis {
    /// The person agreed.
    Person = 0,
    /// A verified parent agreed.
    VerifiedParent = 1,
    /// The operator's own devices or testers under contract.
    Operator = 2,
}

/// The installed client; C has no guard to keep.
static INSTALLED: RwLock<Option<Guard>> = RwLock::new(None);

/// Becomes a monitor if this process was started as one, and does not return then. Call it first in main(), before
/// the application opens windows, takes locks or starts threads: Cenotaph's monitor is this program, started again.
/// Without this call cenotaph_install() does the same, and what main() does before runs in the monitor too.
///
/// Returns CENOTAPH_STATUS_OK in the application itself.
///
/// Ownership: nothing to own. Threads: only before others exist. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_monitor_entry() -> cenotaph_status {
    guarded(|| {
        cenotaph::monitor_entry();
        Ok(())
    })
}

/// Starts the monitor, then installs the handlers for fatal signals. Takes some milliseconds; nothing here uses the network or
/// waits for the monitor, and no file is written. Only after a crash soon after the last start
/// (cenotaph_options_set_start_up_ms()) it waits for that report's delivery, 2 s at most. Call it early: it works once threads exist, if
/// cenotaph_monitor_entry() came first.
///
/// On failure the application is as it was before and may go on without.
///
/// Ownership: takes the options, also on failure; the handle is dead afterwards. Threads: any, one at a time per handle.
/// Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_install(options: *mut cenotaph_options) -> cenotaph_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let options = unsafe { handle::take(options) }?;
        let mut installed = INSTALLED.write().unwrap_or_else(PoisonError::into_inner);
        let guard = options.into_config()?.install()?;
        *installed = Some(guard);
        Ok(())
    })
}

/// Puts the earlier signal handlers back and lets the monitor finish on its own. Cenotaph may be installed again
/// afterwards. Waits for a cenotaph_flush() of another thread. In a forked child it does nothing.
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_shutdown() -> cenotaph_status {
    guarded(|| {
        let guard = INSTALLED.write().unwrap_or_else(PoisonError::into_inner).take();
        guard.map(Guard::shutdown).ok_or_else(|| cenotaph::Error::NotInstalled.into())
    })
}

/// Waits until everything that can be delivered now has been delivered, or the time is over
/// (CENOTAPH_STATUS_TIMEOUT). Other calls that need the monitor wait meanwhile: cenotaph_capture(), changes of
/// consent, cenotaph_shutdown().
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_flush(timeout_ms: u32) -> cenotaph_status {
    guarded(|| {
        let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
        let guard = installed.as_ref().ok_or(cenotaph::Error::NotInstalled)?;
        Ok(guard.flush(Duration::from_millis(timeout_ms.into()))?)
    })
}

/// Sets an attribute to a text: 128 attributes at most, a key of 1 to 64 bytes, a value of up to 1024 (longer ones
/// are cut at a character and marked). Takes no system call and does not allocate unless it fails.
///
/// Ownership: both texts are copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// Both arguments are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_set_attribute_string(
    key: *const c_char,
    value: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { set(terminated(key, "key")?, terminated(value, "value")?) })
}

/// As cenotaph_set_attribute_string(), with lengths in bytes. NULL with length 0 is the empty text.
///
/// Ownership: both texts are copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// Each text is NULL or as long as its length says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_set_attribute_string_n(
    key: *const c_char,
    key_length: usize,
    value: *const c_char,
    value_length: usize,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { set(counted(key, key_length, "key")?, counted(value, value_length, "value")?) })
}

/// Sets an attribute to an integer. Limits as for cenotaph_set_attribute_string().
///
/// Ownership: the key is copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_set_attribute_integer(key: *const c_char, value: i64) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| set(unsafe { terminated(key, "key") }?, value))
}

/// Sets an attribute to a floating-point number. Limits as for cenotaph_set_attribute_string().
///
/// Ownership: the key is copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_set_attribute_float(key: *const c_char, value: f64) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| set(unsafe { terminated(key, "key") }?, value))
}

/// Sets an attribute to true or false. Limits as for cenotaph_set_attribute_string().
///
/// Ownership: the key is copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_set_attribute_bool(key: *const c_char, value: bool) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| set(unsafe { terminated(key, "key") }?, value))
}

/// Removes an attribute, if it is there.
///
/// Ownership: the key is only read. Threads: any. Signal handlers: no.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_remove_attribute(key: *const c_char) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| Ok(cenotaph::remove_attribute(unsafe { terminated(key, "key") }?)?))
}

/// Adds a breadcrumb to the ring of the last 128: a value of enum cenotaph_level, a category of up to 32 bytes, a
/// message of up to 448 (longer ones are cut). In a child-directed application the message is not kept. Takes no system
/// call that blocks and does not allocate unless it fails.
///
/// Ownership: both texts are copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// Both texts are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_add_breadcrumb(
    level: i32,
    category: *const c_char,
    message: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { add(level, terminated(category, "category")?, terminated(message, "message")?) })
}

/// As cenotaph_add_breadcrumb(), with lengths in bytes. NULL with length 0 is the empty text.
///
/// Ownership: both texts are copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// Each text is NULL or as long as its length says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_add_breadcrumb_n(
    level: i32,
    category: *const c_char,
    category_length: usize,
    message: *const c_char,
    message_length: usize,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe {
        add(
            level,
            counted(category, category_length, "category")?,
            counted(message, message_length, "message")?,
        )
    })
}

/// Registers a value that must never leave the device, in any report from now on: 64 at most, of 1 to 256 bytes.
///
/// Ownership: the text is copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// `value` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_register_secret(value: *const c_char) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| Ok(cenotaph::register_secret(unsafe { terminated(value, "value") }?)?))
}

/// As cenotaph_register_secret(), with the length in bytes.
///
/// Ownership: the text is copied. Threads: any. Signal handlers: no.
///
/// # Safety
/// `value` is NULL or as long as `length` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_register_secret_n(value: *const c_char, length: usize) -> cenotaph_status {
    // SAFETY: the caller's promise.
    guarded(|| Ok(cenotaph::register_secret(unsafe { counted(value, length, "value") }?)?))
}

/// Makes a report of the process as it is and lives on. Returns when its memory is read (with
/// CENOTAPH_RELEASE_AT_SPOOLED, when the report is committed). The threads are stopped for a few milliseconds, so that
/// blocking calls such as epoll_wait() may return EINTR.
///
/// Writes the report's id to `id`, NUL-terminated, if it is not NULL: `id_size` is CENOTAPH_REPORT_ID_SIZE or more, else
/// CENOTAPH_STATUS_BUFFER_TOO_SMALL comes back and there is no report. On failure `id` is left as it was.
///
/// Ownership: the reason is copied, the buffer is the caller's. Threads: any, one after another. Signal handlers: no.
///
/// # Safety
/// `reason` is NULL or NUL-terminated, `id` NULL or `id_size` bytes long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_capture(
    reason: *const c_char,
    id: *mut c_char,
    id_size: usize,
) -> cenotaph_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let reason = unsafe { terminated(reason, "reason") }?;
        if !id.is_null() && id_size < CENOTAPH_REPORT_ID_SIZE {
            return Err(Failure::new(
                cenotaph_status::BufferTooSmall,
                format!("`id` takes {CENOTAPH_REPORT_ID_SIZE} bytes, this buffer has {id_size}"),
            ));
        }
        let report = cenotaph::capture(reason)?;
        // SAFETY: the caller's promise.
        unsafe { fill(id, id_size, &report.to_string()) };
        Ok(())
    })
}

/// Stores in `state` what the person said, as the record on disk has it.
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
///
/// # Safety
/// `state` is NULL or the caller's variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_consent_state(state: *mut cenotaph_consent) -> cenotaph_status {
    guarded(|| {
        not_null(state, "state")?;
        let said = match cenotaph::consent()?.state() {
            Consent::Unknown => cenotaph_consent::Unknown,
            Consent::Granted => cenotaph_consent::Granted,
            Consent::Denied => cenotaph_consent::Denied,
            Consent::Withdrawn => cenotaph_consent::Withdrawn,
        };
        // SAFETY: the caller's promise.
        unsafe { store(state, said) };
        Ok(())
    })
}

/// Reports may be kept and sent from now on, those held so far included. `basis` is a value of enum cenotaph_basis. On
/// failure nothing has changed. Writes to disk.
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_consent_grant(basis: i32) -> cenotaph_status {
    use cenotaph_basis as C;
    let table = [
        (C::Person as i32, Basis::Person),
        (C::VerifiedParent as i32, Basis::VerifiedParent),
        (C::Operator as i32, Basis::Operator),
    ];
    guarded(|| {
        let basis = choice(basis, "basis", &table)?;
        Ok(cenotaph::consent()?.grant(basis)?)
    })
}

/// No reports. What was held is removed; stores in `removed`, if it is not NULL, how many reports that were. No report
/// is made from now on, even if this fails because a file cannot be written or removed.
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
///
/// # Safety
/// `removed` is NULL or the caller's variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_consent_deny(removed: *mut usize) -> cenotaph_status {
    guarded(|| {
        let count = cenotaph::consent()?.deny()?;
        // SAFETY: the caller's promise.
        unsafe { store(removed, count) };
        Ok(())
    })
}

/// No reports any longer. What is in the spool is removed, the device identifier and the local key are destroyed; stores
/// in `removed`, if it is not NULL, how many reports were removed. No report is made from now on, even if this fails.
///
/// Ownership: nothing to own. Threads: any. Signal handlers: no.
///
/// # Safety
/// `removed` is NULL or the caller's variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_consent_withdraw(removed: *mut usize) -> cenotaph_status {
    guarded(|| {
        let count = cenotaph::consent()?.withdraw()?;
        // SAFETY: the caller's promise.
        unsafe { store(removed, count) };
        Ok(())
    })
}

/// Gives the calling thread an alternate signal stack if it has none, so that its stack overflow is reported too. The
/// thread that installs Cenotaph has one. Freed when the thread ends.
///
/// Ownership: nothing to own. Threads: any, each for itself. Signal handlers: no.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_protect_thread() -> cenotaph_status {
    guarded(|| Ok(cenotaph::protect_thread()?))
}

/// Says in a few words what a status means; "unknown status" for numbers that are none.
///
/// Ownership: static memory, never freed. Threads: any. Signal handlers: yes.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_status_message(status: i32) -> *const c_char {
    cenotaph_status::message_of(status).as_ptr()
}

/// Copies the text of this thread's last failure into `buffer`: the thing, the cause and the way out. It may name a file,
/// but holds no secret, no value of an attribute and no text of a breadcrumb. Cut at a character if the buffer is too
/// small, always NUL-terminated unless `buffer` is NULL or `size` 0. Success of a later call leaves it as it is.
///
/// Returns the length of the whole text without the NUL, as snprintf() does; 0 if nothing failed in this thread.
///
/// Ownership: the buffer is the caller's. Threads: any, each has its own text. Signal handlers: no.
///
/// # Safety
/// `buffer` is NULL or `size` bytes long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_last_error(buffer: *mut c_char, size: usize) -> usize {
    let copied = value(|| {
        Ok(last_error(|text| {
            // SAFETY: the caller's promise.
            unsafe { fill(buffer, size, text) };
            text.len()
        }))
    });
    copied.ok().flatten().unwrap_or(0)
}

/// The version of the library in use; CENOTAPH_VERSION_STRING is that of the header.
///
/// Ownership: static memory, never freed. Threads: any. Signal handlers: yes.
#[unsafe(no_mangle)]
pub extern "C" fn cenotaph_version() -> *const c_char {
    VERSION.as_ptr()
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

fn set<'a>(key: &str, value: impl Into<ValueRef<'a>>) -> Result<(), Failure> {
    Ok(cenotaph::set_attribute(key, value)?)
}

fn add(level: i32, category: &str, message: &str) -> Result<(), Failure> {
    use cenotaph_level as C;
    let table = [
        (C::Debug as i32, Level::Debug),
        (C::Info as i32, Level::Info),
        (C::Warning as i32, Level::Warning),
        (C::Error as i32, Level::Error),
    ];
    Ok(cenotaph::add_breadcrumb(choice(level, "level", &table)?, category, message)?)
}
