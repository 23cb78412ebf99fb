//! Frames in binaries whose files are gone: the unwind tables are read while the process stands still.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cenotaph::dump::binaries::{FileBinaries, MemoryBinaries};
use cenotaph::dump::linux_writer::{self, Limits, Taken};
use cenotaph::dump::{Layout, unwind};
use cenotaph::report::{Frame, Trust};
use cenotaph::target::{Request, Target, UnwindTables};

/// main, a library from a file, the same from a memfd, and back into the program, which says what libgcc's unwinder finds.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>
typedef void callback(void);
static void (*second)(callback *, int);
__attribute__((noinline)) static void leaf(void) {
  void *found[64];
  int count = backtrace(found, 64);
  for (int i = 0; i < count; i++) printf("%lx ", (unsigned long)found[i]);
  puts("END"); fflush(stdout);
  for (;;) pause();
}
static void between(void) { second(leaf, 3); __asm__ volatile(""); }
int main(int argc, char **argv) {
  void (*first)(callback *, int) = dlsym(dlopen(argv[1], RTLD_NOW), "enter");
  int file = open(argv[1], O_RDONLY), memory = memfd_create("nameless", 0);
  while (sendfile(memory, file, 0, 1 << 20) > 0) {}
  char path[64]; snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
  second = dlsym(dlopen(path, RTLD_NOW), "enter");
  first(between, 2);
  return argc;
}
"#;

/// Frames of several sizes, without frame pointers.
const LIBRARY: &str = r#"
typedef void callback(void);
__attribute__((noinline)) static void deeper(callback *f, int n, volatile int *p) {
  volatile int room[17]; room[n] = *p;
  if (n) deeper(f, n - 1, room); else f();
  p[0] = room[n];
}
void enter(callback *f, int n) { volatile int room[101]; room[n] = n; deeper(f, n, room); room[0] = room[n]; }
"#;

struct Victim {
    child: Child,
    /// Return addresses, innermost first.
    found: Vec<u64>,
}

impl Victim {
    fn start(program: &Path, library: &Path) -> Self {
        let mut child = Command::new(program).arg(library).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let words = line.split(' ').take_while(|word| !word.starts_with("END"));
        Self { child, found: words.map(|word| u64::from_str_radix(word, 16).unwrap()).collect() }
    }

    /// In pause(2), system call 34.
    fn waits(&self) -> bool {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", self.child.id())).unwrap();
        call.starts_with("34 ")
    }

    fn taken(&self) -> Taken {
        let pid = self.child.id() as i32;
        linux_writer::write(Target::stop(Request::new(pid, pid, None)).unwrap(), Limits::default()).unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

fn built(folder: &Path, name: &str, source: &str, options: &[&str]) -> PathBuf {
    let (text, path) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&text, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-Wl,--build-id"])
        .args(options);
    assert!(compiler.args(["-o".as_ref(), path.as_os_str(), text.as_os_str()]).status().unwrap().success());
    path
}

fn frames(dump: &[u8], tables: &[UnwindTables]) -> Vec<Frame> {
    let (layout, files) = (Layout::parse(dump).unwrap(), FileBinaries::new());
    let trace = unwind::stack_trace(dump, &layout, &MemoryBinaries::new(tables, &files)).unwrap();
    trace.threads.into_iter().next().unwrap().frames
}

#[test]
fn as_before_the_deletion() {
    let folder = tempfile::tempdir().unwrap();
    let program = built(folder.path(), "program", PROGRAM, &["-ldl"]);
    let library = built(folder.path(), "library.so", LIBRARY, &["-shared", "-fPIC"]);
    let victim = Victim::start(&program, &library);
    assert!(victim.found.len() > 10, "{:x?}", victim.found);

    while !victim.waits() {
        std::thread::yield_now();
    }
    let before = victim.taken();
    assert_eq!(before.tables.len(), 1, "the memfd's only");
    let expected = frames(&before.dump, &before.tables);
    std::fs::remove_file(&program).unwrap();
    std::fs::remove_file(&library).unwrap();
    let after = victim.taken();
    assert_eq!((after.tables.len(), &after.notes[..]), (3, &[][..]));

    let found = frames(&after.dump, &after.tables);
    let bare =
        |frames: &[Frame]| frames.iter().map(|f| (f.instruction, f.offset, f.trust)).collect::<Vec<_>>();
    assert_eq!(bare(&found), bare(&expected));
    assert!(found[1..].iter().all(|frame| frame.trust == Trust::Unwound), "{found:x?}");
    // Ours begin in pause(), theirs in what called backtrace(); both then have the callers of `leaf`.
    let ours: Vec<u64> = found[2..].iter().map(|frame| frame.instruction + 1).collect();
    assert_eq!(ours, victim.found[1..], "by libgcc, in the victim");

    // Other tables would not do, and none neither.
    let without = frames(&after.dump, &[]);
    assert!(without[1..].iter().any(|frame| frame.trust == Trust::Scan), "{without:x?}");
    let decoded = UnwindTables::decode(&UnwindTables::encode(&after.tables)).unwrap();
    assert_eq!(frames(&after.dump, &decoded), found);
}

#[test]
fn tables_that_are_damaged_end_too() {
    let folder = tempfile::tempdir().unwrap();
    let program = built(folder.path(), "program", PROGRAM, &["-ldl"]);
    let library = built(folder.path(), "library.so", LIBRARY, &["-shared", "-fPIC"]);
    let victim = Victim::start(&program, &library);
    std::fs::remove_file(&library).unwrap();
    let taken = victim.taken();
    assert_eq!(taken.tables.len(), 2);
    for at in 0..taken.tables[0].frames.1.len() {
        let mut damaged = taken.tables.clone();
        damaged[0].frames.1[at] ^= 0xff;
        assert!(!frames(&taken.dump, &damaged).is_empty());
    }
}
