//! Anonymous shared memory (memfd_create(2)) whose size is sealed, so that mapping it can never fault.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use super::kept::Kept;
use crate::error::{Error, Result};

const SIZE_SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// A shared mapping of a memfd of fixed size.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    fd: Kept<OwnedFd>,
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is plain memory owned by this value until `Drop`, and it is only handed out as atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as for `Send`; all access through `&self` is atomic.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// New zeroed memory of `words` 8-byte words; `name` shows up in /proc/PID/maps.
    pub(crate) fn create(name: &std::ffi::CStr, words: usize) -> Result<Self> {
        // SAFETY: `name` is a NUL-terminated string; the flags are valid for memfd_create(2).
        let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if fd < 0 {
            return Err(Error::last_os("memfd_create"));
        }
        // SAFETY: the call above returned this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a descriptor and a length; the length is checked by the kernel.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), (words * 8) as libc::off_t) } < 0 {
            return Err(Error::last_os("ftruncate"));
        }
        // SAFETY: F_ADD_SEALS takes an int (fcntl(2)).
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SIZE_SEALS) } < 0 {
            return Err(Error::last_os("fcntl(F_ADD_SEALS)"));
        }
        Self::map(super::kept::out_of_the_way(fd), words)
    }

    /// Maps memory received from another process.
    ///
    /// # Errors
    /// Unless its size is exactly `words` words and sealed: otherwise the sender could shrink it under us.
    pub(crate) fn from_fd(fd: OwnedFd, words: usize) -> Result<Self> {
        // SAFETY: F_GET_SEALS takes no argument.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & SIZE_SEALS != SIZE_SEALS {
            return Err(Error::malformed("message", "shared memory without sealed size"));
        }
        let size = std::fs::File::from(fd.try_clone().map_err(|e| Error::System { call: "dup", source: e })?)
            .metadata()
            .map_err(|e| Error::System { call: "fstat", source: e })?
            .len();
        if size != (words * 8) as u64 {
            return Err(Error::malformed("message", "shared memory of another size"));
        }
        Self::map(fd, words)
    }

    fn map(fd: OwnedFd, words: usize) -> Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice, of a file of exactly this size.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os("mmap"));
        }
        // A core dump must not hold what reports leave out. Failure only means a kernel without it.
        // SAFETY: exactly the range mapped above.
        unsafe { libc::madvise(start, words * 8, libc::MADV_DONTDUMP) };
        let start = NonNull::new(start.cast()).ok_or_else(|| Error::last_os("mmap"))?;
        Ok(Self { fd: Kept::new(fd), start, words })
    }

    /// Whether its descriptor is still this one, in a program that may have closed it.
    pub(crate) fn is_open(&self) -> bool {
        self.fd.get().is_some()
    }

    /// Children that are forked from now on do not have it, so that nothing that goes wrong in them reaches it.
    pub(crate) fn keep_from_children(&self) {
        // SAFETY: exactly the range mapped in `map`; this process keeps it. A refusal leaves things as they were.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.words * 8, libc::MADV_DONTFORK) };
    }

    /// The memory as atomics: another process may write it at any time.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` words long and lives as long as `self`; AtomicU64 allows
        // concurrent writes from other processes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.assumed().as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the range mapped in `map`; no reference can outlive `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}

/// Puts bytes into a new memfd, for handing them to another process without touching a disk. Nobody can change them
/// any more, whoever has the descriptor (F_SEAL_WRITE, fcntl(2)).
pub(crate) fn memfd_with(name: &std::ffi::CStr, parts: &[&[u8]]) -> Result<OwnedFd> {
    use std::io::Write;
    // SAFETY: as in `create`.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(Error::last_os("memfd_create"));
    }
    // SAFETY: the call above returned this descriptor and nobody else knows it.
    let mut file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    for part in parts {
        file.write_all(part).map_err(|source| Error::System { call: "write(memfd)", source })?;
    }
    // SAFETY: F_ADD_SEALS takes an int (fcntl(2)).
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SIZE_SEALS | libc::F_SEAL_WRITE) } < 0 {
        return Err(Error::last_os("fcntl(F_ADD_SEALS)"));
    }
    Ok(file.into())
}

/// Reads a memfd from its start, whatever its file position; at most `limit` bytes.
pub(crate) fn read_memfd(fd: BorrowedFd<'_>, limit: u64) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let failed = |source| Error::System { call: "read(memfd)", source };
    let file = std::fs::File::from(fd.try_clone_to_owned().map_err(failed)?);
    let size = file.metadata().map_err(failed)?.len();
    if size > limit {
        return Err(Error::Limit {
            what: "a memory file",
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        });
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::sys::process::{Ended, wait_end};

    #[test]
    fn what_was_handed_over_stays_as_it_is() {
        use std::io::Write;
        use std::os::unix::fs::FileExt;
        let fd = memfd_with(c"test", &[b"as it", b" was"]).unwrap();
        let mut file = std::fs::File::from(fd.try_clone().unwrap());
        assert!(file.write(b"more").is_err() && file.write_at(b"else", 0).is_err());
        assert!(file.set_len(1 << 20).is_err() && file.set_len(1).is_err());
        // SAFETY: asks for a mapping at an address of the kernel's choice, which is refused.
        let mapped = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        assert_eq!(mapped, libc::MAP_FAILED);
        assert_eq!(read_memfd(fd.as_fd(), 100).unwrap(), b"as it was");
    }

    #[test]
    fn a_child_does_not_have_what_is_kept_from_it() {
        for (kept, expected) in [(false, Ended::Exit(0)), (true, Ended::Signal(libc::SIGSEGV))] {
            let memory = SharedMemory::create(c"test", 512).unwrap();
            if kept {
                memory.keep_from_children();
            }
            memory.words()[0].store(7, Ordering::Relaxed);
            // SAFETY: the child touches memory that exists or dies over it, and ends; no lock and no allocation.
            let pid = unsafe {
                match libc::fork() {
                    0 => {
                        memory.words()[0].store(8, Ordering::Relaxed);
                        libc::_exit(0)
                    }
                    pid => pid,
                }
            };
            assert_eq!(wait_end(pid), expected);
            assert_eq!(memory.words()[0].load(Ordering::Relaxed), if kept { 7 } else { 8 });
        }
    }
}
