//! Running pmodules: each in a process of its own, one after the other, each within its limits.
//!
//! A child is forked when the target stands still and its memory was read, so that it has all of that by copy-on-write;
//! nothing is serialised but its answer. What it says is checked again here. A process that also wants `scrub` or `verdict`
//! waits on its socket until then.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::check::{self, Facts};
use super::child::{self, Sight};
use super::message::{Answered, LONGEST_ANSWER, Phase};
use super::watch::Watched;
use super::{Blanks, Edit, Edits, Event, Limits, RegionEvent, Registered, Veto, plan};
use crate::error::{Error, Result};
use crate::report::{Attribute, AttributeValue, Breadcrumb, Reason, Report, StackTrace};
use crate::sys::confine::{self, Means};
use crate::sys::memory::memfd_with;
use crate::sys::process::{self, Forked};
use crate::sys::socket::Socket;
use crate::target::{Memory, Target};

/// All pmodules together have so long for a finished dump, and again for a finished report, whatever their limits: a
/// quarter of what a worker has for all of it.
const LONGEST_PHASE: Duration = Duration::from_secs(30);

/// What pmodules see besides the target.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What is to go into the dump.
    pub regions: Vec<RegionEvent<'a>>,
    /// The frames, if somebody wants them and they could be unwound.
    pub trace: Option<&'a StackTrace>,
    /// Why there is a report.
    pub reason: &'a Reason,
    /// What the application noted, and what pmodules set so far.
    pub attributes: Vec<Attribute>,
    /// Oldest first.
    pub breadcrumbs: &'a [Breadcrumb],
}

/// What became of a pmodule's look at the stopped process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// Its name.
    pub pmodule: String,
    /// Whether a failure steps the report down.
    pub fails_closed: bool,
    /// What it wants, or why that is missing.
    pub result: Result<Edits, Why>,
    /// From the fork to the answer, in microseconds.
    pub took_us: u64,
    /// The kernel had no filter for its system calls.
    pub unconfined: bool,
}

/// Why a pmodule's result is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// A few words. At most 512 bytes.
    pub text: String,
    /// They are the pmodule's own, and may hold personal data.
    pub own_words: bool,
}

/// What a pmodule answered to a finished dump or report.
#[derive(Debug)]
pub struct Heard<T> {
    /// Its name.
    pub pmodule: String,
    /// Whether a failure steps the report down.
    pub fails_closed: bool,
    /// The answer.
    pub result: Result<T, Why>,
}

/// The pmodules of one crash. Dropping it ends their processes.
#[derive(Debug)]
pub struct Session<'a> {
    registered: &'a [Registered],
    limits: Limits,
    /// For each pmodule: its process while that waits for a later phase.
    waiting: Vec<Option<Watched>>,
    /// Those that failed or answered already, which are ended but not yet collected.
    ended: Vec<Watched>,
    /// Those that failed: nobody asks them again in this crash.
    failed: Vec<bool>,
    /// What they print goes to standard error.
    aloud: bool,
}

impl<'a> Session<'a> {
    /// One in which nobody has looked at the process. `failed` are the names of those that failed before.
    pub fn new(registered: &'a [Registered], limits: Limits, failed: &[&str]) -> Self {
        let failed =
            registered.iter().map(|r| failed.contains(&r.description.name.as_str())).collect::<Vec<_>>();
        let waiting = registered.iter().map(|_| None).collect();
        Self { registered, limits, waiting, ended: Vec::new(), failed, aloud: false }
    }

    /// The same, but what pmodules print goes to standard error, and all of them together have no less time than one.
    pub fn aloud(self) -> Self {
        Self { aloud: true, ..self }
    }

    /// Whether the frames must be known before [`inspect`](Self::inspect).
    pub fn needs_frames(&self) -> bool {
        self.registered.iter().any(|registered| registered.description.needs_frames())
    }

    /// Whether anybody wants to look at a stopped process.
    pub fn inspects(&self) -> bool {
        self.registered.iter().any(|registered| registered.description.inspects())
    }

    /// What is to be said if nobody can look at the process.
    pub fn unseen(&mut self, why: &str) -> Vec<Ran> {
        let why = Why::ours(why);
        let mut all = Vec::new();
        for (number, registered) in self.registered.iter().enumerate() {
            let description = &registered.description;
            if description.inspects() {
                self.failed[number] = true;
                all.push(Ran::missing(&description.name, description.fails_closed(), why.clone()));
            }
        }
        all
    }

    /// Has all that want to look at `target`, in their order (`registered` is sorted), until `until` at the latest.
    /// Attributes that one sets are seen by those behind it.
    pub fn inspect(&mut self, target: &mut Target, scene: &mut Scene<'_>, until: Instant) -> Vec<Ran> {
        let mut memory = target.memory_by_pread();
        let files: Vec<RawFd> = memory.as_ref().map_or_else(Vec::new, |memory| memory.descriptors());
        let until = until.min(Instant::now() + self.limits.all);
        let mut all = Vec::new();
        for (number, registered) in self.registered.iter().enumerate() {
            let description = &registered.description;
            if !description.inspects() {
                continue;
            }
            let begun = Instant::now();
            let (mut unconfined, mut not_made) = (false, false);
            let result = self.look(number, target, &mut memory, &files, scene, until).and_then(|answered| {
                unconfined = answered.1;
                not_made = matches!(answered.0, Answered::NotMade(_));
                let edits = edits(answered.0)?;
                check::edits(&edits, &Facts::of(target)).map_err(|failure| Why::own(&failure.0))?;
                Ok(edits)
            });
            match &result {
                Ok(edits) => plan::set_attributes(&mut scene.attributes, attributes(edits)),
                Err(_) => self.give_up(number),
            }
            all.push(Ran {
                pmodule: description.name.clone(),
                fails_closed: description.fails_closed() || not_made,
                result,
                took_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
                unconfined,
            });
        }
        all
    }

    /// Shows the finished dump to those that want to scrub it.
    pub fn scrub(&mut self, dump: &[u8]) -> Vec<Heard<Blanks>> {
        self.phase(Event::Scrub, Phase::Scrub, &[dump], |answered| match answered {
            Answered::Blanks(blanks) => blanks.checked().map_err(|failure| Why::ours(failure.0)),
            other => Err(unfit(other)),
        })
    }

    /// Shows the finished report to those that want a say in it.
    pub fn verdict(&mut self, report: &Report) -> Vec<Heard<Option<Veto>>> {
        if !self.registered.iter().any(|registered| registered.description.wants(Event::Verdict)) {
            return Vec::new();
        }
        // A report that cannot be written down is found out where it is stored.
        let json = serde_json::to_vec(report).unwrap_or_default();
        self.phase(Event::Verdict, Phase::Verdict, &[&json], |answered| match answered {
            Answered::Verdict(veto) => match veto.as_ref().map(|veto| Edit::Veto(veto.clone()).check()) {
                Some(Err(failure)) => Err(Why::ours(failure.0)),
                _ => Ok(veto),
            },
            other => Err(unfit(other)),
        })
    }

    fn look(
        &mut self,
        number: usize,
        target: &mut Target,
        memory: &mut Option<Box<dyn Memory>>,
        files: &[RawFd],
        scene: &Scene<'_>,
        until: Instant,
    ) -> Result<(Answered, bool), Why> {
        let registered = &self.registered[number];
        let limit = self.limits.inspect.min(until.saturating_duration_since(Instant::now()));
        if limit.is_zero() {
            return Err(Why::ours("no time was left for it"));
        }
        let asks = memory.is_none();
        let sight = Some((target, memory, scene));
        let (mut watched, target) =
            fork(registered, sight, files, self.limits.memory, self.aloud).map_err(Why::system)?;
        // One that reads by itself has nothing to ask for: reading may block where its own does not.
        let memory = target.as_ref().filter(|_| asks).map(|target| target.memory());
        let answered = watched.answer(limit, memory);
        let stays =
            registered.description.wants(Event::Scrub) || registered.description.wants(Event::Verdict);
        if stays && answered.is_ok() {
            self.waiting[number] = Some(watched);
        } else {
            // Collected when the target runs again.
            process::kill_pidfd(watched.pidfd.as_fd());
            self.ended.push(watched);
        }
        answered
    }

    fn phase<T>(
        &mut self,
        event: Event,
        phase: Phase,
        subject: &[&[u8]],
        take: impl Fn(Answered) -> Result<T, Why>,
    ) -> Vec<Heard<T>> {
        let mut all = Vec::new();
        let mut file = None;
        let longest = if self.aloud { LONGEST_PHASE.max(self.limits.scrub) } else { LONGEST_PHASE };
        let until = Instant::now() + longest;
        for (number, registered) in self.registered.iter().enumerate() {
            if !registered.description.wants(event) || self.failed[number] {
                continue;
            }
            let result = self.ask(number, phase, subject, &mut file, until);
            let not_made = matches!(result, Ok(Answered::NotMade(_)));
            let result = result.and_then(&take);
            if result.is_err() {
                self.give_up(number);
            }
            let description = &registered.description;
            let pmodule = description.name.clone();
            let fails_closed = description.fails_closed() || not_made;
            all.push(Heard { pmodule, fails_closed, result });
        }
        all
    }

    fn ask(
        &mut self,
        number: usize,
        phase: Phase,
        subject: &[&[u8]],
        file: &mut Option<std::os::fd::OwnedFd>,
        until: Instant,
    ) -> Result<Answered, Why> {
        let limit = self.limits.scrub.min(until.saturating_duration_since(Instant::now()));
        if file.is_none() {
            *file = Some(memfd_with(c"cenotaph-pmodule", subject).map_err(Why::system)?);
        }
        let Some(file) = file else { return Err(Why::ours("it could not be asked")) };
        let watched = match &mut self.waiting[number] {
            Some(watched) => watched,
            empty => {
                let (fresh, _) = fork(&self.registered[number], None, &[], self.limits.memory, self.aloud)
                    .map_err(Why::system)?;
                empty.insert(fresh)
            }
        };
        watched.tell(phase, file.as_fd(), subject.iter().map(|part| part.len()).sum())?;
        watched.answer(limit, None).map(|(answered, _)| answered)
    }

    fn give_up(&mut self, number: usize) {
        self.failed[number] = true;
        self.waiting[number] = None;
    }
}

impl Why {
    /// In our words.
    pub fn ours(text: impl Into<String>) -> Self {
        Self { text: text.into(), own_words: false }
    }

    /// In the pmodule's words: cut, on one line.
    fn own(text: &str) -> Self {
        const LONGEST: usize = 512;
        let cut = text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default();
        let line = cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { text: line, own_words: true }
    }

    fn system(error: Error) -> Self {
        Self::ours(format!("could not be run: {error}"))
    }
}

/// The registered pmodules in the order in which they run, and those of `wanted` that are missing among them.
pub fn in_order(
    mut registered: Vec<Registered>,
    wanted: &[super::Description],
) -> (Vec<Registered>, Vec<Ran>) {
    registered.sort_by_key(|registered| registered.description.priority);
    let is_there = |name: &str| registered.iter().any(|registered| registered.description.name == name);
    let missing = wanted.iter().filter(|wanted| !is_there(&wanted.name)).map(|wanted| {
        let why = Why::ours("the monitor does not have it: name it in monitor_entry_with or the helper");
        Ran::missing(&wanted.name, wanted.fails_closed(), why)
    });
    let missing = missing.collect();
    (registered, missing)
}

impl Ran {
    /// One that could not even be tried.
    pub fn missing(pmodule: &str, fails_closed: bool, why: Why) -> Self {
        Self { pmodule: pmodule.to_owned(), fails_closed, result: Err(why), took_us: 0, unconfined: false }
    }
}

fn edits(answered: Answered) -> Result<Edits, Why> {
    match answered {
        Answered::Edits(edits) => edits.checked().map_err(|failure| Why::ours(failure.0)),
        other => Err(unfit(other)),
    }
}

/// An answer that is no result of the phase.
fn unfit(answered: Answered) -> Why {
    match answered {
        Answered::Failed(words) | Answered::NotMade(words) => Why::own(&words),
        Answered::Panicked(place) => match source_line(&place) {
            Some(place) => Why::ours(format!("panicked at {place}")),
            None => Why::ours("panicked"),
        },
        Answered::TooLong => Why::ours(format!("its answer has more than {LONGEST_ANSWER} bytes")),
        Answered::Edits(_) | Answered::Blanks(_) | Answered::Verdict(_) => Why::ours("answered nonsense"),
    }
}

/// A place in a source file of Rust, if that is what it is: whoever sends the answer can send any text as one. Of an
/// absolute path, which names whoever built it, the last part.
fn source_line(place: &str) -> Option<&str> {
    const LONGEST: usize = 128;
    let place = if place.starts_with('/') { place.rsplit('/').next()? } else { place };
    let (file, line) = place.rsplit_once(':')?;
    let is_line = !line.is_empty() && line.len() < 8 && line.bytes().all(|byte| byte.is_ascii_digit());
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    // No number of a person or a card is in the name of one.
    let has_number = file.as_bytes().windows(5).any(|bytes| bytes.iter().all(u8::is_ascii_digit));
    let is_file = file.ends_with(".rs") && file.len() <= LONGEST && file.bytes().all(is_path) && !has_number;
    (is_line && is_file).then_some(place)
}

fn attributes(edits: &Edits) -> Vec<(String, AttributeValue)> {
    let set = |edit: &Edit| match edit {
        Edit::Attribute { key, value } => Some((key.clone(), value.clone())),
        _ => None,
    };
    edits.iter().filter_map(set).collect()
}

type SightOf<'a> = (&'a mut Target, &'a mut Option<Box<dyn Memory>>, &'a Scene<'a>);

/// Starts a pmodule's process. Gives the target back: only the child takes it apart.
fn fork<'a>(
    registered: &Registered,
    sight: Option<SightOf<'a>>,
    files: &[RawFd],
    memory: u64,
    aloud: bool,
) -> Result<(Watched, Option<&'a mut Target>)> {
    let (ours, theirs) = Socket::pair()?;
    let (complaints, writer) =
        confine::complaints().map_err(|source| Error::System { call: "pipe", source })?;
    let parent = std::process::id().cast_signed();
    match process::fork()? {
        Forked::Parent(pid, pidfd) => {
            let label = registered.label.clone();
            let watched = Watched::new(pid, pidfd, ours, complaints, memory, label, aloud);
            Ok((watched, sight.map(|(target, ..)| target)))
        }
        Forked::Child => {
            let keep: Vec<RawFd> = files.iter().copied().chain([theirs.as_raw()]).collect();
            let means = Means { parent, keep: &keep, complaints: writer.as_raw_fd(), memory, aloud };
            let sight = sight.map(|(target, memory, scene)| Sight { target, memory: memory.take(), scene });
            child::play(registered, sight, theirs, &means)
        }
    }
}

/// How long pmodules may look at a process whose dying thread has waited since `asked_ns` (CLOCK_MONOTONIC) and goes on
/// after `deadline`: a quarter of that is left for what comes behind.
pub fn latest(asked_ns: u64, deadline: Duration) -> Instant {
    let waited = Duration::from_nanos(process::monotonic_ns().saturating_sub(asked_ns));
    Instant::now() + (deadline * 3 / 4).saturating_sub(waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one() {
        let cases = [
            ("src/play.rs:17", Some("src/play.rs:17")),
            ("/home/jane/src/play.rs:17", Some("play.rs:17")),
            ("jane.doe@example.org", None),
            ("jane.doe@example.rs:1", None),
            ("call jane.rs:1", None),
            ("play.rs:", None),
            ("play.rs", None),
            ("4111111111111111.rs:1", None),
            ("play.rs:4111111111111111", None),
            ("", None),
        ];
        for (place, expected) in cases {
            assert_eq!(source_line(place), expected, "{place}");
            let why = unfit(Answered::Panicked(place.to_owned()));
            assert!(why.text == "panicked" || Some(&why.text["panicked at ".len()..]) == expected);
        }
    }
}
