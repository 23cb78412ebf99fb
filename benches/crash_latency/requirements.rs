//! What the project asks of these figures, and whether this run holds it.

use std::io::{self, Write};

use serde::Serialize;

use crate::calls::Calls;

/// A figure with its bounds; smaller is better.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Requirement {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) must: f64,
    pub(crate) aim: f64,
    pub(crate) must_held: bool,
}

impl Requirement {
    fn new(name: String, value: f64, must: f64, aim: f64) -> Self {
        Self { name, value, must, aim, must_held: value <= must }
    }
}

/// Ratios of medians, Cenotaph's over minidumper's, by number of threads.
pub(crate) struct Ratios {
    pub(crate) threads: usize,
    pub(crate) released: f64,
    pub(crate) complete: f64,
    pub(crate) dump_bytes: f64,
}

/// Calls of two crashes, the first with fewer threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traced {
    pub(crate) threads: [usize; 2],
    pub(crate) calls: [Calls; 2],
    pub(crate) modules: usize,
}

/// Aims for the release by threads: the limit that a sketch of the bare system calls reached, in minidumper's time.
const RELEASED_AIMS: [(usize, f64); 4] = [(1, 0.25), (16, 0.30), (128, 0.35), (512, 0.40)];
/// Where the size of the dump is bounded.
const SIZED: [usize; 2] = [16, 512];

pub(crate) fn requirements(ratios: &[Ratios], traced: Option<&Traced>) -> Vec<Requirement> {
    let aim = |threads| RELEASED_AIMS.iter().find(|(t, _)| *t == threads).map(|(_, aim)| *aim);
    let mut rows = Vec::new();
    for Ratios { threads, released, .. } in ratios {
        if let Some(aim) = aim(*threads) {
            let name = format!("released, no pmodules / minidumper, T={threads}");
            rows.push(Requirement::new(name, *released, 0.5, aim));
        }
    }
    for Ratios { threads, complete, .. } in ratios.iter().filter(|ratios| aim(ratios.threads).is_some()) {
        let name = format!("scrubbed, sealed, fsync'd report / minidumper's raw dump, T={threads}");
        rows.push(Requirement::new(name, *complete, 1.0, 0.5));
    }
    for Ratios { threads, dump_bytes, .. } in ratios.iter().filter(|ratios| SIZED.contains(&ratios.threads)) {
        let name = format!("dump bytes / minidumper, T={threads}");
        rows.push(Requirement::new(name, *dump_bytes, 0.5, 0.4));
    }
    if let Some(Traced { threads: [few, many], calls: [first, second], modules }) = traced {
        let each = |count: fn(&Calls) -> usize| {
            (count(second) as f64 - count(first) as f64) / (*many as f64 - *few as f64)
        };
        let name = format!("system calls per thread, crash to end, T={few} to {many}");
        rows.push(Requirement::new(name, each(|calls| calls.all), 10.0, 8.0));
        let name = format!("system calls per thread, during the stop, T={few} to {many}");
        rows.push(Requirement::new(name, each(|calls| calls.during_stop), 10.0, 8.0));
        let name = format!("reads per module during the stop, T={few}");
        rows.push(Requirement::new(name, first.reads as f64 / *modules as f64, 2.0, 1.0));
    }
    rows
}

pub(crate) fn print(rows: &[Requirement], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n{:<68} {:>7} {:>6} {:>6}  held", "what is asked for", "value", "must", "aim")?;
    for row in rows {
        let held = match (row.must_held, row.value <= row.aim) {
            (false, _) => "NO",
            (true, false) => "must",
            (true, true) => "must and aim",
        };
        writeln!(out, "{:<68} {:>7.2} {:>6.2} {:>6.2}  {held}", row.name, row.value, row.must, row.aim)?;
    }
    Ok(())
}
