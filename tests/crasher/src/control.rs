//! `none`: a victim that lives on and does what it is told on standard input.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::payload::Payload;
use crate::sdk::Session;
use crate::ways::{self, Way};

/// Says `ready`, then answers each command by a line, until `exit` or the end of input.
pub(crate) fn serve(session: &Session, payload: &'static Payload) -> ExitCode {
    say(format_args!("ready"));
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let command = line.trim();
        if command == "exit" {
            say(format_args!("ok exit"));
            break;
        }
        match obey(command, session, payload) {
            Ok(answer) => say(format_args!("ok {answer}")),
            Err(reason) => say(format_args!("error {reason}")),
        }
    }
    ExitCode::SUCCESS
}

fn obey(command: &str, session: &Session, payload: &'static Payload) -> Result<String, String> {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    match (verb, rest) {
        ("grant", "") => session.grant().map(|()| "grant".to_owned()),
        ("deny", "") => session.deny().map(|()| "deny".to_owned()),
        ("withdraw", "") => session.withdraw().map(|purged| format!("withdraw {purged}")),
        ("mode", "") => session.is_safe().map(|safe| format!("mode {}", if safe { "safe" } else { "usual" })),
        ("capture", "") => session.capture().map(|id| format!("capture {id}")),
        ("vetoed", "") => session.vetoed().map(|count| format!("vetoed {count}")),
        ("flush", milliseconds) => {
            let milliseconds = milliseconds.parse().map_err(|_| "flush takes milliseconds".to_owned())?;
            session.flush(Duration::from_millis(milliseconds)).map(|()| "flush".to_owned())
        }
        ("die", way) => match way.parse() {
            Ok(Way::Capture | Way::None) | Err(()) => Err("die takes a way that does".to_owned()),
            Ok(way) => {
                say(format_args!("ok die {}", way.name()));
                ways::go(way, payload, &mut || ExitCode::SUCCESS).map(|_| String::new())
            }
        },
        _ => {
            Err("unknown command; grant, deny, withdraw, capture, vetoed, flush MS, die WAY, exit".to_owned())
        }
    }
}

/// A line on standard output, at once. Nobody may be reading it any more.
pub(crate) fn say(text: std::fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}
