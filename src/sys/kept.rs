//! Descriptors that stay open inside a program that may close any number it finds, and open something else there.
//!
//! A program that becomes a daemon or runs another one often closes all descriptors that it did not open itself. What
//! then has our number is somebody else's: it must not be written to, and not be closed.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor, and what it referred to when it was ours for certain.
#[derive(Debug)]
pub(crate) struct Kept<T: AsFd> {
    inner: ManuallyDrop<T>,
    identity: Option<(u64, u64)>,
}

impl<T: AsFd> Kept<T> {
    /// Takes over a descriptor that was just made.
    pub(crate) fn new(inner: T) -> Self {
        let identity = identity(inner.as_fd());
        Self { inner: ManuallyDrop::new(inner), identity }
    }

    /// The descriptor, unless its number is closed or belongs to something else by now.
    pub(crate) fn get(&self) -> Option<&T> {
        (self.identity.is_some() && identity(self.inner.as_fd()) == self.identity).then_some(&*self.inner)
    }

    /// The descriptor without asking: just after it was made, or in a process of the monitor, where all are ours.
    pub(crate) fn assumed(&self) -> &T {
        &self.inner
    }
}

impl<T: AsFd> Drop for Kept<T> {
    fn drop(&mut self) {
        if self.get().is_some() {
            // SAFETY: dropped here once, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

/// The same descriptor at a high number, where programs that count on the next low one do not find it. As it was, if there
/// is no room up there.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    /// select(2) takes descriptors below 1024, which is also the usual limit.
    const HIGHEST: libc::rlim_t = 1024;
    const ROOM: libc::rlim_t = 64;
    // SAFETY: getrlimit fills the local; F_DUPFD_CLOEXEC makes a new descriptor, which nobody else knows.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return fd;
        }
        let lowest = limit.rlim_cur.min(HIGHEST).saturating_sub(ROOM);
        let copy = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest as libc::c_int);
        if copy < 0 { fd } else { OwnedFd::from_raw_fd(copy) }
    }
}

/// Device and inode (fstat(2)); `None` if nothing is open there.
fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    // SAFETY: an all-zero stat is a valid place for fstat to write into; the number is only looked up.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        (libc::fstat(fd.as_raw_fd(), &raw mut found) == 0).then_some((found.st_dev, found.st_ino))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn leaves_what_took_its_number_alone() {
        let (kept, _writer) = pipe();
        let number = kept.as_raw_fd();
        let kept = Kept::new(kept);
        assert!(kept.get().is_some());
        let (stranger, _other) = pipe();
        // SAFETY: what a careless application does: `number` refers to the stranger from here on.
        assert_eq!(unsafe { libc::dup2(stranger.as_raw_fd(), number) }, number);
        assert!(kept.get().is_none());
        drop(kept);
        // SAFETY: asks only.
        assert!(unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0);
        // SAFETY: the copy of the stranger, made above.
        unsafe { libc::close(number) };
    }
}
