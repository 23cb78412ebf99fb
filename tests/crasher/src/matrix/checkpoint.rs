//! What was measured so far, in the file of `--json`: written now and then, and read back by `--resume`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::plan::Case;
use super::table::{self, Tally};

const EVERY: Duration = Duration::from_secs(30);

/// Writes the file when it is time.
pub(super) struct Checkpoint<'a> {
    file: Option<&'a Path>,
    seed: u64,
    next: Instant,
}

impl<'a> Checkpoint<'a> {
    pub(super) fn new(file: Option<&'a Path>, seed: u64) -> Self {
        Self { file, seed, next: Instant::now() + EVERY }
    }

    /// A failure now is none if the last one succeeds.
    pub(super) fn write_if_due(&mut self, cases: &[Case], tallies: &[Tally]) {
        if Instant::now() >= self.next {
            let _ = self.write(cases, tallies);
            self.next = Instant::now() + EVERY;
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn write(&self, cases: &[Case], tallies: &[Tally]) -> Result<(), String> {
        let Some(file) = self.file else { return Ok(()) };
        let json =
            serde_json::to_vec_pretty(&table::json(cases, tallies, self.seed)).map_err(|e| e.to_string())?;
        let failed = |e: std::io::Error| format!("{}: {e}", file.display());
        // A device, a pipe: nothing to replace, and root could.
        if file.metadata().is_ok_and(|found| !found.is_file()) {
            return fs::write(file, json).map_err(failed);
        }
        let temporary = file.with_added_extension("tmp");
        fs::write(&temporary, json).and_then(|()| fs::rename(&temporary, file)).map_err(failed)
    }
}

/// What an interrupted matrix left in `file`, for each of `cases`; nothing of those that it did not have. A case that is
/// wanted less often than it was measured counts with all of that.
///
/// # Errors
/// If the file is there and is no such thing.
pub(super) fn read(file: &Path, cases: &mut [Case]) -> Result<Vec<Tally>, String> {
    let failed = |why: String| format!("{}: {why}; give another file, or leave --resume out", file.display());
    let json: Value = match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
        Err(error) => return Err(failed(error.to_string())),
    };
    let measured = json["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut tallies = Vec::with_capacity(cases.len());
    for case in cases.iter_mut() {
        let is_it = |value: &&Value| {
            let lockdown = case.lockdown.map(|lockdown| lockdown.name());
            value["way"] == case.way.name()
                && value["monitor_state"] == case.state.name()
                && value["lockdown"].as_str() == lockdown
                && value["deadline_ms"] == case.deadline_ms
        };
        let tally = measured.iter().find(is_it).map(Tally::from_json).transpose().map_err(failed)?;
        let tally = tally.unwrap_or_default();
        if case.repeat > 0 {
            case.repeat = case.repeat.max(tally.runs);
        }
        tallies.push(tally);
    }
    let known = tallies.iter().filter(|tally| tally.runs > 0).count();
    let there = measured.iter().filter(|value| value["runs"].as_u64().unwrap_or(0) > 0).count();
    if there > known {
        let lost = there - known;
        return Err(failed(format!("it has {lost} cases that this matrix leaves out and would be lost")));
    }
    Ok(tallies)
}

#[cfg(test)]
mod tests {
    use super::super::options::Options;
    use super::super::plan;
    use super::super::verdict::{Observed, Problem};
    use super::*;
    use crate::monitor_state::State;
    use crate::ways::Way;

    fn cases() -> Vec<Case> {
        let only = Some(vec![Way::Null, Way::Abort]);
        let states = vec![State::Alive];
        plan::cases(&Options { only, states, repeat: Some(3), lockdowns: Vec::new(), ..Options::default() })
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        Checkpoint::new(Some(&link), 1).write(&cases(), &vec![Tally::default(); 2]).unwrap();
        assert!(link.is_symlink() && link.metadata().unwrap().file_type().is_char_device());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("matrix.json");
        let mut cases = cases();
        assert!(read(&file, &mut cases).unwrap().iter().all(|tally| tally.runs == 0), "nothing is there yet");
        let mut tallies = vec![Tally::default(); 2];
        let observed = Observed { elapsed_ms: Some(7.5), ..Observed::default() };
        tallies[1].add(&observed, &[Problem::Lost]);
        tallies[1].sample(vec!["no report".to_owned()], "crasher", "said", None);
        tallies[1].add(&observed, &[]);
        Checkpoint::new(Some(&file), 1).write(&cases, &tallies).unwrap();
        let again = read(&file, &mut cases).unwrap();
        assert_eq!(table::json(&cases, &again, 1), table::json(&cases, &tallies, 1));
        assert_eq!((again[1].runs, again[1].usable, again[1].slowest_ms), (2, 1, 7.5));
        assert_eq!(plan::runs(&cases, &again, 5).len(), 3 + 1);
        fs::write(&file, "{\"cases\": [").unwrap();
        assert!(read(&file, &mut cases).unwrap_err().contains("--resume"));
    }
}
