//! Asking first: a report made before the person answered waits sealed on the device, and is sent or destroyed then.
//!
//! `cargo run --example consent -- SPOOL`, and answer `yes`, `no` or nothing.

use std::io::{self, Write};
use std::time::Duration;

use cenotaph::Config;
use cenotaph::privacy::{Basis, Consent, ConsentPolicy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    cenotaph::monitor_entry();
    let spool = std::env::args().nth(1).ok_or("usage: consent SPOOL")?;
    let guard = Config::new("consent", env!("CARGO_PKG_VERSION"))
        .spool(spool)
        .consent(ConsentPolicy::AskFirst)
        .install()?;
    let consent = cenotaph::consent()?;
    let mut output = io::stdout();

    if consent.state() == Consent::Unknown {
        let held = cenotaph::capture("before the question")?;
        write!(output, "Report {held} is held. May reports be sent to the developers? [yes/no] ")?;
        output.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        match answer.trim() {
            "yes" => consent.grant(Basis::Person)?,
            // Removes what is held, and keeps what is on its way from being stored.
            "no" => _ = consent.deny()?,
            // No answer is no consent: ask again another time.
            _ => {}
        }
    }
    writeln!(output, "Consent: {:?}", consent.state())?;
    if consent.state() == Consent::Granted {
        guard.flush(Duration::from_secs(30))?;
    }
    guard.shutdown();
    Ok(())
}
