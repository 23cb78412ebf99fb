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
//!   taken after the directory's fsync, counts if it is later.
//! - *gone*: the victim's pidfd becomes readable. Most of it is the kernel's teardown.
//!
//! What issue 3 asks of these figures is printed last, with bounds, and is `rows` in the JSON. Its rows about system calls
//! need strace(1): two more crashes, of the fewest threads above 1 and of the most, with strace on Cenotaph's processes. A
//! victim under `ReleaseAt::Spooled` is let go when the report is complete.
//!
//! Without `--bench` in its arguments (under `cargo test --benches`) it crashes one small victim of each kind, to show
//! that it works. No figure decides whether it succeeds.

mod calls;
mod clock;
mod crash;
mod modules;
mod options;
mod peer;
mod processes;
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
    cenotaph::monitor_entry();
    run::main()
}
