//! A watched thread that stops beating, and goes on when its report is made.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use cenotaph as client;

/// How long the thread may be silent.
const LIMIT: Duration = Duration::from_millis(100);
/// Without a monitor nothing ever comes.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// Hangs until a report more is stored than before, or the patience ends. Then the process lives on: exit code 0.
pub(super) fn hang() -> Result<ExitCode, String> {
    let Ok(status) = client::status() else {
        // Without the SDK nobody watches.
        return Ok(ExitCode::SUCCESS);
    };
    let watch = client::watch_thread(LIMIT).map_err(|e| e.to_string())?;
    watch.beat();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && client::status().is_ok_and(|now| now.spooled == status.spooled) {
        thread::sleep(PAUSE);
    }
    watch.beat();
    Ok(ExitCode::SUCCESS)
}
