//! Everything the victim has to do with Cenotaph. A refusal is printed and the victim goes on: an application does not
//! fail because of the SDK.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use cenotaph as client;
use cenotaph::Config;
use cenotaph::privacy::{Audience, Basis};
use cenotaph::report::Level;

use crate::options::{ConsentChoice, Options};
use crate::pmodules;

/// The reason given for `capture`.
const CAPTURE_REASON: &str = "crasher: a report was asked for";
const ABSENT: &str = "Cenotaph is not installed";

/// Must come first in main: in a monitor process it does not return.
pub(crate) fn monitor_entry() {
    client::monitor_entry_with(pmodules::registered());
}

/// The installed SDK, or its absence (`--no-sdk`, or the installation was refused).
pub(crate) struct Session {
    guard: Option<client::Guard>,
    basis: Basis,
}

impl Session {
    /// Installs Cenotaph and records the consent that was asked for.
    pub(crate) fn start(options: &Options) -> Self {
        let basis = match options.audience {
            Audience::General => Basis::Person,
            Audience::ChildDirected => Basis::VerifiedParent,
        };
        let guard =
            options.sdk.then(|| configuration(options).install()).and_then(|guard| report("install", guard));
        let session = Self { guard, basis };
        if session.guard.is_some() {
            let recorded = match options.consent {
                ConsentChoice::Unknown => Ok(()),
                ConsentChoice::Granted => session.grant(),
                ConsentChoice::Denied => session.deny(),
            };
            report("consent", recorded);
        }
        session
    }

    pub(crate) fn grant(&self) -> Result<(), String> {
        self.installed()?;
        client::consent().and_then(|consent| consent.grant(self.basis)).map_err(text)
    }

    pub(crate) fn deny(&self) -> Result<(), String> {
        self.installed()?;
        client::consent().and_then(|consent| consent.deny().map(|_| ())).map_err(text)
    }

    /// The number of reports that were purged.
    pub(crate) fn withdraw(&self) -> Result<usize, String> {
        self.installed()?;
        client::consent().and_then(|consent| consent.withdraw()).map_err(text)
    }

    /// The report's id.
    pub(crate) fn capture(&self) -> Result<String, String> {
        self.installed()?;
        client::capture(CAPTURE_REASON).map(|id| id.to_string()).map_err(text)
    }

    /// How many reports pmodules did not want.
    pub(crate) fn vetoed(&self) -> Result<u64, String> {
        self.installed().map(|guard| guard.status().vetoed)
    }

    /// Whether the last starts went wrong too often.
    pub(crate) fn is_safe(&self) -> Result<bool, String> {
        Ok(self.installed()?.safe_mode())
    }

    pub(crate) fn flush(&self, limit: Duration) -> Result<(), String> {
        self.installed()?.flush(limit).map_err(text)
    }

    /// Without the SDK there is nowhere to put it, and nothing to leak from: that is said and skipped.
    pub(crate) fn attribute(&self, key: &str, value: &str) {
        let set = self.installed().and_then(|_| client::set_attribute(key, value).map_err(text));
        report("plant attribute", set);
    }

    /// As [`attribute`](Self::attribute).
    pub(crate) fn breadcrumb(&self, category: &str, message: &str) {
        let added = self
            .installed()
            .and_then(|_| client::add_breadcrumb(Level::Info, category, message).map_err(text));
        report("plant breadcrumb", added);
    }

    fn installed(&self) -> Result<&client::Guard, String> {
        self.guard.as_ref().ok_or_else(|| ABSENT.to_owned())
    }
}

/// Prints a failure; it never holds a planted value.
pub(crate) fn report<T, E: Display>(what: &str, result: Result<T, E>) -> Option<T> {
    result.map_err(|error| writeln!(io::stderr(), "crasher: {what}: {error}")).ok()
}

fn configuration(options: &Options) -> Config {
    let mut config = Config::new("crasher", env!("CARGO_PKG_VERSION"))
        .consent(options.policy)
        .audience(options.audience)
        // More than by default: what was planted for any thread is to be in the raw dump.
        .indirect_budget(1 << 20);
    if let Some(spool) = &options.spool {
        config = config.spool(spool);
    }
    if let Some(release_at) = options.release_at {
        config = config.release_at(release_at);
    }
    if let Some(log) = &options.log {
        config = config.log(log);
    }
    if let Some(deadline) = options.deadline {
        config = config.deadline(deadline);
    }
    config = options.destinations.iter().cloned().fold(config, Config::destination);
    config = options.authorities.iter().fold(config, Config::certificate_authority);
    config = options.secrets.iter().fold(config, Config::secret);
    config = options.rules.iter().cloned().fold(config, Config::rule);
    config = options.rules_files.iter().fold(config, Config::rules_file);
    config = config.pmodule_limits(options.pmodule_limits).start_up(options.start_up);
    config = config.reports_per_signature(options.reports_per_signature);
    options.pmodules.iter().cloned().fold(config, Config::pmodule)
}

fn text(error: cenotaph::Error) -> String {
    error.to_string()
}
