//! The example pmodules in Rust, and the game that they are for.
//!
//! `cargo run --example pmodules -- SPOOL [libtelemetry.so]`: the game crashes; its report waits in SPOOL, without the
//! player's password, with the game's state, and without the stacks of the library's threads. The library is built from
//! telemetry.c (see the Makefile, which also builds the same pmodules in C).

mod drop_telemetry;
mod game;
mod game_state;
mod redact_password;

use std::path::PathBuf;

use cenotaph::Config;
use cenotaph::pmodule::Registered;
use cenotaph::privacy::ConsentPolicy;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: the monitor is this program, started again. It has to have the same pmodules.
    cenotaph::monitor_entry_with(vec![
        Registered::of(redact_password::RedactPassword),
        Registered::of(game_state::NoteGameState),
        Registered::of(drop_telemetry::DropTelemetry::default()),
    ]);
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let spool = arguments.next().ok_or("usage: pmodules SPOOL [libtelemetry.so]")?;
    let _cenotaph = Config::new("game", env!("CARGO_PKG_VERSION"))
        .spool(spool)
        .consent(ConsentPolicy::AskFirst)
        .pmodule(redact_password::RedactPassword)
        .pmodule(game_state::NoteGameState)
        .pmodule(drop_telemetry::DropTelemetry::default())
        .install()?;
    game::play(arguments.next().as_deref());
    Ok(())
}
