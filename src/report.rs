//! The value that travels through all stages, and the words it is made of.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

mod origin;
mod reason;

pub use origin::Origin;
pub use reason::{Evidence, Reason, signal_name};

/// Everything a report holds besides the dump itself.
///
/// It is written as JSON into the container's `report` part and sent as form fields and as the
/// attachment `cenotaph.json`. All text in it has been scrubbed before it leaves the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The report's name everywhere: spool file, form field, idempotency key.
    pub id: ReportId,
    /// When it happened, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The application's name, as configured.
    pub application: String,
    /// The application's version, as configured.
    pub version: String,
    /// The deployment: "production", "beta".
    pub environment: String,
    /// Why there is a report.
    pub reason: Reason,
    /// What the process itself says about it: the message, the exception, the memory that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// How much of the process it shows.
    pub detail: Detail,
    /// What the application noted about itself.
    pub attributes: Vec<Attribute>,
    /// What happened before, oldest first.
    pub breadcrumbs: Vec<Breadcrumb>,
    /// Frames of every thread, unwound on the device.
    pub stack_trace: StackTrace,
    /// Equal for crashes with the same cause, as far as frames tell.
    pub fingerprint: Fingerprint,
    /// Crashes that were counted and not stored since the last report, because there were many like them. Each count
    /// travels once, with the report that follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repeats: Vec<Repeats>,
    /// The rotating device identifier, if the configuration and consent allow one.
    pub device_id: Option<String>,
    /// What pmodules remarked. Scrubbed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
    /// Words by which pmodules sort reports. Scrubbed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classifiers: Vec<String>,
    /// What could not be read, and why a level of detail was lowered; no personal data.
    pub notes: Vec<String>,
    /// Milliseconds from the crash until each stage had ended: "dump", "scrub".
    pub stages_ms: BTreeMap<String, f64>,
    /// Bytes after each stage: "dump", "scrub", "compress", "seal".
    pub stages_bytes: BTreeMap<String, u64>,
}

/// 128 random bits, written as a version 4 UUID (RFC 9562, section 5.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReportId(pub [u8; 16]);

impl ReportId {
    /// A fresh id.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|e| Error::System { call: "getrandom", source: std::io::Error::other(e.to_string()) })?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ReportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ReportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReportId({self})")
    }
}

impl FromStr for ReportId {
    type Err = Error;

    /// Takes the lower-case hyphenated form only: ids are file names, and a file has one name.
    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::malformed("report id", "expected 8-4-4-4-12 lower-case hex digits");
        if text.len() != 36 || !text.is_ascii() {
            return Err(malformed());
        }
        let mut bytes = [0; 16];
        let mut digits = text.bytes().enumerate().filter(|(i, _)| !matches!(i, 8 | 13 | 18 | 23));
        for byte in &mut bytes {
            for _ in 0..2 {
                let (_, digit) = digits.next().ok_or_else(malformed)?;
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(malformed()),
                };
                *byte = *byte << 4 | value;
            }
        }
        if [8, 13, 18, 23].iter().any(|&i| text.as_bytes()[i] != b'-') {
            return Err(malformed());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for ReportId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ReportId> for String {
    fn from(id: ReportId) -> Self {
        id.to_string()
    }
}

/// How much of the process a report shows, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// Frames as module and offset, the reason, declared attributes. No memory.
    StackTrace,
    /// Stack words that point nowhere known are blanked, other memory is left out.
    Pointers,
    /// Memory with patterns and known values removed.
    Minidump,
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StackTrace => "stack-trace",
            Self::Pointers => "pointers",
            Self::Minidump => "minidump",
        })
    }
}

/// How often one crash happened without being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// Whose.
    pub fingerprint: Fingerprint,
    /// How often.
    pub count: u64,
    /// When the first of them happened, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A remark of a pmodule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// The pmodule's name.
    pub pmodule: String,
    /// How it is to be read.
    pub level: AnnotationLevel,
    /// The text. Scrubbed.
    pub text: String,
}

/// How an annotation is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnotationLevel {
    /// A remark.
    Comment,
    /// Something that is not as it should be.
    Warning,
    /// Most likely the cause.
    Critical,
    /// A JSON value for programs.
    Json,
}

/// One thing the application noted about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub key: String,
    /// Its last value.
    pub value: AttributeValue,
    /// Whether a string was cut to the stated limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A typed attribute value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttributeValue {
    /// True or false.
    Bool(bool),
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Float(f64),
    /// UTF-8 text.
    String(String),
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => write!(f, "{v}"),
            Self::Integer(v) => write!(f, "{v}"),
            Self::Float(v) => write!(f, "{v}"),
            Self::String(v) => f.write_str(v),
        }
    }
}

/// An attribute value on its way into the blackbox: borrowed, so that setting one does not allocate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// True or false.
    Bool(bool),
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Float(f64),
    /// UTF-8 text.
    String(&'a str),
}

impl<'a> From<&'a str> for ValueRef<'a> {
    fn from(value: &'a str) -> Self {
        Self::String(value)
    }
}

impl<'a> From<&'a String> for ValueRef<'a> {
    fn from(value: &'a String) -> Self {
        Self::String(value)
    }
}

impl From<&str> for AttributeValue {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

macro_rules! value_ref_from {
    ($($from:ty => $variant:ident),*) => {$(
        impl From<$from> for ValueRef<'_> {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }

        impl From<$from> for AttributeValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
value_ref_from!(bool => Bool, i64 => Integer, i32 => Integer, u32 => Integer, f64 => Float, f32 => Float);

/// How grave a breadcrumb is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Level {
    /// For developers.
    Debug = 0,
    /// Ordinary events.
    Info = 1,
    /// Something odd.
    Warning = 2,
    /// Something failed.
    Error = 3,
}

/// One event before the crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breadcrumb {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// How grave.
    pub level: Level,
    /// The application's own grouping: "net", "ui".
    pub category: String,
    /// What happened. Empty for child-directed applications. Scrubbed.
    pub message: String,
    /// Whether the message was cut to the stated limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// The frames of every thread, and the modules that they lie in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackTrace {
    /// Loaded modules in address order. Names are base names: a path may name a person.
    pub modules: Vec<Module>,
    /// All threads; the crashing one is first.
    pub threads: Vec<Thread>,
}

/// A loaded binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// The file's base name.
    pub name: String,
    /// The ELF build id (NT_GNU_BUILD_ID) as lower-case hex; empty where there is none.
    pub build_id: String,
    /// Where it was loaded.
    pub base: u64,
    /// Bytes of address space.
    pub size: u64,
}

/// A thread's frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// The kernel's thread id.
    pub id: u32,
    /// The thread's name, scrubbed.
    pub name: Option<String>,
    /// Whether this one crashed.
    pub crashed: bool,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The program counter of the innermost frame, else the return address minus one.
    pub instruction: u64,
    /// Index into [`StackTrace::modules`].
    pub module: Option<usize>,
    /// `instruction` minus the module's base (0 without a module).
    pub offset: u64,
    /// How it was found.
    pub trust: Trust,
}

/// How a frame was found, most trusted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// From the thread's registers.
    Context,
    /// From unwind tables or the frame-pointer chain.
    Unwound,
    /// By scanning the stack for return addresses.
    Scan,
}

/// SHA-256 over module and offset of the innermost frames.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(serde::de::Error::custom("expected 64 hex digits"));
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(serde::de::Error::custom)?;
            *byte = u8::from_str_radix(pair, 16).map_err(serde::de::Error::custom)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_text_form() {
        let id = ReportId::random().unwrap();
        assert_eq!(id.to_string().parse::<ReportId>().unwrap(), id);
        assert_eq!(&id.to_string()[14..15], "4");
        for bad in [
            "",
            "00000000-0000-4000-8000-00000000000",
            "00000000-0000-4000-8000-00000000000G",
            "00000000-0000-4000-8000-00000000000A",
            "../../../../etc/passwd-aaaaaaaaaaaaaaa",
            "0000000000000-4000-8000-00000000000-0",
        ] {
            assert!(bad.parse::<ReportId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn detail_is_ordered() {
        assert!(Detail::StackTrace < Detail::Pointers && Detail::Pointers < Detail::Minidump);
    }
}
