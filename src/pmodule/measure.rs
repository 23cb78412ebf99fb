//! What a pmodule costs: counted in its own process, in memory shared with ours.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::{
    Blanks, Description, DumpView, Edits, Event, Failure, FrameEvent, Noted, Pmodule, RegionEvent,
    Registered, Veto,
};
use crate::error::Result;
use crate::report::Report;
use crate::sys::memory::SharedMemory;
use crate::sys::process;
use crate::target::{Memory, Target, Thread};

const EVENTS: [Event; 8] = Event::ALL;
/// Words: calls of each event, then nanoseconds of each.
const TIMES: usize = EVENTS.len();
const LOAD: usize = 2 * EVENTS.len();
const READS: usize = LOAD + 1;
const BYTES: usize = LOAD + 2;
const MEMORY: usize = LOAD + 3;
const WORDS: usize = LOAD + 4;

/// Counts what one pmodule does.
#[derive(Clone)]
pub struct Meter(Arc<SharedMemory>);

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Cost {
    /// Microseconds to make an instance: for a shared object, to load it.
    pub load_us: u64,
    /// The events that came, in their order.
    pub events: Vec<EventCost>,
    /// Pieces of the target's memory that were read.
    pub reads: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes of memory that its process had more in use at the end than before it was loaded.
    pub memory_bytes: u64,
}

/// Of one kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventCost {
    /// Which.
    pub event: Event,
    /// How often it came.
    pub calls: u64,
    /// Microseconds in all.
    pub took_us: u64,
}

impl Meter {
    /// One that has counted nothing.
    ///
    /// # Errors
    /// If there is no memory to share.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(SharedMemory::create(c"cenotaph-meter", WORDS)?)))
    }

    /// The same pmodule, counted.
    pub fn around(&self, pmodule: &Registered) -> Registered {
        let (meter, pmodule) = (self.clone(), pmodule.clone());
        let label = pmodule.label.clone();
        let counted = Registered::new(pmodule.description.clone(), move || {
            let (begun, memory) = (process::monotonic_ns(), process::most_memory());
            let inner = pmodule.make()?;
            meter.add(LOAD, process::monotonic_ns().saturating_sub(begun));
            Ok(Box::new(Measured { inner, meter: meter.clone(), memory }))
        });
        counted.labelled(label)
    }

    /// Counts what is read of `target` in processes forked from this one.
    pub fn watch(&self, target: &mut Target) {
        let meter = self.clone();
        target.wrap_memory(|memory| Box::new(Counted { memory, meter, counts: false }));
    }

    /// What was counted so far.
    pub fn read(&self) -> Cost {
        let events = EVENTS.iter().enumerate().filter_map(|(number, &event)| {
            let (calls, took_us) = (self.word(number), self.word(TIMES + number) / 1000);
            (calls > 0).then_some(EventCost { event, calls, took_us })
        });
        Cost {
            load_us: self.word(LOAD) / 1000,
            events: events.collect(),
            reads: self.word(READS),
            read_bytes: self.word(BYTES),
            memory_bytes: self.word(MEMORY),
        }
    }

    fn place(&self, place: usize) -> Option<&AtomicU64> {
        self.0.words().get(place)
    }

    fn word(&self, place: usize) -> u64 {
        self.place(place).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn add(&self, place: usize, more: u64) {
        if let Some(word) = self.place(place) {
            word.fetch_add(more, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.read()).finish()
    }
}

struct Measured {
    inner: Box<dyn Pmodule>,
    meter: Meter,
    /// What its process had in use before.
    memory: u64,
}

impl Measured {
    fn during<T>(&mut self, event: Event, run: impl FnOnce(&mut dyn Pmodule) -> T) -> T {
        let begun = process::monotonic_ns();
        self.meter.add(event as usize, 1);
        let result = run(&mut *self.inner);
        self.meter.add(TIMES + event as usize, process::monotonic_ns().saturating_sub(begun));
        if let Some(word) = self.meter.place(MEMORY) {
            word.fetch_max(process::most_memory().saturating_sub(self.memory), Ordering::Relaxed);
        }
        result
    }
}

impl Pmodule for Measured {
    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn attach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        self.during(Event::Attach, |inner| inner.attach(target, edits))
    }

    fn thread(&mut self, target: &Target, thread: &Thread, edits: &mut Edits) -> Result<(), Failure> {
        self.during(Event::Thread, |inner| inner.thread(target, thread, edits))
    }

    fn frame(&mut self, target: &Target, frame: &FrameEvent<'_>, edits: &mut Edits) -> Result<(), Failure> {
        self.during(Event::Frame, |inner| inner.frame(target, frame, edits))
    }

    fn region(
        &mut self,
        target: &Target,
        region: &RegionEvent<'_>,
        edits: &mut Edits,
    ) -> Result<(), Failure> {
        self.during(Event::Region, |inner| inner.region(target, region, edits))
    }

    fn attributes(&mut self, noted: &Noted<'_>, edits: &mut Edits) -> Result<(), Failure> {
        self.during(Event::Attributes, |inner| inner.attributes(noted, edits))
    }

    fn detach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        self.during(Event::Detach, |inner| inner.detach(target, edits))
    }

    fn scrub(&mut self, dump: &DumpView<'_>, blanks: &mut Blanks) -> Result<(), Failure> {
        self.during(Event::Scrub, |inner| inner.scrub(dump, blanks))
    }

    fn verdict(&mut self, report: &Report) -> Result<Option<Veto>, Failure> {
        self.during(Event::Verdict, |inner| inner.verdict(report))
    }
}

struct Counted {
    memory: Box<dyn Memory>,
    meter: Meter,
    /// Not for ourselves, who read for the dump.
    counts: bool,
}

impl Memory for Counted {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let all = self.memory.read_ranges(ranges);
        if self.counts {
            self.meter.add(READS, ranges.len() as u64);
            self.meter.add(BYTES, all.iter().map(|bytes| bytes.len() as u64).sum());
        }
        all
    }

    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        let memory = self.memory.by_pread()?;
        Some(Box::new(Self { memory, meter: self.meter.clone(), counts: true }))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.memory.descriptors()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Verdicts;

    impl Pmodule for Verdicts {
        fn describe(&self) -> Description {
            Description::new("verdicts").on(Event::Attach)
        }

        fn attach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
            let read = target.memory().read(target.maps[0].range.start, 16);
            edits.comment(format!("{} bytes", read.len()))
        }
    }

    #[test]
    fn events_reads_and_time_are_counted() {
        let meter = Meter::new().unwrap();
        let registered = meter.around(&Registered::of(Verdicts));
        assert_eq!(registered.description, Verdicts.describe());
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = child.id().cast_signed();
        let mut target = Target::stop(crate::target::Request::new(pid, pid, None)).unwrap();
        meter.watch(&mut target);
        // What this process reads for itself does not count, what a forked child would read does.
        let start = target.maps[0].range.start;
        assert_eq!(target.memory().read(start, 16).len(), 16);
        assert_eq!(meter.read(), Cost::default());
        let memory = target.memory_by_pread().unwrap();
        target.wrap_memory(|_| memory);
        let mut instance = registered.make().unwrap();
        for _ in 0..3 {
            instance.attach(&target, &mut Edits::default()).unwrap();
        }
        let cost = meter.read();
        assert_eq!((cost.reads, cost.read_bytes), (3, 48));
        assert_eq!(cost.events.len(), 1);
        assert_eq!((cost.events[0].event, cost.events[0].calls), (Event::Attach, 3));
        target.release();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
