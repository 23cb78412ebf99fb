//! Any bytes as a minidump: layout, unwinding without binaries, pointed-to memory, and the synthetic dump made of
//! the frames.
#![no_main]

use std::ops::Range;
use std::sync::Arc;

use cenotaph::dump::binaries::{Binaries, UnwindSections};
use cenotaph::dump::layout::ModuleEntry;
use cenotaph::dump::{Layout, fingerprint, indirect, synthetic, unwind};
use cenotaph::report::Reason;
use libfuzzer_sys::fuzz_target;

struct Nothing;

impl Binaries for Nothing {
    fn sections(&self, _: &str, _: &[u8], _: &ModuleEntry) -> Option<Arc<UnwindSections>> {
        None
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(layout) = Layout::parse(bytes) else { return };
    let inside =
        |range: &Range<usize>| assert!(range.start <= range.end && range.end <= bytes.len(), "{range:?}");
    layout.streams.iter().for_each(|stream| [&stream.entry, &stream.bytes].into_iter().for_each(inside));
    layout
        .threads
        .iter()
        .for_each(|thread| [&thread.context, &thread.stack.bytes].into_iter().for_each(inside));
    layout.memory.iter().for_each(|memory| inside(&memory.bytes));
    layout
        .modules
        .iter()
        .for_each(|m| [&m.name, &m.codeview, &m.build_id, &m.debug_file].into_iter().for_each(inside));
    layout.thread_names.iter().chain(&layout.strings).for_each(|(_, text)| inside(text));
    layout.exception.iter().for_each(|e| [&e.parameters, &e.context].into_iter().for_each(inside));
    layout.gaps.iter().for_each(inside);

    // The whole user half but the first page, and a hole.
    let readable = [0x1000..0x7000_0000_0000, 0x7001_0000_0000..0x7fff_ffff_f000];
    let budget = 64 * 1024;
    let wanted = indirect::wanted(bytes, &layout, &readable, budget);
    assert!(wanted.iter().map(|range| range.end - range.start).sum::<u64>() <= budget);
    assert!(wanted.windows(2).all(|pair| pair[0].end <= pair[1].start), "{wanted:x?}");
    let memory: Vec<(u64, Vec<u8>)> =
        wanted.iter().map(|range| (range.start, vec![0x5a; (range.end - range.start) as usize])).collect();
    if let Ok(more) = indirect::append(bytes.to_vec(), &layout, &memory) {
        let parsed = Layout::parse(&more).expect("a dump with memory added parses");
        for (address, bytes) in &memory {
            let held = parsed.memory.iter().any(|m| m.address == *address && m.bytes.len() == bytes.len());
            assert!(held, "{address:x}");
        }
    }

    let Ok(trace) = unwind::stack_trace(bytes, &layout, &Nothing) else { return };
    assert!(trace.threads.iter().all(|thread| thread.frames.len() <= unwind::MAX_FRAMES));
    let reason = Reason::Requested { reason: "fuzz".into() };
    let _ = fingerprint::fingerprint(reason.name(), &trace);
    if let Ok(small) = synthetic::write(&trace, &reason, 0) {
        Layout::parse(&small).expect("a synthetic dump parses");
    }
});
