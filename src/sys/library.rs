//! Loading a shared object through a descriptor (dlopen(3)).
//!
//! By `libc` and not by a crate: two calls are needed, what is loaded is named by a descriptor, and it is never
//! unloaded, since code that was loaded may have left pointers to itself anywhere.

use std::ffi::{CStr, CString, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A shared object that stays in this process for good.
#[derive(Debug)]
pub(crate) struct Library(NonNull<c_void>);

impl Library {
    /// Loads the file behind `file`, whatever its path leads to by now, and runs its constructors. All of its undefined
    /// symbols are looked up at once, and its own are not offered to others.
    ///
    /// # Errors
    /// The dynamic linker's words, with "it" for the file.
    pub(crate) fn open(file: BorrowedFd<'_>) -> Result<Self, String> {
        // The linker takes what has a name that it knows for loaded, and a number may stand for another file by now: so
        // each gets a name of its own.
        static LOADED: AtomicUsize = AtomicUsize::new(0);
        let unique = "./".repeat(LOADED.fetch_add(1, Ordering::Relaxed));
        let path = format!("/proc/self/fd/{unique}{}", file.as_raw_fd());
        Self::open_at(&path)
    }

    /// As [`open`](Self::open), by an absolute path: a debugger cannot follow a descriptor of another process.
    pub(crate) fn open_at(path: &str) -> Result<Self, String> {
        let name = CString::new(path).map_err(|_| "its path has a zero byte".to_owned())?;
        // SAFETY: a NUL-terminated path. What the object's constructors do is its owner's affair: whoever calls this has
        // made sure of the owner, and does it in a process that may be lost.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let words = || last_error().replace(&format!("{path}: "), "").replace(path, "it");
        NonNull::new(handle).map(Self).ok_or_else(words)
    }

    /// The address of a symbol.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: a handle that dlopen returned and nobody closes, and a NUL-terminated name.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}

fn last_error() -> String {
    // SAFETY: dlerror returns NULL or a text that stays until this thread's next call of this family.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the dynamic linker gives no reason".to_owned();
    }
    // SAFETY: not NULL, so a NUL-terminated text, copied before the next call.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn finds_symbols_and_says_what_is_no_library() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.split_ascii_whitespace().find(|word| word.ends_with("/libc.so.6")).unwrap();
        let library = Library::open(File::open(libc).unwrap().as_fd()).unwrap();
        assert!(library.symbol(c"getpid").is_some() && library.symbol(c"no_such_thing").is_none());
        let error = Library::open(File::open("/proc/self/maps").unwrap().as_fd()).unwrap_err();
        assert!(!error.is_empty() && !error.contains("/proc/self/fd/"), "{error}");
    }
}
