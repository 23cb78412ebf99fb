//! Unnamed `SOCK_SEQPACKET` pairs that carry messages, descriptors and the sender's credentials (unix(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Descriptors in one message, at most.
const MAX_FDS: usize = 4;

/// One end of a pair.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// A received message.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Descriptors that came with it, close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// The sender's process id as the kernel saw it; 0 if it lies outside our pid namespace.
    pub(crate) pid: libc::pid_t,
    /// And its user, as this user namespace knows that.
    pub(crate) uid: libc::uid_t,
}

/// What `receive` found.
#[derive(Debug)]
pub(crate) enum Received {
    /// A whole message.
    Message(Message),
    /// Nothing before the deadline.
    Nothing,
    /// The peer is gone.
    Closed,
    /// A message that did not fit, or that lacked what it should carry.
    Malformed(&'static str),
}

impl Socket {
    /// A connected pair, close-on-exec; both ends tell the sender's credentials.
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let mut fds: [RawFd; 2] = [-1; 2];
        // SAFETY: `fds` has room for the two descriptors that socketpair(2) writes.
        let result = unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
        };
        if result < 0 {
            return Err(Error::last_os("socketpair"));
        }
        // SAFETY: socketpair returned these and nobody else knows them.
        let pair = unsafe { (Self(OwnedFd::from_raw_fd(fds[0])), Self(OwnedFd::from_raw_fd(fds[1]))) };
        pair.0.pass_credentials()?;
        pair.1.pass_credentials()?;
        Ok(pair)
    }

    /// The same at a high number, where the application does not find it.
    pub(crate) fn out_of_the_way(self) -> Self {
        Self(super::kept::out_of_the_way(self.0))
    }

    /// Takes over a descriptor that should be a socket of this kind.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let mut kind: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `kind` and `length` describe a writable int, as SO_TYPE asks (socket(7)).
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TYPE,
                (&raw mut kind).cast(),
                &raw mut length,
            )
        };
        if result < 0 || kind != libc::SOCK_SEQPACKET {
            return Err(Error::malformed("message", "the descriptor is no SEQPACKET socket"));
        }
        let socket = Self(fd);
        socket.pass_credentials()?;
        Ok(socket)
    }

    fn pass_credentials(&self) -> Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: SO_PASSCRED reads an int.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PASSCRED,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result < 0 { Err(Error::last_os("setsockopt(SO_PASSCRED)")) } else { Ok(()) }
    }

    /// Sends one message with descriptors; never raises SIGPIPE, never blocks.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut control = [0u64; 8];
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: an all-zero msghdr is valid: no name, no vectors, no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if !fds.is_empty() {
            assert_room(fds.len())?;
            let payload = (fds.len() * size_of::<RawFd>()) as libc::c_uint;
            header.msg_control = control.as_mut_ptr().cast();
            // SAFETY: pure arithmetic.
            header.msg_controllen = unsafe { libc::CMSG_SPACE(payload) } as _;
            // SAFETY: `control` is aligned for cmsghdr and larger than CMSG_SPACE of MAX_FDS descriptors, so the
            // first header and its data lie inside it.
            unsafe {
                let first = libc::CMSG_FIRSTHDR(&raw const header);
                (*first).cmsg_level = libc::SOL_SOCKET;
                (*first).cmsg_type = libc::SCM_RIGHTS;
                (*first).cmsg_len = libc::CMSG_LEN(payload) as _;
                let data = libc::CMSG_DATA(first).cast::<RawFd>();
                for (i, fd) in fds.iter().enumerate() {
                    data.add(i).write_unaligned(fd.as_raw_fd());
                }
            }
        }
        loop {
            // SAFETY: `header` points to `vector` and `control`, which outlive the call.
            let sent = unsafe {
                libc::sendmsg(self.0.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// As [`send`](Self::send) without descriptors, but waits until there is room.
    pub(crate) fn send_waiting(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.send(bytes, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut polled =
                        [libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
                    poll(&mut polled, None).map_err(io::Error::other)?;
                }
                other => return other,
            }
        }
    }

    /// Waits for one message of at most `limit` bytes.
    pub(crate) fn receive(&self, limit: usize, wait: Duration) -> Result<Received> {
        let deadline = Instant::now() + wait;
        loop {
            if !poll_readable(self.0.as_fd(), deadline.saturating_duration_since(Instant::now()))? {
                return Ok(Received::Nothing);
            }
            let received = match self.receive_now(limit) {
                // The peer went without having read everything. That is told once, before what it had sent itself.
                Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::ConnectionReset => {
                    self.receive_now(limit)
                }
                received => received,
            };
            match received {
                Ok(received) => return Ok(received),
                Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Received::Closed);
                }
                Err(Error::System { source, .. })
                    if matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn receive_now(&self, limit: usize) -> Result<Received> {
        let mut bytes = vec![0u8; limit];
        let mut control = [0u64; 16];
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: limit };
        // SAFETY: an all-zero msghdr is valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: `header` describes writable buffers that outlive the call.
        let length = unsafe {
            libc::recvmsg(self.0.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT)
        };
        if length < 0 {
            return Err(Error::System { call: "recvmsg", source: io::Error::last_os_error() });
        }
        let (fds, sender) = read_control(&header);
        // An empty message has its sender; only the end has nobody.
        if length == 0 && fds.is_empty() && sender.is_none() {
            return Ok(Received::Closed);
        }
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Ok(Received::Malformed("a message or its descriptors did not fit"));
        }
        let Some((pid, uid)) = sender else {
            return Ok(Received::Malformed("a message without credentials"));
        };
        bytes.truncate(length as usize);
        Ok(Received::Message(Message { bytes, fds, pid, uid }))
    }

    /// Whether there is a message, or the peer is gone, within `wait`. Errors count as one: the next call tells them.
    pub(crate) fn is_readable(&self, wait: Duration) -> bool {
        poll_readable(self.0.as_fd(), wait).unwrap_or(true)
    }

    /// Whether the peer is gone.
    pub(crate) fn is_at_end(&self) -> bool {
        let mut polled = libc::pollfd { fd: self.0.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one pollfd, no waiting.
        unsafe { libc::poll(&raw mut polled, 1, 0) };
        polled.revents & (libc::POLLHUP | libc::POLLERR) != 0
    }

    /// For handing the socket to a handler or to another process.
    pub(crate) fn as_raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn assert_room(count: usize) -> io::Result<()> {
    if count > MAX_FDS { Err(io::Error::other("too many descriptors in one message")) } else { Ok(()) }
}

/// Descriptors (owned from here on), and the sender's process and user.
fn read_control(header: &libc::msghdr) -> (Vec<OwnedFd>, Option<(libc::pid_t, libc::uid_t)>) {
    let mut fds = Vec::new();
    let mut sender = None;
    // SAFETY: `header` was filled by recvmsg, so the control messages that the CMSG macros walk lie inside the
    // buffer; descriptors in SCM_RIGHTS are new and ours alone.
    unsafe {
        let mut current = libc::CMSG_FIRSTHDR(header);
        while !current.is_null() {
            let data = libc::CMSG_DATA(current);
            let length = ((*current).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            match ((*current).cmsg_level, (*current).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for i in 0..length / size_of::<RawFd>() {
                        let fd = data.cast::<RawFd>().add(i).read_unaligned();
                        fds.push(OwnedFd::from_raw_fd(fd));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= size_of::<libc::ucred>() => {
                    let credentials = data.cast::<libc::ucred>().read_unaligned();
                    sender = Some((credentials.pid, credentials.uid));
                }
                _ => {}
            }
            current = libc::CMSG_NXTHDR(header, current);
        }
    }
    (fds, sender)
}

/// Whether `fd` can be read (or is at its end) before `wait` is over.
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, wait: Duration) -> Result<bool> {
    let mut polled = [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    poll(&mut polled, Some(wait))?;
    Ok(polled[0].revents != 0)
}

/// poll(2) that goes on after signals with the remaining time; `None` waits for ever.
pub(crate) fn poll(polled: &mut [libc::pollfd], wait: Option<Duration>) -> Result<usize> {
    let deadline = wait.map(|wait| Instant::now() + wait);
    loop {
        let timeout = deadline.map_or(-1, |deadline| {
            // Rounded up, so that a wait of less than a millisecond does not become a busy loop.
            let left = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
            libc::c_int::try_from(left).unwrap_or(libc::c_int::MAX)
        });
        // SAFETY: a slice of pollfd and its length.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
        if ready >= 0 {
            return Ok(ready as usize);
        }
        let source = io::Error::last_os_error();
        if source.kind() != io::ErrorKind::Interrupted {
            return Err(Error::System { call: "poll", source });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_bytes_descriptors_and_credentials() {
        let (a, b) = Socket::pair().unwrap();
        let (extra, _) = Socket::pair().unwrap();
        a.send(b"hello", &[extra.as_fd(), extra.as_fd()]).unwrap();
        let Received::Message(message) = b.receive(16, Duration::from_secs(5)).unwrap() else { panic!() };
        assert_eq!(message.bytes, b"hello");
        assert_eq!(message.fds.len(), 2);
        assert_eq!(message.pid, std::process::id() as libc::pid_t);
        assert_eq!(message.uid, crate::sys::process::euid());
    }

    #[test]
    fn says_what_else_can_happen() {
        let (a, b) = Socket::pair().unwrap();
        assert!(matches!(b.receive(4, Duration::ZERO).unwrap(), Received::Nothing));
        a.send(b"too long", &[]).unwrap();
        assert!(matches!(b.receive(4, Duration::from_secs(5)).unwrap(), Received::Malformed(_)));
        a.send(b"", &[]).unwrap();
        let Received::Message(empty) = b.receive(4, Duration::from_secs(5)).unwrap() else { panic!() };
        assert!(empty.bytes.is_empty(), "no end");
        drop(a);
        assert!(matches!(b.receive(4, Duration::from_secs(5)).unwrap(), Received::Closed));
    }

    #[test]
    fn what_was_sent_before_the_end_arrives_even_if_the_sender_had_not_read_everything() {
        let (a, b) = Socket::pair().unwrap();
        a.send(b"first", &[]).unwrap();
        a.send(b"second", &[]).unwrap();
        b.send(b"never read", &[]).unwrap();
        drop(a);
        let receive = || match b.receive(16, Duration::from_secs(5)).unwrap() {
            Received::Message(message) => Some(message.bytes),
            other => matches!(other, Received::Closed).then_some(Vec::new()),
        };
        assert_eq!(
            [receive(), receive(), receive()],
            [&b"first"[..], b"second", b""].map(|b| Some(b.to_vec()))
        );
    }
}
