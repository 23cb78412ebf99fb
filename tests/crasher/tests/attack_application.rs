//! Applications that treat Cenotaph badly: they close its descriptors, chain handlers over it, fork, run with tiny limits.
//! Each must end as it would without Cenotaph, and what belongs to it must stay untouched.
//!
//! No test harness: the program executes itself, once as each application, and those become monitors.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use std::{env, fs, mem, ptr};

use cenotaph::privacy::ConsentPolicy;
use cenotaph::{Config, Guard, ReleaseAt};

#[path = "support/applications.rs"]
mod applications;

use applications::Watched;

type Way = (&'static str, fn(&Path));

const WAYS: [Way; 5] = [
    ("handlers-in-a-ring", handlers_in_a_ring),
    ("child-of-vfork-then-installed-again", child_of_vfork_then_installed_again),
    ("descriptors-closed", descriptors_closed),
    ("fork-installs", fork_installs),
    ("ignored-signal", ignored_signal),
];

fn main() {
    cenotaph::monitor_entry();
    if let (Some(way), Some(folder)) = (env::var_os("WAY"), env::var_os("FOLDER")) {
        let (_, run) = WAYS.into_iter().find(|(name, _)| way == *name).unwrap();
        return run(Path::new(&folder));
    }
    for (way, _) in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.env("WAY", way).env("FOLDER", folder.path());
        let watched = Watched::on(&mut command);
        let output = run(&mut command);
        let said = String::from_utf8_lossy(&output.stderr);
        let signal = match way {
            "descriptors-closed" | "fork-installs" => None,
            _ => Some(libc::SIGSEGV),
        };
        assert_eq!(output.status.signal(), signal, "{way}: {said}");
        if way == "descriptors-closed" {
            // Of the panic, which could only be recorded: the monitor sees to that after the process's end.
            wait_for_report(folder.path());
        }
        assert_eq!(reports(folder.path()), 1, "{way}: {said}");
        assert!(signal.is_some() || output.status.success(), "{way}: {said}");
        // Of the panic there is a record, and no dump.
        let dumps = usize::from(way != "descriptors-closed");
        assert_eq!(watched.check(folder.path()), dumps, "{way}: dumps compared with their receipts");
        println!("{way} ok");
    }
    short_files();
    println!("short files ok");
}

fn reports(folder: &Path) -> usize {
    let entries = fs::read_dir(folder.join("pending")).into_iter().flatten().flatten();
    entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).count()
}

fn wait_for_report(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while reports(folder) == 0 {
        assert!(Instant::now() < deadline, "waited in vain for the report");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A ring of handlers would use its processor time up, a child that hangs in it too.
fn run(command: &mut Command) -> Output {
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
            libc::setrlimit(libc::RLIMIT_CPU, &raw const limit);
            Ok(())
        });
    }
    command.output().unwrap()
}

fn install(folder: &Path) -> Guard {
    let config = Config::new("attack", "1").spool(folder).consent(ConsentPolicy::NotRequired);
    config.release_at(ReleaseAt::Spooled).linger(Duration::ZERO).install().unwrap()
}

fn fault() {
    // SAFETY: none: the process is to die.
    unsafe { ptr::null_mut::<u8>().write_volatile(1) };
}

// SAFETY: integers and nullable function pointers.
static mut EARLIER: libc::sigaction = unsafe { mem::zeroed() };

extern "C" fn chain(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: written before this handler was installed; the earlier handler has SA_SIGINFO's form.
    unsafe {
        let earlier: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
            mem::transmute(EARLIER.sa_sigaction);
        earlier(signal, info, context);
    }
}

fn handlers_in_a_ring(folder: &Path) {
    let guard = install(folder);
    // SAFETY: a handler that calls the one found here, as crash handlers of games and languages do.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = chain as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut EARLIER);
    }
    drop(guard);
    // The second installation finds the handler that calls the first one's.
    mem::forget(install(folder));
    fault();
}

fn child_of_vfork_then_installed_again(folder: &Path) {
    extern "C" fn child(_: *mut libc::c_void) -> i32 {
        fault();
        0
    }
    let guard = install(folder);
    let mut stack = vec![0_u128; 8192];
    // SAFETY: what vfork(2) does, with a stack of the child's own: this thread waits until the child has ended.
    unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let top = stack.as_mut_ptr().add(stack.len()).cast();
        let child = libc::clone(child, top, flags, ptr::null_mut());
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
    }
    drop(guard);
    mem::forget(install(folder));
    fault();
}

fn descriptors_closed(folder: &Path) {
    let guard = install(folder);
    // SAFETY: what a daemon does. Nothing in this program owns a descriptor but Cenotaph.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    // The application's own connections come to lie where Cenotaph's were.
    let own: Vec<(UnixStream, UnixStream)> = (0..6).map(|_| UnixStream::pair().unwrap()).collect();
    assert!(cenotaph::capture("reason").is_err());
    assert!(guard.flush(Duration::from_secs(1)).is_err());
    let _ = std::thread::spawn(|| panic!("a panic on purpose")).join();
    drop(guard);
    for stream in own.iter().flat_map(|(a, b)| [a, b]) {
        let mut byte = 0_u8;
        // SAFETY: a buffer of one byte; does not wait.
        let got = unsafe { libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT) };
        let error = std::io::Error::last_os_error().raw_os_error();
        assert_eq!((got, error), (-1, Some(libc::EAGAIN)), "open, and nothing in it");
    }
}

fn fork_installs(folder: &Path) {
    let guard = install(folder);
    // SAFETY: one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let own = install(folder);
        // The parent's guard, copied: it must not end the child's installation.
        drop(guard);
        mem::forget(own);
        fault();
    }
    let mut status = 0;
    // SAFETY: waits for the child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
}

fn ignored_signal(folder: &Path) {
    // SAFETY: sets a disposition and sends a signal to this process.
    unsafe {
        libc::signal(libc::SIGTRAP, libc::SIG_IGN);
        mem::forget(install(folder));
        libc::raise(libc::SIGTRAP);
    }
    // Still alive, not reported, and still covered.
    fault();
}

/// RLIMIT_FSIZE: neither installing nor asking for consent may end the application.
fn short_files() {
    for limit in [0_u64, 100_000] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_crasher"));
        command.arg("--spool").arg(folder.path()).args(["--consent", "granted", "null"]);
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
                Ok(())
            });
        }
        let output = run(&mut command);
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{limit}: {output:?}");
    }
}
