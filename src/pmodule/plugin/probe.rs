//! Trying out foreign code in a child process, with a deadline.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::pmodule::Description;
use crate::report::signal_name;
use crate::sys::process::{self, Ended, Forked};
use crate::sys::socket::{self, Received, Socket};

/// Long for a constructor that does nothing, short for an application's start.
const DEADLINE: Duration = Duration::from_secs(2);
/// A description has a name of 64 bytes and 64 filters of two texts of 256 bytes, and JSON may need 6 bytes for one.
const LONGEST_ANSWER: usize = 256 << 10;

#[derive(Serialize, Deserialize)]
enum Answer {
    Description(Description),
    Refused(String),
}

/// Runs `look` in a child. The inner result is its answer, or in words what became of it instead.
///
/// # Errors
/// If no child can be made.
pub(super) fn within_time(
    look: impl FnOnce() -> Result<Description, String>,
) -> Result<Result<Description, String>> {
    let (ours, theirs) = Socket::pair()?;
    let (pid, ended) = match process::fork()? {
        Forked::Parent(pid, ended) => (pid, ended),
        Forked::Child => {
            process::no_core();
            // So that what its constructors start ends with it.
            process::lead_group();
            let answer = look().map_or_else(Answer::Refused, Answer::Description);
            let sent = serde_json::to_vec(&answer).is_ok_and(|answer| theirs.send(&answer, &[]).is_ok());
            process::exit_now(i32::from(!sent))
        }
    };
    drop(theirs);
    let until = Instant::now() + DEADLINE;
    let received = ours.receive(LONGEST_ANSWER, DEADLINE);
    if matches!(received, Ok(Received::Closed)) {
        // It ends, or has closed what it had and goes on.
        let _ = socket::poll_readable(ended.as_fd(), until.saturating_duration_since(Instant::now()));
    }
    // Before it is collected: until then the number is its group's.
    process::kill_pidfd(ended.as_fd());
    process::kill_group(pid);
    let ended = process::wait_end(pid);
    Ok(match received? {
        Received::Message(message) => understood(&message.bytes),
        Received::Nothing => Err(format!(
            "did not finish loading within {} s; its constructors should do nothing",
            DEADLINE.as_secs()
        )),
        Received::Closed => Err(death(ended)),
        Received::Malformed(why) => Err(format!("sent something else than its description: {why}")),
    })
}

/// The child ran foreign code: its words are checked like anybody's.
fn understood(bytes: &[u8]) -> Result<Description, String> {
    match serde_json::from_slice(bytes) {
        Ok(Answer::Description(description)) => {
            description.usable()?;
            Ok(description)
        }
        Ok(Answer::Refused(why)) => Err(why),
        Err(_) => Err("sent something else than its description".to_owned()),
    }
}

fn death(ended: Ended) -> String {
    let how = match ended {
        Ended::Signal(signal) if signal_name(signal) == "signal" => format!("was killed by signal {signal}"),
        Ended::Signal(signal) => format!("was killed by {}", signal_name(signal)),
        Ended::Exit(code) => format!("exited with code {code}"),
        Ended::Unknown => "ended".to_owned(),
    };
    format!("the process that loaded it {how}; look at its constructors and at cenotaph_pmodule_entry")
}
