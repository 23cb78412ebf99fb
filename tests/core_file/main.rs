//! A core file, of the kernel or of gdb, gives the view that the process itself would have given, and its dump has the
//! frames that gdb finds in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cenotaph::dump::binaries::FileBinaries;
use cenotaph::dump::linux_writer::{self, Limits};
use cenotaph::dump::{Layout, unwind};
use cenotaph::target::{Request, SymbolKind, Target};
use tempfile::TempDir;

mod hostile;
#[path = "../../src/dump/oracle.rs"]
#[allow(dead_code, reason = "each test program uses its part")]
mod oracle;

/// Three threads wait at different depths, the first one writes to address 0x1230, or waits if it has an argument.
const SOURCE: &str = r#"
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
static pthread_barrier_t barrier;
struct account { char name[16]; char password[16]; int level; };
struct account account = { "player", "correct horse", 7 };
#define KEPT __attribute__((noinline))
#define HERE __asm__ volatile("")
KEPT static void wait_here(int depth) {
  if (depth) wait_here(depth - 1); else { pthread_barrier_wait(&barrier); pause(); } HERE; }
static void *worker(void *depth) { wait_here((int)(long)depth); return 0; }
KEPT void inner(volatile int *p) { *p = account.level; HERE; }
KEPT void middle(int depth, volatile int *p) { if (depth) middle(depth - 1, p); else inner(p); HERE; }
int main(int argc, char **argv) {
  pthread_barrier_init(&barrier, 0, 4);
  for (long i = 1; i < 4; i++) { pthread_t t; pthread_create(&t, 0, worker, (void *)i); }
  pthread_barrier_wait(&barrier);
  if (argc > 1) { write(1, "!", 1); pause(); }
  middle(4, (int *)0x1230);
  return 0;
}
"#;
const FAULT: u64 = 0x1230;

struct Program {
    folder: TempDir,
    path: PathBuf,
}

impl Program {
    fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (source, path) = (folder.path().join("victim.c"), folder.path().join("victim"));
        std::fs::write(&source, SOURCE).unwrap();
        let built = Command::new("cc")
            .args([
                "-g",
                "-O0",
                "-w",
                "-pthread",
                "-rdynamic",
                "-fno-omit-frame-pointer",
                "-fno-optimize-sibling-calls",
                "-o",
            ])
            .args([&path, &source])
            .status();
        assert!(built.expect("a C compiler").success());
        Self { folder, path }
    }

    /// gdb's output for these commands.
    fn gdb(&self, commands: &[&str], more: &[&Path]) -> String {
        let mut gdb = Command::new("gdb");
        gdb.current_dir(self.folder.path()).args(["-batch", "-nx"]);
        for command in
            ["set backtrace past-main on", "set backtrace past-entry on", "set debuginfod enabled off"]
        {
            gdb.args(["-ex", command]);
        }
        gdb.args(commands.iter().flat_map(|command| ["-ex", command]));
        let output = gdb.arg(&self.path).args(more).output().expect("gdb");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What the kernel leaves behind; `None` if this machine's pattern takes core files elsewhere.
    fn kernel_core(&self) -> Option<PathBuf> {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        if pattern.starts_with(['|', '/', '@']) {
            println!("core files go to {}: only those of gdb are looked at", pattern.trim());
            return None;
        }
        let script = "ulimit -c unlimited && exec \"$0\"";
        let status = Command::new("sh")
            .args(["-c", script])
            .arg(&self.path)
            .current_dir(self.folder.path())
            .status()
            .unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert!(status.core_dumped(), "{status}");
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path());
        let stem = pattern.trim().split('%').next().unwrap().to_owned();
        files.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&stem))
    }

    /// What gdb writes where the program crashed.
    fn gdb_core(&self) -> PathBuf {
        let path = self.folder.path().join("by-gdb");
        self.gdb(&["run", "generate-core-file by-gdb"], &[]);
        path
    }

    fn waiting(&self) -> Waiting {
        let mut child =
            Command::new(&self.path).args(["wait", "second"]).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Waiting(child)
    }
}

struct Waiting(Child);

impl Waiting {
    /// What gdb writes while it lives.
    fn core(&self, program: &Program) -> PathBuf {
        let path = program.folder.path().join("alive");
        let attached = Command::new("gdb")
            .args(["-batch", "-nx", "-p", &self.0.id().to_string(), "-ex"])
            .arg(format!("generate-core-file {}", path.display()))
            .output()
            .unwrap();
        assert!(attached.status.success());
        path
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// Thread ids and program counters of each frame, by gdb, in order of thread ids.
fn frames_by_gdb(program: &Program, core: &Path) -> Vec<(u32, Vec<u64>)> {
    let text =
        program.gdb(&["thread apply all frame apply all -q printf \"PC %lx %lx\\n\", $pc, $sp"], &[core]);
    let (mut threads, mut last): (Vec<(u32, Vec<u64>)>, _) = (Vec::new(), None);
    for line in text.lines() {
        if let Some((_, id)) = line.split_once("LWP ").filter(|_| line.starts_with("Thread ")) {
            threads.push((id.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap(), Vec::new()));
        } else if let Some(registers) = line.strip_prefix("PC ") {
            let (pc, _) = registers.split_once(' ').unwrap();
            // Inlined functions have frames of their own there, with the same registers.
            if last != Some(registers) {
                threads.last_mut().expect(&text).1.push(u64::from_str_radix(pc, 16).unwrap());
            }
            last = Some(registers);
        }
    }
    threads.sort();
    assert_eq!(threads.len(), 4, "{text}");
    threads
}

/// By our unwinder, and of the crashing thread by rust-minidump.
type Frames = (Vec<(u32, Vec<u64>)>, Vec<u64>);

fn frames(dump: &[u8]) -> Frames {
    let layout = Layout::parse(dump).unwrap();
    let trace = unwind::stack_trace(dump, &layout, &FileBinaries::new()).unwrap();
    // Behind the first frame the report has the address before the one that is returned to.
    let pcs = |frames: &[cenotaph::report::Frame]| {
        frames.iter().enumerate().map(|(i, frame)| frame.instruction + u64::from(i > 0)).collect::<Vec<_>>()
    };
    let mut ours: Vec<_> = trace.threads.iter().map(|thread| (thread.id, pcs(&thread.frames))).collect();
    ours.sort();
    let state = oracle::process(dump);
    let crashed = &state.threads[state.requesting_thread.unwrap_or(0)];
    (ours, crashed.frames.iter().map(|frame| frame.resume_address).collect())
}

fn crashed_as_it_did(program: &Program, core: &Path) {
    let target = Target::from_core(core).unwrap();
    let crash = target.crash.as_ref().expect("a crash");
    assert_eq!((crash.siginfo.ssi_signo, crash.siginfo.ssi_code), (libc::SIGSEGV as u32, 1));
    assert_eq!(crash.siginfo.ssi_addr, FAULT);
    assert_eq!((target.threads.len(), target.tid), (4, target.pid));
    assert_eq!(target.crashed().unwrap().name.as_deref(), Some("victim"));
    assert!(target.notes.iter().all(|note| !note.contains("neither")), "{:?}", target.notes);
    assert_eq!(target.modules[0].path, program.path.to_str().unwrap());
    let pc = target.crashed().unwrap().registers.as_ref().unwrap().rip;
    assert_eq!(crash.context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64, pc);
    assert!(cenotaph::target::find(&target.maps, pc).unwrap().executable);
    let start_up = target.start_up.clone().expect("the strings it was started with");
    let read =
        |range: &std::ops::Range<u64>| target.memory().read(range.start, (range.end - range.start) as usize);
    assert_eq!(read(&start_up.arguments), [program.path.as_os_str().as_encoded_bytes(), b"\0"].concat());
    assert!(memchr::memmem::find(&read(&start_up.environment), b"PATH=").is_some());
    // Code that the core file does not hold is read from the program on disk.
    assert_eq!(target.memory().read(pc, 1).len(), 1);

    let account = target.symbol("account").expect("a global");
    let text =
        program.gdb(&["printf \"ACCOUNT %lx\\n\", &account", "info symbol $pc", "info symbol read"], &[core]);
    assert!(text.contains(&format!("ACCOUNT {:x}\n", account.address)), "{text}");
    assert_eq!((account.module, account.size, account.kind), (0, 36, SymbolKind::Object));
    assert_eq!(target.memory().read_string(account.address + 16, 16).as_deref(), Some("correct horse"));
    assert_eq!(target.memory().read_i32(account.address + 32), Some(7));
    let (function, offset) = target.symbolize(pc).expect("the function that crashed");
    assert!(text.contains(&format!("{} + {offset} in section .text", function.name)), "{text}");
    // Zero-initialized, and of a library.
    let (environ, environment) = (target.symbol("environ").unwrap(), &start_up.environment);
    let variables = target.memory().read_pointer(environ.address).unwrap();
    assert_eq!(target.memory().read_pointer(variables), Some(environment.start));

    let taken = linux_writer::write(target, Limits::default()).unwrap();
    let expected = frames_by_gdb(program, core);
    let (ours, theirs) = frames(&taken.dump);
    assert_eq!(ours, expected, "by our unwinder");
    let crashed = taken_thread(&taken.dump);
    let expected = &expected.iter().find(|(id, _)| *id == crashed).unwrap().1;
    // inner, middle five times, main: what keeps frame pointers.
    assert_eq!(theirs[..7], expected[..7], "by rust-minidump");
}

fn taken_thread(dump: &[u8]) -> u32 {
    Layout::parse(dump).unwrap().exception.unwrap().thread_id
}

#[test]
fn of_the_kernel() {
    let program = Program::build();
    if let Some(core) = program.kernel_core() {
        crashed_as_it_did(&program, &core);
    }
}

#[test]
fn of_gdb() {
    let program = Program::build();
    crashed_as_it_did(&program, &program.gdb_core());
}

#[test]
fn of_a_process_that_lives_on_it_is_the_same() {
    let program = Program::build();
    let child = program.waiting();
    let (pid, core) = (child.0.id() as i32, child.core(&program));
    let live = Target::stop(Request::new(pid, pid, None)).unwrap();
    let dead = Target::from_core(&core).unwrap();
    assert!(dead.crash.is_none(), "the debugger's stop is no crash");
    assert_eq!((dead.pid, dead.tid), (live.pid, live.tid));
    let threads = |target: &Target| {
        let mut threads: Vec<_> = target
            .threads
            .iter()
            .map(|thread| {
                let r = thread.registers.clone().unwrap();
                (
                    thread.id,
                    [r.rip, r.rsp, r.rbp, r.rbx, r.r12],
                    r.traced,
                    r.float.unwrap().mxcsr,
                    thread.control_block,
                )
            })
            .collect();
        threads.sort_by_key(|thread| thread.0);
        threads
    };
    assert_eq!(threads(&dead), threads(&live));
    assert_eq!(dead.modules, live.modules);
    assert_eq!(dead.auxv, live.auxv);
    assert_eq!(dead.start_up, live.start_up);
    let files = |target: &Target| {
        let named = target.maps.iter().filter(|mapping| mapping.name.starts_with('/'));
        named
            .map(|m| (m.range.clone(), m.readable, m.writable, m.executable, m.offset, m.name.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(files(&dead), files(&live));
    // All memory that both have is the same but for the stacks, where the kernel and the debugger were.
    let mut compared = 0;
    for mapping in live.maps.iter().filter(|m| m.readable && m.name.starts_with('/')) {
        let length = (mapping.range.end - mapping.range.start) as usize;
        let (a, b) = (
            live.memory().read(mapping.range.start, length),
            dead.memory().read(mapping.range.start, length),
        );
        assert!(a[..b.len()] == b[..], "{:x?} {}", mapping.range, mapping.name);
        compared += b.len();
    }
    println!("{compared} bytes compared");
    assert!(compared > 2 << 20);
    let text = String::from_utf8(dead.maps_text.clone()).unwrap();
    assert!(text.contains("[stack]") && text.contains("[vdso]"), "{text}");
}

#[test]
fn a_replaced_binary_is_not_believed() {
    let program = Program::build();
    let core = program.waiting().core(&program);
    // AT_ENTRY: code of the program.
    let pc = |target: &Target| target.auxv(9).unwrap();
    let target = Target::from_core(&core).unwrap();
    let mut reader = target.memory().by_pread().expect("a reader for a confined process");
    assert_eq!(reader.read(pc(&target), 4).len(), 4);
    drop(target);
    // What was opened before stays readable when the path leads elsewhere.
    let moved = program.folder.path().join("moved");
    std::fs::rename(&program.path, &moved).unwrap();
    let before = Target::from_core(&core).unwrap();
    assert!(before.notes.iter().any(|note| note.contains("parts of 1 modules")), "{:?}", before.notes);
    assert!(before.memory().read(pc(&before), 4).is_empty());
    assert_eq!(reader.read(pc(&before), 4).len(), 4);
    reader = reader.by_pread().unwrap();
    assert_eq!(reader.read(pc(&before), 4).len(), 4);
    // Another program under its path.
    std::fs::copy("/bin/true", &program.path).unwrap();
    let other = Target::from_core(&core).unwrap();
    assert!(other.notes.iter().any(|note| note.contains("parts of 1 modules")), "{:?}", other.notes);
    assert!(other.memory().read(pc(&other), 4).is_empty());
    assert_eq!(other.modules.len(), before.modules.len());
}
