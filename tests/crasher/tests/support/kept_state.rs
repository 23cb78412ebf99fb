//! What a process and a thread have of their own, to be compared before and after; threads as C makes them; messages by
//! hand.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::{fs, mem, ptr};

/// Dispositions whole, the thread's mask and pending signals, its alternate stack, the process's descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// Handler, flags, mask of signals 1 to 64.
    actions: Vec<(usize, i32, u64)>,
    blocked: u64,
    pending: u64,
    stack: (usize, i32, usize),
    descriptors: Vec<(i32, String)>,
    dumpable: i32,
    umask: String,
    children: String,
}

/// The signals that Cenotaph handles unless it is told otherwise.
const CRASHES: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

impl State {
    pub(crate) fn of_this_thread() -> Self {
        // SAFETY: all of these ask only, into locals of which all-zero is a value.
        unsafe {
            let actions = (1..=64).map(|signal| {
                let mut action: libc::sigaction = mem::zeroed();
                libc::sigaction(signal, ptr::null(), &raw mut action);
                // SA_RESTORER: set by the C library in whatever it installs.
                (action.sa_sigaction, action.sa_flags & !0x0400_0000, word(&action.sa_mask))
            });
            let (mut blocked, mut pending): (libc::sigset_t, libc::sigset_t) = (mem::zeroed(), mem::zeroed());
            libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &raw mut blocked);
            libc::sigpending(&raw mut pending);
            let mut stack: libc::stack_t = mem::zeroed();
            libc::sigaltstack(ptr::null(), &raw mut stack);
            // A stack that is off has no place.
            let off = stack.ss_flags & libc::SS_DISABLE != 0;
            let stack = if off {
                (0, libc::SS_DISABLE, 0)
            } else {
                (stack.ss_sp as usize, stack.ss_flags, stack.ss_size)
            };
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line =
                |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or("").to_owned();
            Self {
                actions: actions.collect(),
                blocked: word(&blocked),
                pending: word(&pending),
                stack,
                descriptors: descriptors(),
                dumpable: libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0),
                umask: line("Umask"),
                children: fs::read_to_string("/proc/thread-self/children").unwrap_or_default(),
            }
        }
    }

    pub(crate) fn has_alternate_stack(&self) -> bool {
        self.stack.1 & libc::SS_DISABLE == 0
    }

    /// Equal but for the handlers of crashes and for descriptors that were not there before.
    pub(crate) fn assert_same_but_crash_handlers(&self, before: &Self) {
        let mut now = self.clone();
        for signal in CRASHES {
            let index = usize::try_from(signal).unwrap() - 1;
            assert_ne!(now.actions[index], before.actions[index], "{signal} is handled");
            now.actions[index] = before.actions[index];
        }
        let new: Vec<_> =
            now.descriptors.iter().filter(|found| !before.descriptors.contains(found)).collect();
        assert!(!new.is_empty());
        // Where a program that counts on the next low number does not find them, and select(2) does not end.
        assert!(new.iter().all(|(number, _)| (64..1024).contains(number)), "{new:?}");
        for (number, _) in new {
            // SAFETY: asks only.
            let flags = unsafe { libc::fcntl(*number, libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC, "{number} is closed on exec");
        }
        now.descriptors = before.descriptors.clone();
        assert_eq!(now, *before);
    }
}

/// The kernel's 64 signals are the first word of the C library's set.
fn word(set: &libc::sigset_t) -> u64 {
    // SAFETY: a set of 128 bytes, aligned for words.
    unsafe { ptr::from_ref(set).cast::<u64>().read() }
}

/// Number and what it refers to.
pub(crate) fn descriptors() -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<(i32, String)> = entries
        // The one that reads this folder is gone by the time that it is looked at.
        .filter_map(|path| {
            let to = fs::read_link(&path).ok()?.display().to_string();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            (!to.ends_with("/fd")).then_some((number, to))
        })
        .collect();
    all.sort();
    all
}

/// A thread that no runtime knows: without an alternate stack.
pub(crate) struct Native(libc::pthread_t);

pub(crate) fn native_thread(run: impl FnOnce() + Send + 'static) -> Native {
    type Job = Box<dyn FnOnce() + Send>;
    extern "C" fn begin(argument: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: what `native_thread` made for this thread alone.
        let job = unsafe { Box::from_raw(argument.cast::<Job>()) };
        job();
        ptr::null_mut()
    }
    let job: Box<Job> = Box::new(Box::new(run));
    let mut thread = 0;
    // SAFETY: a place for the handle, and an argument that the thread owns from here on.
    let made =
        unsafe { libc::pthread_create(&raw mut thread, ptr::null(), begin, Box::into_raw(job).cast()) };
    assert_eq!(made, 0);
    Native(thread)
}

impl Native {
    /// Waits for its end. A panic in it ends the process: it may not leave `begin`.
    pub(crate) fn join(self) {
        // SAFETY: made above, and joined once.
        unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
    }
}

/// A connected pair of SEQPACKET sockets, closed on exec, that tell the sender's credentials.
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    let made = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
    };
    assert_eq!(made, 0);
    let on: libc::c_int = 1;
    for end in ends {
        // SAFETY: SO_PASSCRED reads an int.
        unsafe {
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(end, libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const on).cast(), length);
        }
    }
    // SAFETY: made above, and nobody else knows them.
    unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) }
}

/// Sends a message with descriptors, four at most.
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) {
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let mut control = [0_u64; 8];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let length = size_of_val(&raw[..]) as libc::c_uint;
    // SAFETY: an all-zero header is valid; `control` has room for four descriptors and their header.
    let sent = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if !raw.is_empty() {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(length) as _;
            ptr::copy_nonoverlapping(raw.as_ptr(), libc::CMSG_DATA(first).cast::<RawFd>(), raw.len());
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
    };
    assert_eq!(sent, bytes.len() as isize, "{}", std::io::Error::last_os_error());
}

/// Receives a message with descriptors.
pub(crate) fn receive(socket: RawFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let (mut bytes, mut control) = (vec![0_u8; 64 << 10], [0_u64; 32]);
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut fds = Vec::new();
    // SAFETY: an all-zero header is valid; both buffers outlive the call; the control messages lie in the second one.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let length = libc::recvmsg(socket, &raw mut header, libc::MSG_CMSG_CLOEXEC);
        bytes.truncate(usize::try_from(length).unwrap());
        let mut current = libc::CMSG_FIRSTHDR(&raw const header);
        while !current.is_null() {
            if (*current).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(current).cast::<RawFd>();
                let count = ((*current).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                fds.extend((0..count).map(|i| OwnedFd::from_raw_fd(data.add(i).read_unaligned())));
            }
            current = libc::CMSG_NXTHDR(&raw const header, current);
        }
    }
    (bytes, fds)
}
