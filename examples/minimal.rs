//! The least that a Rust program does to have its crashes reported.
//!
//! `cargo run --example minimal -- SPOOL [KIND=URL [CA]]`: SPOOL is a directory for sealed reports, KIND=URL a
//! server such as `cenotaph collect`, whose `ca.pem` is CA then. The program ends by SIGABRT.

use cenotaph::privacy::{Basis, ConsentPolicy};
use cenotaph::report::Level;
use cenotaph::{Config, Destination};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: Cenotaph's monitor is this program, started again. It does not get past this line.
    cenotaph::monitor_entry();
    let mut arguments = std::env::args().skip(1);
    let spool = arguments.next().ok_or("usage: minimal SPOOL [KIND=URL [CA]]")?;
    let mut config =
        Config::new("minimal", env!("CARGO_PKG_VERSION")).spool(spool).consent(ConsentPolicy::AskFirst);
    if let Some(destination) = arguments.next() {
        config = config.destination(Destination::parse(&destination)?);
    }
    if let Some(authority) = arguments.next() {
        config = config.certificate_authority(authority);
    }
    let _cenotaph = config.install()?;

    // When the person has said yes. Until then reports are held sealed and nothing is sent.
    cenotaph::consent()?.grant(Basis::Person)?;

    cenotaph::set_attribute("level", "castle")?;
    cenotaph::add_breadcrumb(Level::Info, "game", "the gate opened")?;

    std::process::abort()
}
