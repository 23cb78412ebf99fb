//! What applications do with signal handlers, and what Cenotaph's do about it: lost flags, choice of signals, earlier handlers
//! that come first, processes that are not dumpable, and leaving everything as it was.
//!
//! No test harness: the program executes itself, once as each application, and those become monitors.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, mem, ptr};

use cenotaph::privacy::ConsentPolicy;
use cenotaph::spool::{LocalKey, PartKind, container};
use cenotaph::{Config, ReleaseAt};
use serde_json::Value;

#[path = "support/applications.rs"]
mod applications;

use applications::Watched;

/// Name, application, the signal that ends it, and what its one report says of the reason, if there is one.
type Way = (&'static str, fn(&Path), Option<i32>, Option<&'static str>);

const WAYS: [Way; 11] = [
    ("siginfo-lost", siginfo_lost, Some(libc::SIGSEGV), Some(r#""number":11,"code":1,"address":16"#)),
    ("siginfo-lost-abort", siginfo_lost_abort, Some(libc::SIGABRT), Some(r#""number":6,"code":-6"#)),
    ("not-wanted", not_wanted, Some(libc::SIGSEGV), None),
    ("on-request", on_request, Some(libc::SIGQUIT), Some(r#""number":3,"code":-6"#)),
    ("not-on-request", not_on_request, Some(libc::SIGQUIT), None),
    ("ignored-on-request", ignored_on_request, None, None),
    ("chain-first-handled", chain_first_handled, None, None),
    (
        "chain-first-crash",
        chain_first_crash,
        Some(libc::SIGSEGV),
        Some(r#""number":11,"code":1,"address":16"#),
    ),
    ("undumpable", undumpable, Some(libc::SIGSEGV), Some(r#""number":11"#)),
    ("undumpable-capture", undumpable_capture, None, Some(r#""requested""#)),
    ("as-it-was", as_it_was, None, None),
];

fn main() {
    cenotaph::monitor_entry();
    if let (Some(way), Some(folder)) = (env::var_os("WAY"), env::var_os("FOLDER")) {
        let (_, run, ..) = WAYS.into_iter().find(|(name, ..)| way == *name).unwrap();
        return run(Path::new(&folder));
    }
    // A shell's background jobs are started with it ignored.
    // SAFETY: sets a disposition.
    unsafe { libc::signal(libc::SIGQUIT, libc::SIG_DFL) };
    for (way, _, signal, reason) in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.env("WAY", way).env("FOLDER", folder.path());
        let watched = Watched::on(&mut command);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), signal, "{way}: {said}");
        assert!(signal.is_some() || output.status.success(), "{way}: {said}");
        let reports = reports(folder.path());
        assert_eq!(reports.len(), usize::from(reason.is_some()), "{way}: {said}");
        if let Some(reason) = reason {
            let found = reports[0]["reason"].to_string();
            // Keys are sorted; the numbers are what is compared.
            let parts = reason.split(',').all(|part| found.contains(part));
            assert!(parts && reports[0]["detail"] == "minidump", "{way}: {found} {}", reports[0]["notes"]);
        }
        assert_eq!(watched.check(folder.path()), reports.len(), "{way}: dumps compared with their receipts");
        println!("{way} ok");
    }
}

fn reports(spool: &Path) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(spool.join("pending")) else { return Vec::new() };
    let key = LocalKey::load(spool).unwrap().unwrap();
    let report = |entry: Result<fs::DirEntry, _>| {
        let sealed = fs::read(entry.unwrap().path()).unwrap();
        let part = container::read_part(&sealed, PartKind::Report, &key).unwrap().unwrap();
        serde_json::from_slice(&part.bytes).unwrap()
    };
    entries.map(report).collect()
}

fn config(folder: &Path) -> Config {
    let config = Config::new("handlers", "1").spool(folder).consent(ConsentPolicy::NotRequired);
    config.release_at(ReleaseAt::Spooled).linger(Duration::ZERO)
}

fn install(config: Config) {
    mem::forget(config.install().unwrap());
}

fn fault() {
    // SAFETY: none: the process is to die.
    unsafe { (16 as *mut u8).write_volatile(1) };
}

/// What a library does that keeps a handler in the old form, and puts it back.
fn lose_siginfo(signal: i32) {
    // SAFETY: asks for the handler and installs it again, without flags.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut action);
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

fn siginfo_lost(folder: &Path) {
    install(config(folder));
    lose_siginfo(libc::SIGSEGV);
    fault();
}

fn siginfo_lost_abort(folder: &Path) {
    install(config(folder));
    lose_siginfo(libc::SIGABRT);
    std::process::abort();
}

fn not_wanted(folder: &Path) {
    install(config(folder).signal(libc::SIGSEGV, false));
    fault();
}

fn raise(signal: i32) {
    // SAFETY: plain values.
    unsafe { libc::raise(signal) };
}

fn on_request(folder: &Path) {
    install(config(folder).signal(libc::SIGQUIT, true));
    raise(libc::SIGQUIT);
}

fn not_on_request(folder: &Path) {
    install(config(folder));
    raise(libc::SIGQUIT);
}

fn ignored_on_request(folder: &Path) {
    // SAFETY: sets a disposition.
    unsafe { libc::signal(libc::SIGQUIT, libc::SIG_IGN) };
    install(config(folder).signal(libc::SIGQUIT, true));
    raise(libc::SIGQUIT);
}

/// A runtime's: passes over an instruction that it knows, and has anything else end the process.
extern "C" fn runtime(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's context; the instruction at the place is readable, as it was executed.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let place = registers[libc::REG_RIP as usize];
        // mov byte ptr [rax], 0
        if (place as *const [u8; 3]).read_unaligned() == [0xc6, 0x00, 0x00] {
            registers[libc::REG_RIP as usize] = place + 3;
        } else {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

fn with_runtime(folder: &Path) {
    // SAFETY: installs a handler of the form that its flags say.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = runtime as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut());
    }
    install(config(folder).chain_first());
}

fn chain_first_handled(folder: &Path) {
    with_runtime(folder);
    for _ in 0..100 {
        // SAFETY: a write to an address where nothing is, which the runtime passes over.
        unsafe { std::arch::asm!("mov byte ptr [rax], 0", in("rax") 16) };
    }
}

fn chain_first_crash(folder: &Path) {
    with_runtime(folder);
    fault();
}

fn dumpable() -> i32 {
    // SAFETY: plain values.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }
}

fn make_undumpable() {
    // SAFETY: plain values.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

fn undumpable(folder: &Path) {
    install(config(folder));
    make_undumpable();
    fault();
}

fn undumpable_capture(folder: &Path) {
    install(config(folder));
    make_undumpable();
    cenotaph::capture("of an undumpable process").unwrap();
    assert_eq!(dumpable(), 0);
}

/// Handlers, alternate stack, descriptors.
fn state() -> (Vec<(usize, i32)>, usize, Vec<String>) {
    let handlers = (1..32).map(|signal| {
        // SAFETY: asks only.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            libc::sigaction(signal, ptr::null(), &raw mut action);
            // Set by the C library in whatever it installs.
            (action.sa_sigaction, action.sa_flags & !0x0400_0000)
        }
    });
    // SAFETY: asks only.
    let stack = unsafe {
        let mut stack: libc::stack_t = mem::zeroed();
        libc::sigaltstack(ptr::null(), &raw mut stack);
        stack.ss_sp as usize
    };
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    // The one that reads this folder is gone by the time that it is looked at.
    let numbers = descriptors.map(|entry| entry.unwrap().path());
    let open = numbers.filter_map(|path| fs::read_link(path).ok()).map(|link| link.display().to_string());
    (handlers.collect(), stack, open.filter(|name| !name.contains("/fd")).collect())
}

fn as_it_was(folder: &Path) {
    let before = state();
    let guard = config(folder).install().unwrap();
    assert_ne!(state(), before);
    guard.shutdown();
    assert_eq!(state(), before);
    // Once more, and dropped.
    drop(config(folder).signal(libc::SIGXCPU, true).install().unwrap());
    assert_eq!(state(), before);
}
