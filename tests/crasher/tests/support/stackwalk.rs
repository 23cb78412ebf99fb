//! What `minidump-stackwalk --json` prints, by the library that it is made of: of a dump before and after scrubbing.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use cenotaph::dump::Layout;
use cenotaph::scrub::{self, Level, Policy, Receipt};
use minidump::{Minidump, MinidumpModuleList, MinidumpSystemInfo};
use minidump_unwind::debuginfo::DebugInfoSymbolProvider;
use minidump_unwind::{MultiSymbolProvider, SymbolProvider, Symbolizer, simple_symbol_supplier};
use serde_json::Value;

use super::byte_diff::assert_equals_receipt;

/// Walks dumps, always with the same symbols; twice: with the binaries' unwind tables, and without, by frame pointers and scanning.
pub(crate) struct Stackwalk {
    /// Shared, and never dropped: reading symbols takes longer than walking.
    symbols: &'static (dyn SymbolProvider + Sync),
}

/// Frames, and those that are the same after scrubbing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) frames: usize,
    pub(crate) same: usize,
}

/// What became of the frames of some dumps.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) dumps: usize,
    pub(crate) pattern: Count,
    pub(crate) pointers_crashing: Count,
    pub(crate) pointers: Count,
    /// Frames before that have a function; a line; were found by unwind tables, frame pointers, scanning.
    pub(crate) functions: usize,
    pub(crate) lines: usize,
    pub(crate) trusts: std::collections::BTreeMap<String, usize>,
    pub(crate) differences: Vec<String>,
}

impl Stackwalk {
    /// With the symbols that are in a folder, or will be: see [`symbols`](super::symbols).
    pub(crate) fn new(folder: &Path) -> Self {
        let symbols = Symbolizer::new(simple_symbol_supplier(vec![folder.to_owned()]));
        Self { symbols: Box::leak(Box::new(symbols)) }
    }

    /// Scrubs `before` at both levels, and compares what is walked, and the changes with the receipts.
    pub(crate) fn compare(&self, what: &str, before: &[u8], policy: &Policy, tally: &mut Tally) {
        let layout = Layout::parse(before).unwrap();
        let scrubbed = [Level::Pattern, Level::Pointers].map(|level| {
            let (mut after, mut receipt) = (before.to_vec(), Receipt::default());
            let policy = Policy { level, ..policy.clone() };
            scrub::dump(&mut after, &layout, &policy, &mut receipt).unwrap();
            assert_equals_receipt(&format!("{what} at {level:?}"), before, &after, &receipt);
            (level, after)
        });
        tally.dumps += 1;
        for tables in [true, false] {
            let providers = self.providers(before, tables);
            let old = walked(before, &providers);
            tally.look_at(&old);
            for (level, after) in &scrubbed {
                let what = format!("{what} at {level:?}, tables {tables}");
                tally.add(&what, *level, &old, &walked(after, &providers));
            }
        }
    }

    /// Unwind tables are taken for the modules that `reference` names: a machine that has the binaries finds them by their ids, not by
    /// paths that may be scrubbed. Symbols are looked for by each dump's own names and ids.
    fn providers(&self, reference: &[u8], tables: bool) -> MultiSymbolProvider {
        let mut all = MultiSymbolProvider::new();
        if tables {
            let reference = Minidump::read(reference).unwrap();
            let system = reference.get_stream::<MinidumpSystemInfo>().unwrap();
            let modules = reference.get_stream::<MinidumpModuleList>().unwrap();
            all.add(Box::new(pollster::block_on(DebugInfoSymbolProvider::new(&system, &modules))));
        }
        all.add(Box::new(self.symbols));
        all
    }
}

fn walked(dump: &[u8], providers: &MultiSymbolProvider) -> Value {
    let dump = Minidump::read(dump).unwrap();
    let state = pollster::block_on(minidump_processor::process_minidump(&dump, providers)).unwrap();
    let mut json = Vec::new();
    state.print_json(&mut json, false).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn list<'a>(json: &'a Value, field: &str) -> &'a [Value] {
    json[field].as_array().map_or(&[], Vec::as_slice)
}

impl Tally {
    fn look_at(&mut self, walked: &Value) {
        for frame in list(walked, "threads").iter().flat_map(|thread| list(thread, "frames")) {
            self.functions += usize::from(frame["function"].is_string());
            self.lines += usize::from(frame["line"].is_u64() && frame["file"].is_string());
            *self.trusts.entry(frame["trust"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }

    fn add(&mut self, what: &str, level: Level, old: &Value, new: &Value) {
        for field in ["crash_info", "status", "modules"] {
            assert_eq!(essence(field, &old[field]), essence(field, &new[field]), "{what}");
        }
        let crashing =
            old["crash_info"]["crashing_thread"].as_u64().expect("a crashing or requesting thread");
        assert_eq!(list(old, "threads").len(), list(new, "threads").len(), "{what}");
        for (at, (old, new)) in list(old, "threads").iter().zip(list(new, "threads")).enumerate() {
            assert_eq!(old["thread_id"], new["thread_id"], "{what}");
            // A whole frame: number, trust, pc, module and offset, function and offset, file, line, inlined calls.
            let (before, after) = (list(old, "frames"), list(new, "frames"));
            let same = before.iter().zip(after).filter(|(a, b)| a == b).count();
            let count = Count { frames: before.len().max(after.len()), same };
            let is_crashing = at as u64 == crashing;
            match level {
                Level::Pointers => {
                    self.pointers.add(count);
                    if is_crashing {
                        self.pointers_crashing.add(count);
                    }
                }
                _ => self.pattern.add(count),
            }
            if same < count.frames && self.differences.len() < 20 {
                let first = before.iter().zip(after).take_while(|(a, b)| a == b).count();
                let frame = |list: &[Value]| list.get(first).map_or("none".to_owned(), Value::to_string);
                let (a, b, crashing) =
                    (frame(before), frame(after), if is_crashing { "crashing " } else { "" });
                self.differences.push(format!("{what}, {crashing}thread {at}: {a} became {b}"));
            }
        }
    }

    /// What must hold: [`Level::Pattern`] everywhere, [`Level::Pointers`] in crashing threads and 99.9 % of all others.
    pub(crate) fn assert(&self, what: &str) {
        println!("{what}: {self:#?}");
        let said = self.differences.join("\n");
        assert_eq!(self.pattern.same, self.pattern.frames, "{what} at Pattern: {said}");
        assert_eq!(self.pointers_crashing.same, self.pointers_crashing.frames, "{what} at Pointers: {said}");
        assert!(self.pointers.same * 1000 >= self.pointers.frames * 999, "{what} at Pointers: {said}");
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.same += other.same;
    }
}

/// What must be the same of what is no frame. Paths may be scrubbed, and what instructions do is told by registers.
fn essence(field: &str, json: &Value) -> Value {
    let keep: &[&str] = match field {
        "crash_info" => &["type", "address", "crashing_thread"],
        "modules" => {
            &["base_addr", "end_addr", "code_id", "debug_id", "filename", "loaded_symbols", "missing_symbols"]
        }
        _ => return json.clone(),
    };
    let one = |json: &Value| keep.iter().map(|key| json[key].clone()).collect::<Value>();
    json.as_array().map_or_else(|| one(json), |all| all.iter().map(one).collect())
}
