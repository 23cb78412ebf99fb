//! `cenotaph demo`: a crash from the fault to the developer's desk, in one command.
//!
//! A victim crashes before its person was asked: the report is held, sealed, and nobody is contacted. At its next start
//! the person agrees, and the report is delivered to a collector in this process. Then everything that was written
//! or received is searched for what the victim knew.

mod frames;
mod planted;
mod print;
mod search;
mod victim;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cenotaph::report::Report;
use cenotaph::scrub::Receipt;
use cenotaph::spool::LocalKey;
use lexopt::prelude::*;
use serde::Deserialize;

use crate::collect::{Options, Server};
use crate::failure::{Failure, Result};
use crate::output;

pub(crate) use victim::victim;

/// Longest wait for any one step.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that the demonstration found out.
struct Story {
    ending: ExitStatus,
    /// Connections that the collector had seen before the person agreed.
    before_consent: u64,
    spooled: Spooled,
    report: Report,
    receipt: Receipt,
    dump: PathBuf,
    frames: Vec<String>,
    searched: Vec<search::Source>,
    leaks: Vec<search::Leak>,
    folder: PathBuf,
}

/// The worker's line in the log.
#[derive(Debug, Deserialize)]
struct Spooled {
    stages_ms: std::collections::BTreeMap<String, f64>,
    stages_bytes: std::collections::BTreeMap<String, u64>,
}

/// `cenotaph.json` of the received report.
#[derive(Deserialize)]
struct Attachment {
    report: Report,
    receipt: Receipt,
}

pub(crate) fn demo(mut arguments: lexopt::Parser) -> Result<()> {
    let (mut dir, mut json) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("dir") => dir = Some(PathBuf::from(arguments.value()?)),
            Long("json") => json = Some(PathBuf::from(arguments.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = match dir {
        Some(dir) => std::path::absolute(&dir).map_err(|e| Failure::file(&dir, "resolve", e))?,
        None => fresh_dir()?,
    };
    std::fs::create_dir_all(&dir).map_err(|e| Failure::file(&dir, "create", e))?;
    if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::Failed(format!(
            "{}: not empty; name a new directory with --dir",
            dir.display()
        )));
    }
    let story = play(&dir)?;
    print::story(&story)?;
    if let Some(json) = json {
        print::json(&story, &json)?;
    }
    if story.leaks.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(format!("{} planted values were found; this is a bug", story.leaks.len())))
    }
}

fn fresh_dir() -> Result<PathBuf> {
    let id = cenotaph::report::ReportId::random()?;
    Ok(std::env::temp_dir().join(format!("cenotaph-demo-{id}")))
}

fn play(dir: &Path) -> Result<Story> {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let collected = dir.join("collected");
    let server = Server::start(&Options { listen, dir: collected.clone(), fail: None }, |_| {})?;
    let log = dir.join("log.jsonl");
    let start = |grant: bool| -> Result<ExitStatus> {
        let program = std::env::current_exe().map_err(|e| Failure::Failed(format!("own program: {e}")))?;
        let mut command = Command::new(program);
        command.arg("demo-victim").arg(dir).arg(format!("https://{}/submit", server.address()));
        command.arg(server.authority()).args(grant.then_some("--grant"));
        command.env("GITHUB_TOKEN", planted::TOKEN.value).stdin(Stdio::null());
        command.status().map_err(|e| Failure::Failed(format!("the victim cannot be started: {e}")))
    };
    progress("a victim crashes before its person was asked");
    let ending = start(false)?;
    let spooled = wait_for_spooled(&log)?;
    let before_consent = server.seen().connections;
    // While it is held: afterwards the sealed report is deleted.
    let key = LocalKey::load(&dir.join("spool"))?
        .ok_or_else(|| Failure::Failed("the spool has no key".to_owned()))?;
    let held = search::files(&dir.join("spool"))?;
    progress("the next start: the person agrees");
    let delivered = start(true)?;
    if !delivered.success() {
        return Err(Failure::Failed(format!(
            "the second start ended with {delivered}; see {}",
            log.display()
        )));
    }
    let folder = received(&collected)?;
    drop(server);
    let attachment = std::fs::read(folder.join("cenotaph.json"))
        .map_err(|e| Failure::file(&folder.join("cenotaph.json"), "read", e))?;
    let Attachment { report, receipt } = serde_json::from_slice(&attachment)
        .map_err(|e| Failure::file(&folder.join("cenotaph.json"), "understand", e))?;
    let dump = folder.join(format!("{}.dmp", report.id));
    let frames = frames::crashing(&report.stack_trace);
    let mut searched = search::files(dir)?;
    searched.extend(search::opened(&held, &key)?);
    searched.extend(held);
    let leaks = search::leaks(&searched);
    Ok(Story { ending, before_consent, spooled, report, receipt, dump, frames, searched, leaks, folder })
}

/// On a terminal only: a pipe gets the result and nothing else.
fn progress(what: &str) {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        output::note(format_args!("... {what}"));
    }
}

fn wait_for_spooled(log: &Path) -> Result<Spooled> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.contains("\"process\":\"worker\"")) {
            return serde_json::from_str(line)
                .map_err(|_| Failure::Failed(format!("the worker failed: {}", output::printable(line))));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::Failed(format!("no report after {PATIENCE:?}; see {}", log.display())))
}

/// The folder of the one report that the collector got.
fn received(collected: &Path) -> Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let entries = std::fs::read_dir(collected).map_err(|e| Failure::file(collected, "list", e))?;
        let folder =
            entries.flatten().map(|entry| entry.path()).find(|path| path.join("request.json").exists());
        if let Some(folder) = folder {
            return Ok(folder);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::Failed(format!("nothing arrived in {} after {PATIENCE:?}", collected.display())))
}
