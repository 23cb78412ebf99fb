//! Checking settings before anything is done with them.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{Config, ValidConfig};
use crate::error::{Error, Result};
use crate::privacy::{Audience, identity::Identity};
use crate::report::Detail;
use crate::scrub;

/// Destinations, at most: a report's file name keeps a bit for each.
const MAX_DESTINATIONS: usize = 8;
/// Pmodules, at most: each is a process during a crash.
const MAX_PMODULES: usize = 16;

/// Signals that are reported unless the application does not want it (signal(7)).
pub(super) const SIGNALS: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];
/// Signals that can be asked for.
const SIGNALS_ON_REQUEST: [i32; 3] = [libc::SIGQUIT, libc::SIGXCPU, libc::SIGXFSZ];

impl ValidConfig {
    /// Whether the application wants to hear of its death by `signal`: of each, except those that are reported by default and that
    /// it has opted out of.
    pub(crate) fn wants(&self, signal: i32) -> bool {
        !SIGNALS.contains(&signal) || self.signals.contains(&signal)
    }
}

impl Config {
    /// Checks everything that can be checked, touching nothing on the disk but files with rules.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] names the setter and the way out.
    pub fn validate(self) -> Result<ValidConfig> {
        let Self { mut settings, detail, identity, spool, release_at, pmodules, seat: _ } = self;
        let invalid = |field, reason: &str| Err(Error::InvalidConfig { field, reason: reason.to_owned() });
        let name_like = |text: &str| {
            !text.is_empty()
                && text.len() <= 64
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_. ".contains(&b))
                && !text.starts_with('.')
        };
        if !name_like(&settings.application) {
            return invalid(
                "new",
                "the application name takes 1 to 64 letters, digits, '-', '_', '.' or spaces",
            );
        }
        if settings.version.is_empty() || settings.version.len() > 64 {
            return invalid("new", "the version takes 1 to 64 bytes");
        }
        if settings.environment.len() > 64 || settings.tenant.len() > 64 {
            return invalid("environment", "environment and tenant take at most 64 bytes");
        }
        if settings.deadline_ms == 0 || settings.deadline_ms > 120_000 {
            return invalid("deadline", "a dying application may wait 1 ms to 120 s");
        }
        if settings
            .signals
            .iter()
            .any(|signal| !SIGNALS.contains(signal) && !SIGNALS_ON_REQUEST.contains(signal))
        {
            return invalid(
                "signal",
                "only SEGV, BUS, ILL, FPE, ABRT, TRAP, SYS, QUIT, XCPU and XFSZ can be reported",
            );
        }
        if settings.secrets.iter().any(|s| s.len() > 1024) {
            return invalid("secret", "a secret value takes at most 1024 bytes");
        }
        for path in std::mem::take(&mut settings.rules_files) {
            settings.rules.extend(scrub::rules_from_file(&path)?);
        }
        scrub::validate_rules(&settings.rules)?;
        scrub::validate_levels(&settings.levels)?;
        settings.pmodules = pmodules.into_iter().map(|pmodule| pmodule.description).collect();
        check_pmodules(&settings)?;
        let absolute =
            |path: &PathBuf| std::path::absolute(path).map_err(|e| Error::file(path, "resolve", e));
        settings.plugins = settings.plugins.iter().map(absolute).collect::<Result<_>>()?;
        if let Some(twice) = twice(&settings.plugins) {
            let reason = format!("{} was added twice; once is enough", twice.display());
            return Err(Error::InvalidConfig { field: "plugin", reason });
        }
        settings.helper = settings.helper.as_ref().map(absolute).transpose()?;
        settings.spool = match spool {
            Some(path) => std::path::absolute(&path).map_err(|e| Error::file(&path, "resolve", e))?,
            None => default_spool(&settings.application)?,
        };
        if settings.destinations.len() > MAX_DESTINATIONS {
            return invalid("destination", "a report goes to 8 destinations at most");
        }
        settings.release_at = release_at.unwrap_or_default();
        settings.detail = detail.unwrap_or(Detail::Minidump);
        settings.identity = identity.unwrap_or_default();
        if settings.audience == Audience::ChildDirected {
            settings.detail = settings.detail.min(Detail::Pointers);
            settings.identity = Identity::Off;
        }
        Ok(settings)
    }
}

fn twice(paths: &[PathBuf]) -> Option<&PathBuf> {
    paths.iter().enumerate().find(|(i, path)| paths[..*i].contains(path)).map(|(_, path)| path)
}

fn check_pmodules(settings: &ValidConfig) -> Result<()> {
    let invalid = |reason: String| Err(Error::InvalidConfig { field: "pmodule", reason });
    if settings.pmodules.len() + settings.plugins.len() > MAX_PMODULES {
        return invalid(format!("{MAX_PMODULES} pmodules at most"));
    }
    for (i, description) in settings.pmodules.iter().enumerate() {
        description.check()?;
        if settings.pmodules[..i].iter().any(|other| other.name == description.name) {
            return invalid(format!("two pmodules are called {}", description.name));
        }
    }
    if !settings.plugins.is_empty() && settings.helper.is_none() && !cfg!(feature = "pmodule-plugins") {
        return invalid(
            "a plug-in needs a helper that loads it: name one with .helper(), such as cenotaph-monitor, or build with the \
             feature pmodule-plugins"
                .to_owned(),
        );
    }
    Ok(())
}

fn default_spool(application: &str) -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = from("XDG_STATE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| Error::InvalidConfig {
            field: "spool",
            reason: "neither XDG_STATE_HOME nor HOME is set; name a directory with .spool()".to_owned(),
        })?;
    Ok(state.join(Path::new(application)).join("cenotaph"))
}
