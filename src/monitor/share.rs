//! The application's side of a shared monitor: joining one over a seat, and what has to be equal for that.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::launch::{self, Link};
use crate::blackbox::Blackbox;
use crate::config::ValidConfig;
use crate::error::{Error, Result};
use crate::generation;
use crate::protocol::{self, ANSWER, AnswerKind, PROTOCOL};
use crate::sys::socket::{Received, Socket};

/// A monitor that lives answers at once, but it may still be starting: that may take two seconds, and the processor may have
/// more to do. One that is dead is found out at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// A hash of all settings but those of a single process (which start it is, which program). `None` never equals anything.
pub(super) fn digest(config: &ValidConfig) -> Option<[u8; 32]> {
    let common = ValidConfig { session: [0; 16], program: None, ..config.clone() };
    let json = serde_json::to_vec(&common).ok()?;
    Some(Sha256::new().chain_update(PROTOCOL.to_le_bytes()).chain_update(json).finalize().into())
}

/// Joins the monitor at the other end of `seat`.
///
/// # Errors
/// [`Error::MonitorUnavailable`] if it does not answer, or does not want this process.
pub(crate) fn join(
    seat: BorrowedFd<'_>,
    config: &ValidConfig,
    blackbox: &Blackbox,
    entered: bool,
) -> Result<Link> {
    let refuse = |why: &str| Error::MonitorUnavailable(format!("the monitor to be shared: {why}"));
    let system = |call| move |source| Error::System { call, source };
    let settings = digest(config).ok_or_else(|| refuse("settings that cannot be told"))?;
    let seat = Socket::from_fd(seat.try_clone_to_owned().map_err(system("dup"))?)?;
    let (control, their_control) = Socket::pair()?;
    let (crash, their_crash) = Socket::pair()?;
    let fds = [their_control.as_fd(), their_crash.as_fd(), blackbox.as_fd()];
    seat.send(&protocol::join(&settings), &fds).map_err(|error| refuse(&error.to_string()))?;
    drop((their_control, their_crash));
    match control.receive(ANSWER, PATIENCE)? {
        Received::Message(message) => {
            match protocol::parse_answer(&message.bytes).map(|answer| answer.kind) {
                // Who it is says the kernel.
                Some(AnswerKind::Joined) => launch::link(config, crash, control, message.pid, entered),
                _ => Err(refuse("it serves an application with other settings, or another user")),
            }
        }
        _ => {
            // Should it answer yet, it is not to take us for a client of its own that ended without a word.
            generation::replace(blackbox.generation());
            Err(refuse("it does not answer"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn settings_are_equal_but_for_what_a_process_has_of_its_own() {
        let config = |version| Config::new("game", version).spool("/s").validate().unwrap();
        let (one, mut other) = (config("1"), config("1"));
        other.session = [7; 16];
        other.program = Some("/bin/other".into());
        assert!(digest(&one).is_some());
        assert_eq!(digest(&one), digest(&other));
        assert_ne!(digest(&one), digest(&config("2")));
        other.secrets.push("x".into());
        assert_ne!(digest(&one), digest(&other));
    }
}
