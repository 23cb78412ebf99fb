//! The table of what is planted: kind of value, place, encoding; and what a receipt must say of each cell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kinds::{self, Form, Kind};
use super::needles::{Needles, WINDOW};
use super::plant::{Encoding, Place, THREAD_NAME_BYTES, not_applicable};

/// All places, with the names of the plant file.
pub(crate) const PLACES: [(Place, &str); 9] = [
    (Place::Stack, "stack"),
    (Place::HeapRegister, "heap-register"),
    (Place::HeapStack, "heap-stack"),
    (Place::Register, "register"),
    (Place::Env, "env"),
    (Place::Arg, "arg"),
    (Place::Attribute, "attribute"),
    (Place::Breadcrumb, "breadcrumb"),
    (Place::ThreadName, "thread-name"),
];
/// All encodings, with the names of the plant file and of receipts.
pub(crate) const ENCODINGS: [(Encoding, &str, &str); 3] = [
    (Encoding::Utf8, "utf8", "utf-8"),
    (Encoding::Utf16Le, "utf16le", "utf-16le"),
    (Encoding::Utf32Le, "utf32le", "utf-32le"),
];

/// General registers that the victim loads, of 8 bytes, and vector registers, of 16.
const GENERAL: usize = 11;
const VECTOR: usize = 16;

/// One planted value.
#[derive(Clone)]
pub(crate) struct Cell {
    pub(crate) kind: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) place: Place,
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
    /// Address modulo 16.
    pub(crate) phase: u8,
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        format!("{} in {:?} as {:?}", self.kind, self.place, self.encoding)
    }

    fn bytes(&self) -> usize {
        encode(&self.form.text(), self.encoding).len()
    }

    /// General and vector registers that it takes.
    fn registers(&self) -> (usize, usize) {
        match self.place {
            Place::HeapRegister => (1, 0),
            Place::Register => (self.bytes().div_ceil(8), self.bytes().div_ceil(16)),
            _ => (0, 0),
        }
    }
}

/// Place, encoding and reason; the kinds that cannot be planted there.
pub(crate) type NotApplicable = BTreeMap<String, Vec<&'static str>>;

/// Every cell that can be, for the way to die that can hold most; and every one that cannot. `random` chooses phases.
pub(crate) fn table(random: &mut impl FnMut() -> u64) -> (Vec<Cell>, NotApplicable) {
    let (mut cells, mut not) = (Vec::new(), NotApplicable::new());
    for Kind { name, rule, forms } in kinds::all() {
        for (place, _) in PLACES {
            for (encoding, _, _) in ENCODINGS {
                let fits = |form: &&Form| encode(&form.text(), encoding).len() <= room(place);
                let reason = not_applicable(place, encoding, "null").map(str::to_owned);
                let reason = reason.or_else(|| {
                    let least = forms.iter().map(|form| encode(&form.text(), encoding).len()).min().unwrap();
                    (least > room(place))
                        .then(|| format!("longer than the {} bytes of the place", room(place)))
                });
                match (reason, forms.iter().find(fits)) {
                    (None, Some(form)) => {
                        let phase = u8::try_from(random() % 16).unwrap();
                        cells.push(Cell { kind: name, rule, place, encoding, form: form.clone(), phase });
                    }
                    (reason, _) => {
                        let cell = format!("{place:?} as {encoding:?}: {}", reason.unwrap());
                        not.entry(cell).or_default().push(name);
                    }
                }
            }
        }
    }
    (cells, not)
}

/// Bytes that a value in a place may take.
fn room(place: Place) -> usize {
    match place {
        Place::ThreadName => THREAD_NAME_BYTES,
        Place::Register => GENERAL * 8,
        // The limits of the SDK: more is cut.
        Place::Attribute => 1024,
        Place::Breadcrumb => 448,
        _ => usize::MAX,
    }
}

/// Groups that fit into the registers of one victim each, in the order of the table.
pub(crate) fn register_batches(cells: Vec<Cell>) -> Vec<Vec<Cell>> {
    let mut batches: Vec<Vec<Cell>> = Vec::new();
    let used = |batch: &[Cell]| {
        batch.iter().map(Cell::registers).fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    };
    for cell in cells {
        let (general, vector) = cell.registers();
        let fits = |batch: &&mut Vec<Cell>| {
            let (g, v) = used(batch);
            g + general <= GENERAL && v + vector <= VECTOR
        };
        match batches.iter_mut().find(fits) {
            Some(batch) => batch.push(cell),
            None => batches.push(vec![cell]),
        }
    }
    batches
}

/// The victim's plant file.
pub(crate) fn plant_file(cells: &[Cell]) -> Vec<u8> {
    let entries: Vec<Value> = cells
        .iter()
        .map(|cell| {
            let place = PLACES.iter().find(|(place, _)| *place == cell.place).unwrap().1;
            let encoding = ENCODINGS.iter().find(|(encoding, ..)| *encoding == cell.encoding).unwrap().1;
            let mut entry = json!({ "value": cell.form.text(), "place": place, "encoding": encoding });
            match cell.place {
                Place::Stack | Place::HeapStack | Place::HeapRegister => entry["phase"] = cell.phase.into(),
                Place::Attribute | Place::Breadcrumb => entry["key"] = cell.kind.into(),
                _ => {}
            }
            entry
        })
        .collect();
    serde_json::to_vec(&entries).unwrap()
}

pub(crate) fn encode(text: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Utf8 => text.as_bytes().to_vec(),
        Encoding::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Encoding::Utf32Le => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
    }
}

/// Checks a report against the memory before scrubbing. What is missing is added to `missing`:
/// - a cell whose value the raw dump does not hold at all (then nothing was tested), unless it is one of the strings
///   of argv and envp, which a dump leaves out;
/// - a cell whose value lies somewhere in the raw dump, but the receipt has no entry of its place there, by its rule;
/// - a piece of any value in the raw dump where the receipt has no entry at all.
pub(crate) fn check(
    cells: &[Cell],
    raw: &[u8],
    attachment: &Value,
    needles: &Needles,
    missing: &mut Vec<String>,
) {
    let entries: Vec<Entry> =
        attachment["receipt"]["entries"].as_array().unwrap().iter().map(Entry::new).collect();
    let in_dump: Vec<&Entry> = entries.iter().filter(|entry| !entry.is_text()).collect();
    for found in needles.find(raw) {
        if !in_dump.iter().any(|entry| entry.start < found.offset + WINDOW && found.offset < entry.end) {
            missing.push(format!("no entry at {:#x}, where {} was", found.offset, found.label));
        }
    }
    for cell in cells {
        let name = cell.name();
        if matches!(cell.place, Place::Attribute | Place::Breadcrumb) {
            check_text(cell, cells, &entries, attachment, missing);
            continue;
        }
        // Minidumps hold thread names in UTF-16.
        let stored = if cell.place == Place::ThreadName { Encoding::Utf16Le } else { cell.encoding };
        // A dump holds 1 KiB around a pointer: of a long value the end may not be there.
        let begin: String = cell.form.secret.chars().take(16).collect();
        let secret = encode(&begin, stored);
        let places: Vec<usize> = memchr::memmem::find_iter(raw, &secret).collect();
        if places.is_empty() && in_argument_block(cell) {
            println!("{name}: the dump stops short of the block, so there is nothing to remove");
            continue;
        }
        if places.is_empty() {
            missing.push(format!("{name}: not in the raw dump"));
            continue;
        }
        let touches = |entry: &Entry, at: usize| entry.start < at + secret.len() && at < entry.end;
        let said: BTreeSet<(&str, &str, &str)> = in_dump
            .iter()
            .filter(|entry| places.iter().any(|&at| touches(entry, at)))
            .map(|entry| (entry.place.as_str(), entry.rule.as_str(), entry.encoding.as_str()))
            .collect();
        if !said.iter().any(|(place, rule, encoding)| expected(cell, place, rule, encoding)) {
            missing.push(format!("{name}: the receipt says only {said:?}"));
        }
    }
}

/// Whether the value was planted among the argv and envp strings at the top of the main thread's stack.
fn in_argument_block(cell: &Cell) -> bool {
    matches!(cell.place, Place::Env | Place::Arg)
}

/// Whether an entry is what the receipt should say of a cell.
fn expected(cell: &Cell, place: &str, rule: &str, encoding: &str) -> bool {
    // Behind a zero byte the same bytes are UTF-16 in both byte orders.
    let encoding = encoding.replace("utf-16be", "utf-16le");
    let own = |wanted: &str| ENCODINGS.iter().any(|(e, _, name)| *e == cell.encoding && *name == wanted);
    match cell.place {
        Place::Stack => place == "stack" && rule == cell.rule && own(&encoding),
        Place::HeapRegister | Place::HeapStack => place == "heap" && rule == cell.rule && own(&encoding),
        // Registers are zeroed for being printable, and vector registers always.
        Place::Register => place == "registers",
        // The dump stops short of the block and has no stream that repeats it; what is left are copies that the program
        // made. (Of a dump by `minidump-writer`, the fallback, the whole block goes.)
        Place::Env | Place::Arg => {
            place == "environment" || rule == cell.rule || rule.ends_with("-value") || rule == "echo"
        }
        // A name of full length may be cut off, so that what it ends in goes for that reason alone.
        Place::ThreadName => {
            let full = cell.form.text().len() == THREAD_NAME_BYTES;
            place == "thread-name" && (rule == cell.rule || (full && rule == "cut-off"))
        }
        Place::Attribute | Place::Breadcrumb => false,
    }
}

/// Attributes and breadcrumbs are in the report, not in the dump: the text is there with stars and aliases, and the receipt has as
/// many entries by the rule as there are kinds that it is for.
fn check_text(cell: &Cell, cells: &[Cell], entries: &[Entry], attachment: &Value, missing: &mut Vec<String>) {
    let (list, name_field, text_field, place) = match cell.place {
        Place::Attribute => ("attributes", "key", "value", "attribute"),
        _ => ("breadcrumbs", "category", "message", "breadcrumb"),
    };
    let texts = attachment["report"][list].as_array().unwrap();
    let text =
        texts.iter().find(|text| text[name_field] == cell.kind).and_then(|text| text[text_field].as_str());
    // Of a PEM key the line feeds between the stars may stay.
    let stars = |text: &str| text.chars().filter(|c| *c == '*').count() + aliases(text);
    let wanted = cell.form.secret.chars().filter(|c| !c.is_whitespace()).count();
    let whole = cell.form.text();
    match text {
        Some(text) if stars(text) + 4 >= wanted && text.len() == whole.len() => {}
        other => missing.push(format!("{}: {other:?}", cell.name())),
    }
    let same = |other: &&Cell| other.place == cell.place && other.rule == cell.rule;
    let (kinds, said) = (
        cells.iter().filter(same).count(),
        entries.iter().filter(|entry| entry.place == place && entry.rule == cell.rule).count(),
    );
    if said < kinds {
        missing.push(format!("{}: {said} entries of the receipt for {kinds} kinds", cell.name()));
    }
}

/// Characters of `[email#317]` and the like.
fn aliases(text: &str) -> usize {
    let is_alias = |inside: &&str| {
        let (kind, number) = inside.split_once('#').unwrap_or(("?", ""));
        kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte.is_ascii_digit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let inside =
        text.split('[').skip(1).filter_map(|behind| behind.split_once(']')).map(|(inside, _)| inside);
    inside.filter(is_alias).map(|inside| inside.len() + 2).sum()
}

/// An entry of the receipt.
struct Entry {
    place: String,
    rule: String,
    encoding: String,
    start: usize,
    end: usize,
}

impl Entry {
    fn new(json: &Value) -> Self {
        let text = |field: &str| json[field].as_str().unwrap().to_owned();
        let number = |field: &str| usize::try_from(json[field].as_u64().unwrap()).unwrap();
        let (place, rule, encoding) = (text("place"), text("rule"), text("encoding"));
        Self { place, rule, encoding, start: number("offset"), end: number("offset") + number("length") }
    }

    /// Whether its offset is one in a text of the report.
    fn is_text(&self) -> bool {
        matches!(self.place.as_str(), "attribute" | "breadcrumb" | "reason")
    }
}
