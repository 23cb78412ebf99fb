//! Our writer against `minidump-writer`: both dump one waiting process, and the `minidump` crate reads both. What both
//! have must be one; what only one has is named here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;

use cenotaph::dump::binaries::FileBinaries;
use cenotaph::dump::linux_writer::{self, Limits, Taken};
use cenotaph::dump::{Layout, unwind};
use cenotaph::target::{Request, Target};
use minidump::{
    Minidump, MinidumpException, MinidumpLinuxMaps, MinidumpMemoryInfoList, MinidumpMemoryList,
    MinidumpMiscInfo, MinidumpModule, MinidumpModuleList, MinidumpSystemInfo, MinidumpThreadList,
    MinidumpThreadNames, Module,
};
use scroll::{LE, Pread};

#[path = "../src/dump/oracle.rs"]
mod oracle;
mod victim;

use victim::{FAULT, HEAP_TEXT, ROLE, Victim};

fn ours(victim: &Victim, crash: bool) -> Taken {
    let context = crash.then(|| victim.context());
    let target = Target::stop(Request::new(victim.child.id() as i32, victim.tid, context)).unwrap();
    linux_writer::write(target, Limits::default()).unwrap()
}

/// The dumps agree for a crash and for a request, with these many worker threads besides two of the test harness.
fn agree(workers: usize) {
    let victim = Victim::with_workers(workers);
    for crash in [true, false] {
        let (ours, theirs) = at_rest(&victim, crash);
        compare(&ours, &theirs, crash.then_some(victim.tid));
        println!("{workers} workers: {} bytes, theirs {}", ours.len(), theirs.len());
    }
}

/// Both dumps of one state: ours before and after theirs are the same. A fresh victim still moves for a while.
fn at_rest(victim: &Victim, crash: bool) -> (Vec<u8>, Vec<u8>) {
    for _ in 0..1000 {
        let (before, theirs, after) = (ours(victim, crash), victim.dump(crash), ours(victim, crash));
        assert_eq!(before.notes, [] as [String; 0]);
        let state = |dump: &[u8]| {
            let layout = Layout::parse(dump).unwrap();
            let bytes = |range: &std::ops::Range<usize>| dump[range.clone()].to_vec();
            layout
                .threads
                .iter()
                .map(|t| (t.id, bytes(&t.context), bytes(&t.stack.bytes)))
                .collect::<Vec<_>>()
        };
        if state(&before.dump) == state(&after.dump) {
            return (before.dump.clone(), theirs);
        }
    }
    panic!("the victim never comes to rest");
}

#[test]
fn few_threads() {
    agree(0);
}

#[test]
fn sixteen_threads() {
    agree(14);
}

#[test]
fn many_threads() {
    agree(126);
}

fn compare(ours: &[u8], theirs: &[u8], crashed: Option<i32>) {
    let (a, b) = (Minidump::read(ours).unwrap(), Minidump::read(theirs).unwrap());
    threads(ours, theirs, &a, &b, crashed);
    modules(&a, &b);
    let system = |dump: &Minidump<'_, &[u8]>| {
        let system = dump.get_stream::<MinidumpSystemInfo>().unwrap();
        let cpu =
            (system.raw.processor_level, system.raw.processor_revision, system.raw.number_of_processors);
        (system.os, system.cpu, cpu, system.raw.cpu.data, system.csd_version().map(|text| text.into_owned()))
    };
    assert_eq!(system(&a), system(&b));
    let exception = |dump: &Minidump<'_, &[u8]>| {
        let exception = dump.get_stream::<MinidumpException>().unwrap().raw;
        let record = exception.exception_record;
        let context = exception.thread_context.data_size;
        (
            exception.thread_id,
            record.exception_code,
            record.exception_flags,
            record.exception_address,
            context,
        )
    };
    assert_eq!(exception(&a), exception(&b));
    if crashed.is_some() {
        assert_eq!(exception(&a).3, FAULT);
    }
    let mapped = |dump: &Minidump<'_, &[u8]>| {
        let infos = dump.get_stream::<MinidumpMemoryInfoList>().unwrap();
        let infos = infos.iter().map(|info| {
            let raw = &info.raw;
            (
                raw.base_address,
                raw.region_size,
                raw.protection,
                raw._type,
                raw.state,
                raw.allocation_protection,
            )
        });
        infos.collect::<Vec<_>>()
    };
    assert_eq!(mapped(&a), mapped(&b));
    assert_eq!(lines(&a), lines(&b));
    let (read_a, read_b) =
        (a.get_stream::<MinidumpLinuxMaps>().unwrap(), b.get_stream::<MinidumpLinuxMaps>().unwrap());
    let ranges = |maps: &MinidumpLinuxMaps<'_>| {
        maps.iter()
            .map(|m| (m.memory_range(), m.is_readable(), m.is_writable(), m.is_executable()))
            .collect::<Vec<_>>()
    };
    assert_eq!(ranges(&read_a), ranges(&read_b));
    assert_eq!(a.get_stream::<MinidumpMiscInfo>().unwrap().raw.process_id(), pid_of(&b).as_ref());
}

/// The fields of each mapping. Ours names a file once; its other lines have its device and inode.
fn lines(dump: &Minidump<'_, &[u8]>) -> Vec<(Vec<String>, String)> {
    let text = String::from_utf8(dump.get_raw_stream(0x4767_0009).unwrap().to_vec()).unwrap();
    let mut files = BTreeMap::new();
    let line = |line: &str| {
        let mut fields: Vec<String> = line.splitn(6, ' ').map(str::to_owned).collect();
        let path = fields.split_off(5).pop().unwrap_or_default().trim_start().to_owned();
        let file = fields[3..].to_vec();
        match path.is_empty() && file[1] != "0" {
            true => (fields, BTreeMap::get(&files, &file).cloned().expect("named before")),
            false => {
                files.insert(file, path.clone());
                (fields, path)
            }
        }
    };
    text.lines().map(line).collect()
}

/// From `/proc/PID/status`, which `minidump-writer` keeps.
fn pid_of(dump: &Minidump<'_, &[u8]>) -> Option<u32> {
    let status = dump.get_raw_stream(0x4767_0004).ok()?;
    let status = String::from_utf8_lossy(status).into_owned();
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

fn threads(
    ours: &[u8],
    theirs: &[u8],
    a: &Minidump<'_, &[u8]>,
    b: &Minidump<'_, &[u8]>,
    crashed: Option<i32>,
) {
    let (list_a, list_b) =
        (a.get_stream::<MinidumpThreadList>().unwrap(), b.get_stream::<MinidumpThreadList>().unwrap());
    let (names_a, names_b) =
        (a.get_stream::<MinidumpThreadNames>().unwrap(), b.get_stream::<MinidumpThreadNames>().unwrap());
    let ids =
        |list: &MinidumpThreadList<'_>| list.threads.iter().map(|t| t.raw.thread_id).collect::<Vec<_>>();
    assert_eq!(ids(&list_a), ids(&list_b));
    let memory = b.get_stream::<MinidumpMemoryList>().unwrap();
    let code: Vec<_> = b
        .get_stream::<MinidumpMemoryInfoList>()
        .unwrap()
        .iter()
        .filter(|info| info.is_executable())
        .filter_map(|info| info.memory_range().map(|range| range.start..range.end + 1))
        .collect();
    for (t, u) in list_a.threads.iter().zip(&list_b.threads) {
        let id = t.raw.thread_id;
        assert_eq!(names_a.get_name(id), names_b.get_name(id));
        let context = |dump: &[u8], thread: &minidump::MinidumpThread<'_>| {
            let at = thread.raw.thread_context.rva as usize;
            dump.pread_with::<minidump_common::format::CONTEXT_AMD64>(at, LE).unwrap()
        };
        let (mut context_a, context_b) = (context(ours, t), context(theirs, u));
        // Debug registers: only they read them, without saying so in the flags.
        let debug =
            (context_b.dr0, context_b.dr1, context_b.dr2, context_b.dr3, context_b.dr6, context_b.dr7);
        (context_a.dr0, context_a.dr1, context_a.dr2, context_a.dr3, context_a.dr6, context_a.dr7) = debug;
        assert_eq!(format!("{context_a:x?}"), format!("{context_b:x?}"), "thread {id}");
        let stack = MinidumpMemoryList::memory_at_address(
            &a.get_stream::<MinidumpMemoryList>().unwrap(),
            t.raw.stack.start_of_memory_range,
        )
        .expect("a stack")
        .bytes
        .to_vec();
        let start = t.raw.stack.start_of_memory_range;
        assert!(start <= context_a.rsp && context_a.rsp < start + stack.len() as u64, "thread {id}");
        assert!(context_a.rsp - start < 128 + 16, "nothing below the red zone");
        // Theirs begins at the stack pointer's page, ours below it where the red zone does.
        let begin = start.max(context_a.rsp & !0xfff);
        let stack = &stack[(begin - start) as usize..];
        let start = begin;
        let same = memory.memory_at_address(start).expect("their stack begins at the page");
        let skipped = (start - same.base_address) as usize;
        let theirs = &same.bytes[skipped..];
        // The kernel's own writes to a thread that is asked twice end at the red zone.
        let live = (context_a.rsp - start) as usize;
        assert!(stack[live..] == theirs[live..stack.len()], "the stack of thread {id}");
        let rest = &theirs[stack.len()..];
        if id == list_a.threads[0].raw.thread_id {
            // The strings at the top of the first stack are left out,
            assert!(memchr::memmem::find(rest, b"--nocapture\0").is_some());
        }
        let words = rest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let block =
            words.clone().zip((start + stack.len() as u64..).step_by(8)).position(|(word, at)| word == at);
        let behind = match Some(id) == crashed.map(|tid| tid as u32) {
            // of a thread that crashed only zeros before them, or before glibc's control block, which begins with a
            // pointer to itself,
            true => words.take(block.unwrap_or(0)).find(|&word| word != 0),
            // and of the others whatever lies before that block, as no word in it is a return address.
            false => words
                .take(block.unwrap_or(0))
                .find(|&word| code.iter().any(|code| code.contains(&word.wrapping_sub(1)))),
        };
        assert_eq!(behind, None, "thread {id}");
        let first = id == list_a.threads[0].raw.thread_id;
        assert!(first || block.is_some_and(|words| words * 8 < 1 << 13), "thread {id}");
    }
    assert!(crashed.is_none_or(|tid| ids(&list_a).contains(&(tid as u32))));
}

fn modules(a: &Minidump<'_, &[u8]>, b: &Minidump<'_, &[u8]>) {
    let list = |dump: &Minidump<'_, &[u8]>| {
        let of = |module: &MinidumpModule| {
            let id = module.code_identifier().map(|id| id.to_string());
            let debug = (module.debug_file().map(|file| file.into_owned()), module.debug_identifier());
            let version = module.version().map(|version| version.into_owned());
            (module.base_address(), module.code_file().into_owned(), id, debug, version)
        };
        let modules = dump.get_stream::<MinidumpModuleList>().unwrap();
        // In the file's order: the first one is the program.
        modules.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(list(a), list(b));
    let sizes = |dump: &Minidump<'_, &[u8]>| {
        dump.get_stream::<MinidumpModuleList>()
            .unwrap()
            .iter()
            .map(|module| module.size())
            .collect::<Vec<_>>()
    };
    // Theirs ends where the linker left a page out, ours does not; few binaries have such a hole.
    let (ours, theirs) = (sizes(a), sizes(b));
    assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| ours >= theirs), "{ours:?} {theirs:?}");
    assert!(ours[1..] == theirs[1..], "libraries have none");
}

#[test]
fn frames_are_the_same() {
    let victim = Victim::with_workers(6);
    let (ours, theirs) = at_rest(&victim, true);
    let frames = |dump: &[u8]| oracle::frames(&oracle::process(dump));
    assert_eq!(frames(&ours), frames(&theirs), "by rust-minidump");
    let trace = |dump: &[u8]| {
        let layout = Layout::parse(dump).unwrap();
        unwind::stack_trace(dump, &layout, &FileBinaries::new()).unwrap()
    };
    assert_eq!(trace(&ours), trace(&theirs), "by our unwinder");
    let found: Vec<_> = trace(&ours).threads[0].frames.iter().map(|frame| frame.instruction + 1).collect();
    assert_eq!(found[1..], victim.return_addresses[1..], "by libgcc, in the victim");
}

#[test]
fn what_stacks_point_to_is_in_it_and_the_environment_is_not() {
    let victim = Victim::start();
    let taken = ours(&victim, true);
    let dump = &taken.dump[..];
    let oracle = Minidump::read(dump).unwrap();
    let list = oracle.get_stream::<MinidumpMemoryList>().unwrap();
    let heap = list.memory_at_address(victim.heap).expect("the heap block");
    let at = (victim.heap - heap.base_address) as usize;
    assert_eq!(&heap.bytes[at..at + HEAP_TEXT.len()], HEAP_TEXT);
    let pc = victim.context().context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    let code = list.memory_at_address(pc).expect("code around the program counter");
    assert_eq!((code.base_address, code.size), (pc - 128, 256));
    let ranges: BTreeMap<u64, u64> = list.iter().map(|m| (m.base_address, m.base_address + m.size)).collect();
    let ends = ranges.iter().zip(ranges.iter().skip(1));
    assert!(
        ends.clone().count() > 3 && ends.into_iter().all(|((_, end), (next, _))| end <= next),
        "disjoint"
    );

    // The victim's role is in its environment and nowhere in its dump; beside the dump it is.
    let strings = taken.start_up.as_ref().expect("not hidden");
    assert!(memchr::memmem::find(&strings.environment, format!("{ROLE}=2\0").as_bytes()).is_some());
    assert!(strings.arguments.ends_with(b"--nocapture\0--test-threads=1\0"));
    let layout = Layout::parse(dump).unwrap();
    for memory in &layout.memory {
        let held = memory.addresses();
        assert!(held.end <= strings.addresses.start || held.start >= strings.addresses.end, "{held:x?}");
    }
    for absent in [0x4767_0006, 0x4767_0007] {
        assert!(layout.stream(absent).is_none(), "{absent:#x}");
    }
    let terminators = layout.gaps.iter().all(|gap| gap.len() == 2 && dump[gap.clone()] == [0, 0]);
    assert!(terminators, "all else is claimed: {:?}", layout.gaps);
}

#[test]
fn a_tight_limit_takes_from_the_stacks_of_others() {
    let victim = Victim::with_workers(30);
    let request = || Request::new(victim.child.id() as i32, victim.tid, Some(victim.context()));
    let whole = ours(&victim, true).dump;
    let tight = Limits { indirect: 1 << 20, total: 100 << 10 };
    let taken = linux_writer::write(Target::stop(request()).unwrap(), tight).unwrap();
    println!("{} bytes instead of {}: {:?}", taken.dump.len(), whole.len(), taken.notes);
    assert!(taken.dump.len() < whole.len() && taken.notes.iter().any(|note| note.contains("limit")));
    let soft = Minidump::read(&taken.dump[..]).unwrap().get_raw_stream(0x4d7a_0004).unwrap().to_vec();
    let soft: Vec<String> = serde_json::from_slice(&soft).unwrap();
    assert_eq!(soft, taken.notes);
    let frames = |dump: &[u8]| {
        let layout = Layout::parse(dump).unwrap();
        unwind::stack_trace(dump, &layout, &FileBinaries::new()).unwrap().threads.remove(0)
    };
    assert_eq!(frames(&taken.dump), frames(&whole), "the crashing thread keeps all");
}
