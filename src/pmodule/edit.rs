//! What a pmodule wants done: a list that the runner checks and applies.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::check::{self, Facts, Wrong};
use crate::report::{AnnotationLevel, AttributeValue, Detail};

/// Edits of one pmodule in one crash, at most.
pub const MOST_EDITS: usize = 4096;
/// Bytes of a text, of a JSON value, of a veto's reason.
pub const LONGEST_TEXT: usize = 16 << 10;
/// Bytes of an attribute's key, a classifier, a fingerprint component, the name of a variable or register.
pub const LONGEST_NAME: usize = 256;
/// Attributes that one pmodule may set, and classifiers that it may give.
pub const MOST_WORDS: usize = 128;
/// Bytes of memory that one pmodule may add.
pub const MOST_ADDED: u64 = 4 << 20;

/// One wish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Edit {
    /// Text for whoever reads the report. It is scrubbed like any other text of the report.
    Annotate {
        /// How much it matters, or JSON.
        level: AnnotationLevel,
        /// The text.
        text: String,
    },
    /// Sets an attribute of the report. Its value is scrubbed.
    Attribute {
        /// Its name.
        key: String,
        /// Its value.
        value: AttributeValue,
    },
    /// A word by which reports are sorted: "oom", "driver".
    Classifier(String),
    /// Tells crashes apart that have the same frames: goes into the fingerprint's hash, not into the report.
    FingerprintComponent(String),
    /// Adds memory to the dump, by address. It is scrubbed with the rest.
    AddMemory(Range<u64>),
    /// Blanks memory in the dump, by address. What text it held is also sought elsewhere in the report, and blanked there.
    BlankMemory(Range<u64>),
    /// Blanks a register of a thread, by the processor's name of it: one of [`REGISTERS`](super::REGISTERS).
    BlankRegister {
        /// The thread's id.
        thread: i32,
        /// "rax", "r15", "xmm0".
        register: String,
    },
    /// Treats an argument of the program, by its number, as a secret wherever a copy of it is. The program may have fewer:
    /// then there is nothing to blank, which is no mistake.
    BlankArgument(usize),
    /// Treats an environment variable's value as a secret wherever a copy of it is. There may be none of that name.
    BlankEnvironment(String),
    /// Keeps a thread's stack where others are cut because the dump gets longer than 32 MiB. Of a stack over 128 KiB only the first
    /// and the last 64 KiB are read, of this one too.
    KeepStack(i32),
    /// Leaves a thread's stack out of the dump.
    DropStack(i32),
    /// Lowers the report's level of detail.
    LowerDetail(Detail),
    /// The report is not to be made.
    Veto(Veto),
}

/// A refusal to make or keep a report. Vetoes are counted, and the log has the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veto {
    /// Why; no personal data, since no scrubber sees it.
    pub reason: String,
}

/// Why a pmodule failed, in its own words. They are scrubbed before they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// The edit list of one pmodule. Every method refuses what is beyond the limits of this file and, in the lists that events
/// are given, what is about a thread, memory or a register that is not there. What was refused is not in the list, and spoils nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Edits {
    list: Vec<Edit>,
    /// What it is checked against at once.
    #[serde(skip)]
    facts: Option<Arc<Facts>>,
}

impl PartialEq for Edits {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Edits {
    /// An empty list about what `facts` are of.
    pub(super) fn about(facts: Facts) -> Self {
        Self { list: Vec::new(), facts: Some(Arc::new(facts)) }
    }

    /// Adds a remark.
    ///
    /// # Errors
    /// A text beyond [`LONGEST_TEXT`], or more than [`MOST_EDITS`]. So do the others.
    pub fn comment(&mut self, text: impl Into<String>) -> Result<(), Failure> {
        self.annotate(AnnotationLevel::Comment, text)
    }

    /// Adds an annotation.
    ///
    /// # Errors
    /// As [`comment`](Self::comment), and for JSON that is none.
    pub fn annotate(&mut self, level: AnnotationLevel, text: impl Into<String>) -> Result<(), Failure> {
        self.push(Edit::Annotate { level, text: text.into() })
    }

    /// Sets an attribute of the report.
    ///
    /// # Errors
    /// As [`comment`](Self::comment).
    pub fn attribute(&mut self, key: impl Into<String>, value: AttributeValue) -> Result<(), Failure> {
        self.push(Edit::Attribute { key: key.into(), value })
    }

    /// Blanks memory.
    ///
    /// # Errors
    /// As [`comment`](Self::comment), and for an empty range.
    pub fn blank(&mut self, range: Range<u64>) -> Result<(), Failure> {
        self.push(Edit::BlankMemory(range))
    }

    /// Adds any edit.
    ///
    /// # Errors
    /// As [`check`](Edit::check), more than [`MOST_EDITS`], or about something that is not there.
    pub fn push(&mut self, edit: Edit) -> Result<(), Failure> {
        Ok(self.try_push(edit)?)
    }

    /// As [`push`](Self::push), and tells what is not there from what can never be.
    pub(super) fn try_push(&mut self, edit: Edit) -> Result<(), Wrong> {
        edit.check()?;
        if let Some(facts) = &self.facts {
            check::edit(&edit, facts)?;
        }
        if self.list.len() >= MOST_EDITS {
            return Err(Wrong::Unfit(format!("more than {MOST_EDITS} edits")));
        }
        if let Edit::AddMemory(range) = &edit {
            let length = range.end - range.start;
            if self.added().saturating_add(length) > MOST_ADDED {
                return Err(Wrong::Unfit(format!("more than {MOST_ADDED} bytes of memory to add")));
            }
        }
        let same = |other: &&Edit| std::mem::discriminant(*other) == std::mem::discriminant(&edit);
        let is_word = matches!(edit, Edit::Attribute { .. } | Edit::Classifier(_));
        if is_word && self.list.iter().filter(same).count() >= MOST_WORDS {
            return Err(Wrong::Unfit(format!("more than {MOST_WORDS} attributes, or classifiers")));
        }
        self.list.push(edit);
        Ok(())
    }

    /// In the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Edit> {
        self.list.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Checks a list that came from another process.
    pub(crate) fn checked(self) -> Result<Self, Failure> {
        let mut checked = Self::default();
        self.list.into_iter().try_for_each(|edit| checked.push(edit))?;
        Ok(checked)
    }

    fn added(&self) -> u64 {
        let length =
            |edit: &Edit| if let Edit::AddMemory(range) = edit { range.end - range.start } else { 0 };
        self.list.iter().map(length).sum()
    }
}

impl Edit {
    /// Whether it is within the limits of this file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Failure> {
        let name = |what: &str, text: &str| match text.len() {
            1..=LONGEST_NAME => Ok(()),
            _ => Err(Failure::from(format!("{what} takes 1 to {LONGEST_NAME} bytes"))),
        };
        let long = |what: &str, text: &str| match text.len() {
            0..=LONGEST_TEXT => Ok(()),
            _ => Err(Failure::from(format!("{what} takes at most {LONGEST_TEXT} bytes"))),
        };
        let filled = |range: &Range<u64>| match range.is_empty() {
            false => Ok(()),
            true => Err(Failure::from("an empty range of memory")),
        };
        match self {
            Self::Annotate { level, text } => {
                long("an annotation", text)?;
                let is_json = || serde_json::from_str::<serde_json::Value>(text).is_ok();
                if *level == AnnotationLevel::Json && !is_json() {
                    return Err("an annotation that is to be JSON is none".into());
                }
                Ok(())
            }
            Self::Attribute { key, value } => {
                name("an attribute's key", key)?;
                match value {
                    AttributeValue::String(text) => long("an attribute", text),
                    // JSON has no word for it.
                    AttributeValue::Float(number) if !number.is_finite() => {
                        Err("an attribute that is not a finite number".into())
                    }
                    _ => Ok(()),
                }
            }
            Self::Classifier(text) | Self::FingerprintComponent(text) => name("a classifier", text),
            Self::BlankEnvironment(text) => name("a variable's name", text),
            Self::BlankRegister { register, .. } => name("a register's name", register),
            Self::AddMemory(range) | Self::BlankMemory(range) => filled(range),
            Self::Veto(veto) => long("a veto's reason", &veto.reason),
            Self::BlankArgument(_) | Self::KeepStack(_) | Self::DropStack(_) | Self::LowerDetail(_) => Ok(()),
        }
    }
}

/// What a [`scrub`](super::Pmodule::scrub) hook wants blanked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blank {
    /// Memory, by its address in the process.
    Memory(Range<u64>),
    /// A register of a thread, as [`Edit::BlankRegister`] has it.
    Register {
        /// The thread's id.
        thread: u32,
        /// "rax", "r15", "xmm0".
        register: String,
    },
    /// All memory of a thread's stack.
    Stack(u32),
}

/// The list of a [`scrub`](super::Pmodule::scrub) hook: it can only blank.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Blanks {
    list: Vec<Blank>,
    /// What it is checked against at once.
    #[serde(skip)]
    facts: Option<Arc<Facts>>,
}

impl PartialEq for Blanks {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Blanks {
    /// An empty list about what `facts` are of.
    pub(super) fn about(facts: Facts) -> Self {
        Self { list: Vec::new(), facts: Some(Arc::new(facts)) }
    }

    /// Adds one.
    ///
    /// # Errors
    /// An empty range, a register's name beyond [`LONGEST_NAME`], more than [`MOST_EDITS`], or something that the dump has not.
    pub fn push(&mut self, blank: Blank) -> Result<(), Failure> {
        Ok(self.try_push(blank)?)
    }

    /// As [`push`](Self::push), and tells what is not there from what can never be.
    pub(super) fn try_push(&mut self, blank: Blank) -> Result<(), Wrong> {
        match &blank {
            Blank::Memory(range) if range.is_empty() => {
                return Err(Wrong::Unfit("an empty range of memory".to_owned()));
            }
            Blank::Register { register, .. } if register.len() > LONGEST_NAME => {
                return Err(Wrong::Unfit(format!("a register's name takes at most {LONGEST_NAME} bytes")));
            }
            _ if self.list.len() >= MOST_EDITS => {
                return Err(Wrong::Unfit(format!("more than {MOST_EDITS} blanks")));
            }
            _ => {}
        }
        if let Some(facts) = &self.facts {
            check::blank(&blank, facts)?;
        }
        self.list.push(blank);
        Ok(())
    }

    /// In the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Blank> {
        self.list.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Checks a list that came from another process.
    pub(crate) fn checked(self) -> Result<Self, Failure> {
        let mut checked = Self::default();
        self.list.into_iter().try_for_each(|blank| checked.push(blank))?;
        Ok(checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused() {
        let mut edits = Edits::default();
        let refused = [
            Edit::Annotate { level: AnnotationLevel::Comment, text: "x".repeat(LONGEST_TEXT + 1) },
            Edit::Annotate { level: AnnotationLevel::Json, text: "{".to_owned() },
            // Of a form that the scrubber cannot take apart.
            Edit::Annotate { level: AnnotationLevel::Json, text: r#"{"a":1e400}"#.to_owned() },
            Edit::Attribute { key: String::new(), value: AttributeValue::Bool(true) },
            Edit::Attribute { key: "x".to_owned(), value: f64::NAN.into() },
            Edit::Attribute { key: "x".to_owned(), value: f64::INFINITY.into() },
            Edit::Classifier("x".repeat(LONGEST_NAME + 1)),
            Edit::AddMemory(8..8),
            Edit::AddMemory(0..MOST_ADDED + 1),
            Edit::BlankMemory(Range { start: 9, end: 8 }),
            Edit::Veto(Veto { reason: "x".repeat(LONGEST_TEXT + 1) }),
        ];
        for edit in refused {
            assert!(edits.push(edit.clone()).is_err(), "{edit:?}");
            let listed = Edits { list: vec![edit.clone()], facts: None };
            assert!(listed.checked().is_err(), "{edit:?} from another process");
        }
        assert!(edits.is_empty());
        edits.push(Edit::AddMemory(0..MOST_ADDED)).unwrap();
        assert!(edits.push(Edit::AddMemory(0..1)).is_err(), "no room is left");
        for _ in 0..MOST_WORDS {
            edits.attribute("x", 1.into()).unwrap();
            edits.push(Edit::Classifier("x".into())).unwrap();
        }
        assert!(edits.attribute("x", 1.into()).is_err());
        assert!(edits.push(Edit::Classifier("x".into())).is_err());
        for _ in 1 + 2 * MOST_WORDS..MOST_EDITS {
            edits.comment("x").unwrap();
        }
        assert!(edits.comment("x").is_err());
        assert_eq!(edits.clone().checked(), Ok(edits));
        let mut blanks = Blanks::default();
        assert!(blanks.push(Blank::Memory(3..3)).is_err() && blanks.is_empty());
        assert!((0..MOST_EDITS).all(|_| blanks.push(Blank::Stack(1)).is_ok()));
        assert!(blanks.push(Blank::Stack(1)).is_err());
    }

    #[test]
    fn a_list_survives_json() {
        let mut edits = Edits::default();
        edits.comment("a").unwrap();
        edits.blank(1..2).unwrap();
        edits.push(Edit::LowerDetail(Detail::StackTrace)).unwrap();
        edits.push(Edit::Veto(Veto { reason: "test build".into() })).unwrap();
        let json = serde_json::to_string(&edits).unwrap();
        assert_eq!(serde_json::from_str::<Edits>(&json).unwrap(), edits);
    }
}
