//! Scrubbing changes no frame: dumps of small programs, in C++ by gcc and clang and in Rust with frame pointers and without, with 1 to
//! 128 threads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "../../support/byte_diff.rs"]
mod byte_diff;
#[path = "support/stackwalk.rs"]
mod stackwalk;
#[path = "support/symbols.rs"]
mod symbols;

use std::io::Read as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cenotaph::dump::linux_writer::{self, Limits};
use cenotaph::scrub::Policy;
use cenotaph::target::{Request, Target};
use crash_context::CrashContext;
use stackwalk::{Stackwalk, Tally};

const MAIL: &str = "gwendolyn.zephyr@example.org";
const CARD: &str = "4111 1111 1111 1111";
const THREADS: [&str; 3] = ["1", "16", "128"];
const NATIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/native");

/// What native/announce.c says: four numbers, then the registers.
const NUMBERS: usize = 4 * 8;
const GENERAL: usize = 23 * 8;
const FLOATING: usize = 512;

/// The dump that our own writer takes where a program would die.
fn dump(command: &mut Command) -> Vec<u8> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = [0; NUMBERS + GENERAL + FLOATING];
    child.stdout.take().unwrap().read_exact(&mut said).expect("what the dying program says");
    let pid = child.id().cast_signed();
    let number = |at: usize| i64::from_le_bytes(said[at * 8..][..8].try_into().unwrap());
    let mut context = vec![0; size_of::<CrashContext>()];
    let general = offset_of!(CrashContext, context)
        + offset_of!(crash_context::ucontext_t, uc_mcontext)
        + offset_of!(crash_context::mcontext_t, gregs);
    context[general..general + GENERAL].copy_from_slice(&said[NUMBERS..][..GENERAL]);
    let floating = offset_of!(CrashContext, float_state);
    context[floating..floating + FLOATING].copy_from_slice(&said[NUMBERS + GENERAL..]);
    let mut context = CrashContext::from_bytes(&context).unwrap();
    let tid = i32::try_from(number(0)).unwrap();
    (context.pid, context.tid) = (pid, tid);
    context.siginfo.ssi_signo = u32::try_from(number(1)).unwrap();
    context.siginfo.ssi_code = i32::try_from(number(2)).unwrap();
    context.siginfo.ssi_addr = number(3).cast_unsigned();
    let target = Target::stop(Request::new(pid, tid, Some(context))).unwrap();
    let taken = linux_writer::write(target, Limits::default()).unwrap();
    assert_eq!(taken.notes, [] as [String; 0]);
    child.kill().unwrap();
    child.wait().unwrap();
    taken.dump
}

/// Lets each of `programs` die in each of `ways`, with each number of threads for the first one.
fn compare(what: &str, programs: &[PathBuf], ways: &[&str], arguments: &[&str], source: &str) {
    let symbols = tempfile::tempdir().unwrap();
    let (judge, mut tally) = (Stackwalk::new(symbols.path()), Tally::default());
    let policy = Policy { known: vec!["wilhelmina.q".to_owned()], ..Policy::default() };
    for (number, program) in programs.iter().enumerate() {
        for (turn, way) in ways.iter().enumerate() {
            let counts = if turn == 0 { &THREADS[..] } else { &THREADS[(number + turn) % 2..][..1] };
            for threads in counts {
                let what = format!("{} {way} with {threads} threads", program.file_name().unwrap().display());
                let dump = dump(Command::new(program).arg(way).args(arguments).arg(threads));
                assert!(
                    memchr::memmem::find(&dump, MAIL.as_bytes()).is_some(),
                    "{what}: there is something to scrub"
                );
                symbols::write(symbols.path(), program, &dump, &[source]);
                judge.compare(&what, &dump, &policy, &mut tally);
            }
        }
    }
    // Else the comparison would compare nothing.
    assert!(tally.lines > tally.dumps * 10, "{tally:#?}");
    tally.assert(what);
}

fn run(command: &mut Command) {
    let status = command.status();
    let status =
        status.unwrap_or_else(|error| panic!("{command:?}: {error} (.ci/run installs what is needed)"));
    assert!(status.success(), "{command:?}");
}

fn cpp(compiler: &str) {
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().join("announce.o");
    run(Command::new("cc").args(["-c", "-O1", "-o"]).arg(&object).arg(Path::new(NATIVE).join("announce.c")));
    let variants = [("O0", "-O0", "-g"), ("O2", "-O2", "-g"), ("O2-fp", "-O2", "-fno-omit-frame-pointer")];
    let programs = variants.map(|(name, optimized, option)| {
        let program = folder.path().join(format!("{compiler}-{name}"));
        let mut command = Command::new(compiler);
        command.args(["-g", "-std=c++17", "-pthread", optimized, option, "-o"]).arg(&program);
        run(command.arg(Path::new(NATIVE).join("frames.cpp")).arg(&object));
        program
    });
    let ways = ["null", "abort", "divide", "trap", "throw", "callback"];
    compare(compiler, &programs, &ways, &[MAIL, CARD], "frames.cpp");
}

#[test]
fn of_cpp_by_gcc() {
    cpp("g++");
}

#[test]
fn of_cpp_by_clang() {
    cpp("clang++");
}

/// Built by build.rs.
#[test]
fn of_rust_with_frame_pointers_and_without() {
    let programs = ["0-fp", "0-nofp", "2-fp", "2-nofp"]
        .map(|variant| Path::new(env!("OUT_DIR")).join(format!("frames-{variant}")));
    compare("Rust", &programs, &["null", "abort", "panic-abort", "sort"], &[MAIL], "frames.rs");
}
