//! What was measured, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::expected::Expected;
use super::plan::Case;
use super::verdict::{Observed, Problem};

/// Failures of which a case keeps the details.
const SAMPLES: usize = 3;

/// A case's runs so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) runs: usize,
    pub(crate) usable: usize,
    pub(crate) wrong_ending: usize,
    /// Runs whose cause could be learnt.
    pub(crate) causes: usize,
    pub(crate) wrong_cause: usize,
    pub(crate) over_deadline: usize,
    /// Reports too many, processes left, states not reached.
    pub(crate) other: usize,
    pub(crate) slowest_ms: f64,
    samples: Vec<Sample>,
}

/// A run that went wrong.
#[derive(Debug, Clone)]
struct Sample {
    problems: Vec<String>,
    command: String,
    said: String,
    kept: Option<String>,
}

impl Tally {
    /// Counts a run.
    pub(crate) fn add(&mut self, observed: &Observed, problems: &[Problem]) {
        let any = |accept: fn(&Problem) -> bool| usize::from(problems.iter().any(accept));
        self.runs += 1;
        self.usable += 1 - any(|p| matches!(p, Problem::Lost | Problem::Unusable(_)));
        self.wrong_ending += any(|p| matches!(p, Problem::WrongEnding(_)));
        self.causes += usize::from(observed.cause.is_some());
        self.wrong_cause += any(|p| matches!(p, Problem::WrongCause(_)));
        self.over_deadline += any(|p| matches!(p, Problem::OverDeadline(_)));
        self.other += any(|p| matches!(p, Problem::Extra(_) | Problem::LeftRunning(_)));
        self.slowest_ms = self.slowest_ms.max(observed.elapsed_ms.unwrap_or(0.0));
    }

    /// What [`json()`] has written.
    ///
    /// # Errors
    /// If that was something else.
    pub(crate) fn from_json(case: &Value) -> Result<Self, String> {
        if !case["not_applicable"].is_null() {
            return Ok(Self::default());
        }
        let number = |name: &str| {
            let found = case[name].as_u64().and_then(|number| usize::try_from(number).ok());
            found.ok_or_else(|| format!("`{name}` of a case is no number"))
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let sample = |value: &Value| Sample {
            problems: value["problems"]
                .as_array()
                .map(|all| all.iter().map(text).collect())
                .unwrap_or_default(),
            command: text(&value["command"]),
            said: text(&value["said"]),
            kept: value["kept"].as_str().map(str::to_owned),
        };
        Ok(Self {
            runs: number("runs")?,
            usable: number("usable")?,
            wrong_ending: number("wrong_ending")?,
            causes: number("causes_learnt")?,
            wrong_cause: number("wrong_siginfo")?,
            over_deadline: number("over_deadline")?,
            other: number("other")?,
            slowest_ms: case["slowest_ms"].as_f64().unwrap_or(0.0),
            samples: case["failures"]
                .as_array()
                .map(|all| all.iter().map(sample).collect())
                .unwrap_or_default(),
        })
    }

    /// Counts a run that could not be made.
    pub(crate) fn add_failed(&mut self) {
        self.runs += 1;
        self.other += 1;
    }

    /// Keeps the details of a run that went wrong.
    pub(crate) fn sample(&mut self, problems: Vec<String>, command: &str, said: &str, kept: Option<String>) {
        if self.samples.len() < SAMPLES {
            let (command, said) = (command.to_owned(), said.to_owned());
            self.samples.push(Sample { problems, command, said, kept });
        }
    }

    /// Whether all runs that were wanted were made and nothing was wrong.
    pub(crate) fn is_complete(&self, case: &Case) -> bool {
        self.runs == case.repeat
            && self.usable == self.runs
            && [self.wrong_ending, self.wrong_cause, self.over_deadline, self.other] == [0; 4]
    }
}

/// The table, the failures below it, and a line that sums up.
pub(crate) fn text(cases: &[Case], tallies: &[Tally]) -> String {
    let header = [
        "way",
        "monitor",
        "lock-down",
        "expected",
        "ending",
        "usable",
        "ending!",
        "siginfo!",
        "late",
        "other",
        "slowest",
        "",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(cases.iter().zip(tallies).map(|(case, tally)| row(case, tally)));
    let mut out = String::new();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    for (case, tally) in cases.iter().zip(tallies) {
        // One says it on a screen; the JSON has more.
        for sample in tally.samples.iter().take(1) {
            let _ = writeln!(out, "\n{}: {}\n  {}", name(case), sample.problems.join("; "), sample.command);
            if let Some(kept) = &sample.kept {
                let _ = writeln!(out, "  kept: {kept}");
            }
            for line in sample.said.lines().take(5) {
                let _ = writeln!(out, "  | {line}");
            }
        }
    }
    let wanted = cases.iter().filter(|case| case.repeat > 0).count();
    let complete =
        cases.iter().zip(tallies).filter(|(case, tally)| case.repeat > 0 && tally.is_complete(case)).count();
    let sum = |count: fn(&Tally) -> usize| tallies.iter().map(count).sum::<usize>();
    let _ = writeln!(
        out,
        "\n{complete} of {wanted} cases complete, {} not applicable; {} of {} crashes usable, {} wrong endings, \
         {} wrong siginfo (of {} learnt), {} over the deadline, {} other",
        cases.len() - wanted,
        sum(|t| t.usable),
        sum(|t| t.runs),
        sum(|t| t.wrong_ending),
        sum(|t| t.wrong_cause),
        sum(|t| t.causes),
        sum(|t| t.over_deadline),
        sum(|t| t.other),
    );
    out
}

/// The same for programs.
pub(crate) fn json(cases: &[Case], tallies: &[Tally], seed: u64) -> Value {
    let cases: Vec<Value> = cases
        .iter()
        .zip(tallies)
        .map(|(case, tally)| {
            let mut value = json!({
                "way": case.way.name(), "monitor_state": case.state.name(),
                "lockdown": case.lockdown.map(|lockdown| lockdown.name()), "label": case.label,
            });
            if let Some(object) = value.as_object_mut() {
                object.extend(figures(case, tally).as_object().cloned().unwrap_or_default());
            }
            value
        })
        .collect();
    json!({ "seed": seed, "cases": cases })
}

fn figures(case: &Case, tally: &Tally) -> Value {
    match case.expected {
        Expected::NotApplicable(why) => json!({ "not_applicable": why }),
        Expected::Report { reports, level, ending, .. } => json!({
            "expected_reports": reports,
            "expected_level": level.to_string(), "expected_ending": ending.to_string(),
            "deadline_ms": case.deadline_ms, "threads": case.threads, "wanted": case.repeat,
            "runs": tally.runs, "usable": tally.usable, "wrong_ending": tally.wrong_ending,
            "causes_learnt": tally.causes, "wrong_siginfo": tally.wrong_cause,
            "over_deadline": tally.over_deadline, "other": tally.other,
            "slowest_ms": tally.slowest_ms, "complete": tally.is_complete(case),
            "failures": tally.samples.iter().map(|sample| json!({
                "problems": sample.problems, "command": sample.command, "said": sample.said, "kept": sample.kept,
            })).collect::<Vec<_>>(),
        }),
    }
}

fn row(case: &Case, tally: &Tally) -> [String; 12] {
    let lockdown = match (case.lockdown, case.label) {
        (None, _) => "-".to_owned(),
        (Some(lockdown), None) => lockdown.name().to_owned(),
        (Some(lockdown), Some(label)) => format!("{} ({label})", lockdown.name()),
    };
    let mut row: [String; 12] = Default::default();
    row[0] = case.way.name().to_owned();
    row[1] = case.state.name().to_owned();
    row[2] = lockdown;
    match case.expected {
        Expected::NotApplicable(why) => {
            "n/a".clone_into(&mut row[3]);
            why.clone_into(&mut row[11]);
        }
        Expected::Report { reports, level, ending, cause } => {
            row[3] = if reports == 1 { level.to_string() } else { format!("{reports} {level}") };
            row[4] = ending.to_string();
            row[5] = format!("{}/{}", tally.usable, tally.runs);
            row[6] = tally.wrong_ending.to_string();
            row[7] = match cause {
                None => "-".to_owned(),
                Some(_) if tally.causes == 0 => "?".to_owned(),
                Some(_) => tally.wrong_cause.to_string(),
            };
            row[8] = tally.over_deadline.to_string();
            row[9] = tally.other.to_string();
            row[10] = format!("{:.0} ms", tally.slowest_ms);
            let mark = match (tally.is_complete(case), tally.runs == case.repeat) {
                (true, _) => "",
                (false, true) => "FAILS",
                (false, false) => "not finished",
            };
            mark.clone_into(&mut row[11]);
        }
    }
    row
}

/// A case in words.
pub(crate) fn name(case: &Case) -> String {
    let lockdown = case.lockdown.map(|lockdown| format!(" under {}", lockdown.name())).unwrap_or_default();
    format!("{}, monitor {}{lockdown}", case.way.name(), case.state.name())
}
