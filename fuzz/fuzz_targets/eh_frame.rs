//! Any bytes as the unwind tables of a binary whose process crashed: a file on disk that the monitor did not write.
#![no_main]

use std::sync::Arc;

use cenotaph::dump::binaries::{Binaries, Section, UnwindSections};
use cenotaph::dump::layout::ModuleEntry;
use cenotaph::dump::{Layout, synthetic, unwind};
use cenotaph::report::{Frame, Module, Reason, StackTrace, Thread, Trust};
use libfuzzer_sys::fuzz_target;

const BASE: u64 = 0x5555_0000_0000;
const SIZE: u64 = 0x10_0000;
const TEXT: u64 = 0x1000;
const TABLES: u64 = 0x8_0000;

struct Hostile(Arc<UnwindSections>);

impl Binaries for Hostile {
    fn sections(&self, _: &str, _: &[u8], _: &ModuleEntry) -> Option<Arc<UnwindSections>> {
        Some(self.0.clone())
    }
}

/// First byte: which tables there are. Second and third: where in the code the thread is, and the split between
/// index and table.
fuzz_target!(|bytes: &[u8]| {
    let Some((&[which, at, split], tables)) = bytes.split_first_chunk() else { return };
    let split = usize::from(split) * tables.len() / 256;
    let (index, table) = tables.split_at(split);
    let section = |bytes: &[u8], start: u64| Section {
        addresses: start..start + bytes.len() as u64,
        bytes: bytes.into(),
    };
    let sections = UnwindSections {
        base: 0,
        text: (which & 1 == 0).then_some(TEXT..TABLES),
        got: (which & 2 != 0).then_some(0x7_0000..0x7_1000),
        eh_frame: (which & 4 == 0).then(|| section(table, TABLES + 0x1_0000)),
        eh_frame_hdr: (which & 8 == 0).then(|| section(index, TABLES)),
        debug_frame: (which & 16 != 0).then(|| section(table, 0)),
    };
    let frame =
        |offset: u64| Frame { instruction: BASE + offset, module: Some(0), offset, trust: Trust::Unwound };
    let trace = StackTrace {
        modules: vec![Module { name: "a".into(), build_id: "00ff".into(), base: BASE, size: SIZE }],
        threads: vec![Thread {
            id: 1,
            name: None,
            crashed: true,
            frames: (0..8).map(|i| frame(TEXT + 0x100 * i + u64::from(at))).collect(),
        }],
    };
    let reason = Reason::Requested { reason: "fuzz".into() };
    let dump = synthetic::write(&trace, &reason, 0).expect("a synthetic dump of one thread");
    let layout = Layout::parse(&dump).expect("a synthetic dump parses");
    let unwound = unwind::stack_trace(&dump, &layout, &Hostile(Arc::new(sections))).expect("amd64");
    assert!(unwound.threads.iter().all(|thread| thread.frames.len() <= unwind::MAX_FRAMES));
});
