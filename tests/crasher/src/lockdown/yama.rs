//! Yama's rules (Documentation/admin-guide/LSM/Yama.rst of Linux) on a kernel that does not have it.
//!
//! A seccomp filter hands each attempt to attach, and to read the memory of another process, to a broker, a process of
//! its own that answers as Yama would someone without CAP_SYS_PTRACE. Yama guards /proc/PID/mem too; the broker sees it
//! being opened by that name, if it may read the arguments of whoever opens it (as root).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use super::filter::{checked, install_listener};

/// The first argument of a broker: no way to die has this name.
pub(crate) const COMMAND: &str = "yama-broker";

const SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";
const ATTACH: u32 = libc::PTRACE_ATTACH;
const SEIZE: u32 = libc::PTRACE_SEIZE;
/// `_IOWR('!', 0, struct seccomp_notif)` and so on (linux/seccomp.h).
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;

/// The machine's own scope; `None` without Yama.
pub(super) fn real_scope() -> Option<u8> {
    fs::read_to_string(SCOPE).ok()?.trim().parse().ok()
}

/// From here on this process and all that it starts live under `scope`.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn emulate(scope: u8) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot start the broker: {error}");
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    if let Some(name) = std::env::args_os().next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    // A grandchild would be more polite, but the victim's parts do not wait for any child.
    command.arg(COMMAND).arg(scope.to_string()).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    command.spawn().map(drop).map_err(failed)?;
    let listener = install_listener(&[
        (libc::SYS_ptrace, Some(ATTACH)),
        (libc::SYS_ptrace, Some(SEIZE)),
        (libc::SYS_process_vm_readv, None),
        (libc::SYS_process_vm_writev, None),
        (libc::SYS_open, None),
        (libc::SYS_openat, None),
        (libc::SYS_prctl, Some(libc::PR_SET_PTRACER.cast_unsigned())),
    ])?;
    send_descriptor(&ours, listener.as_raw_fd())
}

/// The broker: answers until nobody is left who could ask.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let scope = arguments.first().and_then(|text| text.to_str()?.parse().ok());
    let (Some(scope), Some(listener)) = (scope, receive_descriptor(0)) else { return ExitCode::from(2) };
    let mut declared = HashMap::new();
    loop {
        let mut polled = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd that lives through the call.
        let ready = unsafe { libc::poll(&raw mut polled, 1, -1) };
        if polled.revents & libc::POLLIN != 0 {
            answer(&listener, scope, &mut declared);
        } else if ready > 0 {
            return ExitCode::SUCCESS;
        }
    }
}

fn answer(listener: &OwnedFd, scope: u8, declared: &mut HashMap<libc::pid_t, libc::pid_t>) {
    // SAFETY: all-zero values of both are valid, and the first must be all zero when it is passed.
    let (mut asked, mut answer): (libc::seccomp_notif, libc::seccomp_notif_resp) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    // SAFETY: the request fills a seccomp_notif.
    if unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV, &raw mut asked) } != 0 {
        return;
    }
    answer.id = asked.id;
    let tracer = process_of(asked.pid.cast_signed());
    let argument = |index: usize| asked.data.args.get(index).copied().unwrap_or(0);
    let target = |index| process_of(argument(index) as libc::pid_t);
    let allowed = match libc::c_long::from(asked.data.nr) {
        libc::SYS_prctl => {
            // The kernel without Yama knows no such call: it succeeds here, as it would there.
            declared.insert(tracer, argument(1) as libc::pid_t);
            None
        }
        libc::SYS_ptrace => Some(may_attach(scope, tracer, target(1), declared)),
        libc::SYS_open | libc::SYS_openat => {
            let path = argument(usize::from(asked.data.nr == libc::SYS_openat as libc::c_int));
            let target = memory_of(&text_at(asked.pid, path));
            Some(target.is_none_or(|target| may_attach(scope, tracer, process_of(target), declared)))
        }
        _ => Some(may_attach(scope, tracer, target(0), declared)),
    };
    match allowed {
        None => {}
        Some(true) => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        Some(false) => answer.error = -libc::EPERM,
    }
    // SAFETY: the request reads a seccomp_notif_resp. It fails harmlessly if the one who asked has died.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND, &raw mut answer) };
}

/// Yama's yama_ptrace_access_check for someone without capabilities.
fn may_attach(
    scope: u8,
    tracer: libc::pid_t,
    target: libc::pid_t,
    declared: &HashMap<libc::pid_t, libc::pid_t>,
) -> bool {
    // Threads of one process may always.
    tracer == target
        || match scope {
            0 => true,
            1 => {
                is_descendant(target, tracer)
                    || declared.get(&target).is_some_and(|by| *by == -1 || is_descendant(tracer, *by))
            }
            _ => false,
        }
}

/// Whether `process` is `ancestor` or descends from it.
fn is_descendant(mut process: libc::pid_t, ancestor: libc::pid_t) -> bool {
    while process > 0 {
        if process == ancestor {
            return true;
        }
        process = crate::processes::look(process).map_or(0, |process| process.parent);
    }
    false
}

/// The text that a thread passes, as far as it can be read; it is short if it is what is looked for.
fn text_at(thread: u32, address: u64) -> Vec<u8> {
    let mut text = [0; 64];
    let length =
        File::open(format!("/proc/{thread}/mem")).and_then(|memory| memory.read_at(&mut text, address));
    let text = text.get(..length.unwrap_or(0)).unwrap_or_default();
    text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// The process whose memory file this is the name of.
fn memory_of(path: &[u8]) -> Option<libc::pid_t> {
    let rest = str::from_utf8(path).ok()?.strip_prefix("/proc/")?.strip_suffix("/mem")?;
    rest.split('/').next_back()?.parse().ok()
}

/// A thread's process.
fn process_of(thread: libc::pid_t) -> libc::pid_t {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    group.unwrap_or(thread)
}

/// Room for one descriptor (cmsg(3)), aligned as its header.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptor: RawFd,
}

fn control() -> Control {
    // SAFETY: all-zero is a valid cmsghdr.
    let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
    header.cmsg_len = mem::offset_of!(Control, descriptor) + mem::size_of::<RawFd>();
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    Control { header, descriptor: -1 }
}

fn send_descriptor(socket: &UnixStream, descriptor: RawFd) -> Result<(), String> {
    let mut control = Control { descriptor, ..control() };
    let sent = with_message(&mut control, |message| {
        // SAFETY: the message's parts live through the call.
        unsafe { libc::sendmsg(socket.as_raw_fd(), message, 0) }
    });
    checked("sendmsg", sent as libc::c_long).map(drop)
}

fn receive_descriptor(socket: RawFd) -> Option<OwnedFd> {
    let mut control = control();
    let received = with_message(&mut control, |message| {
        // SAFETY: as above.
        unsafe { libc::recvmsg(socket, message, libc::MSG_CMSG_CLOEXEC) }
    });
    // SAFETY: the kernel made the descriptor for this process.
    (received > 0 && control.descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(control.descriptor) })
}

/// One byte, and the descriptor beside it.
fn with_message(control: &mut Control, act: impl FnOnce(*mut libc::msghdr) -> isize) -> isize {
    let mut byte = 0u8;
    let mut bytes = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut *control).cast();
    message.msg_controllen = mem::size_of::<Control>();
    act(&raw mut message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_names_of_memory() {
        for (path, target) in [
            ("/proc/17/mem", Some(17)),
            ("/proc/17/task/18/mem", Some(18)),
            ("/proc/self/mem", None),
            ("/proc/17/maps", None),
            ("/home/17/mem", None),
        ] {
            assert_eq!(memory_of(path.as_bytes()), target, "{path}");
        }
        let text = c"/proc/17/mem";
        // SAFETY: always allowed.
        let own = unsafe { libc::gettid() }.cast_unsigned();
        assert_eq!(text_at(own, text.as_ptr() as u64), text.to_bytes());
        assert_eq!(text_at(own, 0), b"");
    }

    #[test]
    fn rules() {
        let own = libc::pid_t::try_from(std::process::id()).unwrap();
        // SAFETY: always allowed.
        let parent = unsafe { libc::getppid() };
        let nobody = HashMap::new();
        let cases = [
            (0, own, parent, true),
            // An ancestor may, a descendant may not.
            (1, parent, own, true),
            (1, own, parent, false),
            (2, parent, own, false),
            (3, parent, own, false),
            (3, own, own, true),
        ];
        for (scope, tracer, target, allowed) in cases {
            assert_eq!(may_attach(scope, tracer, target, &nobody), allowed, "{scope} {tracer} {target}");
        }
        // A declared tracer's descendants may too, until the scope is 2.
        for (scope, by, allowed) in
            [(1, own, true), (1, parent, true), (1, -1, true), (1, i32::MAX, false), (2, own, false)]
        {
            assert_eq!(
                may_attach(scope, own, parent, &HashMap::from([(parent, by)])),
                allowed,
                "{scope} {by}"
            );
        }
    }
}
