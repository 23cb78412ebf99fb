//! Settings: a handle that setters fill and `cenotaph_install` consumes.

use std::ffi::c_char;
use std::path::Path;
use std::time::Duration;

use cenotaph::privacy::identity::Identity;
use cenotaph::privacy::{Audience, ConsentPolicy};
use cenotaph::report::Detail;
use cenotaph::{Config, Destination, ReleaseAt};

use crate::handle::{self, Handle};
use crate::panic::{guarded, value};
use crate::status::{Failure, cenotaph_status};
use crate::text::{choice, terminated};

/// The settings of an application, before it is installed. One thread at a time may use a handle.
pub struct cenotaph_options {
    /// Absent while a setter has it; for good if that setter panicked.
    config: Option<Config>,
}

/// Whom the application is made for.
#[repr(i32)]
pub enum cenotaph_audience {
    /// Adults, or nobody in particular. The default.
    General = 0,
    /// Children: no identifier, no breadcrumb text, detail "pointers" at most.
    ChildDirected = 1,
}

/// What happens while the person has not been asked.
#[repr(i32)]
pub enum cenotaph_consent_policy {
    /// Nothing is kept: no dump, no file. The default.
    DropUntilGranted = 0,
    /// Reports are held sealed on the device and sent only after a grant.
    AskFirst = 1,
    /// The operator has another legal ground; only a denial or withdrawal stops reports.
    NotRequired = 2,
}

/// How much of the process a report shows, at most.
#[repr(i32)]
pub enum cenotaph_detail {
    /// Frames as module and offset, the reason, attributes. No memory.
    StackTrace = 0,
    /// Stack words that point nowhere known are blanked, other memory is left out.
    Pointers = 1,
    /// Memory with patterns and known values removed. The default.
    Minidump = 2,
}

/// When a dying application may go on.
#[repr(i32)]
pub enum cenotaph_release_at {
    /// As soon as its memory is read. The default.
    Read = 0,
    /// When the report is committed to the spool: for services and sandboxes in which the monitor dies with the
    /// application.
    Spooled = 1,
}

/// Makes settings for an application by name (1 to 64 letters, digits, '-', '_', '.' or spaces) and version. Everything
/// else has the more private default.
///
/// Returns NULL if a text is missing or is no UTF-8; cenotaph_last_error() says why. What the texts say is checked by
/// cenotaph_install(). A NULL may be passed on: every setter and cenotaph_install() then return CENOTAPH_STATUS_NULL_ARGUMENT.
///
/// Ownership: the caller's, until cenotaph_install() or cenotaph_options_free(). Both texts are copied.
/// Threads: any. Signal handlers: no.
///
/// # Safety
/// Both arguments are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_new(
    application: *const c_char,
    version: *const c_char,
) -> *mut cenotaph_options {
    let made = value(|| {
        // SAFETY: the caller's promise.
        let (application, version) =
            unsafe { (terminated(application, "application")?, terminated(version, "version")?) };
        Ok(handle::give(cenotaph_options { config: Some(Config::new(application, version)) }))
    });
    made.unwrap_or(std::ptr::null_mut())
}

/// Frees settings that were not installed. NULL is fine.
///
/// Ownership: the handle is gone. Threads: any, if no other thread uses the handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or came from cenotaph_options_new() and was neither freed nor installed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_free(options: *mut cenotaph_options) {
    if options.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    guarded(|| unsafe { handle::take(options) }.map(drop));
}

/// Adds a server that takes reports: "crashpad=URL" or "backtrace=URL" with an https URL. Each report goes to all of
/// them, 8 at most. Without any, reports stay in the spool.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `destination` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_add_destination(
    options: *mut cenotaph_options,
    destination: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe {
        change(
            options,
            || Ok(Destination::parse(terminated(destination, "destination")?)?),
            Config::destination,
        )
    }
}

/// Sets the directory where sealed reports wait. Default: $XDG_STATE_HOME/APPLICATION/cenotaph, or the same under
/// ~/.local/state. It is made when something has to be stored. The path is UTF-8.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `directory` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_spool(
    options: *mut cenotaph_options,
    directory: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || terminated(directory, "directory"), |config, text| config.spool(text)) }
}

/// Trusts the certificate authorities of a PEM file besides the system's: for collectors on premise. May be called
/// more than once. The path is UTF-8.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `pem` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_add_certificate_authority(
    options: *mut cenotaph_options,
    pem: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || terminated(pem, "pem"), |config, text| config.certificate_authority(text)) }
}

/// Says whom the application is made for: a value of enum cenotaph_audience.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_audience(
    options: *mut cenotaph_options,
    audience: i32,
) -> cenotaph_status {
    use cenotaph_audience as C;
    let table = [(C::General as i32, Audience::General), (C::ChildDirected as i32, Audience::ChildDirected)];
    // SAFETY: the caller's promise.
    unsafe { change(options, || choice(audience, "audience", &table), Config::audience) }
}

/// Says what happens before the person was asked: a value of enum cenotaph_consent_policy.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_consent_policy(
    options: *mut cenotaph_options,
    policy: i32,
) -> cenotaph_status {
    use cenotaph_consent_policy as C;
    let table = [
        (C::DropUntilGranted as i32, ConsentPolicy::DropUntilGranted),
        (C::AskFirst as i32, ConsentPolicy::AskFirst),
        (C::NotRequired as i32, ConsentPolicy::NotRequired),
    ];
    // SAFETY: the caller's promise.
    unsafe { change(options, || choice(policy, "policy", &table), Config::consent) }
}

/// Says how much a report shows, at most: a value of enum cenotaph_detail.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_detail(
    options: *mut cenotaph_options,
    detail: i32,
) -> cenotaph_status {
    use cenotaph_detail as C;
    let table = [
        (C::StackTrace as i32, Detail::StackTrace),
        (C::Pointers as i32, Detail::Pointers),
        (C::Minidump as i32, Detail::Minidump),
    ];
    // SAFETY: the caller's promise.
    unsafe { change(options, || choice(detail, "detail", &table), Config::detail) }
}

/// Sends no device identifier. Always so for child-directed applications.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_identity_off(
    options: *mut cenotaph_options,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || Ok(Identity::Off), Config::identity) }
}

/// Sends an identifier that lasts for one start of the application; nothing is stored.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_identity_session(
    options: *mut cenotaph_options,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || Ok(Identity::Session), Config::identity) }
}

/// Sends an identifier that changes after so many days (1 or more). The default, with 30.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_identity_epoch(
    options: *mut cenotaph_options,
    days: u32,
) -> cenotaph_status {
    let identity = || match days {
        0 => Err(Failure::new(cenotaph_status::InvalidArgument, "`days` is 0; an epoch takes 1 or more")),
        days => Ok(Identity::Epoch { days }),
    };
    // SAFETY: the caller's promise.
    unsafe { change(options, identity, Config::identity) }
}

/// Names the deployment: "production" (the default), "beta". 64 bytes at most.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `environment` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_environment(
    options: *mut cenotaph_options,
    environment: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe {
        change(options, || terminated(environment, "environment"), |config, text| config.environment(text))
    }
}

/// Separates the identifiers of customers that share one application. 64 bytes at most.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `tenant` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_tenant(
    options: *mut cenotaph_options,
    tenant: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || terminated(tenant, "tenant"), |config, text| config.tenant(text)) }
}

/// Says when a dying application may go on: a value of enum cenotaph_release_at.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_release_at(
    options: *mut cenotaph_options,
    release_at: i32,
) -> cenotaph_status {
    use cenotaph_release_at as C;
    let table = [(C::Read as i32, ReleaseAt::Read), (C::Spooled as i32, ReleaseAt::Spooled)];
    // SAFETY: the caller's promise.
    unsafe { change(options, || choice(release_at, "release_at", &table), Config::release_at) }
}

/// Limits how long a dying application waits for its monitor, in milliseconds: 1 to 120000. Default: 10000.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_deadline_ms(
    options: *mut cenotaph_options,
    deadline_ms: u32,
) -> cenotaph_status {
    let deadline = Duration::from_millis(deadline_ms.into());
    // SAFETY: the caller's promise.
    unsafe { change(options, || Ok(deadline), Config::deadline) }
}

/// Limits how long the monitor retries a delivery after the application has ended, in milliseconds. Default: 60000.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_linger_ms(
    options: *mut cenotaph_options,
    linger_ms: u32,
) -> cenotaph_status {
    let linger = Duration::from_millis(linger_ms.into());
    // SAFETY: the caller's promise.
    unsafe { change(options, || Ok(linger), Config::linger) }
}

/// Names a file for a line per outcome; it never holds report contents. Default: none. The path is UTF-8.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `file` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_log(
    options: *mut cenotaph_options,
    file: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || terminated(file, "file"), |config, text| config.log(text)) }
}

/// Adds a value that must never leave the device: an account name, a licence key. 1024 bytes at most. See also
/// cenotaph_register_secret().
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `value` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_add_secret(
    options: *mut cenotaph_options,
    value: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || terminated(value, "value"), |config, text| config.secret(text)) }
}

/// Adds rules for what else must never leave the device, in the form of a rules file (TOML, docs/rules.md):
/// `[[rule]]`, `name`, `pattern`, and what they may ask for besides. Each is checked at once.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `rules` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_add_rules(
    options: *mut cenotaph_options,
    rules: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    let parsed =
        || Ok(cenotaph::scrub::rules_from_toml(unsafe { terminated(rules, "rules") }?, Path::new("rules"))?);
    // SAFETY: the caller's promise.
    unsafe { change(options, parsed, |config, rules| rules.into_iter().fold(config, Config::rule)) }
}

/// Adds the rules of a TOML file, which is read by cenotaph_install(). May be called more than once. The path is UTF-8.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `file` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_add_rules_file(
    options: *mut cenotaph_options,
    file: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || terminated(file, "file"), |config, text| config.rules_file(text)) }
}

/// Names a program that becomes the monitor in the place of this one: cenotaph-monitor, for applications whose start must
/// not happen twice (constructors, single-instance locks, windows) or which load pmodules. cenotaph_monitor_entry() is not
/// needed then. cenotaph_install() refuses one that does not belong to root or this user, or that others may write to.
/// The path is UTF-8 and is made absolute.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `program` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_helper(
    options: *mut cenotaph_options,
    program: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || terminated(program, "program"), |config, text| config.helper(text)) }
}

/// Adds a shared object with a pmodule (cenotaph_pmodule.h), which the helper loads: 16 at most. cenotaph_install() refuses one
/// that does not belong to root or this user, or that others may write to. The path is UTF-8 and is made absolute.
///
/// Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live, `shared_object` NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_add_plugin(
    options: *mut cenotaph_options,
    shared_object: *const c_char,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe {
        change(options, || terminated(shared_object, "shared_object"), |config, text| config.plugin(text))
    }
}

/// Says whether panics of Rust code in this process are reported. Default: true.
///
/// Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
///
/// # Safety
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cenotaph_options_set_panics(
    options: *mut cenotaph_options,
    report: bool,
) -> cenotaph_status {
    // SAFETY: the caller's promise.
    unsafe { change(options, || Ok(report), Config::panics) }
}

impl Handle for cenotaph_options {
    const NAME: &'static str = "options";
}

impl cenotaph_options {
    pub(crate) fn into_config(self) -> Result<Config, Failure> {
        self.config.ok_or_else(half_changed)
    }
}

fn half_changed() -> Failure {
    Failure::new(
        cenotaph_status::Panic,
        "an earlier call on these options failed inside Cenotaph; make new ones",
    )
}

/// Checks the handle, then the value, then sets it: what is refused leaves the settings as they were.
///
/// # Safety
/// As [`handle::lend`].
pub(crate) unsafe fn change<T>(
    options: *mut cenotaph_options,
    value: impl FnOnce() -> Result<T, Failure>,
    set: impl FnOnce(Config, T) -> Config,
) -> cenotaph_status {
    guarded(|| {
        // SAFETY: this function's own contract.
        let options = unsafe { handle::lend(options) }?;
        let value = value()?;
        let config = options.config.take().ok_or_else(half_changed)?;
        options.config = Some(set(config, value));
        Ok(())
    })
}

#[cfg(test)]
mod tests;
