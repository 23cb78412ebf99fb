//! What every host function does at the border: find its event, take texts, fill structures, let no panic through.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::super::abi::{HostPointer, Sized32, Status, Text};
use super::super::super::check::Wrong;
use super::super::super::{Failure, LONGEST_TEXT};
use super::{Call, current};

/// Why a function did not do it: a status, and words for `error()`.
pub(super) struct Refusal(pub(super) Status, pub(super) String);

impl Refusal {
    pub(super) fn null(what: &str) -> Self {
        Self(Status::Null, format!("{what} is NULL"))
    }

    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self(Status::Invalid, why.into())
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self(Status::NotFound, what.to_owned())
    }

    pub(super) fn not_now(why: &str) -> Self {
        Self(Status::NotNow, why.to_owned())
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::invalid(failure.0)
    }
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Unfit(words) => Self::invalid(words),
            Wrong::Absent(words) => Self(Status::NotFound, words),
        }
    }
}

/// Runs a host function's body.
pub(super) fn guarded(body: impl FnOnce(&Call<'_>) -> Result<(), Refusal>) -> i32 {
    let status = current(|call| match catch_unwind(AssertUnwindSafe(|| body(call))) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(Refusal(status, words))) => {
            call.refused.set(Some(status));
            call.error.replace(words);
            status
        }
        Err(_) => {
            call.refused.set(Some(Status::Fault));
            call.error.replace("a defect of the host".to_owned());
            Status::Fault
        }
    });
    status.unwrap_or(Status::NotNow) as i32
}

/// A text of the module's.
///
/// # Safety
/// It is NULL, or as long as it says for `'t`.
pub(super) unsafe fn text<'t>(text: Text, what: &str) -> Result<&'t str, Refusal> {
    // SAFETY: this function's own contract.
    let bytes = unsafe { bytes(text, what) }?;
    std::str::from_utf8(bytes).map_err(|_| Refusal::invalid(format!("{what} is not UTF-8")))
}

/// # Safety
/// As [`text`].
unsafe fn bytes<'t>(text: Text, what: &str) -> Result<&'t [u8], Refusal> {
    if text.length == 0 {
        return Ok(&[]);
    }
    if text.data.is_null() {
        return Err(Refusal::null(what));
    }
    // Before a byte of it is looked at: a length that is no text's is a mistake.
    if text.length > LONGEST_TEXT {
        return Err(Refusal::invalid(format!("{what} has {} bytes, {LONGEST_TEXT} at most", text.length)));
    }
    // SAFETY: not NULL; the rest is this function's own contract.
    Ok(unsafe { std::slice::from_raw_parts(text.data.cast::<u8>(), text.length) })
}

/// Fills a structure of the module's as far as it reaches, and says in its size how far that was.
///
/// # Safety
/// `out` is NULL, or points to as many bytes as its first four say.
pub(super) unsafe fn fill<T: Sized32>(out: *mut T, mut value: T) -> Result<(), Refusal> {
    if out.is_null() {
        return Err(Refusal::null("the structure"));
    }
    // SAFETY: not NULL; the rest is this function's own contract.
    let size = unsafe { out.cast::<u32>().read_unaligned() };
    let length = (size as usize).min(size_of::<T>());
    if length < size_of::<u32>() * 2 {
        return Err(Refusal::invalid("the structure's `size` is not set; it takes sizeof of its type"));
    }
    // SAFETY: a structure of this kind begins with its size (`Sized32`), and `length` bytes are in both.
    unsafe {
        (&raw mut value).cast::<u32>().write(length as u32);
        std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), out.cast::<u8>(), length);
    }
    Ok(())
}

/// Stores a result that the module must want.
///
/// # Safety
/// `out` is NULL or a place for a `T`.
pub(super) unsafe fn store<T: Copy>(out: *mut T, value: T, what: &str) -> Result<(), Refusal> {
    if out.is_null() {
        return Err(Refusal::null(what));
    }
    // SAFETY: not NULL; the rest is this function's own contract.
    unsafe { out.write_unaligned(value) };
    Ok(())
}

/// Stores a result if the module wants it.
///
/// # Safety
/// As [`store`].
pub(super) unsafe fn offer<T: Copy>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: not NULL; the rest is this function's own contract.
        unsafe { out.write_unaligned(value) };
    }
}

pub(super) unsafe extern "C" fn fail(_: HostPointer, why: Text) -> i32 {
    let _ = guarded(|call| {
        // A long one is better cut than lost.
        let why = Text { length: why.length.min(LONGEST_TEXT), ..why };
        // SAFETY: the header's contract: as many bytes as stated, so also fewer.
        let words = unsafe { bytes(why, "the reason") }.map(String::from_utf8_lossy);
        let words = words.unwrap_or("it failed, with NULL for a reason".into());
        call.failure.replace(Some(words.into_owned()));
        Ok(())
    });
    Status::Failed as i32
}

pub(super) unsafe extern "C" fn error(_: HostPointer) -> Text {
    // The words stay where they are until the next function of this event refuses something.
    current(|call| call.error.try_borrow().map_or(Text::EMPTY, |words| Text::lend(&words)))
        .unwrap_or(Text::EMPTY)
}
