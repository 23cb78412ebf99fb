//! A monitor that several processes share, and one of them says what no client says: malformed, cut short, too long, said
//! before, by another process, of another user. It costs that one its connection, and nobody anything else.
//!
//! No test harness: the program executes itself, once as each application, which executes itself as its children; and those
//! become monitors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "support/kept_state.rs"]
mod kept_state;
#[path = "support/oneself.rs"]
mod oneself;

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, mem, ptr};

use cenotaph::privacy::ConsentPolicy;
use cenotaph::{Config, Guard, Monitor, ReleaseAt};
use oneself::{
    Application, application, begin, events, log, monitors, reasons, run, wait_for, wait_for_all_to_end,
};

/// Name, what it does, the reasons of all reports, and how many clients the shared monitor has ended.
const APPLICATIONS: [(&str, Application, &[&str], usize); 9] = [
    ("malformed-on-joined-sockets", malformed, &["requested", "signal", "signal"], 2 * GARBAGE),
    ("said-before", said_before, &["requested", "requested", "requested", "signal"], 2),
    ("a-forked-child-speaks", forked_child_speaks, &["requested", "requested"], 0),
    ("claims-to-be-another", claims, &["requested", "requested"], 0),
    ("another-user-joins", another_user, &["requested"], 0),
    ("a-stopped-monitor-is-not-joined", stopped_monitor, &["requested", "signal"], 1),
    ("garbles", garbles, &[], 0),
    ("repeats", repeats, &[], 0),
    ("joins-twice", joins_twice, &[], 0),
];
const CHILDREN: [&str; 3] = ["garbles", "repeats", "joins-twice"];

// Kinds of messages, as `src/protocol.rs` numbers them.
const REQUESTED: u32 = 3;
const HELLO: u32 = 10;
const FLUSH: u32 = 11;
const SHARE: u32 = 14;
const JOIN: u32 = 15;
const RELEASED: u32 = 20;
const REFUSED: u32 = 22;

fn main() {
    let chosen = begin(APPLICATIONS.map(|(name, run, ..)| (name, run)));
    let chosen = |name: &str| chosen.contains(&name) && !CHILDREN.contains(&name);
    for (name, _, expected, ended) in APPLICATIONS.into_iter().filter(|(name, ..)| chosen(name)) {
        // SAFETY: asks only.
        if name == "another-user-joins" && unsafe { libc::geteuid() } != 0 {
            println!("{name} n/a: only root can become another user");
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let watched = run(name, folder.path(), 0);
        wait_for_all_to_end(folder.path());
        let found = (reasons(folder.path()), events(folder.path(), "client-ended"));
        assert_eq!(found, (expected.to_vec(), ended), "{name}: {}", log(folder.path()));
        assert!(watched.check(folder.path()) > 0, "{name}: no dump was compared with its receipt");
        println!("{name} ok");
    }
}

fn config(folder: &Path) -> Config {
    let config = Config::new("messages", "1").spool(folder).consent(ConsentPolicy::NotRequired);
    let config = config.release_at(ReleaseAt::Spooled).linger(Duration::ZERO).reports_per_signature(u32::MAX);
    // On a busy machine a monitor may take longer than the usual patience to begin, and would be given up for another one.
    config.deadline(Duration::from_secs(60)).log(folder.join("log"))
}

fn install(folder: &Path) -> Guard {
    config(folder).install().unwrap()
}

fn fault() {
    // SAFETY: none: the process is to die.
    unsafe { ptr::null_mut::<u8>().write_volatile(1) };
}

type Sent = (RawFd, Vec<u8>, Vec<OwnedFd>);

/// Every message that this process has sent with sendmsg(2) while [`LISTENING`]: socket, bytes, copies of descriptors.
static SENT: Mutex<Vec<Sent>> = Mutex::new(Vec::new());
static LISTENING: AtomicBool = AtomicBool::new(false);

/// In the place of the C library's: what the library says is overheard, to be said again.
#[unsafe(no_mangle)]
extern "C" fn sendmsg(socket: libc::c_int, message: *const libc::msghdr, flags: libc::c_int) -> isize {
    if LISTENING.load(Ordering::Relaxed) {
        // SAFETY: the caller's message, which has one vector.
        let bytes = unsafe {
            let vector = &*(*message).msg_iov;
            std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len).to_vec()
        };
        // SAFETY: as above; the descriptors are the caller's, and open.
        let copies = unsafe { descriptors_in(&*message) };
        SENT.lock().unwrap().push((socket, bytes, copies));
    }
    // SAFETY: the caller's own arguments.
    unsafe { libc::syscall(libc::SYS_sendmsg, socket, message, flags) as isize }
}

/// # Safety
/// As for sendmsg(2).
unsafe fn descriptors_in(message: &libc::msghdr) -> Vec<OwnedFd> {
    if message.msg_controllen == 0 {
        return Vec::new();
    }
    // SAFETY: the first control message is all that the library sends, and it has descriptors.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(message);
        let count = ((*first).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
        let data = libc::CMSG_DATA(first).cast::<RawFd>();
        let copy = |at| BorrowedFd::borrow_raw(data.add(at).read_unaligned()).try_clone_to_owned().unwrap();
        (0..count).map(copy).collect()
    }
}

fn capture_once() {
    cenotaph::capture("once").unwrap();
}

/// What the library sends during `call`: the last message of `kind`.
fn overhear(kind: u32, call: impl FnOnce()) -> Sent {
    LISTENING.store(true, Ordering::Relaxed);
    call();
    LISTENING.store(false, Ordering::Relaxed);
    let mut sent = mem::take(&mut *SENT.lock().unwrap());
    sent.retain(|(_, bytes, _)| bytes[8..12] == kind.to_ne_bytes());
    sent.pop().expect("such a message")
}

fn say(socket: RawFd, bytes: &[u8]) {
    // SAFETY: bytes and their length.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    assert_eq!(sent, bytes.len() as isize, "{}", std::io::Error::last_os_error());
}

fn wait_for_end(socket: RawFd) {
    wait_for("the connection's end", || {
        let mut polled = libc::pollfd { fd: socket, events: 0, revents: 0 };
        // SAFETY: one pollfd, no waiting.
        unsafe { libc::poll(&raw mut polled, 1, 0) };
        (polled.revents & libc::POLLHUP != 0).then_some(())
    });
}

/// A child with the seat as its standard input.
fn start(name: &str, folder: &Path, seat: &OwnedFd, number: usize) -> Child {
    let mut command: Command = application(name, folder);
    command.env("NUMBER", number.to_string()).stdin(Stdio::from(seat.try_clone().unwrap())).spawn().unwrap()
}

fn seat() -> OwnedFd {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap()
}

fn number() -> usize {
    env::var("NUMBER").unwrap().parse().unwrap()
}

/// Header of a message: `src/protocol.rs`.
fn header(kind: u32, sequence: u64) -> Vec<u8> {
    let mut header = b"CENOMSG\x01".to_vec();
    header.extend(kind.to_ne_bytes());
    header.extend([0; 12]);
    header.extend(sequence.to_ne_bytes());
    header.extend([0; 16]);
    header
}

const GARBAGE: usize = 13;

fn garbage() -> [Vec<u8>; GARBAGE] {
    let with = |kind, body: &[u8]| [&header(kind, 1)[..], body].concat();
    let mut another_version = header(FLUSH, 1);
    another_version[7] = 2;
    [
        Vec::new(),
        b"x".to_vec(),
        header(FLUSH, 1)[..47].to_vec(),
        vec![0; 48],
        vec![0xff; 4096],
        another_version,
        with(99, b""),
        with(REQUESTED, &[0; 100]),
        with(FLUSH, b"!"),
        with(HELLO, &[7; 16]),
        with(SHARE, b""),
        with(RELEASED, b""),
        vec![0x55; 64 << 10],
    ]
}

fn malformed(folder: &Path) {
    let guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    let monitor = monitors_of(&guard, folder);
    for index in 0..2 * GARBAGE {
        let status = start("garbles", folder, &seat, index).wait().unwrap();
        // Two of them crash then, and are reported by monitors of their own.
        let expected = if index < 2 { Some(libc::SIGSEGV) } else { None };
        assert_eq!(status.signal(), expected, "{index}: {}", log(folder));
        assert!(expected.is_some() || status.success(), "{index}");
    }
    wait_for("the ends", || (events(folder, "client-ended") == 2 * GARBAGE).then_some(()));
    assert_eq!(events(folder, "joined"), 2 * GARBAGE);
    cenotaph::capture("unharmed").unwrap();
    assert_eq!(monitors_of(&guard, folder), monitor, "the same one");
}

/// The supervisor, which is the oldest.
fn monitors_of(guard: &Guard, folder: &Path) -> Option<i32> {
    wait_for("the monitor", || (guard.status().monitor == Monitor::Ready).then_some(()));
    monitors(folder).into_iter().min()
}

fn garbles(folder: &Path) {
    let before = kept_state::descriptors();
    let guard = config(folder).share_monitor(seat()).install().unwrap();
    let mut ours = kept_state::descriptors();
    ours.retain(|found| !before.contains(found) && found.1.starts_with("socket:"));
    assert_eq!(ours.len(), 2, "{ours:?}");
    let socket = ours[number() % 2].0;
    say(socket, &garbage()[number() / 2]);
    wait_for_end(socket);
    mem::forget(guard);
    if number() < 2 {
        fault();
    }
}

fn said_before(folder: &Path) {
    let _guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    for number in 0..2 {
        let status = start("repeats", folder, &seat, number).wait().unwrap();
        let expected = if number == 0 { Some(libc::SIGSEGV) } else { None };
        assert_eq!(status.signal(), expected, "{number}: {}", log(folder));
    }
    wait_for("the ends", || (events(folder, "client-ended") == 2).then_some(()));
    cenotaph::capture("unharmed").unwrap();
}

/// A request for a report, or for a flush.
fn repeats(folder: &Path) {
    let guard = config(folder).share_monitor(seat()).install().unwrap();
    let (socket, message, _) = if number() == 0 {
        overhear(REQUESTED, capture_once)
    } else {
        overhear(FLUSH, || guard.flush(Duration::from_secs(60)).unwrap())
    };
    say(socket, &message);
    wait_for_end(socket);
    mem::forget(guard);
    if number() == 0 {
        // By a monitor of its own.
        cenotaph::capture("again").unwrap();
        fault();
    }
}

fn forked_child_speaks(folder: &Path) {
    let guard = install(folder);
    let (socket, mut message, _) = overhear(REQUESTED, capture_once);
    message[24..32].copy_from_slice(&1000_u64.to_ne_bytes());
    // SAFETY: one thread; the child makes system calls only.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            for bytes in [&message[..], b"x", b""] {
                libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL);
            }
            libc::_exit(0);
        }
        assert_eq!(libc::waitpid(child, ptr::null_mut(), 0), child);
    }
    wait_for("the refusals", || (events(folder, "foreign-message") == 3).then_some(()));
    cenotaph::capture("unharmed").unwrap();
    assert_eq!(guard.status().monitor, Monitor::Ready);
}

/// The kernel lets only who has CAP_SYS_ADMIN say that it is another process, and nobody that it is none.
fn claims(folder: &Path) {
    let guard = install(folder);
    let (socket, mut message, _) = overhear(REQUESTED, capture_once);
    message[24..32].copy_from_slice(&1000_u64.to_ne_bytes());
    assert!(!say_as(0, socket, &message));
    assert!(!say_as(i32::MAX, socket, &message));
    let parent = std::os::unix::process::parent_id().cast_signed();
    if say_as(parent, socket, &message) {
        wait_for("the refusal", || (events(folder, "foreign-message") == 1).then_some(()));
    } else {
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
    }
    cenotaph::capture("unharmed").unwrap();
    assert_eq!(guard.status().monitor, Monitor::Ready);
}

/// Sends a message with credentials (unix(7)) that say `pid`. Whether the kernel let it.
fn say_as(pid: libc::pid_t, socket: RawFd, bytes: &[u8]) -> bool {
    let mut control = [0_u64; 8];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let length = size_of::<libc::ucred>() as libc::c_uint;
    // SAFETY: an all-zero header is valid; `control` has room for credentials and their header.
    unsafe {
        let claimed = libc::ucred { pid, uid: libc::getuid(), gid: libc::getgid() };
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(length) as _;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_CREDENTIALS;
        (*first).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(first).cast::<libc::ucred>().write_unaligned(claimed);
        libc::syscall(libc::SYS_sendmsg, socket, &raw const header, libc::MSG_NOSIGNAL) >= 0
    }
}

fn another_user(folder: &Path) {
    let _guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    let status = start("joins-twice", folder, &seat, 0).wait().unwrap();
    assert!(status.success(), "{}", log(folder));
    assert_eq!((events(folder, "joined"), events(folder, "not-joined")), (1, 1));
    assert!(log(folder).contains("a process of another user"), "{}", log(folder));
    cenotaph::capture("unharmed").unwrap();
}

/// As itself, and with the very same message as another user.
fn joins_twice(folder: &Path) {
    const NOBODY: libc::uid_t = 65534;
    let mut guard = None;
    let (_, message, mut fds) = overhear(JOIN, || {
        guard = Some(config(folder).share_monitor(seat()).install().unwrap());
    });
    drop(guard);
    let ((control, their_control), (_crash, their_crash)) = (kept_state::pair(), kept_state::pair());
    let blackbox = fds.pop().unwrap();
    // SAFETY: plain values.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
    kept_state::send(&seat(), &message, &[their_control, their_crash, blackbox]);
    let (answer, _) = kept_state::receive(control.as_raw_fd());
    assert_eq!(answer[8..12], REFUSED.to_ne_bytes());
}

/// Whoever joins does not wait for ever, is reported by a monitor of its own, and is not told of twice.
fn stopped_monitor(folder: &Path) {
    let guard = install(folder);
    let seat = cenotaph::share_monitor().unwrap();
    let monitor = monitors_of(&guard, folder).unwrap();
    // SAFETY: plain values; looked up just before.
    unsafe { libc::kill(monitor, libc::SIGSTOP) };
    let mut child = start("garbles", folder, &seat, 0);
    let status = child.wait();
    // SAFETY: as above.
    unsafe { libc::kill(monitor, libc::SIGCONT) };
    assert_eq!(status.unwrap().signal(), Some(libc::SIGSEGV));
    wait_for("the late refusal", || (events(folder, "not-joined") == 1).then_some(()));
    cenotaph::capture("unharmed").unwrap();
}
