//! Values to plant, from the generators' neutral file: `benches/pii/generate.py` writes one JSON object a line.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use cenotaph::scrub::Receipt;
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
    /// SHA-256 of the text that it was read from, in hexadecimal.
    pub(crate) sha256: String,
    /// The packages that drew it, with their versions; none for a draw from a file.
    pub(crate) packages: Vec<String>,
}

/// What draws values, as `benches/pii/requirements.txt` names it.
const PACKAGES: [&str; 4] = ["Faker", "phonenumbers", "python-stdnum", "schwifty"];

/// How the Python environment is made that has them: the two commands of `benches/pii/README.md`.
const ENVIRONMENT: &str =
    "python3 -m venv target/pii && target/pii/bin/pip install -r benches/pii/requirements.txt";

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

/// "python 3.12.3", "Faker 40.54.0": what draws depend on besides the seed. Empty if Python does not say.
fn versions(python: &Path) -> Vec<String> {
    const ASK: &str = "import sys, importlib.metadata as m\nprint('python', sys.version.split()[0])\n\
                       for name in sys.argv[1:]: print(name, m.version(name))";
    let said = Command::new(python).args(["-c", ASK]).args(PACKAGES).output();
    let said = said.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    String::from_utf8_lossy(&said.unwrap_or_default()).lines().map(str::to_owned).collect()
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
        if !generator.is_file() {
            return Err(Failure::Failed(format!(
                "{}: no such file; run it in the repository's folder, or name benches/pii/generate.py with --generator",
                generator.display()
            )));
        }
        let (count, decoys) = (count.to_string(), (count / 4).clamp(20, 1000).to_string());
        let output = Command::new(python)
            .arg(generator)
            .args(["--seed", &seed.to_string(), "--count", &count, "--decoys", &decoys])
            .output()
            .map_err(|e| {
                Failure::Failed(format!(
                    "{}: cannot start: {e}; make it ({ENVIRONMENT}), name a Python 3 that has the packages with --python, \
                     or use --small or --data FILE, which need none",
                    python.display()
                ))
            })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::Failed(format!(
                "{} with {}: {}\nThe environment that score takes by itself is made by: {ENVIRONMENT} (--small needs none)",
                generator.display(),
                python.display(),
                said.trim()
            )));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut corpus = Self::parse(&text, &generator.display().to_string())?;
        corpus.packages = versions(python);
        Ok(corpus)
    }

    fn parse(text: &str, name: &str) -> Result<Self> {
        // Of any bytes, as a receipt has it.
        let mut described = Receipt::default();
        described.describe(text.as_bytes(), 0);
        let sha256 = described.dump.map(|dump| dump.sha256).unwrap_or_default();
        let mut corpus = Self { sha256, ..Self::default() };
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_draw_has_a_digest_and_what_is_missing_is_said() {
        let corpus = Corpus::sample().unwrap();
        assert_eq!(corpus.sha256.len(), 64);
        assert_ne!(corpus.sha256, Corpus::parse("", "empty").unwrap().sha256);
        let absent = Path::new("/nonexistent");
        let why = Corpus::generate(absent, absent, 1, 1).unwrap_err().to_string();
        assert!(why.contains("repository's folder") && why.contains("--generator"), "{why}");
        let here = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/pii/generate.py"));
        let why = Corpus::generate(absent, here, 1, 1).unwrap_err().to_string();
        assert!(why.contains("-m venv") && why.contains("pip install -r"), "{why}");
        let requirements = include_str!("../../../benches/pii/requirements.txt");
        assert!(PACKAGES.iter().all(|name| requirements.contains(&format!("{name}=="))), "{requirements}");
    }
}
