//! From a crash to the victim's release and to the committed report, for Cenotaph and for the `minidumper` crate on
//! the same victim.
//!
//! ```text
//! cargo bench --bench crash_latency -- [--runs N] [--threads 1,16,128,512] [--heap-mib M] [--seed S]
//!                                      [--modules N] [--settle-ms N] [--dir DIR] [--json FILE]
//! ```
//!
//! This program runs itself again as the victim, as minidumper's monitor and (through Cenotaph) as Cenotaph's. Each
//! victim has T threads, a touched heap and N modules (small ones, built by cc, fill up what it has by itself), and reads through a null pointer some ten frames deep. The two SDKs take
//! turns in random order within each repetition. All times are CLOCK_MONOTONIC and begin at the victim's own stamp,
//! its last instruction before the fault:
//!
//! - *released*: a handler of the victim's, installed before the SDK and therefore run after it, stamps the end of the
//!   SDK's handler.
//! - *complete*: for Cenotaph the durable commit of the scrubbed and sealed report; for minidumper the close of the raw
//!   dump's file, without fsync. The harness sees the rename and the close itself, by inotify(7); Cenotaph's own stamp,
//!   taken when the commit is durable, counts if it is later (on a file system that is not known to keep a file's name and
//!   its contents in order the directory is synced after the rename).
//! - *gone*: the victim's pidfd becomes readable. Most of it is the kernel's teardown.
//!
//! The harness waits at a real-time priority above theirs, where it may: else it would see what has happened when the processes
//! that did it leave a processor, which for a monitor that goes on working is later than for one that is done.
//!
//! One line is about a third kind of victim: Cenotaph with the three pmodules of `examples/pmodules` (the Rust form, in the
//! monitor), at the number of threads nearest to 16. Every victim is their game: it exports the game's globals, and of
//! four threads or more three are libtelemetry's. One of the three pmodules asks for frames, so that all threads are
//! unwound while the process stands still.
//!
//! The bounds that the project sets itself are printed last, and are `measures` in the JSON; `rows` are the medians and
//! ratios by number of threads. The bounds on system calls need strace(1): two more crashes, of the fewest threads
//! above 1 and of the most, with strace on Cenotaph's processes. A victim under `ReleaseAt::Spooled` is let go when the
//! report is complete.
//!
//! Without `--bench` in its arguments (under `cargo test --benches`) it crashes one small victim of each kind, to show
//! that it works. No figure decides whether it succeeds.

mod calls;
mod clock;
mod crash;
#[path = "../../examples/pmodules/drop_telemetry.rs"]
mod drop_telemetry;
#[allow(dead_code, reason = "its globals are what is needed")]
#[path = "../../examples/pmodules/game.rs"]
mod game;
#[path = "../../examples/pmodules/game_state.rs"]
mod game_state;
mod modules;
mod options;
mod peer;
mod processes;
#[path = "../../examples/pmodules/redact_password.rs"]
mod redact_password;
mod requirements;
mod run;
mod statistics;
mod subject;
mod table;
mod victim;
mod watch;

/// Whatever went wrong, in a sentence.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> std::process::ExitCode {
    // First: in Cenotaph's own processes it does not return.
    if subject::has_pmodules() {
        cenotaph::monitor_entry_with(subject::pmodules());
    } else {
        cenotaph::monitor_entry();
    }
    run::main()
}
