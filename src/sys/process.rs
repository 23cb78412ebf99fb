//! This process and its children: fork, wait, hardening, whose it is.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one; the child's id and a descriptor that becomes readable when it ends (pidfd_open(2)).
    Parent(libc::pid_t, OwnedFd),
}

/// fork(2) in a process that has a single thread, so that the child may do anything.
pub(crate) fn fork() -> Result<Forked> {
    // A thread that was joined is listed for a moment longer.
    const MOMENT: Duration = Duration::from_millis(100);
    let end = Instant::now() + MOMENT;
    while super::procfs::own_threads() != 1 && Instant::now() < end {
        std::thread::yield_now();
    }
    if super::procfs::own_threads() != 1 {
        return Err(Error::MonitorUnavailable(
            "the monitor has more than one thread and may not fork".into(),
        ));
    }
    // SAFETY: there is one thread (checked above), so no lock can be left held in the child.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os("fork")),
        0 => Ok(Forked::Child),
        pid => {
            let ended = pidfd(pid).inspect_err(|_| kill(pid))?;
            Ok(Forked::Parent(pid, ended))
        }
    }
}

/// A descriptor that becomes readable when process `pid` ends; not necessarily a child.
pub(crate) fn pidfd(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: a process id and no flags; returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(Error::last_os("pidfd_open"));
    }
    // SAFETY: pidfd_open returned it and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether process `pid` has ended, or does so within `wait`.
pub(crate) fn ends_within(pid: libc::pid_t, wait: Duration) -> bool {
    let has_ended = |pidfd: OwnedFd| super::socket::poll_readable(pidfd.as_fd(), wait).unwrap_or(false);
    pid > 0 && pidfd(pid).map_or(true, has_ended)
}

/// Ends the process behind a pidfd, without the risk of hitting another one that got its number.
pub(crate) fn kill_pidfd(fd: BorrowedFd<'_>) {
    // SAFETY: plain values; the kernel checks the descriptor.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), libc::SIGKILL, std::ptr::null::<u8>(), 0)
    };
}

/// Lets a process go on that a tracer has left stopped; no effect on one that runs.
pub(crate) fn continue_stopped(pid: libc::pid_t) {
    // SAFETY: plain values. The caller knows that the process has not ended, as it holds the other end of its socket.
    unsafe { libc::kill(pid, libc::SIGCONT) };
}

/// Ends a child of ours that nobody has waited for.
pub(crate) fn kill(pid: libc::pid_t) {
    // SAFETY: plain values. The child has not been reaped, so its number cannot belong to another process.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    reap(pid, true);
}

/// Collects a child of ours that has ended.
pub(crate) fn reap(pid: libc::pid_t, wait: bool) {
    let flags = if wait { 0 } else { libc::WNOHANG };
    // SAFETY: a null status pointer is allowed.
    let _ = super::retry(|| unsafe { libc::waitpid(pid, std::ptr::null_mut(), flags) });
}

/// Makes orphans among our descendants our children instead of our parent's (`PR_SET_CHILD_SUBREAPER`, prctl(2)).
pub(crate) fn adopt_orphans() {
    // SAFETY: plain values; where it is refused, they are somebody else's, as before.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Collects children that have ended, but none that `is_awaited`.
pub(crate) fn collect_ended(is_awaited: impl Fn(libc::pid_t) -> bool) {
    loop {
        // SAFETY: all zero is a value of it.
        let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `found` is a place for the answer.
        let asked = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut found, flags) };
        // SAFETY: filled by waitid(2), or still zero, which is its word for nobody.
        let pid = unsafe { found.si_pid() };
        // The kernel tells of one at a time: behind one that is awaited, others wait until that one is collected.
        if asked != 0 || pid == 0 || is_awaited(pid) {
            return;
        }
        reap(pid, false);
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By exit(3) with this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// Somebody else has waited for it.
    Unknown,
}

/// Collects a child of ours that ends or has ended, and says how.
pub(crate) fn wait_end(pid: libc::pid_t) -> Ended {
    let mut status = 0;
    // SAFETY: `status` is a place for the status.
    match super::retry(|| unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
        Ok(_) if libc::WIFSIGNALED(status) => Ended::Signal(libc::WTERMSIG(status)),
        Ok(_) if libc::WIFEXITED(status) => Ended::Exit(libc::WEXITSTATUS(status)),
        _ => Ended::Unknown,
    }
}

/// Whose rights this process has.
pub(crate) fn euid() -> libc::uid_t {
    // SAFETY: always allowed.
    unsafe { libc::geteuid() }
}

/// The calling thread's id in this pid namespace.
pub(crate) fn gettid() -> libc::pid_t {
    // SAFETY: always allowed.
    unsafe { libc::gettid() }
}

/// Has `function` called when this process leaves by exit(3) or returns from main. What cannot be registered is not
/// called.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: a function that may be called at any later time.
    unsafe { libc::atexit(function) };
}

/// Removes a variable from the environment, if nobody else can be reading it.
pub(crate) fn remove_variable(name: &str) {
    if super::procfs::own_threads() == 1 {
        // SAFETY: one thread, so nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
}

/// Ends this process at once, without running exit handlers of the application whose image this is.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// Cancels the alarm that the launcher set before exec.
pub(crate) fn cancel_start_alarm() {
    // SAFETY: always allowed.
    unsafe { libc::alarm(0) };
}

/// Runs `write` so that a file longer than RLIMIT_FSIZE allows is an error (EFBIG) and not a signal that ends the
/// application (setrlimit(2)). The limit counts for memory files too.
pub(crate) fn without_file_size_signal<T>(write: impl FnOnce() -> T) -> T {
    // SAFETY: the sets are locals that sigemptyset initialises; only this thread's mask and pending signals change. The
    // kernel sends SIGXFSZ to the thread that writes, so one that became pending meanwhile is the one to take away.
    unsafe {
        let mut only: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, libc::SIGXFSZ);
        libc::sigpending(&raw mut pending);
        let was_pending = libc::sigismember(&raw const pending, libc::SIGXFSZ) == 1;
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const only, &raw mut before);
        let result = write();
        if !was_pending {
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&raw const only, std::ptr::null_mut(), &raw const at_once);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        result
    }
}

/// Whether this process is the first of its pid namespace, with whose end the kernel ends every other process in it,
/// the monitor too (pid_namespaces(7)): an application in a container often is.
pub(crate) fn is_init() -> bool {
    std::process::id() == 1
}

/// Whether somebody made the pid namespace of this process: a container or a sandbox. The kernel's own has this fixed inode
/// (`PROC_PID_INIT_INO`, include/linux/proc_ns.h); where /proc does not tell, this is no container.
pub(crate) fn is_in_pid_namespace() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    const FIRST: u64 = 0xefff_fffc;
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() != FIRST)
}

/// What every process of the monitor does first: no core file, not readable by others, no terminal, no
/// working directory, not ended by the signals that end its application's session.
pub(crate) fn harden() {
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain values and pointers to locals; failures leave things as they were, which is not worse.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_NAME, c"cenotaph".as_ptr(), 0, 0, 0);
        libc::setsid();
        libc::chdir(c"/".as_ptr());
        libc::umask(0o077);
        // The application's own soft limits (a small stack, short files) are no concern of its report.
        for resource in [libc::RLIMIT_FSIZE, libc::RLIMIT_STACK, libc::RLIMIT_NOFILE, libc::RLIMIT_CPU] {
            let mut limit: libc::rlimit = std::mem::zeroed();
            if libc::getrlimit(resource, &raw mut limit) == 0 {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(resource, &raw const limit);
            }
        }
        // SIGXFSZ: a limit on file sizes is an error of the write that meets it.
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE, libc::SIGXFSZ] {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Whether the kernel runs this program with privileges of its file (`AT_SECURE`, getauxval(3)).
pub(crate) fn is_privileged() -> bool {
    // SAFETY: always allowed.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The most memory that this process has had in use, in bytes (getrusage(2)).
pub(crate) fn most_memory() -> u64 {
    // SAFETY: integers only, so all-zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a place for the result.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024)
}

/// Monotonic nanoseconds; the same clock in all processes of one machine.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the local; signal-safe (signal-safety(7)).
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Makes this process the first of a group of its own (setpgid(2)).
#[cfg(feature = "pmodule-plugins")]
pub(crate) fn lead_group() {
    // SAFETY: plain values.
    unsafe { libc::setpgid(0, 0) };
}

/// Kills what is left of the group that child `leader` made; call it before that is collected.
#[cfg(feature = "pmodule-plugins")]
pub(crate) fn kill_group(leader: libc::pid_t) {
    if leader > 1 {
        // SAFETY: plain values. There is no such group if the child did not get to make it.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
}

/// Where this program has its random bytes (AT_RANDOM, getauxval(3)); 0 if the kernel did not say.
pub(crate) fn image() -> u64 {
    // SAFETY: always allowed.
    unsafe { libc::getauxval(libc::AT_RANDOM) }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Words that name the person or the machine: login name, real name, home directory, host name.
///
/// From the password database (getpwuid_r(3)), the environment and gethostname(2); read in the monitor, so that a
/// slow name service never delays the application. All but the host's name are looked up once.
pub(crate) fn personal_words() -> Vec<String> {
    static OF_THE_USER: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let mut words = OF_THE_USER.get_or_init(words_of_the_user).clone();
    let mut host = vec![0u8; 256];
    // SAFETY: a buffer and its length, one less than it is long so that it stays terminated.
    if unsafe { libc::gethostname(host.as_mut_ptr().cast(), host.len() - 1) } == 0 {
        let host: Vec<u8> = host.into_iter().take_while(|&b| b != 0).collect();
        words.push(String::from_utf8_lossy(&host).into_owned());
    }
    words.retain(|word| word.len() > 1 && word != "/");
    words.sort();
    words.dedup();
    words
}

fn words_of_the_user() -> Vec<String> {
    let mut words: Vec<String> = ["USER", "LOGNAME", "HOME", "HOSTNAME", "SUDO_USER"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .collect();
    // SAFETY: an all-zero passwd is valid: its pointers are only read after getpwuid_r has set them.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut buffer = vec![0u8; 16 * 1024];
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to locals of the stated size.
    let result = unsafe {
        libc::getpwuid_r(
            libc::getuid(),
            &raw mut entry,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &raw mut found,
        )
    };
    if result == 0 && !found.is_null() {
        for pointer in [entry.pw_name, entry.pw_dir, entry.pw_gecos] {
            if !pointer.is_null() {
                // SAFETY: getpwuid_r points these at NUL-terminated strings inside `buffer`.
                let text = unsafe { CStr::from_ptr(pointer) }.to_string_lossy();
                // The gecos field is comma-separated: name, room, telephones (passwd(5)).
                words.extend(text.split(',').map(str::to_owned));
            }
        }
    }
    words
}

/// Whether files can be made in `directory` by this process (access(2)).
pub(crate) fn is_writable(directory: &std::path::Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated path.
    super::retry(|| unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) }).map(|_| ())
}

/// Descriptors of this process that forked children need.
static KEPT: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Has [`close_all_but`] leave `fd` open, whose owner never closes it.
#[cfg(feature = "pmodule-plugins")]
pub(crate) fn keep_in_children(fd: RawFd) {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(fd);
}

/// What [`keep_in_children`] was told.
pub(super) fn kept_in_children() -> Vec<RawFd> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// No core file of this process: it may hold what nobody should keep.
#[cfg(feature = "pmodule-plugins")]
pub(crate) fn no_core() {
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a limit that the kernel reads.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
}

/// Closes every descriptor but `keep`, those of `keep_in_children` (and, in a test build, the raw tap). For a forked child that will never run
/// the destructors of what it closes here.
pub(crate) fn close_all_but(keep: RawFd) {
    let mut kept = vec![0, 1, 2, keep];
    kept.extend(kept_in_children());
    // Without a tap the number is anybody's: a socket of ours that stayed open there would hide an end from its peer.
    if cfg!(feature = "raw-tap") && is_pipe(super::spawn::CHILD_TAP) {
        kept.push(super::spawn::CHILD_TAP);
    }
    kept.sort_unstable();
    kept.dedup();
    let mut first = 0;
    for fd in kept.into_iter().chain(std::iter::once(i32::MAX)) {
        if first < fd {
            // SAFETY: closes descriptors that this process inherited and whose owners it never drops.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// Closes files with one call for each row of numbers that follow each other.
pub(crate) fn close_together(files: Vec<std::fs::File>) {
    use std::os::fd::IntoRawFd;
    let mut fds: Vec<i32> = files.into_iter().map(IntoRawFd::into_raw_fd).collect();
    fds.sort_unstable();
    for row in fds.chunk_by(|a, b| b - a == 1) {
        if let [first, ..] = row {
            // SAFETY: closes descriptors that were ours alone, each once.
            unsafe { libc::syscall(libc::SYS_close_range, *first, first + row.len() as i32 - 1, 0) };
        }
    }
}

fn is_pipe(fd: std::os::fd::RawFd) -> bool {
    // SAFETY: an all-zero stat is a valid place for fstat to write into; the number is only looked up.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut found) == 0 && found.st_mode & libc::S_IFMT == libc::S_IFIFO
    }
}

/// Makes way for thread `tid` of `pid`, which was just let go, if it waits for this very processor: goes on on another one,
/// or where there is none lets it come first. It ends its process, which takes longer than all that is left to do here.
pub(crate) fn make_way(pid: libc::pid_t, tid: libc::pid_t) {
    // SAFETY: takes nothing.
    let here = unsafe { libc::sched_getcpu() };
    if super::procfs::processor(pid, tid).is_some_and(|theirs| theirs == here) && !leave(here) {
        std::thread::yield_now();
    }
}

/// Goes on on another processor than `here`. Whether there is one.
fn leave(here: i32) -> bool {
    let Ok(here) = usize::try_from(here) else { return false };
    let length = size_of::<libc::cpu_set_t>();
    // SAFETY: an all-zero set is an empty one; the calls read and write sets of this length, for the calling thread (0), and
    // CPU_CLR does nothing about a processor beyond the set.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, length, &raw mut allowed) != 0 || here >= 8 * length {
            return false;
        }
        let mut others = allowed;
        libc::CPU_CLR(here, &mut others);
        // Refused if there are no others. Back to what was allowed at once: it goes on over there all the same.
        let left = libc::sched_setaffinity(0, length, &raw const others) == 0;
        if left {
            libc::sched_setaffinity(0, length, &raw const allowed);
        }
        left
    }
}

/// Has the allocator keep what is freed, up to `most` bytes, in one heap for all threads: for a process that does everything
/// twice, the second time in a hurry. A page that was given back is a fault when it is used again.
pub(crate) fn keep_heap(most: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain numbers; a refusal (mallopt(3) returns 0) leaves things as they were.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, most);
        libc::mallopt(libc::M_TRIM_THRESHOLD, most);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = most;
}

/// Has so many more bytes of the heap in memory, once [`keep_heap`] has been called.
pub(crate) fn touch_heap(bytes: usize) {
    drop(std::hint::black_box(vec![1_u8; bytes]));
}

/// Keeps memory out of swap as far as RLIMIT_MEMLOCK allows (mlock(2)); beyond that PRIVACY.md names the rest.
pub(crate) fn lock_memory(bytes: &[u8]) {
    // SAFETY: a live slice; locking changes nothing about its contents.
    unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) };
}

/// Leaves SIGCHLD to the other threads of this process.
pub(crate) fn block_child_signals() {
    // SAFETY: both write a local set, which is a plain value; a thread may change its own mask at any time.
    unsafe {
        let mut only: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const only, std::ptr::null_mut());
    }
}
