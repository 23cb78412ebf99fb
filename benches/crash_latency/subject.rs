//! Cenotaph: the victim's side, and what its log says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cenotaph::pmodule::Registered;
use cenotaph::privacy::{Basis, ConsentPolicy};
use cenotaph::{Config, Monitor, ReleaseAt};
use serde::Deserialize;

use crate::Failure;
use crate::drop_telemetry::DropTelemetry;
use crate::game_state::NoteGameState;
use crate::redact_password::RedactPassword;

const START_LIMIT: Duration = Duration::from_secs(10);

/// Set for a victim with pmodules, from which its monitor inherits it: that is this program too, and must have the same.
pub(crate) const PMODULES: &str = "CRASH_LATENCY_PMODULES";

pub(crate) fn has_pmodules() -> bool {
    std::env::var_os(PMODULES).is_some()
}

/// The three examples.
pub(crate) fn pmodules() -> Vec<Registered> {
    vec![
        Registered::of(RedactPassword),
        Registered::of(NoteGameState),
        Registered::of(DropTelemetry::default()),
    ]
}

/// Where committed reports appear.
pub(crate) fn pending(dir: &Path) -> PathBuf {
    spool(dir).join("pending")
}

fn spool(dir: &Path) -> PathBuf {
    dir.join("spool")
}

fn log(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Installs Cenotaph with its defaults and the person's consent, and waits until the monitor is ready.
pub(crate) fn install(dir: &Path) -> Result<(), Failure> {
    let mut config = Config::new("crash-latency", env!("CARGO_PKG_VERSION"))
        .consent(ConsentPolicy::AskFirst)
        .spool(spool(dir))
        // In a container or a service the default is another, and takes as long as the whole report.
        .release_at(ReleaseAt::Read)
        .log(log(dir))
        // It crashes many times in one way.
        .reports_per_signature(u32::MAX);
    if has_pmodules() {
        config = config.pmodule(RedactPassword).pmodule(NoteGameState).pmodule(DropTelemetry::default());
    }
    let guard = config.install()?;
    cenotaph::consent()?.grant(Basis::Operator)?;
    let limit = Instant::now() + START_LIMIT;
    while guard.status().monitor != Monitor::Ready {
        if Instant::now() > limit {
            return Err(format!("the monitor is {:?} after {START_LIMIT:?}", guard.status().monitor).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // Its destructor would shut Cenotaph down.
    std::mem::forget(guard);
    Ok(())
}

/// What the log says of the one report.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Spooled {
    /// Milliseconds from the handler's first stamp until each stage had ended.
    pub(crate) stages_ms: BTreeMap<String, f64>,
    /// Bytes after each stage.
    pub(crate) stages_bytes: BTreeMap<String, u64>,
    /// What went wrong on the way; a report with less detail is no fair comparison.
    notes: Vec<String>,
}

/// Reads the log after the monitor has ended.
pub(crate) fn spooled(dir: &Path) -> Result<Spooled, Failure> {
    let text = std::fs::read_to_string(log(dir))?;
    let line = text.lines().find(|line| line.contains("\"event\":\"spooled\""));
    let line = line.ok_or_else(|| format!("Cenotaph's log has no spooled report:\n{text}"))?;
    let spooled: Spooled = serde_json::from_str(line)?;
    let failed = |note: &&String| note.starts_with("stepped down") || note.starts_with("pmodule");
    match spooled.notes.iter().find(failed) {
        Some(note) => Err(note.clone().into()),
        None => Ok(spooled),
    }
}
