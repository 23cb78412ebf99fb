//! What the application prepares so that it can leave a minimal record should its monitor be gone.
#![forbid(unsafe_code)]

use std::path::Path;

use super::client;
use crate::capture::{self as handlers, Constants};
use crate::config::ValidConfig;
use crate::consent_record;
use crate::error::Result;
use crate::minimal_record::fixed;
use crate::privacy::{self, Mirror, Stage, Verdict};
use crate::report::ReportId;
use crate::spool::records;
use crate::sys::kept;

/// Names shorter than this would hide half of all libraries.
const SHORTEST_HIDDEN: usize = 3;

/// What every record of this process says.
///
/// # Errors
/// If the operating system has no randomness to give.
pub(super) fn constants(config: &ValidConfig) -> Result<Constants> {
    Ok(Constants {
        id: ReportId::random()?.0,
        application: fixed(config.application.as_bytes()),
        version: fixed(config.version.as_bytes()),
    })
}

/// Finds the folder for records if consent allows storing, else closes it. Without it a crash that finds no monitor leaves
/// nothing; that is no reason to fail.
pub(super) fn follow_consent(config: &ValidConfig, mirror: Mirror) {
    let recorded = consent_record::read(&config.spool);
    let allowed = privacy::gate(Stage::Spool, config.consent_policy, recorded, mirror) == Verdict::Proceed;
    let place = if allowed { records::place(&config.spool).ok() } else { None };
    match place {
        Some(place) => handlers::keep_records(kept::out_of_the_way(place.directory), &place.missing),
        None => handlers::forbid_records(),
    }
}

/// Notes the binaries that are mapped now. Those with a secret or the person's name in their own are noted without it.
pub(super) fn note_modules(config: &ValidConfig, registered: &[String]) {
    let environment = ["USER", "LOGNAME", "HOME"].iter().filter_map(|name| std::env::var(name).ok());
    let personal = environment.filter_map(|value| {
        let base = Path::new(&value).file_name()?.to_str()?.to_lowercase();
        // Not a person's name, and on every path of a root's.
        (base != "root").then_some(base)
    });
    let secrets = config.secrets.iter().chain(registered).map(|secret| secret.to_lowercase());
    let hidden: Vec<String> =
        personal.chain(secrets).filter(|word| word.chars().count() >= SHORTEST_HIDDEN).collect();
    handlers::refresh_modules(&|name| {
        let name = name.to_lowercase();
        hidden.iter().any(|word| name.contains(word.as_str()))
    });
}

/// Notes the binaries that are mapped now, for crashes that no monitor answers: call it after loading libraries while
/// running. What is not noted has no name in a minimal record. Not for signal handlers.
///
/// # Errors
/// [`Error::NotInstalled`](crate::Error::NotInstalled).
pub fn note_loaded_modules() -> Result<()> {
    let client = client()?;
    note_modules(&client.config, &client.blackbox.snapshot().secrets);
    Ok(())
}
