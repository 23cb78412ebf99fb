//! Dumps of a real process, against independent readers: the `minidump` crate for the format, libgcc's unwinder (inside the
//! victim) for the frames, rust-minidump's processor for the synthetic dump.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use cenotaph::dump::binaries::FileBinaries;
use cenotaph::dump::layout::{kind, utf16};
use cenotaph::dump::writer::{self, Request};
use cenotaph::dump::{Layout, fingerprint, indirect, synthetic, unwind};
use cenotaph::report::{Reason, StackTrace, Thread, Trust};
use minidump::{
    Minidump, MinidumpException, MinidumpMemoryInfoList, MinidumpMemoryList, MinidumpModuleList,
    MinidumpThreadList, MinidumpThreadNames, Module,
};

#[path = "../src/dump/oracle.rs"]
mod oracle;
mod victim;

use victim::{FAULT, HEAP_TEXT, ROLE, Victim};

#[test]
fn layout_agrees_with_the_minidump_crate() {
    let victim = Victim::start();
    let dump = victim.dump(true);
    let layout = Layout::parse(&dump).expect("a dump of minidump-writer parses");
    let oracle = Minidump::read(&dump[..]).unwrap();
    let memory_list = oracle.get_stream::<MinidumpMemoryList>().unwrap();

    let threads = oracle.get_stream::<MinidumpThreadList>().unwrap();
    let names = oracle.get_stream::<MinidumpThreadNames>().unwrap();
    assert!(layout.threads.len() >= 4, "main, test and two workers");
    assert_eq!(layout.threads.len(), threads.threads.len());
    for (ours, theirs) in layout.threads.iter().zip(&threads.threads) {
        assert_eq!(ours.id, theirs.raw.thread_id);
        assert_eq!(ours.context.start, theirs.raw.thread_context.rva as usize);
        let name =
            layout.thread_names.iter().find(|(id, _)| *id == ours.id).map(|(_, name)| &dump[name.clone()]);
        assert_eq!(name.map(utf16).as_deref(), names.get_name(ours.id).as_deref());
        let stack = memory_list.memory_at_address(ours.stack.address).expect("each thread's stack");
        assert_eq!(&dump[ours.stack.bytes.clone()], stack.bytes);
    }
    assert!(layout.thread_names.iter().any(|(_, name)| utf16(&dump[name.clone()]) == "worker 1"));

    let modules = oracle.get_stream::<MinidumpModuleList>().unwrap();
    assert_eq!(layout.modules.len(), modules.iter().count());
    for (ours, theirs) in layout.modules.iter().zip(modules.iter()) {
        assert_eq!((ours.base, ours.size), (theirs.base_address(), theirs.size()));
        assert_eq!(utf16(&dump[ours.name.clone()]), theirs.code_file());
        let id: String = dump[ours.build_id.clone()].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(Some(id), theirs.code_identifier().map(|id| id.to_string()));
    }

    let regions: BTreeMap<_, _> = memory_list.iter().map(|m| (m.base_address, m.bytes)).collect();
    let ours: BTreeMap<_, _> = layout.memory.iter().map(|m| (m.address, &dump[m.bytes.clone()])).collect();
    assert_eq!(ours, regions);

    let mapped = oracle.get_stream::<MinidumpMemoryInfoList>().unwrap();
    let theirs =
        mapped.iter().map(|i| (i.raw.base_address..i.raw.base_address + i.raw.region_size, i.raw.protection));
    assert_eq!(layout.mapped, theirs.collect::<Vec<_>>());

    let theirs = oracle.get_stream::<MinidumpException>().unwrap();
    let ours = layout.exception.as_ref().unwrap();
    assert_eq!((ours.thread_id, ours.code, ours.flags, ours.address), (victim.tid as u32, 11, 1, FAULT));
    assert_eq!(ours.address, theirs.raw.exception_record.exception_address);
    assert_eq!(ours.context.start, theirs.raw.thread_context.rva as usize);

    // All that minidump-writer writes is claimed: it leaves no gaps.
    assert_eq!(layout.gaps, [] as [Range<usize>; 0]);
    for known in [kind::LINUX_ENVIRON, kind::LINUX_CMD_LINE, kind::LINUX_DSO_DEBUG, kind::MOZ_LINUX_LIMITS] {
        assert!(layout.stream(known).is_some(), "{known:#x}");
    }
    let environ = layout.stream(kind::LINUX_ENVIRON).unwrap();
    assert!(memchr::memmem::find(&dump[environ.bytes.clone()], ROLE.as_bytes()).is_some());
    let handles = layout.strings.iter().filter(|(of, _)| *of == kind::HANDLE_DATA).count();
    let linked = layout.strings.iter().filter(|(of, _)| *of == kind::LINUX_DSO_DEBUG);
    assert!(handles >= 3, "standard streams");
    assert!(linked.map(|(_, name)| utf16(&dump[name.clone()])).any(|name| name.contains("libc.so")));
}

#[test]
fn frames_are_those_of_libgcc() {
    let victim = Victim::start();
    for crash in [true, false] {
        let dump = victim.dump(crash);
        let trace = trace_of(&dump);
        let thread = &trace.threads[0];
        assert_eq!((thread.id, thread.crashed), (victim.tid as u32, true));
        // libgcc saw the callers of the function that asked it; from there on out the lists must be one.
        let callers = &victim.return_addresses[1..];
        let ours: Vec<_> = thread.frames.iter().map(|frame| frame.instruction + 1).collect();
        let first = ours.iter().position(|&address| address == callers[0]).expect("the asker's caller");
        assert_eq!(&ours[first..], callers, "with a crash context: {crash}");
        assert!(callers.len() > 10, "{}", callers.len());
        assert!(thread.frames[1..].iter().all(|frame| frame.trust == Trust::Unwound), "{thread:?}");
        if crash {
            assert_eq!(first, 1, "the context is the asker's own");
        }
        for frame in &thread.frames {
            let module = &trace.modules[frame.module.expect("all code is in modules")];
            assert_eq!(frame.instruction, module.base + frame.offset);
            assert!(!module.name.contains('/') && !module.build_id.is_empty(), "{module:?}");
        }
    }
}

#[test]
fn every_thread_is_unwound_to_its_start() {
    let victim = Victim::start();
    let trace = trace_of(&victim.dump(false));
    let workers: Vec<&Thread> =
        trace.threads.iter().filter(|t| t.name.as_ref().is_some_and(|n| n.starts_with("worker"))).collect();
    assert_eq!(workers.len(), 2);
    let offsets = |thread: &Thread| thread.frames.iter().map(|f| (f.module, f.offset)).collect::<Vec<_>>();
    // They may still be on their way into their loop, but they came the same way.
    let start = |thread: &Thread| offsets(thread).split_off(thread.frames.len() - 4);
    assert_eq!(start(workers[0]), start(workers[1]));
    let outermost = workers[0].frames.last().unwrap();
    let libc = &trace.modules[outermost.module.unwrap()];
    assert!(libc.name.starts_with("libc"), "clone3 or its like, not {}", libc.name);
    assert!(trace.threads.iter().all(|t| t.crashed == (t.id == victim.tid as u32)));
}

#[test]
fn the_processor_agrees_where_no_tables_are_needed() {
    let victim = Victim::start();
    let dump = victim.dump(true);
    let trace = trace_of(&dump);
    let raw = by_thread(&dump);
    for thread in &trace.threads {
        assert_eq!(raw[&thread.id].first(), named(&trace, thread).first(), "the innermost frames");
    }
    // The synthetic dump, on the other hand, needs no tables at all.
    let reason = Reason::Signal { number: 11, code: 1, address: Some(FAULT) };
    let small = synthetic::write(&trace, &reason, 1_700_000_000_000).unwrap();
    let found = by_thread(&small);
    for thread in &trace.threads {
        assert_eq!(found[&thread.id], named(&trace, thread));
    }
    assert!(small.len() < 64 << 10, "{}", small.len());
    let again = trace_of(&small);
    let print = |trace: &StackTrace| fingerprint::fingerprint(reason.name(), trace);
    assert_eq!(print(&again), print(&trace));
    assert_eq!(print(&trace_of(&victim.dump(true))), print(&trace), "a second dump of the same crash");
}

#[test]
fn without_files_unwinding_still_gets_somewhere() {
    struct Nothing;
    impl cenotaph::dump::binaries::Binaries for Nothing {
        fn sections(
            &self,
            _: &str,
            _: &[u8],
            _: &cenotaph::dump::layout::ModuleEntry,
        ) -> Option<std::sync::Arc<cenotaph::dump::binaries::UnwindSections>> {
            None
        }
    }
    let victim = Victim::start();
    let dump = victim.dump(true);
    let layout = Layout::parse(&dump).unwrap();
    let trace = unwind::stack_trace(&dump, &layout, &Nothing).unwrap();
    let count = |found: Vec<u64>| victim.return_addresses[1..].iter().filter(|a| found.contains(a)).count();
    let ours: Vec<_> = trace.threads[0].frames.iter().map(|frame| frame.instruction + 1).collect();
    assert!(ours.len() <= unwind::MAX_FRAMES);
    let state = oracle::process(&dump);
    let theirs = state.threads.iter().find(|thread| thread.thread_id == victim.tid as u32).unwrap();
    let theirs = theirs.frames.iter().map(|frame| frame.instruction + 1).collect();
    let (ours, theirs) = (count(ours), count(theirs));
    println!("{ours} found here, {theirs} by rust-minidump, {} there are", victim.return_addresses.len() - 1);
    assert!(ours >= theirs && ours > 0);
}

#[test]
fn pointed_to_memory_is_added_within_the_budget() {
    let victim = Victim::start();
    let dump = victim.dump(true);
    assert!(memchr::memmem::find(&dump, HEAP_TEXT).is_none(), "the heap is not in a plain dump");
    let (readable, memory) = (victim.readable(), victim.memory());
    let mut read = |address, bytes: &mut [u8]| memory.read_at(bytes, address).unwrap_or(0);

    let layout = Layout::parse(&dump).unwrap();
    for budget in [0, 1, 1000, 4096, 1 << 20] {
        let ranges = indirect::wanted(&dump, &layout, &readable, budget);
        assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= budget);
        assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "ascending, merged");
        for range in &ranges {
            assert!(readable.iter().any(|r| r.start <= range.start && range.end <= r.end), "{range:x?}");
            let shared = |other: Range<u64>| range.start < other.end && other.start < range.end;
            assert!(!layout.memory.iter().any(|held| shared(held.addresses())), "{range:x?} is held");
            assert!(
                !layout.modules.iter().any(|module| shared(module.addresses())),
                "{range:x?} in a module"
            );
        }
    }

    let (before, trace) = (dump.clone(), trace_of(&dump));
    let dump = writer::with_indirect(dump, 1 << 20, &readable, &mut read).unwrap();
    let added = Layout::parse(&dump).unwrap();
    let held = added.memory.iter().find(|m| m.addresses().contains(&victim.heap)).expect("the heap block");
    let at = (victim.heap - held.address) as usize;
    assert_eq!(&dump[held.bytes.clone()][at..at + HEAP_TEXT.len()], HEAP_TEXT);
    let oracle = Minidump::read(&dump[..]).unwrap();
    let list = oracle.get_stream::<MinidumpMemoryList>().unwrap();
    let theirs = list.memory_at_address(victim.heap).expect("the minidump crate sees it, too");
    assert_eq!(theirs.bytes, &dump[held.bytes.clone()]);
    assert_eq!(list.iter().count(), added.memory.len());
    assert_eq!(added.gaps, [layout.stream(kind::MEMORY_LIST).unwrap().bytes.clone()], "the old list, zeroed");
    assert!(dump[added.gaps[0].clone()].iter().all(|&byte| byte == 0));
    assert_eq!(trace_of(&dump), trace);
    let changed = before.iter().zip(&dump).enumerate().filter(|(_, (a, b))| a != b);
    let entry = &layout.stream(kind::MEMORY_LIST).unwrap().entry;
    assert!(changed.map(|(at, _)| at).all(|at| entry.contains(&at) || added.gaps[0].contains(&at)));
}

#[test]
fn a_dump_without_memory_list_gets_one() {
    let victim = Victim::start();
    let mut dump = victim.dump(true);
    let layout = Layout::parse(&dump).unwrap();
    let list = layout.stream(kind::MEMORY_LIST).unwrap().clone();
    let memory = [(0x1000, b"new memory".to_vec())];
    // An unused directory entry, or none: then an unknown stream holds the place.
    for (replacement, streams) in
        [(kind::UNUSED, layout.streams.len()), (0x1234_5678, layout.streams.len() + 1)]
    {
        dump[list.entry.start..list.entry.start + 4].copy_from_slice(&u32::to_le_bytes(replacement));
        let layout = Layout::parse(&dump).unwrap();
        let dump = indirect::append(dump.clone(), &layout, &memory).unwrap();
        let added = Layout::parse(&dump).unwrap();
        assert_eq!(added.streams.len(), streams);
        let oracle = Minidump::read(&dump[..]).unwrap();
        let theirs = oracle.get_stream::<MinidumpMemoryList>().unwrap();
        assert_eq!(theirs.memory_at_address(0x1000).unwrap().bytes, b"new memory");
        assert_eq!(trace_of(&dump).threads[0], trace_of(&victim.dump(true)).threads[0]);
    }
}

#[test]
fn a_process_that_is_gone_is_an_error_not_a_panic() {
    let mut victim = Victim::start();
    victim.child.kill().unwrap();
    victim.child.wait().unwrap();
    let request = Request::new(victim.child.id() as i32, victim.tid, None);
    // minidump-writer may still make a dump without threads of it; whatever it makes must parse.
    if let Ok(dump) = writer::write(request) {
        assert!(Layout::parse(&dump).unwrap().threads.is_empty());
    }
}

#[test]
fn truncated_dumps_are_refused() {
    let dump = Victim::start().dump(true);
    for length in 0..dump.len() {
        assert!(Layout::parse(&dump[..length]).is_err(), "the first {length} of {} bytes", dump.len());
    }
}

#[test]
fn damaged_dumps_never_panic() {
    let victim = Victim::start();
    let (mut dump, readable) = (victim.dump(true), victim.readable());
    let sound = Layout::parse(&dump).unwrap();
    // Most bytes are memory and text, which steer little: aim at structures and contexts three times in four.
    let lists = [
        kind::THREAD_LIST,
        kind::MODULE_LIST,
        kind::MEMORY_LIST,
        kind::EXCEPTION,
        kind::SYSTEM_INFO,
        kind::MEMORY_INFO_LIST,
        kind::THREAD_NAMES,
        kind::HANDLE_DATA,
        kind::LINUX_DSO_DEBUG,
    ];
    let directory = sound.streams.iter().map(|stream| stream.entry.clone());
    let streams = lists.iter().map(|&list| sound.stream(list).unwrap().bytes.clone());
    let contexts = sound.threads.iter().map(|thread| thread.context.start..thread.context.start + 0x100);
    let lengths = sound.modules.iter().map(|module| module.name.start - 4..module.name.start);
    let structures: Vec<usize> = std::iter::once(0..32)
        .chain(directory)
        .chain(streams)
        .chain(contexts)
        .chain(lengths)
        .flatten()
        .collect();
    let (mut random, binaries) = (Random::seeded(), FileBinaries::new());
    let (mut parsed, mut refused) = (0, 0);
    for _ in 0..3000 {
        let flips: Vec<_> = (0..=random.below(4))
            .map(|_| {
                let at = match random.below(4) {
                    0 => random.below(dump.len()),
                    _ => structures[random.below(structures.len())],
                };
                let value = match random.below(3) {
                    0 => 0xff,
                    1 => dump[at] ^ 1 << random.below(8),
                    _ => random.below(256) as u8,
                };
                (at, std::mem::replace(&mut dump[at], value))
            })
            .collect();
        match Layout::parse(&dump) {
            Err(_) => refused += 1,
            Ok(layout) => {
                parsed += 1;
                let _ = unwind::stack_trace(&dump, &layout, &binaries)
                    .map(|trace| synthetic::write(&trace, &Reason::Requested { reason: String::new() }, 0));
                let wanted = indirect::wanted(&dump, &layout, &readable, 1 << 16);
                let memory: Vec<_> = wanted
                    .iter()
                    .map(|range| (range.start, vec![7; (range.end - range.start) as usize]))
                    .collect();
                let added = indirect::append(dump.clone(), &layout, &memory).unwrap();
                Layout::parse(&added).expect("what was appended to a sound dump parses");
            }
        }
        flips.into_iter().rev().for_each(|(at, old)| dump[at] = old);
    }
    println!("{parsed} parsed, {refused} refused");
    assert!(parsed > 300 && refused > 300);
    assert_eq!(Layout::parse(&dump).unwrap().gaps, sound.gaps, "all flips were taken back");
}

fn trace_of(dump: &[u8]) -> StackTrace {
    let layout = Layout::parse(dump).unwrap();
    unwind::stack_trace(dump, &layout, &FileBinaries::new()).unwrap()
}

/// Base name of the module, and the offset in it, of each frame.
type Named = Vec<(Option<String>, u64)>;

fn by_thread(dump: &[u8]) -> BTreeMap<u32, Named> {
    let base = |name: String| name.rsplit('/').next().unwrap_or_default().to_owned();
    let threads = oracle::frames(&oracle::process(dump)).into_iter();
    threads
        .map(|(id, frames)| (id, frames.into_iter().map(|(m, offset, _)| (m.map(base), offset)).collect()))
        .collect()
}

fn named(trace: &StackTrace, thread: &Thread) -> Named {
    let name = |module: Option<usize>| module.map(|module| trace.modules[module].name.clone());
    thread
        .frames
        .iter()
        .map(|f| (name(f.module), if f.module.is_some() { f.offset } else { f.instruction }))
        .collect()
}

/// xorshift64*, from CENOTAPH_SEED or the clock.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = std::env::var("CENOTAPH_SEED").ok().map_or_else(clock, |seed| seed.parse().unwrap());
        println!("CENOTAPH_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound as u64) as usize
    }
}
