//! Rust panics: message, place and thread go into a report, then the earlier hook does what it did.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::sync::Once;

use crate::protocol::Cause;

thread_local! {
    /// A panic inside our own hook must not start another report.
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

/// Puts a hook before the present one, once a process; `report` decides each time whether it has something to do.
pub(crate) fn install(report: fn(Cause)) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |information| {
            if !REPORTING.replace(true) {
                report(describe(information));
                REPORTING.set(false);
            }
            previous(information);
        }));
    });
}

fn describe(information: &PanicHookInfo<'_>) -> Cause {
    Cause::Panic {
        message: information.payload_as_str().unwrap_or("(no text)").to_owned(),
        location: information.location().map(ToString::to_string).unwrap_or_default(),
        thread: std::thread::current().name().unwrap_or("(unnamed)").to_owned(),
    }
}
