//! One pass over the queue.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::{Compression, write::GzEncoder};
use serde::{Deserialize, Serialize};

use super::destination::{self, Opened};
use super::http::{Request, Transport};
use super::multipart::{Encoded, Form};
use super::response::{Outcome, Reply, Scope, classify};
use super::retry::{Decision, decide};
use crate::config::Destination;
use crate::error::{Error, Result};
use crate::privacy::Verdict;
use crate::report::ReportId;

/// Reports that wait for delivery.
pub trait Queue {
    /// A report that this process alone may work on.
    type Claim: Claim;

    /// Claims a report whose time has come (`Progress::next_due_ms <= now_ms`), oldest first.
    ///
    /// # Errors
    /// If the queue cannot be read.
    fn claim_due(&mut self, now_ms: u64) -> Result<Option<Self::Claim>>;

    /// When the next of the waiting reports is due.
    ///
    /// # Errors
    /// If the queue cannot be read.
    fn next_due_ms(&mut self) -> Result<Option<u64>>;
}

/// A claimed report. Each way to let go of it is durable before it returns; a claim that is simply dropped (or whose
/// process dies) is due again.
pub trait Claim {
    /// Its name.
    fn id(&self) -> ReportId;
    /// What happened to it so far.
    fn progress(&self) -> Progress;
    /// Whether it was deleted since it was claimed: it must not be sent.
    fn is_purged(&self) -> bool {
        false
    }
    /// Unseals it.
    ///
    /// # Errors
    /// [`Error::Unsealed`] or [`Error::Malformed`] if it can never be opened, anything else if not now.
    fn open(&mut self) -> Result<Opened>;
    /// Notes what happened and keeps the claim.
    ///
    /// # Errors
    /// If it cannot be written.
    fn record(&mut self, progress: Progress) -> Result<()>;
    /// Every destination has it: delete it.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn delivered(self) -> Result<()>;
    /// Back into the queue.
    ///
    /// # Errors
    /// If it cannot be written.
    fn hold(self, progress: Progress) -> Result<()>;
    /// Out of the queue, kept on disk for the operator.
    ///
    /// # Errors
    /// If it cannot be moved.
    fn reject(self, reason: &str) -> Result<()>;
    /// Consent was withdrawn: delete it.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn discard(self) -> Result<()>;
}

/// What happened to a report so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Passes in which at least one destination was tried and did not take it.
    pub attempts: u32,
    /// Bit i: destination i has accepted it.
    pub delivered: u32,
    /// Bit i: destination i will never take it. May be forgotten by a queue: it is then asked once more.
    pub refused: u32,
    /// Not to be touched before this time (milliseconds since the Unix epoch).
    pub next_due_ms: u64,
}

/// What is known of one destination, from one pass to the next. Lost with the process unless the caller keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lane {
    /// Nothing is sent there before this time: it was down, or asked for it.
    pub not_before_ms: u64,
    /// It does not take gzip.
    pub identity: bool,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Reports that every destination has accepted.
    pub delivered: u32,
    /// Reports that went back to wait.
    pub held: u32,
    /// Reports that a destination will never take, or that cannot be opened; kept on disk.
    pub rejected: u32,
    /// Reports deleted because consent was withdrawn.
    pub dropped: u32,
    /// Whether the pass ended early because consent is still to be given.
    pub awaits_consent: bool,
    /// When the next waiting report is due.
    pub next_due_ms: Option<u64>,
}

/// The pass's surroundings, so that tests can stand in for them.
pub struct Hooks<'a> {
    /// `privacy::gate` for the upload stage; asked before a report is opened and before each connection.
    pub gate: &'a mut dyn FnMut() -> Verdict,
    /// One call for each thing that happened.
    pub log: &'a mut dyn FnMut(&Event),
    /// Milliseconds since the Unix epoch.
    pub now_ms: &'a mut dyn FnMut() -> u64,
    /// Uniform 64 bits.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// Something that happened; its `Display` is a line for the log, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The report.
    pub report: ReportId,
    /// The destination's protocol and host, if it is about one.
    pub destination: Option<String>,
    /// What the destination said.
    pub outcome: Outcome,
    /// What follows.
    pub decision: Decision,
}

/// The time, for [`Hooks::now_ms`].
pub fn system_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Randomness, for [`Hooks::random`]. It spreads clients in time and guards nothing, so the clock will do where the
/// system has none.
pub fn system_random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => system_now_ms().wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// Sends what is due to every destination that does not have it yet. `lanes` is filled up to one for each destination.
///
/// The first failure that is about a destination rather than a report ends that destination's part of the pass.
///
/// # Errors
/// If the queue cannot be read or written. Failures of the network and of servers are no errors: they are counted, and
/// logged as events.
pub fn drain<Q: Queue>(
    queue: &mut Q,
    destinations: &[Destination],
    lanes: &mut Vec<Lane>,
    transport: &dyn Transport,
    hooks: &mut Hooks<'_>,
) -> Result<Summary> {
    let limit = u32::BITS as usize;
    if destinations.len() > limit {
        return Err(Error::Limit { what: "number of destinations", limit });
    }
    lanes.resize(destinations.len(), Lane::default());
    let mut summary = Summary::default();
    let started = (hooks.now_ms)();
    // Held reports are due later than `started`, so the loop ends; the set is for a queue that forgets.
    let mut seen = HashSet::new();
    let mut stopped = 0;
    while !destinations.is_empty() {
        let verdict = (hooks.gate)();
        if verdict == Verdict::Hold {
            summary.awaits_consent = true;
            break;
        }
        let Some(claim) = queue.claim_due(started)? else { break };
        if !seen.insert(claim.id()) {
            break;
        }
        if verdict == Verdict::Drop {
            claim.discard()?;
            summary.dropped += 1;
            continue;
        }
        let mut pass = Pass {
            destinations,
            lanes: lanes.as_mut_slice(),
            transport,
            hooks: &mut *hooks,
            started,
            stopped,
        };
        let fate = pass.report(claim)?;
        stopped = pass.stopped;
        match fate {
            Fate::Delivered => summary.delivered += 1,
            Fate::Held => summary.held += 1,
            Fate::Rejected => summary.rejected += 1,
            Fate::Dropped => summary.dropped += 1,
        }
    }
    // Without a destination nothing is ever due.
    if !destinations.is_empty() {
        summary.next_due_ms = queue.next_due_ms()?;
    }
    Ok(summary)
}

enum Fate {
    Delivered,
    Held,
    Rejected,
    Dropped,
}

struct Pass<'a, 'h> {
    destinations: &'a [Destination],
    lanes: &'a mut [Lane],
    transport: &'a dyn Transport,
    hooks: &'a mut Hooks<'h>,
    started: u64,
    /// Bit i: destination i has failed in this pass. (With luck its wait is 0, which must not mean "at once".)
    stopped: u32,
}

/// What came of one destination's turn.
enum Turn {
    Answered(Outcome),
    Gate(Verdict),
}

impl Pass<'_, '_> {
    fn report<C: Claim>(&mut self, mut claim: C) -> Result<Fate> {
        let mut progress = claim.progress();
        let (mut opened, mut due, mut failed) = (None, u64::MAX, false);
        for (index, destination) in self.destinations.iter().enumerate() {
            let bit = 1_u32 << index;
            if (progress.delivered | progress.refused) & bit != 0 {
                continue;
            }
            let now = (self.hooks.now_ms)();
            if now < self.lanes[index].not_before_ms || self.stopped & bit != 0 {
                due = due.min(self.lanes[index].not_before_ms);
                continue;
            }
            match (self.hooks.gate)() {
                Verdict::Proceed if claim.is_purged() => return claim.discard().map(|()| Fate::Dropped),
                Verdict::Proceed => {}
                Verdict::Hold => {
                    due = due.min(now);
                    break;
                }
                Verdict::Drop => return claim.discard().map(|()| Fate::Dropped),
            }
            let content = match opened.take() {
                Some(content) => content,
                None => match claim.open() {
                    Ok(content) => content,
                    Err(error) => return self.unopened(claim, progress, &error),
                },
            };
            let form = match destination::form(destination, &content) {
                Ok(form) => form,
                Err(error) => return self.unopened(claim, progress, &error),
            };
            opened = Some(content);
            let outcome = match self.turn(index, &form)? {
                Turn::Answered(outcome) => outcome,
                Turn::Gate(Verdict::Drop) => return claim.discard().map(|()| Fate::Dropped),
                Turn::Gate(_) => {
                    due = due.min(now);
                    break;
                }
            };
            let now = (self.hooks.now_ms)();
            let decision = decide(&outcome, progress.attempts.saturating_add(1), now, (self.hooks.random)());
            self.log(claim.id(), Some(index), &outcome, decision);
            match decision {
                Decision::Done => {
                    progress.delivered |= bit;
                    // A kill between here and the end must not send it there again.
                    if !self.settled(&progress) {
                        claim.record(progress)?;
                    }
                }
                Decision::Reject => progress.refused |= bit,
                Decision::RetryAt(at) => {
                    failed = true;
                    due = due.min(at);
                    if matches!(outcome, Outcome::Later { scope: Scope::Destination, .. }) {
                        self.lanes[index].not_before_ms = at;
                        self.stopped |= bit;
                    }
                }
            }
        }
        if !self.settled(&progress) {
            progress.attempts = progress.attempts.saturating_add(u32::from(failed));
            // Later than this pass's start, or the pass would never end.
            progress.next_due_ms = due.max(self.started.saturating_add(1));
            return claim.hold(progress).map(|()| Fate::Held);
        }
        if progress.refused & self.everyone() != 0 {
            return claim.reject("a destination refused it; the log says why").map(|()| Fate::Rejected);
        }
        claim.delivered().map(|()| Fate::Delivered)
    }

    fn settled(&self, progress: &Progress) -> bool {
        (progress.delivered | progress.refused) & self.everyone() == self.everyone()
    }

    /// The bits of the destinations that there are; a report may remember more from an earlier configuration.
    fn everyone(&self) -> u32 {
        u32::try_from(self.destinations.len())
            .ok()
            .and_then(|n| u32::BITS.checked_sub(n))
            .map_or(0, |unused| u32::MAX.checked_shr(unused).unwrap_or(0))
    }

    /// A report that cannot be opened for good is set aside; one that cannot be read right now waits.
    fn unopened<C: Claim>(&mut self, claim: C, mut progress: Progress, error: &Error) -> Result<Fate> {
        let damaged = matches!(error, Error::Unsealed(_) | Error::Malformed { .. } | Error::Limit { .. });
        let reason = error.to_string();
        let outcome = if damaged {
            Outcome::Rejected { reason: reason.clone() }
        } else {
            Outcome::Later { reason: reason.clone(), retry_after: None, scope: Scope::Report }
        };
        let attempts = progress.attempts.saturating_add(1);
        let decision = decide(&outcome, attempts, (self.hooks.now_ms)(), (self.hooks.random)());
        self.log(claim.id(), None, &outcome, decision);
        match decision {
            Decision::RetryAt(at) => {
                progress.attempts = attempts;
                progress.next_due_ms = at.max(self.started.saturating_add(1));
                claim.hold(progress).map(|()| Fate::Held)
            }
            Decision::Done | Decision::Reject => claim.reject(&reason).map(|()| Fate::Rejected),
        }
    }

    fn turn(&mut self, index: usize, form: &Form) -> Result<Turn> {
        let encoded = form.encode()?;
        if self.lanes[index].identity {
            return Ok(Turn::Answered(self.send(index, &encoded, false)?.1));
        }
        let (status, outcome) = self.send(index, &encoded, true)?;
        if !matches!(status, Some(400 | 415)) {
            return Ok(Turn::Answered(outcome));
        }
        // Old servers (kullo/crashreports, plain net/http forms) do not know Content-Encoding and say so in these ways.
        let verdict = (self.hooks.gate)();
        if verdict != Verdict::Proceed {
            return Ok(Turn::Gate(verdict));
        }
        let (status, plain) = self.send(index, &encoded, false)?;
        self.lanes[index].identity = matches!(status, Some(s) if !matches!(s, 400 | 415));
        Ok(Turn::Answered(plain))
    }

    /// One request. The status is `None` if there was no reply.
    fn send(&mut self, index: usize, encoded: &Encoded, gzip: bool) -> Result<(Option<u16>, Outcome)> {
        let destination = &self.destinations[index];
        let body = if gzip { compress(&encoded.body)? } else { encoded.body.clone() };
        let request = Request { url: &destination.url, content_type: &encoded.content_type, gzip, body };
        Ok(match self.transport.send(request) {
            Ok(reply) => (Some(reply.status), self.classify(destination, &reply)),
            Err(reason) => (None, Outcome::Later { reason, retry_after: None, scope: Scope::Destination }),
        })
    }

    fn classify(&mut self, destination: &Destination, reply: &Reply) -> Outcome {
        classify(destination.protocol, reply, (self.hooks.now_ms)())
    }

    fn log(&mut self, report: ReportId, index: Option<usize>, outcome: &Outcome, decision: Decision) {
        let destination = index.and_then(|i| self.destinations.get(i)).map(name);
        (self.hooks.log)(&Event { report, destination, outcome: outcome.clone(), decision });
    }
}

/// Protocol and host: the rest of a URL may hold a token.
fn name(destination: &Destination) -> String {
    let url = destination.url.strip_prefix("https://").unwrap_or_default();
    let host = url.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{:?} {host}", destination.protocol).to_lowercase()
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let failed = |source| Error::System { call: "gzip", source };
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::default());
    encoder.write_all(bytes).map_err(failed)?;
    encoder.finish().map_err(failed)
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "report {}", self.report)?;
        if let Some(destination) = &self.destination {
            write!(f, " to {destination}")?;
        }
        match &self.outcome {
            Outcome::Accepted { server_id } => write!(f, ": accepted as {server_id}"),
            Outcome::Discarded { reason } => {
                write!(f, ": discarded by the server ({reason}); kept in rejected")
            }
            Outcome::Rejected { reason } => write!(f, ": rejected, {reason}; kept in rejected"),
            Outcome::Later { reason, .. } => write!(f, ": not delivered, {reason}; kept for another try"),
        }
    }
}

#[cfg(test)]
mod tests;
