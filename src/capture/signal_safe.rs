//! The only helpers that a handler may call.
//!
//! System calls reachable from a handler, all of them: gettid, getpid, clock_gettime, prctl
//! (PR_SET_PTRACER, PR_GET_DUMPABLE, PR_SET_DUMPABLE), fstat, sendto, ppoll, recvfrom, futex, rt_sigaction,
//! rt_sigprocmask, rt_tgsigqueueinfo, tgkill; for what follows prlimit64; for a minimal record also mkdirat, openat, write, sync_file_range, renameat, unlinkat, close,
//! rt_sigtimedwait; for a new monitor socketpair, setsockopt, sendmsg, clone, wait4, kill and, in the children, fcntl, open, dup2, dup3, close_range, alarm, execve, execveat, exit_group;
//! for a copy that tells its memory also read; alarm also where no child could be made to look at the stack. None of the C functions
//! used allocates or locks; each is a thin wrapper in every libc that Rust supports. They may change `errno`,
//! which [`Errno`] puts back.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::sharing_child::{self, Course};

pub(super) use crate::sys::errno::Errno;

pub(super) fn gettid() -> libc::pid_t {
    // SAFETY: always allowed.
    unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t }
}

pub(super) fn getpid() -> libc::pid_t {
    // SAFETY: always allowed.
    unsafe { libc::getpid() }
}

/// Lets `pid` and its descendants trace this process where the Yama module restricts that (prctl(2)).
/// Fails harmlessly where there is no Yama.
pub(super) fn allow_tracer(pid: libc::pid_t) {
    // SAFETY: plain values.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, pid as libc::c_ulong, 0, 0, 0) };
}

/// Keeps the kernel from writing a core file of this process (core(5)).
pub(super) fn forbid_core() {
    // SAFETY: plain values.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Makes the process readable for its monitor where it has made itself unreadable (prctl(2)); [`forbid_core`] undoes it.
/// Returns whether it was.
pub(super) fn make_dumpable() -> bool {
    // SAFETY: plain values.
    unsafe {
        libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    }
}

/// What a descriptor refers to: device and inode (fstat(2)).
pub(super) fn identity(fd: RawFd) -> Option<(u64, u64)> {
    // SAFETY: an all-zero stat is a valid place for fstat to write into.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut found) == 0).then_some((found.st_dev, found.st_ino))
    }
}

/// Sends one message without ever blocking or raising SIGPIPE.
pub(super) fn send(socket: RawFd, bytes: &[u8]) -> bool {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: a buffer and its length.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    sent == bytes.len() as isize
}

/// What waiting for an answer came to.
pub(super) enum Waited {
    /// So many bytes are in the buffer.
    Answer(usize),
    /// The peer is gone.
    Gone,
    /// The deadline is over.
    Late,
}

/// Waits for one message until `deadline_ns` (monotonic). One that is there already is taken even when it is late: who was
/// held by a tracer has not seen the time pass.
pub(super) fn receive(socket: RawFd, buffer: &mut [u8], deadline_ns: u64) -> Waited {
    let mut is_reset = false;
    loop {
        let left = deadline_ns.saturating_sub(crate::sys::process::monotonic_ns());
        let timeout =
            libc::timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 };
        let mut polled = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, a timespec, no signal mask.
        let ready = unsafe { libc::ppoll(&raw mut polled, 1, &raw const timeout, std::ptr::null()) };
        if ready <= 0 {
            if left == 0 {
                return Waited::Late;
            }
            // 0: the deadline, found again above. -1: a signal, or the end of being traced.
            continue;
        }
        // SAFETY: a writable buffer and its length.
        let length =
            unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        // A peer that went without having read everything: told once, before what it had sent itself.
        if length < 0 && !is_reset && std::io::Error::last_os_error().raw_os_error() == Some(libc::ECONNRESET)
        {
            is_reset = true;
            continue;
        }
        return if length > 0 { Waited::Answer(length as usize) } else { Waited::Gone };
    }
}

/// Sleeps while `word` is `value`, until `deadline_ns` (monotonic) at the latest (futex(2)).
pub(super) fn futex_wait(word: &AtomicU32, value: u32, deadline_ns: u64) {
    while word.load(Ordering::Acquire) == value {
        let left = deadline_ns.saturating_sub(crate::sys::process::monotonic_ns());
        if left == 0 {
            return;
        }
        let timeout =
            libc::timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 };
        // SAFETY: the word outlives the call; FUTEX_WAIT reads it and the relative timeout.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                value,
                &raw const timeout,
            )
        };
    }
}

/// Wakes everyone in [`futex_wait`].
pub(super) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is valid; FUTEX_WAKE takes a count.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            libc::c_int::MAX,
        )
    };
}

/// Queues the very same signal information for this thread again, so that the earlier handler, a debugger and
/// the kernel's core dump see the original fault (rt_tgsigqueueinfo(2)).
pub(super) fn requeue(signal: libc::c_int, info: *const libc::siginfo_t) -> bool {
    // SAFETY: `info` is what the kernel handed to the handler.
    unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal, info) == 0 }
}

/// Raises the signal for this thread without its information: when the queue is full.
pub(super) fn raise(signal: libc::c_int) {
    // SAFETY: plain values.
    unsafe { libc::syscall(libc::SYS_tgkill, getpid(), gettid(), signal) };
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the local; signal-safe (signal-safety(7)).
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000)
}

/// Whether the 8 bytes at `address` (a multiple of 8) can be read; sleeps where a page is somebody else's to bring
/// (userfaultfd(2), a file system of another process), so let it be under [`end_in`]. rt_sigprocmask(2) reads its new mask before it finds
/// that there is no such way to change the old one; it is a call that no filter forbids, and it leaves nothing open.
pub(super) fn is_readable(address: u64) -> bool {
    const NO_SUCH_CHANGE: libc::c_int = !0;
    // SAFETY: the kernel checks the address, and changes nothing.
    unsafe {
        let nowhere = std::ptr::null_mut::<u8>();
        libc::syscall(libc::SYS_rt_sigprocmask, NO_SUCH_CHANGE, address, nowhere, 8_usize);
        *libc::__errno_location() != libc::EFAULT
    }
}

/// The word at `address`, for which [`is_readable`] has just been true of its page. Should another thread have unmapped
/// it meanwhile, the fault is one inside the handler.
pub(super) fn peek(address: u64) -> u64 {
    // SAFETY: aligned and readable (the caller's promise); volatile, since other threads may write there.
    unsafe { (address as *const u64).read_volatile() }
}

/// Makes a file for this user only in `directory`; its name ends with a zero byte.
pub(super) fn create(directory: RawFd, name: &[u8]) -> Option<RawFd> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated name. Not through libc's function, which threads may be cancelled in.
    let fd = unsafe { libc::syscall(libc::SYS_openat, directory, name.as_ptr(), flags, 0o600) };
    (fd >= 0).then_some(fd as RawFd)
}

/// Opens a folder of `directory` that is no link; its name ends with a zero byte.
pub(super) fn open_folder(directory: RawFd, name: &[u8]) -> Option<RawFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated name.
    let fd = unsafe { libc::syscall(libc::SYS_openat, directory, name.as_ptr(), flags, 0) };
    (fd >= 0).then_some(fd as RawFd)
}

/// Makes a folder for this user only in `directory`, unless there is one; its name ends with a zero byte.
pub(super) fn make_folder(directory: RawFd, name: &[u8]) {
    // SAFETY: a NUL-terminated name.
    unsafe { libc::syscall(libc::SYS_mkdirat, directory, name.as_ptr(), 0o700) };
}

/// Writes all of `bytes`.
pub(super) fn write(file: RawFd, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: a buffer and its length.
        let written = unsafe { libc::syscall(libc::SYS_write, file, rest.as_ptr(), rest.len()) };
        match usize::try_from(written) {
            Ok(0) => return false,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            // SAFETY: this thread's errno.
            Err(_) if unsafe { *libc::__errno_location() } == libc::EINTR => {}
            Err(_) => return false,
        }
    }
    true
}

/// Gives a file of `directory` another name; both end with a zero byte.
pub(super) fn rename(directory: RawFd, from: &[u8], to: &[u8]) -> bool {
    // SAFETY: NUL-terminated names.
    unsafe { libc::syscall(libc::SYS_renameat, directory, from.as_ptr(), directory, to.as_ptr()) == 0 }
}

/// Removes a file of `directory`, if it is there; its name ends with a zero byte.
pub(super) fn unlink(directory: RawFd, name: &[u8]) {
    // SAFETY: a NUL-terminated name.
    unsafe { libc::syscall(libc::SYS_unlinkat, directory, name.as_ptr(), 0) };
}

/// Has the kernel begin to write a file to the disk, without waiting for it: a disk may take longer than a dying process has.
pub(super) fn begin_writing(file: RawFd) {
    // SAFETY: plain values; offset and length 0 mean the whole file (sync_file_range(2)).
    unsafe { libc::syscall(libc::SYS_sync_file_range, file, 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Closes a descriptor that the handler opened.
pub(super) fn close(file: RawFd) {
    // SAFETY: opened by the caller, who does not use it any more.
    unsafe { libc::syscall(libc::SYS_close, file) };
}

/// A connected pair of SEQPACKET sockets, close-on-exec, both of which tell the sender's credentials.
pub(super) fn socket_pair() -> Option<(RawFd, RawFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } != 0 {
        return None;
    }
    let on: libc::c_int = 1;
    for fd in fds {
        // SAFETY: SO_PASSCRED reads an int. A socket that does not tell is found out by its receiver.
        unsafe {
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const on).cast(), length);
        }
    }
    Some((fds[0], fds[1]))
}

/// Sends one message with descriptors, three at most.
pub(super) fn send_with(socket: RawFd, bytes: &[u8], fds: &[RawFd]) -> bool {
    const MOST: usize = 3;
    let payload = size_of::<RawFd>() * fds.len().min(MOST);
    let mut control = [0_u64; 8];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is valid. `control` is aligned for cmsghdr and longer than CMSG_SPACE of three
    // descriptors, so that the first header and its data lie inside it; all pointers outlive the call.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(payload as libc::c_uint) as _;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(payload as libc::c_uint) as _;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(first), payload);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        libc::sendmsg(socket, &raw const header, flags) == bytes.len() as isize
    }
}

/// Sends one message of `head` and the `length` bytes at `address`, which the kernel looks at itself. Waits for room.
pub(super) fn send_two(socket: RawFd, head: &[u8], address: u64, length: usize) -> bool {
    let mut vectors = [
        libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() },
        libc::iovec { iov_base: address as *mut libc::c_void, iov_len: length },
    ];
    // SAFETY: an all-zero msghdr is valid. The kernel checks the second range; it is only read.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = vectors.len() as _;
        libc::sendmsg(socket, &raw const header, libc::MSG_NOSIGNAL) == (head.len() + length) as isize
    }
}

/// A copy of this process with this thread alone and memory of its own, which tells nobody when it ends (clone(2) without
/// flags). 0 in the copy.
pub(super) fn copy_process() -> Option<libc::pid_t> {
    // SAFETY: no stack, no flags, no pointers: as fork(2), but without what the C library does around it. The copy makes
    // system calls only.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    (pid >= 0).then_some(pid as libc::pid_t)
}

/// Waits for a child that tells nobody when it ends; whether its exit code was 0.
pub(super) fn wait_for(child: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: a place for the status; __WALL because the exit signal is none.
    while unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } < 0 {
        // SAFETY: this thread's errno.
        if unsafe { *libc::__errno_location() } != libc::EINTR {
            return false;
        }
    }
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Ends this process with an exit code, at once.
pub(super) fn exit_now(code: libc::c_int) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// The signals that the kernel raises for an instruction.
const FAULTS: [libc::c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];

/// Lets this thread meet the signals of its own instructions, which the kernel would else end it with, or no signal at all.
pub(super) fn block_signals(but_faults: bool) {
    let mut set = !0_u64;
    if but_faults {
        FAULTS.iter().for_each(|signal| set &= !(1 << (signal - 1)));
    }
    set_signals(set);
}

/// Lets this thread meet `signal` alone.
pub(super) fn meet_only(signal: libc::c_int) {
    set_signals(!(1 << (signal - 1)));
}

/// Lets this thread meet no signal; returns the signals that it met none of before, for [`set_signals`].
pub(super) fn block_all_signals() -> u64 {
    let (all, mut before) = (!0_u64, 0_u64);
    // SAFETY: two sets of the size that the kernel asks for.
    unsafe {
        let (all, before) = (&raw const all, &raw mut before);
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, all, before, size_of::<u64>());
    }
    before
}

/// The kernel's set of 64 signals, the first of which is number 1.
pub(super) fn set_signals(set: u64) {
    // SAFETY: a set of the size that the kernel asks for.
    unsafe {
        let nowhere = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set, nowhere, size_of::<u64>());
    }
}

/// Opens a file for reading; its path ends with a zero byte. -1 if it cannot be had.
pub(super) fn open(path: &[u8]) -> RawFd {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated path.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) as RawFd }
}

/// Reads what comes next; 0 at the end, or if it cannot be read.
pub(super) fn read(file: RawFd, buffer: &mut [u8]) -> usize {
    // SAFETY: a writable buffer and its length.
    let read = unsafe { libc::syscall(libc::SYS_read, file, buffer.as_mut_ptr(), buffer.len()) };
    usize::try_from(read).unwrap_or(0)
}

static UNTIL_NS: AtomicU64 = AtomicU64::new(0);

/// When the present crash must be over (monotonic), for the children that help with it.
pub(super) fn must_end_by(deadline_ns: u64) {
    UNTIL_NS.store(deadline_ns, Ordering::Relaxed);
}

/// As long as nothing holds a child it is done in well under a millisecond: so long, and what is left, but some of it also where
/// nothing is left.
fn time_for_a_child() -> u64 {
    const LEAST: u64 = 20_000_000;
    const MOST: u64 = 2_000_000_000;
    let now = crate::sys::process::monotonic_ns();
    let left = match UNTIL_NS.load(Ordering::Relaxed) {
        0 => MOST,
        until_ns => until_ns.saturating_sub(now),
    };
    now.saturating_add(left.clamp(LEAST, MOST))
}

/// Calls `function` in a child that shares this process's memory, on a stack of its own that ends at `stack`, and waits for
/// its end, but not beyond [`must_end_by`]. The child tells nobody when it ends. Call it with all signals blocked. `false` if none could
/// be made.
///
/// # Safety
/// Stack, argument and `word` are the caller's alone, and this process does not outlive a child that is late by much.
pub(super) unsafe fn call_in_child(
    function: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    stack: *mut libc::c_void,
    argument: *mut libc::c_void,
    word: &'static AtomicU32,
) -> bool {
    let until_ns = time_for_a_child();
    // SAFETY: the caller's promise.
    let course = unsafe { sharing_child::run(function, stack, argument, word, until_ns) };
    !matches!(course, Course::NotMade(_))
}

/// What a thread's alarm signal did before [`end_in`].
pub(super) struct Alarm {
    action: [u64; 4],
    left: libc::c_uint,
    mask: u64,
}

/// Has SIGALRM end this process in so many seconds, even while this thread sleeps in the kernel for memory that nobody
/// brings: a wait that only death ends. Undone by [`end_no_more`].
pub(super) fn end_in(seconds: libc::c_uint) -> Alarm {
    // The kernel's own structure, of four words: SIG_DFL, no flags, no mask.
    let (default, mut action, mut mask) = ([0_u64; 4], [0_u64; 4], 0_u64);
    let only: u64 = 1 << (libc::SIGALRM - 1);
    // SAFETY: structures and sets of the size that the kernel asks for.
    unsafe {
        let (new, old) = (default.as_ptr(), action.as_mut_ptr());
        libc::syscall(libc::SYS_rt_sigaction, libc::SIGALRM, new, old, size_of::<u64>());
        let (set, old) = (&raw const only, &raw mut mask);
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, set, old, size_of::<u64>());
        Alarm { action, mask, left: libc::alarm(seconds) }
    }
}

/// Puts back what was before.
pub(super) fn end_no_more(before: &Alarm) {
    // SAFETY: as in `end_in`.
    unsafe {
        libc::alarm(before.left);
        set_signals(before.mask);
        let (old, none) = (before.action.as_ptr(), std::ptr::null_mut::<u64>());
        libc::syscall(libc::SYS_rt_sigaction, libc::SIGALRM, old, none, size_of::<u64>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::Socket;

    #[test]
    fn an_answer_is_taken_from_a_peer_that_went_without_reading() {
        let (ours, theirs) = Socket::pair().unwrap();
        ours.send(b"asked", &[]).unwrap();
        theirs.send(b"answer", &[]).unwrap();
        drop(theirs);
        let (mut buffer, deadline) = ([0; 16], crate::sys::process::monotonic_ns() + 60_000_000_000);
        assert!(matches!(receive(ours.as_raw(), &mut buffer, deadline), Waited::Answer(6)));
        assert!(matches!(receive(ours.as_raw(), &mut buffer, deadline), Waited::Gone));
    }
}
