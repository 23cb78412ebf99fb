//! Planting in the environment and the arguments: the program executes itself once more with the values in place,
//! so that they lie in the block at the top of the main thread's stack, as a launcher's would.
//!
//! The mark against doing it again is an argument, not a variable: processes that the SDK starts inherit
//! the environment, but not the arguments.

use std::convert::Infallible;
use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::plant::{Entry, Place};

/// Says that the values are in place.
pub(crate) const MARK: &str = "re-executed";
/// Carries a planted argument; ignored.
pub(crate) const ARGUMENT: &str = "planted";

/// Whether there is anything that only a new process can hold.
pub(crate) fn is_needed(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| matches!(entry.place(), Place::Env | Place::Arg))
}

/// Replaces this process. Values are in the order of the list; a variable without a key is `CRASHER_PLANTED_<index>`.
///
/// # Errors
/// Returns only if that failed.
pub(crate) fn execute(entries: &[Entry]) -> Result<Infallible, String> {
    // Not "/proc/self/exe": the kernel would name the process "exe".
    let program = env::current_exe().map_err(|e| format!("cannot find the own executable: {e}"))?;
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).arg(format!("--{MARK}"));
    for (index, entry) in entries.iter().enumerate() {
        match entry.place() {
            Place::Env => {
                let key = entry.key.clone().unwrap_or_else(|| format!("CRASHER_PLANTED_{index}"));
                command.env(key, &entry.value);
            }
            Place::Arg => drop(command.arg(format!("--{ARGUMENT}")).arg(&entry.value)),
            _ => {}
        }
    }
    Err(format!("cannot execute itself: {}", command.exec()))
}
