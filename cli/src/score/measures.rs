//! The table: what was measured, what must be, what is aimed at.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::corpus::Group;
use super::negatives::Negatives;
use super::real::Real;
use super::recall::{Count, Key, Matrix};
use crate::failure::Result;
use crate::output;

/// One row.
#[derive(Debug, Serialize)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) must: f64,
    pub(crate) aim: f64,
    pub(crate) must_held: bool,
    /// Whether it counts for the verdict.
    pub(crate) judged: bool,
    /// What stands behind the number.
    pub(crate) note: String,
}

impl Measure {
    /// Held if the value is at least `must`.
    pub(crate) fn least(name: &str, value: f64, must: f64, aim: f64, note: String) -> Self {
        Self { name: name.to_owned(), value, must, aim, must_held: value >= must, judged: true, note }
    }

    /// Held if the value is at most `must`.
    pub(crate) fn most(name: &str, value: f64, must: f64, aim: f64, note: String) -> Self {
        Self { name: name.to_owned(), value, must, aim, must_held: value <= must, judged: true, note }
    }
}

/// A cell of the matrix.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    group: &'static str,
    kind: String,
    encoding: &'static str,
    place: &'static str,
    planted: u64,
    removed: u64,
}

/// The whole score, as it is written to a file.
#[derive(Debug, Serialize)]
pub(crate) struct Score {
    pub(crate) seed: u64,
    pub(crate) small: bool,
    /// Of each kind.
    pub(crate) plants: usize,
    /// What was drawn.
    pub(crate) data: Data,
    /// Of the heaps of programs: those that were asked for, and those that were found.
    pub(crate) negatives_mib: usize,
    pub(crate) negatives_mib_found: f64,
    pub(crate) engine: u32,
    pub(crate) measures: Vec<Measure>,
    pub(crate) matrix: Vec<Cell>,
    /// Whose heaps were looked at, with their versions.
    pub(crate) programs: Vec<String>,
}

/// The values that were planted, but for those that are told beforehand.
#[derive(Debug, Serialize)]
pub(crate) struct Data {
    pub(crate) values: usize,
    pub(crate) near_misses: usize,
    /// Of the generator's output, or of the file.
    pub(crate) sha256: String,
    /// Whose versions the draw depends on.
    pub(crate) packages: Vec<String>,
}

const LAYERS: [&str; 4] = ["base64", "percent", "hex", "json"];

/// The rows that the matrix gives.
pub(crate) fn of_matrix(matrix: &Matrix) -> Vec<Measure> {
    let row = |group: Group, name: &str, must: f64, aim: f64| {
        let mut all = Count::default();
        let mut worst: Option<(f64, String)> = None;
        for ((of, kind, form, place), count) in &matrix.cells {
            if *of != group || LAYERS.contains(form) {
                continue;
            }
            all.add(*count);
            if worst.as_ref().is_none_or(|(rate, _)| count.rate() < *rate) {
                worst = Some((count.rate(), format!("{kind}, {form}, {place}")));
            }
        }
        let (rate, cell) = worst.unwrap_or((1.0, "none".to_owned()));
        let note =
            format!("the worst cell ({cell}); all: {:.3} % of {} plants", all.rate() * 100.0, all.planted);
        Measure::least(name, rate, must, aim, note)
    };
    let mut measures = vec![
        row(Group::Checksum, "recall, kinds with a checksum or prefix", 0.999, 1.0),
        row(Group::Shape, "recall, shape kinds", 0.999, 1.0),
        row(Group::Context, "recall, context kinds, 10 locales", 0.95, 0.98),
        row(Group::Known, "recall, known values", 1.0, 1.0),
    ];
    let mut layered = Count::default();
    let mut forms = LAYERS.map(|_| Count::default());
    for ((_, _, form, _), count) in &matrix.cells {
        if let Some(at) = LAYERS.iter().position(|layer| layer == form) {
            layered.add(*count);
            forms[at].add(*count);
        }
    }
    let each: Vec<String> = LAYERS
        .iter()
        .zip(forms)
        .map(|(name, count)| format!("{name} {:.2} %", count.rate() * 100.0))
        .collect();
    measures.push(Measure::least(
        "recall, one layer of base64, percent, hex, JSON",
        layered.rate(),
        0.95,
        0.99,
        each.join(", "),
    ));
    for (groups, name, must) in [
        (&[Group::Checksum, Group::Shape][..], "precision, checksum, prefix and shape kinds", 0.99),
        (&[Group::Context], "precision, context kinds", 0.95),
    ] {
        let mut right = Count::default();
        for ((group, _, form, place), count) in &matrix.cells {
            let memory = ["stack", "heap", "heap (Memory64)"].contains(place);
            if groups.contains(group) && memory && !LAYERS.contains(form) {
                right.add(*count);
            }
        }
        let wrong: u64 = groups.iter().filter_map(|group| matrix.false_hits.get(group)).sum();
        let value = right.removed as f64 / (right.removed + wrong).max(1) as f64;
        let note = format!("{} removed, {wrong} neighbours or near misses touched", right.removed);
        measures.push(Measure::least(name, value, must, 0.999, note));
    }
    measures.push(Measure::most(
        "receipts that differ from the byte difference",
        matrix.wrong_receipts as f64,
        0.0,
        0.0,
        String::new(),
    ));
    measures
}

/// The rows that real processes give.
pub(crate) fn of_real(real: &Real) -> Vec<Measure> {
    let [pattern, crashing, all] = real.frames;
    let frames = |count: Count| {
        format!(
            "{} of {} frames, {} dumps, with unwind tables and without",
            count.removed, count.planted, real.dumps
        )
    };
    vec![
        Measure::least(
            "recall, values in the memory of real processes",
            real.values.rate(),
            0.999,
            1.0,
            format!("{} occurrences in {} dumps", real.values.planted, real.dumps),
        ),
        Measure::least("frames identical, Pattern", pattern.rate(), 1.0, 1.0, frames(pattern)),
        Measure::least(
            "frames identical, Pointers, crashing thread",
            crashing.rate(),
            1.0,
            1.0,
            frames(crashing),
        ),
        Measure::least("frames identical, Pointers, all threads", all.rate(), 0.999, 1.0, frames(all)),
        Measure::most(
            "receipts of real dumps that differ",
            real.wrong_receipts as f64,
            0.0,
            0.0,
            String::new(),
        ),
    ]
}

/// The row that the heaps of programs give.
pub(crate) fn of_negatives(negatives: &Negatives) -> Measure {
    let rate = negatives.wrong() as f64 / negatives.mebibytes.max(1.0);
    let note = format!(
        "{} of {} redactions in {:.0} MiB are not literally what the rule says: {}",
        negatives.wrong(),
        negatives.all(),
        negatives.mebibytes,
        negatives.programs.join(", ")
    );
    Measure::most("false redactions per MiB of real heaps", rate, 0.1, 0.01, note)
}

/// The programs whose heaps were looked at, and the redactions there by rule.
pub(crate) fn print_negatives(negatives: &Negatives) -> Result<()> {
    output::line(output::bold("heaps without personal data"))?;
    for version in &negatives.versions {
        output::line(output::printable(version))?;
    }
    output::line("")?;
    output::line(output::bold("redactions in heaps without personal data (wrong of all)"))?;
    for (rule, (all, wrong)) in &negatives.by_rule {
        output::line(format!("{rule:24} {wrong:>6} of {all}"))?;
    }
    output::line("")
}

/// All cells.
pub(crate) fn cells(matrix: &Matrix) -> Vec<Cell> {
    let cell = |((group, kind, encoding, place), count): (&Key, &Count)| Cell {
        group: group.name(),
        kind: kind.clone(),
        encoding,
        place,
        planted: count.planted,
        removed: count.removed,
    };
    matrix.cells.iter().map(cell).collect()
}

/// Recall by kind and encoding, and by place.
pub(crate) fn print_matrix(matrix: &Matrix) -> Result<()> {
    let mut forms: Vec<&str> = Vec::new();
    let mut kinds: Vec<(Group, &str)> = Vec::new();
    let mut places: Vec<&str> = Vec::new();
    for (group, kind, form, place) in matrix.cells.keys() {
        let kind = (*group, kind.as_str());
        (!forms.contains(form)).then(|| forms.push(form));
        (!places.contains(place)).then(|| places.push(place));
        (!kinds.contains(&kind)).then(|| kinds.push(kind));
    }
    let order = |form: &&str| {
        super::encode::Form::PLAIN.iter().chain(&super::encode::Form::LAYERS).position(|f| f.name() == *form)
    };
    forms.sort_by_key(order);
    output::line(output::bold("recall in % by kind and encoding (all places together)"))?;
    let heading: Vec<String> = forms.iter().map(|form| format!("{form:>9}")).collect();
    output::line(format!("{:24} {}", "", heading.join("")))?;
    let sum = |pick: &dyn Fn(&Key) -> bool| {
        let mut all = Count::default();
        matrix.cells.iter().filter(|(key, _)| pick(key)).for_each(|(_, count)| all.add(*count));
        all
    };
    let percent = |count: Count| {
        if count.planted == 0 {
            "-".to_owned()
        } else {
            format!("{:.2}", (count.rate() * 1e4).floor() / 100.0)
        }
    };
    for (_, kind) in kinds {
        let cells: Vec<String> = forms
            .iter()
            .map(|form| format!("{:>9}", percent(sum(&|key| key.1 == kind && key.2 == *form))))
            .collect();
        output::line(format!("{kind:24} {}", cells.join("")))?;
    }
    output::line("")?;
    output::line(output::bold("recall in % by place (plain encodings)"))?;
    for place in places {
        let count = sum(&|key| key.3 == place && !LAYERS.contains(&key.2));
        output::line(format!("{place:24} {:>9} of {}", percent(count), count.planted))?;
    }
    output::line("")
}

/// The table itself.
pub(crate) fn print(measures: &[Measure]) -> Result<()> {
    output::line(output::bold("score"))?;
    output::line(format!("{:58} {:>12} {:>9} {:>9}", "measure", "value", "must", "aim"))?;
    for measure in measures {
        let mark = match (measure.judged, measure.must_held) {
            (false, _) => "figure",
            (true, true) => "held  ",
            (true, false) => "MISSED",
        };
        output::line(format!(
            "{:58} {:>12} {:>9} {:>9} {mark} {}",
            measure.name,
            number(measure.value),
            number(measure.must),
            number(measure.aim),
            measure.note
        ))?;
    }
    Ok(())
}

fn number(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e6 { format!("{value}") } else { format!("{value:.5}") }
}
