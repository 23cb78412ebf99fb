//! The border that no panic crosses.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::status::{Failure, cenotaph_status, record};

/// Runs the body of an entry: a failure is kept for `cenotaph_last_error`, a panic becomes one.
pub(crate) fn guarded(body: impl FnOnce() -> Result<(), Failure>) -> cenotaph_status {
    match value(body) {
        Ok(()) => cenotaph_status::Ok,
        Err(status) => status,
    }
}

/// As [`guarded`], for entries that return something else.
pub(crate) fn value<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, cenotaph_status> {
    // What a body leaves half done is its own handle, which says so (`options`), or behind locks that ignore poison.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(failure)) => failure,
        Err(payload) => {
            // Its text is not ours to repeat, and dropping it may panic again.
            std::mem::forget(payload);
            Failure::new(
                cenotaph_status::Panic,
                "a defect of Cenotaph was caught; standard error says where, please report it",
            )
        }
    };
    Err(record(failure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::last_error;

    #[test]
    fn panics_become_a_status() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(guarded(|| panic!("alice@example.org")), cenotaph_status::Panic);
        assert_eq!(last_error(|text| text.contains("alice")), Some(false));
        assert_eq!(guarded(|| std::panic::panic_any(Bomb)), cenotaph_status::Panic);
    }

    #[test]
    fn failures_keep_their_text_and_success_leaves_it() {
        let failure = || Err(Failure::new(cenotaph_status::Limit, "too many"));
        assert_eq!(guarded(failure), cenotaph_status::Limit);
        assert_eq!(guarded(|| Ok(())), cenotaph_status::Ok);
        assert_eq!(last_error(str::to_owned).as_deref(), Some("too many"));
        assert_eq!(value(|| Ok(7)), Ok(7));
    }
}
