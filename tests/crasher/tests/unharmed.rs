//! What belongs to the application and stays as it was: `errno`, dispositions, masks, alternate stacks, descriptors, children;
//! what programs that it executes get of Cenotaph (nothing); threads that were there before.
//!
//! No test harness: the program executes itself, once as each application, and those become monitors.
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

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;
use std::{env, mem, ptr};

use cenotaph::privacy::ConsentPolicy;
use cenotaph::{Config, Error, Guard, Monitor, ReleaseAt};
use kept_state::{State, native_thread};
use oneself::{Application, begin, end_monitor, log, monitors, reasons, run, wait_for, wait_for_all_to_end};

/// Name, what it does, the signal that ends it (0: it ends well), the reasons of its reports.
const APPLICATIONS: [(&str, Application, i32, &[&str]); 16] = [
    ("calls-change-nothing", calls_change_nothing, 0, &["requested"]),
    ("children-ignored", children_ignored, 0, &["requested"]),
    ("an-earlier-handler-goes-on", earlier_handler_goes_on, 0, &[]),
    ("stack-of-its-own", stack_of_its_own, 0, &[]),
    ("programs-inherit-nothing", programs_inherit_nothing, 0, &["requested"]),
    ("becomes-another-program", becomes_another_program, libc::SIGSEGV, &[]),
    ("waits-for-any-child", waits_for_any_child, libc::SIGSEGV, &["requested", "requested", "signal"]),
    ("closes-everything", closes_everything, libc::SIGSEGV, &["signal"]),
    ("closes-everything-at-once", closes_everything_at_once, libc::SIGSEGV, &["signal"]),
    ("closes-everything-after-the-monitor", closes_everything_late, libc::SIGSEGV, &[]),
    ("an-older-thread-crashes", older_thread_crashes, libc::SIGSEGV, &["signal"]),
    ("an-older-thread-overflows", older_thread_overflows, libc::SIGSEGV, &["signal"]),
    ("installed-twice", installed_twice, libc::SIGSEGV, &["signal"]),
    ("installed-twice-at-once", installed_twice_at_once, libc::SIGSEGV, &["signal"]),
    ("a-helper-of-another-version", other_version, libc::SIGSEGV, &[]),
    ("next-start", next_start, 0, &[]),
];

fn main() {
    if old_helper() {
        return;
    }
    let chosen = begin(APPLICATIONS.map(|(name, run, ..)| (name, run)));
    let chosen = |name: &str| chosen.contains(&name) && name != "next-start";
    for (name, _, signal, expected) in APPLICATIONS.into_iter().filter(|(name, ..)| chosen(name)) {
        let folder = tempfile::tempdir().unwrap();
        let watched = run(name, folder.path(), signal);
        // The monitor may be at it still where the application could not wait for it.
        wait_for_all_to_end(folder.path());
        let dumps = watched.check(folder.path());
        // One that has closed its socket leaves a record, of which there is no dump.
        let is_dumped = !expected.is_empty() && !name.starts_with("closes-everything");
        assert!(dumps > 0 || !is_dumped, "{name}: no dump was compared with its receipt");
        assert_eq!(reasons(folder.path()), expected, "{name}: {}", log(folder.path()));
        if matches!(name, "closes-everything-after-the-monitor" | "a-helper-of-another-version") {
            // Its own record is all that there can be.
            run("next-start", folder.path(), 0);
            wait_for("the record's report", || (reasons(folder.path()) == ["signal"]).then_some(()));
            wait_for_all_to_end(folder.path());
        }
        println!("{name} ok");
    }
}

fn config(folder: &Path) -> Config {
    let config = Config::new("unharmed", "1").spool(folder).consent(ConsentPolicy::NotRequired);
    config.release_at(ReleaseAt::Spooled).linger(Duration::ZERO).log(folder.join("log"))
}

fn install(folder: &Path) -> Guard {
    config(folder).install().unwrap()
}

#[inline(never)]
fn fault() {
    // SAFETY: none: the process is to die.
    unsafe { (16 as *mut u8).write_volatile(1) };
}

static CHILDREN_SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_child(_: i32) {
    CHILDREN_SEEN.fetch_add(1, Ordering::Relaxed);
}

/// Dispositions with flags and masks of their own, some signals blocked, a number in `errno`.
fn make_unusual() -> State {
    // SAFETY: handlers of the form that the flags say; sets that sigemptyset initialises.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = count_child as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigaddset(&raw mut action.sa_mask, libc::SIGHUP);
        libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut());
        libc::sigaction(libc::SIGPIPE, &raw const action, ptr::null_mut());
        let mut blocked: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut blocked);
        for signal in [libc::SIGUSR1, libc::SIGPIPE, libc::SIGRTMIN() + 3] {
            libc::sigaddset(&raw mut blocked, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, ptr::null_mut());
    }
    State::of_this_thread()
}

/// Calls something with an unlikely `errno`, which has to be there afterwards.
fn keeping_errno<T>(what: &str, call: impl FnOnce() -> T) -> T {
    const UNLIKELY: i32 = 7777;
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = UNLIKELY };
    let result = call();
    // SAFETY: as above.
    assert_eq!(unsafe { *libc::__errno_location() }, UNLIKELY, "{what}");
    result
}

fn calls_change_nothing(folder: &Path) {
    let before = make_unusual();
    let guard = keeping_errno("install", || install(folder));
    // All but the handlers that it is there for.
    State::of_this_thread().assert_same_but_crash_handlers(&before);
    let installed = State::of_this_thread();
    keeping_errno("capture", || cenotaph::capture("on purpose").unwrap());
    assert_eq!(State::of_this_thread(), installed);
    keeping_errno("flush", || guard.flush(Duration::from_secs(60)).unwrap());
    keeping_errno("protect_thread", || cenotaph::protect_thread().unwrap());
    assert_eq!(State::of_this_thread(), installed);
    keeping_errno("shutdown", || guard.shutdown());
    assert_eq!(State::of_this_thread(), before);
    assert_eq!(CHILDREN_SEEN.load(Ordering::Relaxed), 0, "no child of ours has sent a signal");
}

fn children_ignored(folder: &Path) {
    // SAFETY: sets dispositions.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    let before = State::of_this_thread();
    let guard = install(folder);
    cenotaph::capture("with children ignored").unwrap();
    State::of_this_thread().assert_same_but_crash_handlers(&before);
    end_monitor(folder);
    // The socket's other end is gone, and SIGPIPE would end the process.
    let _ = guard.flush(Duration::from_secs(1));
    drop(guard);
    assert_eq!(State::of_this_thread(), before);
}

/// A runtime's: passes over an instruction of three bytes, and makes a mess of `errno`.
extern "C" fn pass_over(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's context; this thread's errno.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] += 3;
    }
}

fn earlier_handler_goes_on(folder: &Path) {
    make_unusual();
    // SAFETY: installs a handler of the form that its flags say.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = pass_over as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut());
    }
    let before = State::of_this_thread();
    let guard = config(folder).chain_first().install().unwrap();
    let installed = State::of_this_thread();
    for _ in 0..100 {
        keeping_errno("the handler", || {
            // SAFETY: a write to an address where nothing is, which the runtime passes over.
            unsafe { std::arch::asm!("mov byte ptr [rax], 0", in("rax") 16) };
        });
    }
    assert_eq!(State::of_this_thread(), installed);
    drop(guard);
    assert_eq!(State::of_this_thread(), before);
    assert_eq!(CHILDREN_SEEN.load(Ordering::Relaxed), 0);
}

/// On a thread that nobody gave an alternate stack: it gets one, and it goes.
fn stack_of_its_own(folder: &Path) {
    let folder = folder.to_owned();
    native_thread(move || {
        let before = State::of_this_thread();
        assert!(!before.has_alternate_stack());
        for _ in 0..3 {
            let guard = install(&folder);
            assert!(State::of_this_thread().has_alternate_stack());
            guard.shutdown();
            assert_eq!(State::of_this_thread(), before);
        }
        // What a thread asked for itself is its own.
        cenotaph::protect_thread().unwrap();
        let protected = State::of_this_thread();
        install(&folder).shutdown();
        assert_eq!(State::of_this_thread(), protected);
        assert!(protected.has_alternate_stack());
    })
    .join();
}

/// What a program finds that this one executes: descriptors, environment, signals, limits.
fn inheritance() -> Vec<String> {
    let of = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let status = of("cat", &["/proc/self/status"]);
    let kept = ["Sig", "Shd", "NoNewPrivs", "Seccomp", "CoreDumping", "Umask", "Groups", "Cap"];
    let mut found: Vec<String> = status
        .lines()
        .filter(|line| kept.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect();
    // How many signals of this user wait is everybody's.
    found.retain(|line| !line.starts_with("SigQ"));
    found.push(of("ls", &["/proc/self/fd"]));
    found.push(of("env", &[]));
    for file in ["limits", "coredump_filter", "oom_score_adj", "cgroup", "personality", "timerslack_ns"] {
        if Path::new("/proc/self").join(file).exists() {
            found.push(of("cat", &[&format!("/proc/self/{file}")]));
        }
    }
    found
}

/// Lines of one and not of the other. (All of them together are the environment of whoever runs the tests.)
fn assert_inherits(before: &[String]) {
    let lines = |texts: &[String]| -> Vec<String> {
        texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect()
    };
    let (before, now) = (lines(before), lines(&inheritance()));
    let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
    let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
    assert!(before == now, "no more: {gone:?}, new: {new:?}");
}

fn programs_inherit_nothing(folder: &Path) {
    make_unusual();
    let before = inheritance();
    // What is inherited is seen.
    // SAFETY: a copy that is not closed on exec, and closed here.
    unsafe {
        let copy = libc::dup(0);
        assert!(inheritance() != before);
        libc::close(copy);
    }
    let guard = install(folder);
    assert_inherits(&before);
    cenotaph::capture("with children").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_inherits(&before));
    });
    // What dies among them is nobody of ours.
    let status = Command::new("sh").args(["-c", "kill -SEGV $$"]).status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    drop(guard);
    assert_inherits(&before);
}

/// The other program dies once the monitor has ended, which has seen that it is nobody of its own. (Of one that dies before the
/// monitor has looked it cannot tell whose end that is.)
fn becomes_another_program(folder: &Path) {
    const SCRIPT: &str = "while grep -q . /proc/$0/cmdline 2>/dev/null; do :; done; kill -SEGV $$";
    let guard = install(folder);
    wait_for("the monitor", || (guard.status().monitor == Monitor::Ready).then_some(()));
    let monitor = monitors(folder).into_iter().min().unwrap();
    mem::forget(guard);
    panic!("{}", Command::new("sh").args(["-c", SCRIPT, &monitor.to_string()]).exec());
}

fn waits_for_any_child(folder: &Path) {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let (reader, writer) = std::io::pipe().unwrap();
    // SAFETY: one thread; the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above: until its parent closes the pipe, or is dead.
        unsafe {
            libc::close(writer.as_raw_fd());
            let mut byte = 0_u8;
            libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
    }
    let seen = Mutex::new(Vec::new());
    let wait = |flags| {
        // SAFETY: asks for any child.
        let pid = unsafe { libc::waitpid(-1, ptr::null_mut(), flags) };
        if pid != 0 {
            seen.lock().unwrap().push((pid, std::io::Error::last_os_error().raw_os_error()));
        }
        pid
    };
    std::thread::scope(|scope| {
        // One that sleeps in it, and one that asks all the time.
        let sleeper = scope.spawn(|| wait(0));
        let asker = scope.spawn(|| {
            while !ENOUGH.load(Ordering::Relaxed) && wait(libc::WNOHANG) == 0 {
                std::thread::yield_now();
            }
        });
        let guard = install(folder);
        cenotaph::capture("while waiting").unwrap();
        end_monitor(folder);
        cenotaph::capture("by another monitor").unwrap();
        assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
        ENOUGH.store(true, Ordering::Relaxed);
        asker.join().unwrap();
        drop(writer);
        assert_eq!(sleeper.join().unwrap(), child);
        assert_eq!((wait(0), wait(libc::WNOHANG)), (-1, -1));
        let seen: Vec<i32> = seen.lock().unwrap().iter().map(|(pid, _)| *pid).collect();
        assert_eq!(seen, [child, -1, -1]);
        mem::forget(guard);
    });
    // And a third one, started by the handler.
    end_monitor(folder);
    fault();
}

fn close_everything(folder: &Path) -> Vec<File> {
    // SAFETY: what a daemon does. Nothing in this program owns a descriptor but Cenotaph.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    // The application's own come to lie where Cenotaph's were.
    let own = File::create(folder.join("own")).unwrap();
    let number = |at| {
        // SAFETY: a copy at a number of which nothing is known to be open.
        unsafe { libc::dup2(own.as_raw_fd(), at) };
    };
    (900..1024).for_each(number);
    let mut all: Vec<File> = (0..16).map(|_| own.as_fd().try_clone_to_owned().unwrap().into()).collect();
    all.push(own);
    all[0].write_all(b"mine").unwrap();
    all
}

fn closes_everything(folder: &Path) {
    let guard = install(folder);
    wait_for("the monitor", || (guard.status().monitor == Monitor::Ready).then_some(()));
    mem::forget(guard);
    closes_everything_at_once(folder);
}

/// Of a process that its monitor, which is still starting, does not get to see alive, as well.
fn closes_everything_at_once(folder: &Path) {
    let _ = config(folder).install().map(mem::forget);
    let all = close_everything(folder);
    fault();
    drop(all);
}

fn closes_everything_late(folder: &Path) {
    mem::forget(install(folder));
    end_monitor(folder);
    mem::forget(close_everything(folder));
    assert!(cenotaph::capture("nobody is there").is_err());
    fault();
}

/// A thread that was there before, without an alternate stack, and that does `deed` once it is protected.
fn older_thread(folder: &Path, deed: fn()) {
    static READY: Barrier = Barrier::new(2);
    static INSTALLED: Barrier = Barrier::new(2);
    let thread = native_thread(move || {
        assert!(!State::of_this_thread().has_alternate_stack());
        READY.wait();
        INSTALLED.wait();
        cenotaph::protect_thread().unwrap();
        assert!(State::of_this_thread().has_alternate_stack());
        deed();
    });
    READY.wait();
    mem::forget(install(folder));
    INSTALLED.wait();
    thread.join();
}

fn older_thread_crashes(folder: &Path) {
    older_thread(folder, fault);
}

fn older_thread_overflows(folder: &Path) {
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 64]);
        if depth == u64::MAX { 0 } else { deeper(depth + 1) + room[(depth % 64) as usize] }
    }
    older_thread(folder, || {
        std::hint::black_box(deeper(0));
    });
}

fn installed_twice(folder: &Path) {
    let guard = install(folder);
    let before = State::of_this_thread();
    assert!(matches!(config(folder).install(), Err(Error::AlreadyInstalled)));
    assert_eq!(State::of_this_thread(), before, "the second one has changed nothing");
    mem::forget(guard);
    fault();
}

fn installed_twice_at_once(folder: &Path) {
    let together = Barrier::new(8);
    let installed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                match config(folder).install() {
                    Ok(guard) => {
                        installed.fetch_add(1, Ordering::Relaxed);
                        mem::forget(guard);
                    }
                    Err(error) => assert!(matches!(error, Error::AlreadyInstalled), "{error}"),
                }
            });
        }
    });
    assert_eq!(installed.load(Ordering::Relaxed), 1);
    fault();
}

fn other_version(folder: &Path) {
    let helper = env::current_exe().unwrap();
    let guard = config(folder).helper(helper).install().unwrap();
    wait_for("its answer", || (guard.status().monitor == Monitor::OtherVersion).then_some(()));
    assert!(cenotaph::capture("to a helper of another version").is_err());
    assert_eq!(guard.status().monitor, Monitor::OtherVersion);
    mem::forget(guard);
    fault();
}

/// With a monitor of its own version again. Ends when that has told of the record.
fn next_start(folder: &Path) {
    let guard = install(folder);
    wait_for("its report", || (guard.status().spooled == 1).then_some(()));
}

/// Whether this is the helper of `other_version`: the monitor of this version, told that its launcher is of another one. The
/// first message is handed on with the settings' protocol changed.
fn old_helper() -> bool {
    let is_helper = env::var_os("APPLICATION").is_some_and(|name| name == "a-helper-of-another-version");
    if !is_helper || env::var_os("CENOTAPH_ROLE").is_none() {
        return false;
    }
    let (bytes, mut fds) = kept_state::receive(3);
    let mut settings = String::new();
    let mut file = File::from(fds.remove(0));
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut settings).unwrap();
    let (head, rest) = settings.split_once("\"protocol\":").unwrap();
    let number = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
    let mut changed = tempfile::tempfile().unwrap();
    changed.write_all(format!("{head}\"protocol\":77{}", &rest[number..]).as_bytes()).unwrap();
    let (ours, theirs) = kept_state::pair();
    fds.insert(0, changed.into());
    kept_state::send(&ours, &bytes, &fds);
    // SAFETY: the number that a monitor looks at; the copy is not closed on exec.
    assert_eq!(unsafe { libc::dup2(theirs.as_raw_fd(), 3) }, 3);
    panic!("{}", Command::new(env::current_exe().unwrap()).env_remove("APPLICATION").exec());
}
