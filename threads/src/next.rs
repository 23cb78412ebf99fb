//! The `pthread_create` behind ours, and whether a sanitizer is in the program.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use crate::Start;

/// The type of `pthread_create`.
pub(crate) type Create =
    unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Start, *mut c_void) -> c_int;

static CREATE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

const UNKNOWN: u8 = 0;
const PLAIN: u8 = 1;
const SANITIZED: u8 = 2;
static KIND: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Initialisers of the sanitizers that interpose `pthread_create` (compiler-rt and gcc's copies of it).
const SANITIZERS: [&CStr; 4] = [c"__asan_init", c"__tsan_init", c"__msan_init", c"__hwasan_init"];
/// Their own `pthread_create` where it is linked into the program (clang): newest name first.
const INTERCEPTORS: [&CStr; 2] = [c"___interceptor_pthread_create", c"__interceptor_pthread_create"];

/// Looked up at the first call. `None` if there is no other.
pub(crate) fn create() -> Option<Create> {
    let mut found = CREATE.load(Ordering::Acquire);
    if found.is_null() {
        found = if is_sanitized() { intercepted() } else { std::ptr::null_mut() };
        if found.is_null() {
            found = symbol(libc::RTLD_NEXT, c"pthread_create");
        }
        if found.is_null() {
            return None;
        }
        // Whoever comes second finds the same.
        CREATE.store(found, Ordering::Release);
    }
    // SAFETY: the symbol of this name is a function of this type in every C library and sanitizer.
    Some(unsafe { std::mem::transmute::<*mut c_void, Create>(found) })
}

/// Whether a sanitizer that follows threads is part of this program.
pub(crate) fn is_sanitized() -> bool {
    match KIND.load(Ordering::Relaxed) {
        UNKNOWN => {
            let sanitized = SANITIZERS.iter().any(|name| !symbol(libc::RTLD_DEFAULT, name).is_null());
            KIND.store(if sanitized { SANITIZED } else { PLAIN }, Ordering::Relaxed);
            sanitized
        }
        kind => kind == SANITIZED,
    }
}

fn intercepted() -> *mut c_void {
    let found =
        INTERCEPTORS.iter().map(|name| symbol(libc::RTLD_DEFAULT, name)).find(|found| !found.is_null());
    found.unwrap_or(std::ptr::null_mut())
}

fn symbol(place: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: one of the two pseudo handles and a C string.
    unsafe { libc::dlsym(place, name.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_c_library() {
        assert!(create().is_some());
        assert!(!is_sanitized());
        assert!(symbol(libc::RTLD_DEFAULT, c"cenotaph_no_such_symbol").is_null());
    }
}
