//! Plants every value in every form and place that can hold it, scrubs, and looks at what is left there: by itself, not with
//! the library's own finder.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use cenotaph::dump::Layout;
use cenotaph::report::{Attribute, AttributeValue, Breadcrumb, Reason, Report};
use cenotaph::scrub::{self, Policy, Receipt};

use super::corpus::{Corpus, Group, Sample};
use super::dump::{self, Place, Planted};
use super::encode::{Encoded, Form, encode};
use super::random::Random;
use crate::failure::{Failure, Result};
use crate::output;

/// Characters in a row that count as a leak.
const LEAK: usize = 4;

/// Texts that stand beside values in a program's memory, and must stay.
const NEIGHBOURS: &[&str] = &[
    "level 7 loaded in 0.25 s",
    "[info] frame 1024",
    "GL_RENDERER: llvmpipe (LLVM 15.0.6)",
    "texture hero_diffuse.png",
    "std::vector<int>::push_back",
    "at line 42 of main.lua",
    "state=IDLE",
    "v1.2.3",
    "libstdc++.so.6",
    "{\"ok\":true}",
    "size 4096 bytes",
    "0x7ffd12345678",
    "2024-05-06T07:08:09Z",
    "assertion failed: x < y",
    "%s: %d items",
];

/// Planted and removed.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) planted: u64,
    pub(crate) removed: u64,
}

impl Count {
    pub(crate) fn rate(self) -> f64 {
        if self.planted == 0 { 1.0 } else { self.removed as f64 / self.planted as f64 }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.planted += other.planted;
        self.removed += other.removed;
    }
}

/// Group, kind, form and place.
pub(crate) type Key = (Group, String, &'static str, &'static str);

/// Every cell, and what else was touched.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    /// By group, kind, form and place.
    pub(crate) cells: BTreeMap<Key, Count>,
    /// By group: plants whose neighbours lost a character, and decoys that did.
    pub(crate) false_hits: BTreeMap<Group, u64>,
    /// Some of them.
    pub(crate) false_examples: Vec<String>,
    /// Some values that survived.
    pub(crate) missed_examples: BTreeMap<String, Vec<String>>,
    /// Receipts that did not equal the byte difference.
    pub(crate) wrong_receipts: u64,
}

/// What is planted, and where the value in it is.
pub(super) struct Plant<'a> {
    sample: &'a Sample,
    encoded: Encoded,
    /// Characters of the value.
    value: std::ops::Range<usize>,
    /// Characters of what stands around it.
    whole: usize,
}

/// All cells: `plants` of each kind in each form and place.
pub(crate) fn measure(corpus: &Corpus, known: &[String], plants: usize, seed: u64) -> Result<Matrix> {
    let mut matrix = Matrix::default();
    let mut by_kind = BTreeMap::<&str, Vec<&Sample>>::new();
    for sample in &corpus.samples {
        by_kind.entry(&sample.kind).or_default().push(sample);
    }
    let policy = Policy { known: known.to_vec(), ..Policy::default() };
    for place in Place::ALL {
        output::progress(format_args!("recall: {}", place.name()));
        for form in Form::PLAIN.into_iter().chain(Form::LAYERS) {
            if !holds(place, form) {
                continue;
            }
            let mut random = Random::new(seed ^ (place as u64) << 32 ^ (form as u64) << 40);
            // Exception parameters and the like hold one value a dump.
            let each = if dump::capacity(place) == 1 { plants.min(50) } else { plants };
            let mut chosen: Vec<&Sample> = Vec::new();
            for samples in by_kind.values() {
                let from = random.below(samples.len());
                chosen.extend(samples.iter().cycle().skip(from).take(each.min(samples.len())));
            }
            random.shuffle(&mut chosen);
            for batch in chosen.chunks(dump::capacity(place)) {
                dump_of(batch, place, form, &policy, &mut random, &mut matrix)?;
            }
        }
    }
    texts(&by_kind, &policy, plants, &mut Random::new(seed ^ 77), &mut matrix)?;
    decoys(&corpus.decoys, &policy, &mut Random::new(seed ^ 78), &mut matrix)?;
    Ok(matrix)
}

fn holds(place: Place, form: Form) -> bool {
    match place {
        Place::Stack | Place::Heap => true,
        // The same code as for the heap: the layers would show nothing new.
        Place::Heap64 | Place::Registers | Place::Exception | Place::Vector => Form::PLAIN.contains(&form),
        place if place.is_utf16() => form == Form::Utf16Le,
        _ => form == Form::Utf8,
    }
}

fn plant<'a>(sample: &'a Sample, place: Place, form: Form, random: &mut Random) -> Option<Plant<'a>> {
    let (mut before, mut after) = (sample.before.clone(), sample.after.clone());
    let line_breaks = sample.text().contains(['\n', '\0']);
    if !place.is_memory()
        && line_breaks
        && !matches!(place, Place::Registers | Place::Vector | Place::Exception)
    {
        return None;
    }
    // Base names stay, so the value is in a directory's name; and it must be no path with a base name itself.
    let beside = place.is_memory() && random.below(2) == 0;
    if beside {
        before = format!("{}{}{before}", random.of(NEIGHBOURS), random.of(&[" ", "\n", " | ", "; "]));
        after = format!("{after}{}{}", random.of(&[" ", "\n", " | ", "; "]), random.of(NEIGHBOURS));
    }
    let text = format!("{before}{}{after}", sample.value);
    let encoded = encode(&text, form, random);
    if encoded.bytes.len() > place.room() {
        return None;
    }
    let start = before.chars().count();
    let value = start..start + sample.value.chars().count();
    Some(Plant { sample, encoded, value, whole: text.chars().count() })
}

pub(super) fn plants<'a>(
    batch: &[&'a Sample],
    place: Place,
    form: Form,
    random: &mut Random,
) -> Vec<Plant<'a>> {
    batch.iter().filter_map(|sample| plant(sample, place, form, random)).collect()
}

fn dump_of(
    batch: &[&Sample],
    place: Place,
    form: Form,
    policy: &Policy,
    random: &mut Random,
    matrix: &mut Matrix,
) -> Result<()> {
    let plants = plants(batch, place, form, random);
    if plants.is_empty() {
        return Ok(());
    }
    let planted = if place.is_memory() {
        let (region, starts) = region(&plants, form, random);
        dump::memory(place, &region, &starts)
    } else {
        let bytes: Vec<Vec<u8>> = plants.iter().map(|plant| plant.encoded.bytes.clone()).collect();
        dump::elsewhere(place, &bytes)
    };
    let after = scrubbed(&planted.bytes, policy, place.name(), matrix)?;
    for (plant, positions) in plants.iter().zip(&planted.positions) {
        judge(plant, positions, &planted, &after, (form.name(), place.name()), place.is_memory(), matrix);
    }
    Ok(())
}

/// Plants between bytes that are no text, at any phase.
pub(super) fn region(
    plants: &[Plant<'_>],
    form: Form,
    random: &mut Random,
) -> (Vec<u8>, Vec<(usize, usize)>) {
    let (mut region, mut starts) = (vec![0x01; 64], Vec::new());
    for plant in plants {
        let zeros = random.below(2) == 0;
        for _ in 0..16 + random.below(24) {
            // Bytes of any value, but none that continue the text: 0x01 and 0xfe are text in no encoding.
            region.push(if zeros { 0 } else { random.next() as u8 });
        }
        // Zeros before big-endian text belong to it; a terminator follows as often as not.
        let stop = if zeros && form == Form::Utf8 { 0 } else { 0x01 };
        region.extend([0x01, 0xfe, 0x01, stop]);
        starts.push((region.len(), plant.encoded.bytes.len()));
        region.extend(&plant.encoded.bytes);
        region.extend(if random.below(2) == 0 {
            [0; 8]
        } else {
            [0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe]
        });
    }
    region.extend([0x01; 64]);
    (region, starts)
}

pub(super) fn scrubbed(before: &[u8], policy: &Policy, what: &str, matrix: &mut Matrix) -> Result<Vec<u8>> {
    let failed = |e: cenotaph::Error| Failure::Failed(format!("synthetic dump for {what}: {e}"));
    let layout = Layout::parse(before).map_err(failed)?;
    let (mut after, mut receipt) = (before.to_vec(), Receipt::default());
    scrub::dump(&mut after, &layout, policy, &mut receipt).map_err(failed)?;
    matrix.wrong_receipts += u64::from(receipt.discrepancy(before, &after).is_some());
    Ok(after)
}

pub(super) fn judge(
    plant: &Plant<'_>,
    positions: &[usize],
    planted: &Planted,
    after: &[u8],
    (form, place): (&'static str, &'static str),
    exact: bool,
    matrix: &mut Matrix,
) {
    let kept = |character: usize| {
        let bytes = plant.encoded.characters[character].clone();
        positions[bytes].iter().all(|&at| planted.bytes[at] == after[at])
    };
    let survivors: Vec<bool> = plant.value.clone().map(kept).collect();
    // A space between two things tells nobody anything.
    let space = |at: usize| {
        let bytes = plant.encoded.characters[at].clone();
        positions[bytes].iter().all(|&at| matches!(planted.bytes[at], 0 | b' ' | b'\n'))
    };
    let around = (0..plant.whole).filter(|at| !plant.value.contains(at) && !kept(*at) && !space(*at)).count();
    let layered = Form::LAYERS.iter().any(|layer| layer.name() == form);
    let neighbours_hurt = exact && !layered && around > 0;
    if neighbours_hurt && matrix.false_examples.len() < 60 {
        let text = |all: &[u8]| {
            let bytes: Vec<u8> = positions.iter().map(|&at| all[at]).filter(|&byte| byte != 0).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        matrix.false_examples.push(format!(
            "beside {}: {} -> {}",
            plant.sample.kind,
            text(&planted.bytes),
            text(after)
        ));
    }
    count(plant.sample, &survivors, neighbours_hurt, (form, place), matrix);
}

fn count(
    sample: &Sample,
    survivors: &[bool],
    neighbours_hurt: bool,
    (form, place): (&'static str, &'static str),
    matrix: &mut Matrix,
) {
    let leak = LEAK.min(survivors.len());
    let leaked = survivors.windows(leak).any(|window| window.iter().all(|&kept| kept));
    let cell = matrix.cells.entry((sample.group(), sample.kind.clone(), form, place)).or_default();
    cell.add(Count { planted: 1, removed: u64::from(!leaked) });
    if leaked {
        let examples = matrix.missed_examples.entry(format!("{} {form} {place}", sample.kind)).or_default();
        if examples.len() < 3 {
            examples.push(format!("{} [{}]", sample.text(), sample.locale));
        }
    }
    if neighbours_hurt {
        *matrix.false_hits.entry(sample.group()).or_default() += 1;
        if matrix.false_examples.len() < 40 {
            matrix.false_examples.push(format!(
                "beside {}: {} ({form}, {place})",
                sample.kind,
                sample.text()
            ));
        }
    }
}

/// Attributes, breadcrumbs and the reason of reports.
fn texts(
    by_kind: &BTreeMap<&str, Vec<&Sample>>,
    policy: &Policy,
    plants: usize,
    random: &mut Random,
    matrix: &mut Matrix,
) -> Result<()> {
    let mut chosen: Vec<&Sample> =
        by_kind.values().flat_map(|samples| samples.iter().copied().take(plants)).collect();
    random.shuffle(&mut chosen);
    for batch in chosen.chunks(100) {
        for place in ["attribute", "breadcrumb", "reason"] {
            let batch = if place == "reason" { &batch[..batch.len().min(3)] } else { batch };
            for batch in batch.chunks(if place == "reason" { 1 } else { 100 }) {
                let mut report = empty_report()?;
                for (number, sample) in batch.iter().enumerate() {
                    match place {
                        "attribute" => report.attributes.push(Attribute {
                            key: format!("k{number}"),
                            value: AttributeValue::String(sample.text()),
                            truncated: false,
                        }),
                        "breadcrumb" => report.breadcrumbs.push(Breadcrumb {
                            time_ms: 0,
                            level: cenotaph::report::Level::Info,
                            category: "c".to_owned(),
                            message: sample.text(),
                            truncated: false,
                        }),
                        _ => report.reason = Reason::Requested { reason: sample.text() },
                    }
                }
                scrub::report(&mut report, policy, &mut Receipt::default());
                for (number, sample) in batch.iter().enumerate() {
                    let text = match (place, &report.reason) {
                        ("attribute", _) => match &report.attributes[number].value {
                            AttributeValue::String(text) => text.clone(),
                            _ => String::new(),
                        },
                        ("breadcrumb", _) => report.breadcrumbs[number].message.clone(),
                        (_, Reason::Requested { reason }) => reason.clone(),
                        _ => String::new(),
                    };
                    let (old, new) = (sample.text().into_bytes(), text.into_bytes());
                    let value = sample.before.len()..sample.before.len() + sample.value.len();
                    let survivors: Vec<bool> = value.map(|at| new.get(at) == old.get(at)).collect();
                    count(sample, &survivors, false, ("utf-8", place), matrix);
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn empty_report() -> Result<Report> {
    Ok(Report {
        origin: None,
        repeats: Vec::new(),
        id: cenotaph::report::ReportId::random()?,
        time_ms: 0,
        application: "score".to_owned(),
        version: String::new(),
        environment: String::new(),
        reason: Reason::Requested { reason: String::new() },
        detail: cenotaph::report::Detail::Minidump,
        attributes: Vec::new(),
        breadcrumbs: Vec::new(),
        stack_trace: Default::default(),
        fingerprint: Default::default(),
        device_id: None,
        annotations: Vec::new(),
        classifiers: Vec::new(),
        notes: Vec::new(),
        stages_ms: Default::default(),
        stages_bytes: Default::default(),
    })
}

/// Near misses, each in every plain form: whatever of them is changed is changed wrongly.
fn decoys(
    decoys: &[(String, String)],
    policy: &Policy,
    random: &mut Random,
    matrix: &mut Matrix,
) -> Result<()> {
    for form in Form::PLAIN {
        for batch in decoys.chunks(500) {
            let samples: Vec<Sample> = batch
                .iter()
                .map(|(kind, text)| Sample {
                    kind: kind.clone(),
                    before: text.clone(),
                    value: String::new(),
                    after: String::new(),
                    locale: String::new(),
                })
                .collect();
            let plants: Vec<Plant<'_>> =
                samples.iter().filter_map(|sample| plant(sample, Place::Heap, form, random)).collect();
            let (region, starts) = region(&plants, form, random);
            let planted = dump::memory(Place::Heap, &region, &starts);
            let after = scrubbed(&planted.bytes, policy, "decoys", matrix)?;
            for (plant, positions) in plants.iter().zip(&planted.positions) {
                if positions.iter().any(|&at| planted.bytes[at] != after[at]) {
                    let context = plant.sample.kind.ends_with("-word");
                    let group = if context { Group::Context } else { Group::Checksum };
                    *matrix.false_hits.entry(group).or_default() += 1;
                    if matrix.false_examples.len() < 80 {
                        matrix
                            .false_examples
                            .push(format!("decoy {}: {}", plant.sample.kind, plant.sample.before));
                    }
                }
            }
        }
    }
    Ok(())
}
