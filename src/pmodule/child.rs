//! A pmodule's own process: forked from the tracer, confined, it plays the events and answers.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::check::Facts;
use super::message::{self, Answer, Answered, LONGEST_ANSWER, PIECE, Phase};
use super::runner::Scene;
use super::{
    Blanks, Description, DumpView, Edits, Event, Failure, FrameEvent, FrameFilter, Noted, Pmodule, Registered,
};
use crate::dump::Layout;
use crate::report::Report;
use crate::sys::confine::{self, Means};
use crate::sys::fault;
use crate::sys::process::exit_now;
use crate::sys::socket::{Received, Socket};
use crate::target::{Memory, Target};

/// What it looks at first.
pub(super) struct Sight<'a> {
    pub(super) target: &'a mut Target,
    /// The target's memory by `pread`; without it the tracer is asked.
    pub(super) memory: Option<Box<dyn Memory>>,
    pub(super) scene: &'a Scene<'a>,
}

/// Plays the events of `registered` and never returns. `sight` is there if it wants any of a stopped process.
pub(super) fn play(
    registered: &Registered,
    sight: Option<Sight<'_>>,
    tracer: Socket,
    means: &Means<'_>,
) -> ! {
    confine::enter(means);
    // For the panic hook too. Nothing of this process is ever dropped.
    let tracer: &'static Socket = Box::leak(Box::new(tracer));
    note_panics(tracer);
    fault::tell(tracer.as_raw(), message::FAULT);
    let mut instance = match guarded(|| registered.make()) {
        Ok(instance) => instance,
        Err(failed) => {
            let failed = if let Answered::Failed(why) = failed { Answered::NotMade(why) } else { failed };
            answer(tracer, false, failed);
            exit_now(0)
        }
    };
    // After it was loaded and before files are out of reach.
    fault::note_own_code();
    let unconfined = confine::bar().is_err();
    let description = &registered.description;
    if let Some(Sight { target, memory, scene }) = sight {
        target.with_memory(memory.unwrap_or_else(|| Box::new(Asked { tracer })));
        let edits = guarded(|| inspect(&mut *instance, description, target, scene, tracer));
        let failed = edits.is_err();
        answer(tracer, unconfined, edits.map_or_else(|failed| failed, Answered::Edits));
        if failed {
            exit_now(0);
        }
    }
    while let Some((phase, subject)) = next(tracer) {
        begin(tracer, if phase == Phase::Scrub { Event::Scrub } else { Event::Verdict });
        let result = guarded(|| match phase {
            Phase::Scrub => scrub(&mut *instance, &subject?).map(Answered::Blanks),
            Phase::Verdict => verdict(&mut *instance, &subject?).map(Answered::Verdict),
        });
        answer(tracer, unconfined, result.unwrap_or_else(|failed| failed));
    }
    exit_now(0)
}

/// Tells which event is next, for whoever reads how it died.
fn begin(tracer: &Socket, event: Event) {
    // Nobody to hear it: then nobody misses it.
    let _ = tracer.send_waiting(&message::event(event));
}

/// The events while the process stands still.
fn inspect(
    instance: &mut dyn Pmodule,
    description: &Description,
    target: &Target,
    scene: &Scene<'_>,
    tracer: &Socket,
) -> Result<Edits, Failure> {
    let mut edits = Edits::about(Facts::of(target));
    let wants = |event| {
        let wants = description.wants(event);
        if wants {
            begin(tracer, event);
        }
        wants
    };
    if wants(Event::Attach) {
        instance.attach(target, &mut edits)?;
    }
    if wants(Event::Thread) {
        let (first, others): (Vec<_>, Vec<_>) =
            target.threads.iter().partition(|thread| thread.id == target.tid);
        for thread in first.into_iter().chain(others) {
            instance.thread(target, thread, &mut edits)?;
        }
    }
    if wants(Event::Frame) {
        frames(instance, description, target, scene, &mut edits)?;
    }
    if wants(Event::Region) {
        for region in &scene.regions {
            instance.region(target, region, &mut edits)?;
        }
    }
    if wants(Event::Attributes) {
        let Scene { reason, attributes, breadcrumbs, .. } = scene;
        instance.attributes(&Noted { reason, attributes, breadcrumbs }, &mut edits)?;
    }
    if wants(Event::Detach) {
        instance.detach(target, &mut edits)?;
    }
    Ok(edits)
}

fn frames(
    instance: &mut dyn Pmodule,
    description: &Description,
    target: &Target,
    scene: &Scene<'_>,
    edits: &mut Edits,
) -> Result<(), Failure> {
    let trace = scene.trace.ok_or("the frames could not be unwound")?;
    for thread in &trace.threads {
        for (number, frame) in thread.frames.iter().enumerate() {
            let module = frame.module.and_then(|module| trace.modules.get(module));
            let module = module.map(|module| module.name.as_str());
            // By its name and not by the frame's address, which would take the module's whole symbol table.
            let lies_in = |wanted: &str| lies_in(target, frame.instruction, wanted);
            let takes = |filter: &&FrameFilter| {
                FrameFilter { symbol: None, ..(*filter).clone() }.takes(module, None, thread.crashed)
                    && filter.symbol.as_deref().is_none_or(lies_in)
            };
            let taken = description.frames.iter().find(takes);
            if description.frames.is_empty() || taken.is_some() {
                let symbol = taken.and_then(|filter| filter.symbol.as_deref());
                let event = FrameEvent {
                    thread: thread.id.cast_signed(),
                    crashed: thread.crashed,
                    number,
                    frame,
                    module,
                    symbol,
                };
                instance.frame(target, &event, edits)?;
            }
        }
    }
    Ok(())
}

/// Whether `address` lies in the symbol `name` of its module.
fn lies_in(target: &Target, address: u64, name: &str) -> bool {
    let below = target.modules.iter().enumerate().filter(|(_, module)| module.range.start <= address);
    let module = below.max_by_key(|(_, module)| module.range.start).map(|(module, _)| module);
    let Some(symbol) = module.and_then(|module| target.symbol_in(module, name)) else { return false };
    match symbol.size {
        // Up to the next one, wherever that is.
        0 => target.symbolize(address).is_some_and(|(found, _)| found.address == symbol.address),
        size => (symbol.address..symbol.address.saturating_add(size)).contains(&address),
    }
}

fn scrub(instance: &mut dyn Pmodule, dump: &[u8]) -> Result<Blanks, Failure> {
    let layout = Layout::parse(dump).map_err(|error| Failure(error.to_string()))?;
    let mut blanks = Blanks::about(Facts::of_dump(&layout));
    instance.scrub(&DumpView::new(dump, &layout), &mut blanks)?;
    Ok(blanks)
}

fn verdict(instance: &mut dyn Pmodule, report: &[u8]) -> Result<Option<super::Veto>, Failure> {
    let report: Report = serde_json::from_slice(report).map_err(|error| Failure(error.to_string()))?;
    instance.verdict(&report)
}

/// Waits for the next phase and its subject; `None` when the tracer is gone or has nothing more to ask.
fn next(tracer: &Socket) -> Option<(Phase, Result<Vec<u8>, Failure>)> {
    const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
    let Ok(Received::Message(message)) = tracer.receive(16, FOR_EVER) else { return None };
    let (phase, length) = Phase::parse(&message.bytes)?;
    // Asking for its size is not allowed any more.
    let file = File::from(message.fds.into_iter().next()?);
    let mut subject = vec![0; length];
    let read = file.read_exact_at(&mut subject, 0);
    Some((phase, read.map(|()| subject).map_err(|error| Failure(error.to_string()))))
}

fn answer(tracer: &Socket, unconfined: bool, result: Answered) {
    let json = serde_json::to_vec(&Answer { unconfined, result }).unwrap_or_default();
    if json.len() > LONGEST_ANSWER {
        return answer(tracer, unconfined, Answered::TooLong);
    }
    for piece in message::pieces(&json) {
        if tracer.send_waiting(&piece).is_err() {
            return;
        }
    }
}

/// Where the last panic was.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Keeps a panic's place and nothing of its message, which is not ours to read.
fn note_panics(tracer: &'static Socket) {
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        if cfg!(panic = "abort") {
            answer(tracer, false, Answered::Panicked(place));
            exit_now(0);
        }
        *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
}

/// What goes wrong in a pmodule's own code, as an answer.
fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Answered> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure(words))) => Err(Answered::Failed(words)),
        Err(_) => Err(Answered::Panicked(PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone())),
    }
}

/// The target's memory, read by the tracer.
struct Asked {
    tracer: &'static Socket,
}

impl Memory for Asked {
    fn read_ranges(&self, ranges: &[std::ops::Range<u64>]) -> Vec<Vec<u8>> {
        ranges.iter().map(|range| self.range(range)).collect()
    }
}

impl Asked {
    fn range(&self, range: &std::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(PIECE).min(PIECE);
            let Some(piece) = self.ask(at, length) else { break };
            at = at.saturating_add(piece.len() as u64);
            bytes.extend_from_slice(&piece);
            if piece.len() < length {
                break;
            }
        }
        bytes
    }

    fn ask(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        const PATIENCE: Duration = Duration::from_secs(60);
        self.tracer.send_waiting(&message::read(address, length)).ok()?;
        match self.tracer.receive(PIECE + 1, PATIENCE) {
            // The first byte only keeps the message from being empty, which would read as the end.
            Ok(Received::Message(message)) => message.bytes.get(1..).map(<[u8]>::to_vec),
            _ => None,
        }
    }
}
