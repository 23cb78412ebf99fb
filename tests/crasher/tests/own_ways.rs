//! Applications that use what the crasher has no option for: secret memory, hooks of their own, panics that come again.
//!
//! No test harness: the program executes itself, once as each application, and those become monitors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::hint::black_box;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, mem, ptr};

use cenotaph::privacy::ConsentPolicy;
use cenotaph::report::{Reason, Report};
use cenotaph::scrub::Receipt;
use cenotaph::spool::{LocalKey, Part, PartKind, Spool, container};
use cenotaph::{Config, Guard, ReleaseAt};

type Application = fn(&Path);

/// Name, what it does, and how it ends: a signal, or an exit code below 0.
const APPLICATIONS: [(&str, Application, i32); 9] = [
    ("secret-heap-and-stack", secret_heap_and_stack, libc::SIGSEGV),
    ("secret-in-a-record", secret_in_a_record, libc::SIGSEGV),
    ("secret-taken-back", secret_taken_back, libc::SIGSEGV),
    ("panics-again", panics_again, 0),
    ("panics-again-and-aborts", panics_again_and_aborts, libc::SIGABRT),
    ("panics-twice-unseen", panics_twice_unseen, libc::SIGABRT),
    ("panics-twice-slowly", panics_twice_slowly, libc::SIGABRT),
    ("hook-aborts", hook_aborts, libc::SIGABRT),
    ("hook-panics", hook_panics, libc::SIGABRT),
];

/// Bytes that no rule would find: every second of them is no text.
const CANARY: [u8; 16] = *b"\x91K\x02V\xfeQ\x81X\x9cJ\x07Z\xf3W\x88H";
/// Text without any form, in secret memory and, as a copy, outside.
const WORD: &str = "plumbersaltpigeon";

fn main() {
    cenotaph::monitor_entry();
    if let (Some(name), Some(folder)) = (env::var_os("APPLICATION"), env::var_os("FOLDER")) {
        let (_, run, _) = APPLICATIONS.into_iter().find(|(known, ..)| name == *known).unwrap();
        return run(Path::new(&folder));
    }
    let only: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, _, ending) in APPLICATIONS {
        if !only.is_empty() && !only.iter().any(|only| name.contains(only.as_str())) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.env("APPLICATION", name).env("FOLDER", folder.path()).current_dir("/");
        no_core(&mut command);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal().unwrap_or(0), ending, "{name}: {said}");
        check(name, folder.path());
        println!("{name} ok");
    }
}

fn check(name: &str, folder: &Path) {
    match name {
        "secret-heap-and-stack" => {
            let parts = one(folder);
            let dump = bytes_of(&parts, PartKind::Minidump);
            assert!(!holds(dump, &CANARY) && !holds(dump, &CANARY[8..]), "secret memory is in the dump");
            assert!(!holds(dump, WORD.as_bytes()), "a copy of secret text is in the dump");
            let receipt: Receipt = serde_json::from_slice(bytes_of(&parts, PartKind::Receipt)).unwrap();
            let hidden: Vec<_> =
                receipt.entries.iter().filter(|entry| entry.rule == "secret-range").collect();
            assert!(hidden.len() >= 2, "{hidden:?}");
            for entry in hidden {
                let range = entry.offset as usize..(entry.offset + entry.length) as usize;
                assert!(dump[range].iter().all(|&byte| byte == 0));
            }
        }
        "secret-taken-back" => {
            let parts = one(folder);
            assert!(holds(bytes_of(&parts, PartKind::Minidump), &CANARY), "the test can fail");
        }
        "secret-in-a-record" => {
            let found = records(folder);
            assert_eq!(found.len(), 2, "one with, one without: {found:?}");
            let words: Vec<usize> =
                found.iter().map(|path| words_between(&fs::read(path).unwrap())).collect();
            assert!(words[0] > 20 && words[1] < words[0], "{words:?}");
        }
        "panics-again" => {
            let messages = messages(folder);
            assert_eq!(messages, ["first", "second", "third"], "each of them was caught");
        }
        "panics-again-and-aborts" => assert_eq!(messages(folder), ["first", "second", "third of three"]),
        "panics-twice-slowly" => assert_eq!(messages(folder), ["first of two"]),
        "panics-twice-unseen" => {
            let found = records(folder);
            assert_eq!(found.len(), 1, "{found:?}");
            let place = fs::read(folder.join("place")).unwrap();
            assert!(holds(&fs::read(&found[0]).unwrap(), &place), "the first one's");
        }
        "hook-aborts" | "hook-panics" => assert_eq!(messages(folder), ["the only one"]),
        _ => unreachable!(),
    }
}

fn install(folder: &Path) -> Guard {
    let config = Config::new("own", "1").spool(folder).consent(ConsentPolicy::NotRequired);
    let config = config.release_at(ReleaseAt::Spooled).linger(Duration::ZERO).reports_per_signature(u32::MAX);
    config.log(folder.join("log")).install().unwrap()
}

fn fault() {
    // SAFETY: none: the process is to die.
    unsafe { ptr::null_mut::<u8>().write_volatile(1) };
}

/// Both pointed to from the crashing frame.
fn secret_heap_and_stack(folder: &Path) {
    mem::forget(install(folder));
    let mut heap = vec![7_u8; 256].into_boxed_slice();
    plant(&mut heap[64..80], &CANARY);
    heap[96..96 + WORD.len()].copy_from_slice(WORD.as_bytes());
    let copy = black_box(format!("a copy of {WORD}"));
    let mut stack = [0; 16];
    plant(black_box(&mut stack), &CANARY);
    cenotaph::register_secret_range(heap[64..].as_ptr(), 64).unwrap();
    cenotaph::register_secret_range(stack.as_ptr(), stack.len()).unwrap();
    let pointers = black_box([heap.as_ptr(), copy.as_ptr(), stack.as_ptr()]);
    fault();
    black_box((pointers, copy, heap, stack));
}

/// Without a copy of all of it anywhere else.
#[inline(never)]
fn plant(place: &mut [u8], bytes: &[u8]) {
    for (place, byte) in place.iter_mut().zip(bytes) {
        // SAFETY: a byte of this program's, one at a time.
        unsafe { ptr::from_mut(place).write_volatile(*byte) };
    }
}

fn secret_taken_back(folder: &Path) {
    mem::forget(install(folder));
    let mut stack = [0; 16];
    plant(black_box(&mut stack), &CANARY);
    cenotaph::register_secret_range(stack.as_ptr(), stack.len()).unwrap();
    cenotaph::unregister_secret_range(stack.as_ptr(), stack.len()).unwrap();
    assert!(cenotaph::register_secret_range(stack.as_ptr(), 0).is_err());
    assert!(cenotaph::register_secret_range(ptr::null(), 1).is_err());
    assert!(cenotaph::register_secret_range(stack.as_ptr(), usize::MAX).is_err());
    fault();
    black_box(stack);
}

/// No monitor, and no program to make one of: a panic leaves a record, then a fault leaves another, before which most of
/// the stack was registered as secret.
fn secret_in_a_record(folder: &Path) {
    let guard = install(folder);
    let marker = 0_u64;
    let here = black_box(&raw const marker).cast::<u8>();
    cenotaph_gone(&guard);
    let panicked = panic::catch_unwind(|| panic!("leaves a record"));
    assert!(panicked.is_err());
    cenotaph::register_secret_range(here.wrapping_sub(8), 16 << 10).unwrap();
    mem::forget(guard);
    fault();
}

/// Kills the monitor, and has the kernel refuse any other.
fn cenotaph_gone(guard: &Guard) {
    let step = |code: u32, k: u32, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_execve as u32, 1, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_execveat as u32, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let monitor = wait_for("the monitor", own_monitor);
    // SAFETY: signals a process found just now; a filter that outlives the call.
    unsafe {
        libc::kill(monitor, libc::SIGKILL);
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
    }
    wait_for("its end", || (guard.status().monitor == cenotaph::Monitor::Gone).then_some(()));
}

/// A process named `cenotaph` with our very arguments and folder, whose parent is none of the same kind.
fn own_monitor() -> Option<i32> {
    let folder = format!("FOLDER={}", env::var("FOLDER").unwrap());
    let entries = fs::read_dir("/proc").ok()?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let own: Vec<(i32, i32)> = pids
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (head, rest) = stat.rsplit_once(") ")?;
            let parent = rest.split(' ').nth(1)?.parse().ok()?;
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let ours = environment.split(|&byte| byte == 0).any(|word| word == folder.as_bytes());
            // Not readable to an ordinary user, as it is not dumpable: then by its arguments.
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let same = arguments == fs::read("/proc/self/cmdline").ok()?;
            (head.ends_with("(cenotaph") && (ours || environment.is_empty()) && same).then_some((pid, parent))
        })
        .collect();
    let worker = own.iter().find(|(_, parent)| own.iter().any(|(pid, _)| pid == parent))?;
    Some(worker.1)
}

fn panics_again(folder: &Path) {
    let _guard = install(folder);
    for message in ["first", "second", "third"] {
        assert!(panic::catch_unwind(|| panic!("{message}")).is_err());
    }
}

struct PanicsWhenDropped(&'static str);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

/// Two that were caught, then two at once: the last of four is no event of its own.
fn panics_again_and_aborts(folder: &Path) {
    mem::forget(install(folder));
    for message in ["first", "second"] {
        assert!(panic::catch_unwind(|| panic!("{message}")).is_err());
    }
    let _ = panic::catch_unwind(AssertUnwindSafe(|| {
        let _dropped = PanicsWhenDropped("fourth");
        panic!("third of three");
    }));
}

/// Neither can be reported: what is left is one record.
fn panics_twice_unseen(folder: &Path) {
    let place = folder.join("place");
    let is_first = AtomicBool::new(true);
    panic::set_hook(Box::new(move |information| {
        if is_first.swap(false, Ordering::Relaxed) {
            fs::write(&place, format!("own_ways.rs:{}:", information.location().unwrap().line())).unwrap();
        }
    }));
    let guard = install(folder);
    cenotaph_gone(&guard);
    mem::forget(guard);
    let _dropped = PanicsWhenDropped("second of two");
    panic!("first of two");
}

/// The hook is at the second one for longer than a monitor waits for what comes behind hooks.
fn panics_twice_slowly(folder: &Path) {
    panic::set_hook(Box::new(|information| {
        if information.payload_as_str() == Some("second of two") {
            std::thread::sleep(Duration::from_secs(3));
        }
    }));
    mem::forget(install(folder));
    let _dropped = PanicsWhenDropped("second of two");
    panic!("first of two");
}

fn hook_aborts(folder: &Path) {
    panic::set_hook(Box::new(|_| std::process::abort()));
    mem::forget(install(folder));
    panic!("the only one");
}

fn hook_panics(folder: &Path) {
    panic::set_hook(Box::new(|_| panic!("in the hook")));
    mem::forget(install(folder));
    panic!("the only one");
}

/// The parts of the only report.
fn one(folder: &Path) -> Vec<Part> {
    let mut all = all(folder);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn all(folder: &Path) -> Vec<Vec<Part>> {
    // Its monitor commits what the application did not wait for, then ends.
    wait_for("the monitor's end", || own_ended(folder).then_some(()));
    let key = LocalKey::load(folder).unwrap().unwrap();
    let mut items = Spool::new(folder).list().unwrap();
    items.sort_by(|a, b| a.path.cmp(&b.path));
    items.iter().map(|item| container::open(&fs::read(&item.path).unwrap(), &key).unwrap()).collect()
}

fn own_ended(folder: &Path) -> bool {
    let folder = format!("FOLDER={}", folder.display());
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    !entries.flatten().any(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let environment = fs::read(entry.path().join("environ"));
        let ours = |bytes: Vec<u8>| bytes.split(|&byte| byte == 0).any(|word| word == folder.as_bytes());
        let same = || fs::read(entry.path().join("cmdline")).ok() == fs::read("/proc/self/cmdline").ok();
        name.trim() == "cenotaph" && environment.map_or_else(|_| same(), ours)
    })
}

/// The messages of all panics that were reported, oldest first. Nothing else was.
fn messages(folder: &Path) -> Vec<String> {
    let mut reports: Vec<Report> = all(folder)
        .iter()
        .map(|parts| serde_json::from_slice(bytes_of(parts, PartKind::Report)).unwrap())
        .collect();
    reports.sort_by_key(|report| report.time_ms);
    let message = |report: &Report| match &report.reason {
        Reason::Panic { message, .. } => message.clone(),
        other => panic!("{other:?}"),
    };
    reports.iter().map(message).collect()
}

fn bytes_of(parts: &[Part], kind: PartKind) -> &[u8] {
    &parts.iter().find(|part| part.kind == kind).unwrap().bytes
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

fn records(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder.join("last-words")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Words of a record's stack that are not zero: 64 KiB before the checksum.
fn words_between(record: &[u8]) -> usize {
    let end = record.len() - 8;
    let (words, _) = record[end - 64 * 1024..end].as_chunks::<8>();
    words.iter().filter(|word| **word != [0; 8]).count()
}

fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn no_core(command: &mut Command) {
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            Ok(())
        });
    }
}
