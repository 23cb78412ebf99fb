//! What a pmodule says about itself before anything crashed.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Frame filters of one pmodule, at most.
const MOST_FILTERS: usize = 64;
/// Bytes of a name or of a filter's text.
const LONGEST: usize = 256;

/// Name, priority and events of a pmodule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Unique within the application: 1 to 64 lower-case letters, digits, `-`, `_` or `.`. It stands in notes, receipts and annotations.
    pub name: String,
    /// Lower ones run first; equal ones in the order in which they were configured. Default 0.
    pub priority: i32,
    /// Which events it wants.
    pub events: Vec<Event>,
    /// Which frames it wants: those that any of these takes. Empty: all.
    pub frames: Vec<FrameFilter>,
    /// Whether it removes personal data. Should it fail in any way, the report steps down to a stack trace. Always so
    /// for those that want [`Event::Scrub`].
    pub redacts: bool,
}

/// The events of a pmodule, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// [`Pmodule::attach`](super::Pmodule::attach): the process stands still.
    Attach,
    /// [`Pmodule::thread`](super::Pmodule::thread): each thread.
    Thread,
    /// [`Pmodule::frame`](super::Pmodule::frame): each frame that a filter takes.
    Frame,
    /// [`Pmodule::region`](super::Pmodule::region): each piece of memory that goes into the dump.
    Region,
    /// [`Pmodule::attributes`](super::Pmodule::attributes): what was noted.
    Attributes,
    /// [`Pmodule::detach`](super::Pmodule::detach): last before the process goes on.
    Detach,
    /// [`Pmodule::scrub`](super::Pmodule::scrub): the finished dump.
    Scrub,
    /// [`Pmodule::verdict`](super::Pmodule::verdict): the finished report.
    Verdict,
}

impl Event {
    /// All of them, in their order.
    pub(super) const ALL: [Self; 8] = [
        Self::Attach,
        Self::Thread,
        Self::Frame,
        Self::Region,
        Self::Attributes,
        Self::Detach,
        Self::Scrub,
        Self::Verdict,
    ];

    /// The method's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Thread => "thread",
            Self::Frame => "frame",
            Self::Region => "region",
            Self::Attributes => "attributes",
            Self::Detach => "detach",
            Self::Scrub => "scrub",
            Self::Verdict => "verdict",
        }
    }
}

/// Takes frames for which everything holds that is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FrameFilter {
    /// The module's file name (`libssl.so.3`) starts with this.
    pub module: Option<String>,
    /// The exported symbol is this.
    pub symbol: Option<String>,
    /// Only frames of the thread that crashed.
    pub faulting: bool,
}

impl Description {
    /// A pmodule that wants no event yet.
    pub fn new(name: impl Into<String>) -> Self {
        let (priority, events, frames, redacts) = (0, Vec::new(), Vec::new(), false);
        Self { name: name.into(), priority, events, frames, redacts }
    }

    /// Wants an event.
    pub fn on(mut self, event: Event) -> Self {
        if !self.wants(event) {
            self.events.push(event);
        }
        self
    }

    /// Wants the frames that `filter` takes.
    pub fn on_frames(mut self, filter: FrameFilter) -> Self {
        self.frames.push(filter);
        self.on(Event::Frame)
    }

    /// Sets the priority.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Says that it removes personal data.
    pub fn redacts(mut self) -> Self {
        self.redacts = true;
        self
    }

    /// Whether it wants an event.
    pub fn wants(&self, event: Event) -> bool {
        self.events.contains(&event)
    }

    /// Whether its failure steps the report down.
    pub fn fails_closed(&self) -> bool {
        self.redacts || self.wants(Event::Scrub)
    }

    /// Whether it wants anything while the process stands still.
    pub fn inspects(&self) -> bool {
        self.events.iter().any(|event| *event < Event::Scrub)
    }

    /// Whether the frames must be known while the process stands still.
    pub fn needs_frames(&self) -> bool {
        [Event::Frame, Event::Region, Event::Detach].into_iter().any(|event| self.wants(event))
    }

    /// Checks names and limits.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] names what is wrong.
    pub fn check(&self) -> Result<()> {
        self.usable().map_err(|reason| Error::InvalidConfig { field: "pmodule", reason })
    }

    /// As [`check`](Self::check), in words that may stand behind others.
    pub(super) fn usable(&self) -> std::result::Result<(), String> {
        let invalid = Err;
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(letter) {
            return invalid(format!(
                "{:?} is no name for a pmodule: it takes 1 to 64 lower-case letters, digits, '-', '_' or '.'",
                self.name
            ));
        }
        if self.events.is_empty() {
            return invalid(format!("{} wants no event, so it would never run", self.name));
        }
        let texts = self.frames.iter().flat_map(|filter| [&filter.module, &filter.symbol]).flatten();
        if self.frames.len() > MOST_FILTERS || texts.into_iter().any(|text| text.len() > LONGEST) {
            return invalid(format!(
                "{} has more than {MOST_FILTERS} frame filters, or one of more than {LONGEST} bytes",
                self.name
            ));
        }
        Ok(())
    }
}

impl FrameFilter {
    /// Whether it takes a frame: its module's file name, its exported symbol, whether its thread crashed.
    pub fn takes(&self, module: Option<&str>, symbol: Option<&str>, crashed: bool) -> bool {
        let module_fits = match &self.module {
            None => true,
            Some(wanted) => module.is_some_and(|module| module.starts_with(wanted.as_str())),
        };
        let symbol_fits = self.symbol.as_deref().is_none_or(|wanted| symbol == Some(wanted));
        module_fits && symbol_fits && (crashed || !self.faulting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_frames_are_taken() {
        let filter = |module: &str, symbol: &str, faulting| FrameFilter {
            module: (!module.is_empty()).then(|| module.to_owned()),
            symbol: (!symbol.is_empty()).then(|| symbol.to_owned()),
            faulting,
        };
        let cases = [
            (filter("", "", false), None, None, false, true),
            (filter("", "", true), None, None, false, false),
            (filter("", "", true), None, None, true, true),
            (filter("libssl", "", false), Some("libssl.so.3"), None, false, true),
            (filter("libssl", "", false), Some("libc.so.6"), None, false, false),
            (filter("libssl", "", false), None, None, false, false),
            (filter("", "read", false), Some("libc.so.6"), Some("read"), false, true),
            (filter("", "read", false), Some("libc.so.6"), Some("readv"), false, false),
            (filter("libc", "read", true), Some("libc.so.6"), Some("read"), true, true),
        ];
        for (filter, module, symbol, crashed, taken) in cases {
            assert_eq!(filter.takes(module, symbol, crashed), taken, "{filter:?} {module:?} {symbol:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        let good = || Description::new("a-b_c.9").on(Event::Attach);
        assert!(good().check().is_ok());
        assert!(Description::new("a").check().is_err(), "no event");
        for name in ["", "A", "a b", "a/b", "ü", &"a".repeat(65)] {
            assert!(Description { name: name.to_owned(), ..good() }.check().is_err(), "{name}");
        }
        let long = FrameFilter { symbol: Some("x".repeat(257)), ..FrameFilter::default() };
        assert!(good().on_frames(long).check().is_err());
        assert!(good().on(Event::Scrub).fails_closed() && good().redacts().fails_closed());
        assert!(!good().fails_closed() && !good().needs_frames() && good().inspects());
        assert!(!Description::new("a").on(Event::Scrub).on(Event::Verdict).inspects());
    }
}
