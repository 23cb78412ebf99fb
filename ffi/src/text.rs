//! Text and results across the border.

use std::ffi::{CStr, c_char};

use crate::status::{Failure, cenotaph_status};

/// A NUL-terminated argument. `name` is the argument's, for the message; the text itself is never repeated.
///
/// # Safety
/// `pointer` is NULL, or points to a NUL-terminated text that nobody changes during `'a`.
pub(crate) unsafe fn terminated<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Failure> {
    not_null(pointer, name)?;
    // SAFETY: not NULL; the rest is this function's own contract.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    utf8(bytes, name)
}

/// An argument with its length in bytes. NULL with length 0 is the empty text, as an empty C++ string view gives it.
///
/// # Safety
/// `pointer` is NULL, or points to `length` bytes that nobody changes during `'a`.
pub(crate) unsafe fn counted<'a>(
    pointer: *const c_char,
    length: usize,
    name: &str,
) -> Result<&'a str, Failure> {
    if length == 0 {
        return Ok("");
    }
    not_null(pointer, name)?;
    if isize::try_from(length).is_err() {
        return Err(Failure::new(
            cenotaph_status::InvalidArgument,
            format!("`{name}`: no text is {length} bytes long; is the length negative?"),
        ));
    }
    // SAFETY: not NULL and not longer than any object; the rest is this function's own contract.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) };
    utf8(bytes, name)
}

/// Copies as much of `text` as fits, cut at a character, and a NUL. Writes nothing to a NULL or empty buffer.
///
/// # Safety
/// `buffer` is NULL, or nobody else uses its `size` bytes meanwhile.
pub(crate) unsafe fn fill(buffer: *mut c_char, size: usize, text: &str) {
    let Some(room) = size.checked_sub(1).filter(|_| !buffer.is_null()) else { return };
    let cut = text.floor_char_boundary(room);
    // SAFETY: `cut` bytes and the NUL fit into `size`, which this function's contract says is there; `text` is
    // memory of ours, so the two do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), cut);
        buffer.add(cut).write(0);
    }
}

/// Stores a result if the caller wants it.
///
/// # Safety
/// `out` is NULL, or points to a place for a `T` that nobody else uses meanwhile. It need not be initialised.
pub(crate) unsafe fn store<T: Copy>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: this function's own contract. C lays such variables out aligned.
        unsafe { out.write(value) };
    }
}

/// What a number of an enumeration stands for. Numbers are taken as such, because in C any can come.
pub(crate) fn choice<T: Copy>(number: i32, name: &str, table: &[(i32, T)]) -> Result<T, Failure> {
    table.iter().find(|(known, _)| *known == number).map(|(_, meaning)| *meaning).ok_or_else(|| {
        Failure::new(cenotaph_status::InvalidArgument, format!("`{name}`: {number} has no meaning"))
    })
}

/// That a pointer is there.
pub(crate) fn not_null<T>(pointer: *const T, name: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::new(cenotaph_status::NullArgument, format!("`{name}` is NULL")));
    }
    Ok(())
}

fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes).map_err(|error| {
        Failure::new(
            cenotaph_status::InvalidUtf8,
            format!("`{name}` is not UTF-8 from byte {} on", error.valid_up_to()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status<T>(result: Result<T, Failure>) -> Option<cenotaph_status> {
        result.err().map(|failure| failure.status)
    }

    #[test]
    fn takes_text_and_says_what_is_wrong_with_it() {
        let bad = c"caf\xe9";
        // SAFETY: NULL, or literals.
        unsafe {
            assert_eq!(terminated(c"caf\u{e9}".as_ptr(), "key"), Ok("café"));
            assert_eq!(status(terminated(std::ptr::null(), "key")), Some(cenotaph_status::NullArgument));
            let failure = terminated(bad.as_ptr(), "key").unwrap_err();
            assert_eq!(failure.status, cenotaph_status::InvalidUtf8);
            assert_eq!(failure.text, "`key` is not UTF-8 from byte 3 on");
            assert_eq!(counted(bad.as_ptr(), 3, "key"), Ok("caf"));
            assert_eq!(status(counted(bad.as_ptr(), 4, "key")), Some(cenotaph_status::InvalidUtf8));
            assert_eq!(counted(std::ptr::null(), 0, "key"), Ok(""));
            assert_eq!(status(counted(std::ptr::null(), 1, "key")), Some(cenotaph_status::NullArgument));
            assert_eq!(
                status(counted(bad.as_ptr(), usize::MAX, "key")),
                Some(cenotaph_status::InvalidArgument)
            );
        }
    }

    #[test]
    fn fills_what_fits() {
        let cases: [(usize, &[u8]); 6] = [
            (0, b"####"),
            (1, b"\0###"),
            (2, b"a\0##"),
            (3, b"a\0##"),
            (4, b"a\xc3\xa9\0"),
            (5, b"a\xc3\xa9\0"),
        ];
        for (size, expected) in cases {
            let mut buffer = *b"#####";
            // SAFETY: `size` is at most the buffer's.
            unsafe { fill(buffer.as_mut_ptr().cast(), size, "aé") };
            assert_eq!(&buffer[..4], expected, "{size}");
        }
        // SAFETY: NULL is allowed.
        unsafe { fill(std::ptr::null_mut(), 9, "text") };
    }
}
