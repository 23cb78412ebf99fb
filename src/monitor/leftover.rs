//! Minimal records that earlier processes of the application left become reports, one at a time, with consent asked anew.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::captured::{Captured, Meta};
use super::outcome::Outcome;
use super::pmodules::Pmodules;
use super::stages;
use crate::blackbox::{Blackbox, Snapshot};
use crate::config::ValidConfig;
use crate::dump::{binaries::FileBinaries, recorded};
use crate::error::Result;
use crate::minimal_record::read::{Record, text};
use crate::minimal_record::{Event, LEN, Why};
use crate::origin;
use crate::pmodule::runner::{Ran, Session};
use crate::privacy::{Stage, Verdict};
use crate::report::{Reason, ReportId};
use crate::spool::records;
use crate::sys::{process, procfs};

/// Makes a report of the oldest record, and removes it. Records that consent does not allow any more are all removed.
pub(super) fn report(
    mut session: Session<'_>,
    pmodules: &Pmodules,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Outcome {
    let failed = |error: &crate::Error| Outcome::Failed { reason: error.to_string() };
    if stages::ask(Stage::Spool, config, blackbox) == Verdict::Drop {
        return match records::purge(&config.spool) {
            Ok(0) => Outcome::Nothing,
            Ok(_) => Outcome::RefusedByConsent,
            Err(error) => failed(&error),
        };
    }
    let taken = match records::take(&config.spool, LEN) {
        Ok(Some(taken)) => taken,
        Ok(None) => return Outcome::Nothing,
        Err(error) => return failed(&error),
    };
    let outcome = match &taken.bytes {
        Ok(bytes) => Record::parse(bytes)
            .and_then(|record| {
                // Whoever wanted to see the process did not.
                let unseen = session.unseen("the process left a minimal record only");
                let ran = pmodules.absent.iter().cloned().chain(unseen).collect();
                convert(&record, ran, session, blackbox, config)
            })
            .unwrap_or_else(|error| failed(&error)),
        Err(error) => failed(error),
    };
    // Refused, damaged, committed: in any case it has been dealt with. A report that could not be stored (a full disk)
    // would not be next time either; it is counted.
    taken.remove();
    outcome
}

fn convert(
    record: &Record,
    ran: Vec<Ran>,
    session: Session<'_>,
    blackbox: &Blackbox,
    config: &ValidConfig,
) -> Result<Outcome> {
    let head = &record.head;
    let reason = reason(record);
    let candidates = Candidates::new(config);
    let recorded =
        recorded::stack_trace(record, &reason, &|name| candidates.named(name), &FileBinaries::new())?;
    let (application, version) = (text(&head.application), text(&head.version));
    let mut notes = vec![explanation(head.why).to_owned()];
    if version != config.version {
        notes.push("the application was updated since".to_owned());
    }
    if !recorded.has_files {
        notes.push("binaries are not there as they were: frames were found by scanning the stack".to_owned());
    }
    let meta = Meta {
        id: ReportId(version_4(head.id)),
        sequence: 0,
        time_ms: head.time_ms,
        monotonic_ns: process::monotonic_ns(),
        thread: head.thread,
        instruction: head.pc,
        reason,
        found: origin::Found::default(),
        snapshot: Snapshot::default(),
        arguments: None,
        argument_strings: String::new(),
        environment_strings: String::new(),
        ran,
        version: None,
        trace: None,
        blanked: Vec::new(),
        secret: Vec::new(),
        tentative: false,
        notes,
        stages_ms: BTreeMap::new(),
        stages_bytes: BTreeMap::new(),
    };
    let captured = Captured { meta, dump: Vec::new(), tables: Vec::new() };
    let adjust = |report: &mut crate::report::Report| {
        report.application = application;
        report.version = version;
    };
    stages::complete_trace(captured, recorded.trace, adjust, session, blackbox, config)
}

/// Ids from a file are ids all the same.
fn version_4(mut id: [u8; 16]) -> [u8; 16] {
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

fn explanation(why: Why) -> &'static str {
    match why {
        Why::Gone => {
            "minimal record: the monitor had ended before the crash; no memory, no other threads, no attributes"
        }
        Why::Silent => {
            "minimal record: the monitor did not answer in time; no memory, no other threads, no attributes"
        }
        Why::Failed => {
            "minimal record: the monitor could not make a report; no memory, no other threads, no attributes"
        }
        Why::Fault => {
            "minimal record: asking the monitor faulted; no memory, no other threads, no attributes"
        }
        Why::Closed => {
            "minimal record: the application had closed Cenotaph's descriptors; no memory, no other threads, no attributes"
        }
    }
}

fn reason(record: &Record) -> Reason {
    let head = &record.head;
    match head.event {
        Event::Signal => Reason::Signal { number: head.signal, code: head.code, address: None },
        Event::Fault => Reason::Signal { number: head.signal, code: head.code, address: Some(head.address) },
        Event::Panic => Reason::Panic {
            message: "(not recorded)".to_owned(),
            location: text(&head.location),
            thread: "(not recorded)".to_owned(),
        },
    }
}

/// Where the application's binaries may be: its program, what this process (usually the same program) has mapped, and the
/// folders of both.
struct Candidates {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Candidates {
    fn new(config: &ValidConfig) -> Self {
        let files: BTreeSet<PathBuf> = config.program.iter().cloned().chain(procfs::own_binaries()).collect();
        let folders = files.iter().filter_map(|file| file.parent().map(Path::to_path_buf)).collect();
        Self { files, folders }
    }

    fn named(&self, name: &str) -> Vec<PathBuf> {
        if name.is_empty() || name.contains('/') || name == ".." {
            return Vec::new();
        }
        let known =
            self.files.iter().filter(|file| file.file_name().is_some_and(|base| base == name)).cloned();
        known.chain(self.folders.iter().map(|folder| folder.join(name))).collect()
    }
}
