//! Values to plant, from the generators' neutral file: `benches/pii/generate.py` writes one JSON object a line.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::failure::{Failure, Result};

/// A committed draw of a few values of each kind, for runs without Python and without a network.
const SAMPLE: &str = include_str!("../../../benches/pii/sample.jsonl");

/// How sure a rule of a kind can be, which decides what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// A check digit or an issuer's prefix.
    Checksum,
    /// A shape.
    Shape,
    /// Words around it.
    Context,
    /// It was told beforehand.
    Known,
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Checksum => "checksum-or-prefix",
            Self::Shape => "shape",
            Self::Context => "context",
            Self::Known => "known",
        }
    }
}

/// Kinds that are found by their shape.
const SHAPES: &[&str] = &[
    "email",
    "ipv4",
    "ipv6",
    "mac",
    "us-ssn",
    "us-itin",
    "user-path",
    "url-user-info",
    "http-auth",
    "cookie",
    "url-secret",
];
/// Kinds that only the words around them tell.
const CONTEXTS: &[&str] = &[
    "password",
    "date-of-birth",
    "phone",
    "lat-long",
    "ssid",
    "secret",
    "aws-secret",
    "mnemonic",
    "ethereum-address",
    "connection-string",
];

/// A line of text with a value in it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) kind: String,
    pub(crate) before: String,
    pub(crate) value: String,
    pub(crate) after: String,
    pub(crate) locale: String,
}

impl Sample {
    pub(crate) fn text(&self) -> String {
        format!("{}{}{}", self.before, self.value, self.after)
    }

    pub(crate) fn group(&self) -> Group {
        let kind = self.kind.as_str();
        match () {
            () if kind.starts_with("known") => Group::Known,
            () if SHAPES.contains(&kind) => Group::Shape,
            () if CONTEXTS.contains(&kind) => Group::Context,
            () => Group::Checksum,
        }
    }
}

/// Values by kind, and what looks like one and is none.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) samples: Vec<Sample>,
    /// Kind and text.
    pub(crate) decoys: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Line {
    kind: String,
    value: Value,
    context: String,
    locale: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Whole(String),
    Pieces(Vec<String>),
}

impl Corpus {
    /// The committed draw.
    pub(crate) fn sample() -> Result<Self> {
        Self::parse(SAMPLE, "benches/pii/sample.jsonl")
    }

    /// A file that the generator wrote.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, "read", e))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// A fresh draw of `count` values of each kind.
    pub(crate) fn generate(python: &Path, generator: &Path, seed: u64, count: usize) -> Result<Self> {
        let (count, decoys) = (count.to_string(), (count / 4).clamp(20, 1000).to_string());
        let output = Command::new(python)
            .arg(generator)
            .args(["--seed", &seed.to_string(), "--count", &count, "--decoys", &decoys])
            .output()
            .map_err(|e| {
                Failure::Failed(format!(
                    "{}: cannot start: {e}; name a Python 3 with --python, or use --small or --data FILE",
                    python.display()
                ))
            })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::Failed(format!(
                "{}: {}; then name it with --python target/pii/bin/python (--small needs none)",
                generator.display(),
                said.trim()
            )));
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout), &generator.display().to_string())
    }

    fn parse(text: &str, name: &str) -> Result<Self> {
        let mut corpus = Self::default();
        for (number, line) in text.lines().enumerate() {
            let failed = |why: String| Failure::Failed(format!("{name}: line {}: {why}", number + 1));
            let line: Line = serde_json::from_str(line).map_err(|e| failed(e.to_string()))?;
            let value = match line.value {
                Value::Whole(value) => value,
                Value::Pieces(pieces) => pieces.concat(),
            };
            if let Some(kind) = line.kind.strip_prefix("not-") {
                corpus.decoys.push((kind.to_owned(), value));
                continue;
            }
            let (before, after) =
                line.context.split_once("{}").ok_or_else(|| failed("its context has no {}".to_owned()))?;
            corpus.samples.push(Sample {
                kind: line.kind,
                before: before.to_owned(),
                value,
                after: after.to_owned(),
                locale: line.locale,
            });
        }
        Ok(corpus)
    }

    /// Adds values that the application has told: every fifth e-mail's local part, user names of paths, and short names
    /// that count only as whole fields. Returns them.
    pub(crate) fn with_known(&mut self, count: usize) -> Vec<String> {
        let user = |sample: &&Sample| sample.kind == "user-path";
        let mut names: Vec<String> =
            self.samples.iter().filter(user).map(|sample| format!("{}-q", sample.value)).take(250).collect();
        names.extend(["Jürgen Müller", "日本太郎", "José da Silva", "Zoë Ångström"].map(str::to_owned));
        let short: Vec<String> =
            ["bob", "al", "zoe", "mia", "ulf", "kai", "ivy", "amy"].map(str::to_owned).to_vec();
        let mut add = |kind: &str, value: &String, forms: &[(&str, &str)], at: usize| {
            let (before, after) = forms[at % forms.len()];
            self.samples.push(Sample {
                kind: kind.to_owned(),
                before: before.to_owned(),
                value: value.clone(),
                after: after.to_owned(),
                locale: String::new(),
            });
        };
        for at in 0..count {
            let forms = [("hello ", "!"), ("x", "99"), ("user=", ";"), ("", ""), ("by ", ", yesterday")];
            add("known-value", &names[at % names.len()], &forms, at / names.len() + at);
            let fields = [("/srv/", "/x"), ("D:\\x\\", "\\y"), ("/x/", "")];
            add("known-short", &short[at % short.len()], &fields, at / short.len());
        }
        names.extend(short);
        names
    }
}
