//! Rust panics: message, place and thread go into a report, then the earlier hook does what it did.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::sync::Once;

use crate::protocol::Cause;

thread_local! {
    /// A panic inside our own hook must not start another report.
    static REPORTING: Cell<bool> = const { Cell::new(false) };
    /// This thread's last panic has a report.
    static REPORTED: Cell<bool> = const { Cell::new(false) };
    /// And the one before it had one too.
    static AGAIN: Cell<bool> = const { Cell::new(false) };
}

/// What the runtime panics with once more where a panic may not go on, just before it aborts
/// (`library/core/src/panicking.rs`: `panic_in_cleanup`, `panic_cannot_unwind`).
const LAST_WORDS: [&str; 2] =
    ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];
const RUNTIME: &str = "core/src/panicking.rs";

/// The first of them: what a destructor panicked with while another panic unwound.
const IN_CLEANUP: &str = LAST_WORDS[0];

/// What the hook does about a panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deeds {
    /// Decides whether it has something to do, and says whether there is a report now.
    pub(crate) report: fn(Cause) -> bool,
    /// The abort that follows (for certain, or if the earlier hook is one that aborts) is the end of a panic that has a report.
    pub(crate) expect_abort: fn(certain: bool),
    /// It did not follow.
    pub(crate) expect_no_abort: fn(),
    /// The calling thread's last panic came while another one unwound. That one's report is enough.
    pub(crate) supersede: fn(),
}

/// Puts a hook before the present one, once a process.
pub(crate) fn install(deeds: Deeds) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |information| {
            if REPORTING.replace(true) {
                return previous(information);
            }
            let message = information.payload_as_str();
            let file = information.location().map_or("", |location| location.file());
            let ends = REPORTED.get() && is_last_word(message, file);
            if ends {
                if AGAIN.get() && message == Some(IN_CLEANUP) {
                    (deeds.supersede)();
                }
            } else {
                AGAIN.set(REPORTED.get());
                REPORTED.set((deeds.report)(describe(information, AGAIN.get())));
            }
            // A hook that panics itself, or that wants a panic to end the process, aborts: that is no other event.
            if REPORTED.get() {
                (deeds.expect_abort)(ends || cfg!(panic = "abort"));
            }
            previous(information);
            if REPORTED.get() && !ends && cfg!(panic = "unwind") {
                (deeds.expect_no_abort)();
            }
            REPORTING.set(false);
        }));
    });
}

fn is_last_word(message: Option<&str>, file: &str) -> bool {
    file.ends_with(RUNTIME) && message.is_some_and(|message| LAST_WORDS.contains(&message))
}

fn describe(information: &PanicHookInfo<'_>, again: bool) -> Cause {
    Cause::Panic {
        message: information.payload_as_str().unwrap_or("(no text)").to_owned(),
        location: information.location().map(ToString::to_string).unwrap_or_default(),
        thread: std::thread::current().name().unwrap_or("(unnamed)").to_owned(),
        again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_runtimes_last_words() {
        let runtime = "/rustc/abc/library/core/src/panicking.rs";
        assert!(is_last_word(Some("panic in a function that cannot unwind"), runtime));
        assert!(is_last_word(Some("panic in a destructor during cleanup"), runtime));
        assert!(!is_last_word(Some("attempt to add with overflow"), runtime));
        assert!(!is_last_word(Some("panic in a function that cannot unwind"), "src/main.rs"));
        assert!(!is_last_word(None, runtime));
    }
}
