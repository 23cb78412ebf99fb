//! Pmodules for the tests: good ones, and every way to misbehave.

use std::ops::Range;
use std::str::FromStr;
use std::{env, hint, mem};

use cenotaph::pmodule::{
    Blank, Blanks, Description, DumpView, Edit, Edits, Event, Failure, FrameEvent, FrameFilter, Noted,
    Pmodule, REGISTERS, RegionEvent, Registered, Veto,
};
use cenotaph::report::{AnnotationLevel, Detail, Report};
use cenotaph::target::{Target, Thread};

use crate::state::{STATE, State};

/// What does no harm.
const GOOD: &[&str] = &[
    "annotate",
    "attribute",
    "after",
    "frames",
    "add",
    "blank",
    "register",
    "drop",
    "lower",
    "pointers",
    "veto",
    "veto-late",
    "scrub",
    "environment",
    "says-why",
    "memory",
    "symbol",
    "scrub-again",
    "reach",
    "slow",
];
/// Longer than an application waits that is told to wait for a second.
const SLOW: std::time::Duration = std::time::Duration::from_secs(4);
/// When it misbehaves.
const PHASES: &[&str] = &["inspect", "redact", "scrub", "verdict"];
/// How.
const MISBEHAVIOURS: &[&str] = &[
    "loop", "alloc", "wild", "exit", "fork", "panic", "open", "socket", "thread", "nonsense", "huge", "lie",
    "overflow", "kill",
];

/// A pmodule by its name: one of the good ones, or `PHASE-MISBEHAVIOUR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    name: String,
    /// Where this program's globals lie behind its start.
    state: u64,
    /// Whether it saw the process.
    attached: bool,
    reach: Reach,
}

/// What it could write to in its own process and others would read.
#[derive(Debug, PartialEq, Eq, Default)]
struct Reach(Vec<String>);

/// It is a copy that meets a crash, made in its own process when files may still be opened.
impl Clone for Reach {
    fn clone(&self) -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let shared = maps.lines().filter(|line| line.split(' ').nth(1) == Some("rw-s"));
        Self(shared.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let bad = name.split_once('-');
        let is_bad = bad.is_some_and(|(phase, how)| PHASES.contains(&phase) && MISBEHAVIOURS.contains(&how));
        if !GOOD.contains(&name) && !is_bad {
            let (good, bad) = (GOOD.join(" "), MISBEHAVIOURS.join(" "));
            return Err(format!(
                "expected one of {good}, or inspect-, redact-, scrub-, verdict- and one of {bad}"
            ));
        }
        let reach = Reach::default();
        Ok(Self { name: name.to_owned(), state: offset_of_state(), attached: false, reach })
    }
}

/// What the arguments of this program name: before anything else is done with them, in a monitor too.
pub(crate) fn registered() -> Vec<Registered> {
    let arguments: Vec<String> = env::args().collect();
    let named = arguments.windows(2).filter(|pair| pair[0] == "--pmodule");
    named.filter_map(|pair| pair[1].parse().ok()).map(|kind: Kind| Registered::of(kind)).collect()
}

/// The same in every process of this program: the loader moves all of it.
fn offset_of_state() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = env::current_exe().unwrap_or_default();
    let first = maps.lines().find(|line| line.ends_with(&*program.to_string_lossy()));
    let start = first.and_then(|line| u64::from_str_radix(line.split('-').next()?, 16).ok());
    (&raw const STATE as u64).wrapping_sub(start.unwrap_or_default())
}

impl Kind {
    fn bad(&self) -> Option<(&str, &str)> {
        let bad = self.name.split_once('-');
        bad.filter(|(phase, how)| PHASES.contains(phase) && MISBEHAVIOURS.contains(how))
    }

    /// The global in the target.
    fn state(&self, target: &Target) -> Result<Range<u64>, Failure> {
        let program = target.modules.first().ok_or("there is no program")?;
        let start = program.range.start.wrapping_add(self.state);
        Ok(start..start + mem::size_of::<State>() as u64)
    }

    fn password(&self, target: &Target) -> Result<Range<u64>, Failure> {
        let start = self.state(target)?.start + mem::offset_of!(State, password) as u64;
        Ok(start..start + 32)
    }
}

impl Pmodule for Kind {
    fn describe(&self) -> Description {
        let new = Description::new(&self.name);
        match (self.name.as_str(), self.bad()) {
            (_, Some(("redact", _))) => new.on(Event::Attach).redacts(),
            (_, Some(("scrub", _))) => new.on(Event::Scrub),
            (_, Some(("verdict", _))) => new.on(Event::Verdict),
            (_, Some(_)) => new.on(Event::Attach),
            ("after", _) => new.on(Event::Attributes).priority(10),
            ("frames", _) => {
                let filter = FrameFilter { faulting: true, module: Some("crasher".into()), symbol: None };
                new.on_frames(filter).on(Event::Region).on(Event::Detach)
            }
            ("symbol", _) => {
                let symbol = Some("__libc_start_main".to_owned());
                new.on_frames(FrameFilter { symbol, ..FrameFilter::default() })
            }
            ("blank", _) => new.on(Event::Attach).redacts(),
            ("register" | "drop", _) => new.on(Event::Thread),
            ("scrub", _) => new.on(Event::Scrub),
            ("scrub-again", _) => new.on(Event::Attach).on(Event::Scrub),
            ("slow", _) => new.on(Event::Verdict),
            ("veto-late", _) => new.on(Event::Verdict).on(Event::Attach),
            _ => new.on(Event::Attach),
        }
    }

    fn attach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        if let Some((_, how)) = self.bad() {
            return misbehave(how, edits);
        }
        self.attached = true;
        match self.name.as_str() {
            "annotate" => {
                edits.comment(format!("{} threads", target.threads.len()))?;
                edits.annotate(AnnotationLevel::Warning, "written by eve@example.org")?;
                edits.annotate(AnnotationLevel::Critical, "the \u{1f525} is on")?;
                edits.annotate(AnnotationLevel::Json, r#"{"mail":"\u0065ve@example.org","n":7}"#)
            }
            "attribute" => {
                edits.attribute("pm.level", "castle".into())?;
                edits.attribute("pm.mail", "mail to eve@example.org".into())?;
                edits.push(Edit::Classifier("from-pmodule".into()))?;
                edits.push(Edit::FingerprintComponent("pm".into()))
            }
            "add" => edits.push(Edit::AddMemory(self.state(target)?)),
            "blank" => {
                edits.push(Edit::AddMemory(self.state(target)?))?;
                edits.blank(self.password(target)?)
            }
            // What it reads it says: whether memory can be read at all.
            "memory" => {
                let state = self.state(target)?;
                let length = (state.end - state.start) as usize;
                let bytes = target.memory().read(state.start, length);
                let level = bytes.split(|&byte| byte == 0).find(|text| !text.is_empty()).unwrap_or_default();
                edits.comment(format!(
                    "{} of {length} bytes: {}",
                    bytes.len(),
                    String::from_utf8_lossy(level)
                ))
            }
            "lower" => edits.push(Edit::LowerDetail(Detail::StackTrace)),
            "pointers" => edits.push(Edit::LowerDetail(Detail::Pointers)),
            "veto" => edits.push(Edit::Veto(Veto { reason: "a test build".into() })),
            "environment" => {
                edits.push(Edit::BlankEnvironment("CRASHER_TOKEN".into()))?;
                edits.attribute("token", env_of(target, "CRASHER_TOKEN=").as_str().into())
            }
            "reach" => edits.comment(format!("shared and writable: {}", self.reach.0.join(" "))),
            "says-why" => Err("no level for eve@example.org".into()),
            _ => Ok(()),
        }
    }

    fn thread(&mut self, target: &Target, thread: &Thread, edits: &mut Edits) -> Result<(), Failure> {
        match self.name.as_str() {
            "register" if thread.id == target.tid => REGISTERS.iter().try_for_each(|&register| {
                edits.push(Edit::BlankRegister { thread: thread.id, register: register.to_owned() })
            }),
            "drop" if thread.id != target.tid => edits.push(Edit::DropStack(thread.id)),
            _ => Ok(()),
        }
    }

    fn frame(&mut self, _: &Target, frame: &FrameEvent<'_>, edits: &mut Edits) -> Result<(), Failure> {
        let (module, symbol) = (frame.module.unwrap_or("nothing"), frame.symbol.unwrap_or("?"));
        match self.name.as_str() {
            "symbol" => edits.comment(format!("{symbol} in {module}")),
            _ => edits.comment(format!("frame {} in {module}", frame.number)),
        }
    }

    fn region(&mut self, _: &Target, region: &RegionEvent<'_>, edits: &mut Edits) -> Result<(), Failure> {
        match region.stack_of {
            Some(thread) => edits.comment(format!("stack of {thread}: {} bytes", region.bytes.len())),
            None => Ok(()),
        }
    }

    fn attributes(&mut self, noted: &Noted<'_>, edits: &mut Edits) -> Result<(), Failure> {
        let level = noted.attributes.iter().find(|attribute| attribute.key == "pm.level");
        let level = level.map_or_else(|| "nothing".to_owned(), |attribute| attribute.value.to_string());
        edits.comment(format!("{} saw {level}", noted.reason.name()))
    }

    fn detach(&mut self, _: &Target, edits: &mut Edits) -> Result<(), Failure> {
        edits.comment("detached")
    }

    fn scrub(&mut self, dump: &DumpView<'_>, blanks: &mut Blanks) -> Result<(), Failure> {
        if let Some((_, how)) = self.bad() {
            if how == "lie" {
                return blanks.push(Blank::Memory(8..16));
            }
            return misbehave(how, &mut Edits::default());
        }
        if self.name == "scrub-again" && self.attached {
            // Until its worker is killed: the next instance sees no process.
            loop {
                hint::spin_loop();
            }
        }
        let stacks: Vec<u64> = dump.layout().threads.iter().map(|thread| thread.stack.address).collect();
        let (address, bytes) = dump
            .regions()
            .find(|(address, bytes)| !stacks.contains(address) && bytes.len() >= 16)
            .ok_or("there is no memory")?;
        if bytes.is_empty() {
            return Err("a region without bytes".into());
        }
        blanks.push(Blank::Memory(address..address + bytes.len() as u64))?;
        let last = dump.layout().threads.last().ok_or("there is no thread")?;
        blanks.push(Blank::Stack(last.id))
    }

    fn verdict(&mut self, report: &Report) -> Result<Option<Veto>, Failure> {
        if let Some((_, how)) = self.bad() {
            misbehave(how, &mut Edits::default())?;
        }
        match self.name.as_str() {
            "slow" => {
                std::thread::sleep(SLOW);
                Ok(None)
            }
            "veto-late" => Ok(Some(Veto { reason: format!("{} is enough", report.detail) })),
            _ => Ok(None),
        }
    }
}

/// A variable of the target.
fn env_of(target: &Target, name: &str) -> String {
    let Some(start_up) = &target.start_up else { return String::new() };
    let range = start_up.environment.clone();
    let bytes = target.memory().read(range.start, (range.end - range.start) as usize);
    let found = bytes.split(|&byte| byte == 0).find_map(|variable| variable.strip_prefix(name.as_bytes()));
    String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
}

fn misbehave(how: &str, edits: &mut Edits) -> Result<(), Failure> {
    edits.comment("what is sent before does not count")?;
    match how {
        "loop" => loop {
            hint::spin_loop();
        },
        "alloc" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 1 << 20]);
                hint::black_box(&hoard);
            }
        }
        "wild" => {
            // SAFETY: none: it is what a wild pointer does.
            unsafe { hint::black_box(0x10 as *mut u8).write_volatile(1) };
            Ok(())
        }
        "exit" => std::process::exit(3),
        "fork" => {
            // SAFETY: none is needed: the call ends this process.
            let child = unsafe { libc::fork() };
            edits.comment(format!("forked {child}"))
        }
        #[allow(clippy::panic, reason = "that is what is asked for")]
        "panic" => panic!("eve@example.org"),
        "open" => match std::fs::read_to_string("/etc/passwd") {
            Ok(text) => edits.comment(text),
            Err(error) => edits.comment(format!("opening was refused: {error}")),
        },
        "socket" => match std::net::TcpStream::connect("127.0.0.1:9") {
            Ok(_) => edits.comment("connected"),
            Err(error) => edits.comment(format!("connecting was refused: {error}")),
        },
        "thread" => match std::thread::Builder::new().spawn(|| ()) {
            Ok(_) => edits.comment("started a thread"),
            Err(error) => edits.comment(format!("a thread was refused: {error}")),
        },
        "nonsense" => {
            for descriptor in 3..64 {
                // SAFETY: a live buffer; most of these descriptors are not open.
                unsafe { libc::write(descriptor, b"nonsense".as_ptr().cast(), 8) };
            }
            Ok(())
        }
        "huge" => (0..128).try_for_each(|_| edits.comment("x".repeat(16 << 10))),
        "lie" => edits.blank(8..16),
        "overflow" => {
            #[allow(unconditional_recursion, reason = "that is what is asked for")]
            fn down(depth: u64) -> u64 {
                let frame = hint::black_box([depth; 512]);
                down(depth + 1) + frame[7]
            }
            edits.comment(format!("{}", down(0)))
        }
        "kill" => {
            // SAFETY: none is needed: the call ends this process.
            unsafe { libc::kill(libc::getppid(), libc::SIGKILL) };
            Ok(())
        }
        _ => Err("there is no such misbehaviour".into()),
    }
}
