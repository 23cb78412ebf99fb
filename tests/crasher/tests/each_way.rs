//! Each way to die becomes exactly one report, true and whole, and the victim ends as it would without Cenotaph.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;
#[path = "support/tracing.rs"]
mod tracing;

use minidump_unwind::FrameTrust;
use oracle::{Walked, walk};
use scene::{Ending, Scene, attachment_of, dump_of};
use serde_json::Value;

/// What a report must say about a way to die.
struct Fact {
    way: &'static str,
    /// In the words of minidump-processor.
    reason: &'static str,
    address: Address,
    ending: Ending,
}

enum Address {
    Is(u64),
    /// That of the instruction.
    Instruction,
    /// In the page below the stack; where exactly, only the report of the kernel says.
    Some,
    /// There is none: the dump's field holds nothing that means anything.
    None,
}

const fn fact(way: &'static str, reason: &'static str, address: Address, ending: Ending) -> Fact {
    Fact { way, reason, address, ending }
}

/// Signal codes: sigaction(2). The addresses are those of tests/crasher/src/ways.
const FACTS: [Fact; 13] = [
    fact("null", "SIGSEGV / SEGV_MAPERR", Address::Is(0x10), Ending::Signal(libc::SIGSEGV)),
    fact("abort", "SIGABRT / SI_TKILL", Address::None, Ending::Signal(libc::SIGABRT)),
    fact("panic", REQUESTED, Address::None, Ending::Code(101)),
    fact("bus", "SIGBUS / BUS_ADRERR", Address::Is(0x1000_0000), Ending::Signal(libc::SIGBUS)),
    fact("ill", "SIGILL / ILL_ILLOPN", Address::Instruction, Ending::Signal(libc::SIGILL)),
    fact("fpe", "SIGFPE / FPE_INTDIV", Address::Instruction, Ending::Signal(libc::SIGFPE)),
    fact("trap", "SIGTRAP / SI_KERNEL", Address::None, Ending::Signal(libc::SIGTRAP)),
    fact("sys", "SIGSYS / SYS_SECCOMP", Address::Instruction, Ending::Signal(libc::SIGSYS)),
    fact("stack-overflow", "SIGSEGV / SEGV_", Address::Some, Ending::Signal(libc::SIGABRT)),
    fact("stack-overflow-thread", "SIGSEGV / SEGV_", Address::Some, Ending::Signal(libc::SIGABRT)),
    fact("heap-lock", "SIGSEGV / SEGV_MAPERR", Address::Is(0x30), Ending::Signal(libc::SIGSEGV)),
    fact("two-threads", "SIGSEGV / SEGV_MAPERR", Address::Is(0x10), Ending::Signal(libc::SIGSEGV)),
    fact("capture", REQUESTED, Address::None, Ending::Code(0)),
];

const REQUESTED: &str = "DUMP_REQUESTED";

/// A way to die, from the victim's start to the collector.
fn one_report(way: &str, kind: &str) -> (Ending, Vec<u8>, Vec<u8>, Value) {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    let options = collector.options(kind);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut command = scene.victim(&options, way);
    command.args(["--consent", "granted", "--threads", "3"]);
    let (ending, said) = scene.run(command);
    collector.wait_accepted(1);
    scene.wait_end();
    let requests = collector.requests();
    assert_eq!(requests.len(), 1, "{way}: exactly one report; the victim said: {said}");
    let attachment = attachment_of(&requests[0]);
    let raw = scene.raw(attachment["report"]["id"].as_str().unwrap());
    assert_eq!(collector.server().seen().accepted, 1, "{way}");
    assert_eq!(scene.check_dumps(), 1, "{way}: what was sent was compared with its receipt");
    assert_eq!(scene.all_reports(), [] as [std::path::PathBuf; 0], "{way}: nothing is left");
    (ending, raw, dump_of(&requests[0]), attachment)
}

fn check_reason(fact: &Fact, scrubbed: &Walked, attachment: &Value) {
    let way = fact.way;
    let reason = &attachment["report"]["reason"];
    if way == "panic" {
        assert_eq!(reason["kind"], "panic", "{reason}");
        assert!(reason["message"].as_str().unwrap().contains("a panic was asked for"), "{reason}");
        assert!(reason["location"].as_str().unwrap().contains("ways/mod.rs:"), "{reason}");
        assert_eq!(reason["thread"], "main");
        return;
    }
    if way == "capture" {
        assert_eq!(reason["kind"], "requested", "{reason}");
        assert_eq!(reason["reason"], "crasher: a report was asked for");
        return;
    }
    assert!(scrubbed.reason.starts_with(fact.reason), "{way}: {}", scrubbed.reason);
    let expected = match fact.address {
        Address::Is(address) => Some(address),
        Address::Instruction => {
            // For SIGSYS the address is that behind the system call, as is the instruction pointer.
            Some(scrubbed.state.threads[scrubbed.state.requesting_thread.unwrap()].frames[0].instruction)
        }
        Address::Some => Some(scrubbed.address.unwrap()),
        Address::None => None,
    };
    if let Some(expected) = expected {
        assert_ne!(expected, 0, "{way}");
        assert_eq!(scrubbed.address, Some(expected), "{way}");
        assert_eq!(reason["address"].as_u64(), Some(expected), "{way}: {reason}");
    }
    assert_eq!(reason["kind"], "signal", "{way}: {reason}");
}

fn check_frames(way: &str, raw: &Walked, scrubbed: &Walked) {
    assert_eq!(raw.frames, scrubbed.frames, "{way}: scrubbing changed the frames");
    let own = scrubbed.frames.iter().filter(|(module, _, trust)| {
        module == "crasher" && matches!(trust, FrameTrust::Context | FrameTrust::CallFrameInfo)
    });
    // Else the comparison would compare nothing: the victim dies below ten frames of its own. (An overflowing stack is
    // deeper than the walk is long; a thread of its own has its recursion.)
    assert!(own.count() >= 10, "{way}: {:#?}", scrubbed.frames);
}

/// The frames that were found on the device are those of the independent stackwalker.
fn check_device_frames(way: &str, scrubbed: &Walked, attachment: &Value) {
    let trace = &attachment["report"]["stack_trace"];
    let thread = &trace["threads"][0];
    assert_eq!(thread["crashed"], true, "{way}");
    let module = |frame: &Value| match frame["module"].as_u64() {
        Some(index) => trace["modules"][usize::try_from(index).unwrap()]["name"].as_str().unwrap().to_owned(),
        None => String::new(),
    };
    let ours = thread["frames"].as_array().unwrap().iter();
    let ours: Vec<(String, u64)> = ours.map(|f| (module(f), f["offset"].as_u64().unwrap())).collect();
    let theirs: Vec<(String, u64)> = scrubbed.frames.iter().map(|(m, o, _)| (m.clone(), *o)).collect();
    let common = ours.len().min(theirs.len()).min(100);
    assert!(common >= 10, "{way}: {ours:?}");
    assert_eq!(ours[..common], theirs[..common], "{way}");
}

/// Crashpad's stream has the report's id and attributes.
fn check_annotations(way: &str, scrubbed: &[u8], attachment: &Value) {
    let dump = minidump::Minidump::read(scrubbed).unwrap();
    let info = dump.get_stream::<minidump::MinidumpCrashpadInfo>().unwrap();
    assert_eq!(attachment["report"]["id"], info.raw.report_id.to_string(), "{way}");
    let attributes = attachment["report"]["attributes"].as_array().unwrap();
    assert_eq!(info.simple_annotations.len(), attributes.len(), "{way}");
    for attribute in attributes {
        let value = &info.simple_annotations[attribute["key"].as_str().unwrap()];
        let expected = attribute["value"].as_str().map_or(attribute["value"].to_string(), str::to_owned);
        assert_eq!(*value, expected, "{way}");
    }
}

fn check(fact: &Fact, kind: &str) {
    let way = fact.way;
    let (ending, raw, scrubbed, attachment) = one_report(way, kind);
    assert_eq!(ending, fact.ending, "{way}");
    assert_eq!(attachment["report"]["detail"], "minidump", "{way}: {}", attachment["report"]["notes"]);
    let (same, annotations) = scrubbed.split_at_checked(raw.len()).expect("scrubbing keeps the length");
    assert!(!annotations.is_empty() && same != raw, "{way}: the tap shows the dump before scrubbing");
    check_annotations(way, &scrubbed, &attachment);
    let (before, after) = (walk(&raw, &raw), walk(&scrubbed, &raw));
    check_reason(fact, &after, &attachment);
    check_frames(way, &before, &after);
    check_device_frames(way, &after, &attachment);
}

#[test]
fn a_fault_of_each_kind() {
    for way in ["null", "bus", "ill", "fpe", "trap", "sys"] {
        check(FACTS.iter().find(|fact| fact.way == way).unwrap(), "crashpad");
    }
}

#[test]
fn an_end_of_the_programs_own_making() {
    for way in ["abort", "panic", "capture"] {
        check(FACTS.iter().find(|fact| fact.way == way).unwrap(), "crashpad");
    }
}

#[test]
fn a_fault_in_a_bad_place() {
    for way in ["stack-overflow", "stack-overflow-thread", "heap-lock", "two-threads"] {
        check(FACTS.iter().find(|fact| fact.way == way).unwrap(), "crashpad");
    }
}

#[test]
fn by_the_other_protocol() {
    check(&FACTS[0], "backtrace");
}

#[test]
fn the_last_signal_has_the_first_ones_cause() {
    for fact in FACTS {
        let way = fact.way;
        let scene = Scene::new();
        let mut without = scene.bare(way);
        without.arg("--no-sdk");
        let (alone, alone_ending) = tracing::run(without);
        let mut with = scene.victim(&["--consent", "granted"], way);
        with.args(["--deadline-ms", "20000"]);
        let (watched, ending) = tracing::run(with);
        assert_eq!((alone_ending, ending), (fact.ending, fact.ending), "{way}");
        let comparable = |met: Option<&tracing::Met>| {
            // Addresses of code and stacks differ from run to run.
            met.map(|met| match fact.address {
                Address::Is(_) | Address::None => (met.signal, met.code, met.address),
                Address::Instruction | Address::Some => (met.signal, met.code, u64::from(met.address != 0)),
            })
        };
        assert_eq!(comparable(watched.last()), comparable(alone.last()), "{way}: {alone:x?} {watched:x?}");
        assert_eq!(comparable(watched.first()), comparable(alone.first()), "{way}: {alone:x?} {watched:x?}");
        if let Some(first) = watched.first() {
            let again: Vec<_> = watched.iter().filter(|met| met.signal == first.signal).collect();
            assert!(
                again.iter().all(|met| *met == first),
                "{way}: met again with the same cause: {watched:x?}"
            );
        }
        scene.wait_end();
    }
}
