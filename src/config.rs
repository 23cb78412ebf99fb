//! Settings: a builder that checks, and the checked value that travels to the other processes.
#![forbid(unsafe_code)]

mod destination;
mod validate;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use destination::{Destination, Protocol};
use validate::SIGNALS;

use crate::pmodule::{self, Description, Pmodule, Registered};
use crate::privacy::{Audience, ConsentPolicy, identity::Identity};
use crate::report::Detail;
use crate::scrub::{self, Place};

/// When the dying application may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseAt {
    /// As soon as its memory is read.
    #[default]
    Read,
    /// When the report is committed to the spool. Needed where the monitor dies with the application.
    Spooled,
}

/// The settings of one application. Build it, then [`install`](Config::install).
#[derive(Debug, Clone)]
pub struct Config {
    settings: ValidConfig,
    detail: Option<Detail>,
    identity: Option<Identity>,
    spool: Option<PathBuf>,
    pub(crate) release_at: Option<ReleaseAt>,
    pub(crate) pmodules: Vec<Registered>,
    pub(crate) seat: Option<Arc<OwnedFd>>,
}

/// Checked settings, as every process of Cenotaph sees them. [`Config::validate`] makes one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ValidConfig {
    /// The application's name: a file-name-safe word.
    pub application: String,
    /// Its version.
    pub version: String,
    /// The deployment.
    pub environment: String,
    /// Separates the identifiers of customers that share one application.
    pub tenant: String,
    /// The spool directory, absolute.
    pub spool: PathBuf,
    /// Where reports go; may be empty, then they stay in the spool.
    pub destinations: Vec<Destination>,
    /// Certificate authorities (PEM files) trusted besides the system's.
    pub certificate_authorities: Vec<PathBuf>,
    /// Whom the application is made for.
    pub audience: Audience,
    /// What happens before the person was asked.
    pub consent_policy: ConsentPolicy,
    /// How much a report shows.
    pub detail: Detail,
    /// The device identifier.
    pub identity: Identity,
    /// When the dying application may go on.
    pub release_at: ReleaseAt,
    /// Whether Rust panics are reported.
    pub panics: bool,
    /// Values that must never leave.
    pub secrets: Vec<String>,
    /// The application's own rules for what else must not.
    pub rules: Vec<scrub::Rule>,
    /// Files with more of them; [`Config::validate`] reads them into `rules`.
    pub rules_files: Vec<PathBuf>,
    /// Levels of single places, where they differ from the detail's own.
    pub levels: BTreeMap<Place, scrub::Level>,
    /// Longest time that the dying application waits, in milliseconds.
    pub deadline_ms: u64,
    /// Bytes of pointed-to memory in a dump, at most. The first 64 KiB are for the crashing thread alone.
    pub indirect_budget: u64,
    /// How long the monitor goes on retrying after the application has ended, in milliseconds.
    pub linger_ms: u64,
    /// Whether a child-directed application may leave a core file.
    pub keep_core: bool,
    /// A crash within so many milliseconds is one of the start.
    pub start_up_ms: u64,
    /// More crashes of the start in a row than this make the next start a safe one.
    pub safe_mode_after: u32,
    /// Reports of one fingerprint that are stored in a day.
    pub reports_per_signature: u32,
    /// Log file of outcomes, if asked for; it never holds report contents.
    pub log: Option<PathBuf>,
    /// The pmodules in Rust that the monitor must have, in the order in which they were configured.
    pub pmodules: Vec<Description>,
    /// Shared objects with further pmodules, absolute.
    pub plugins: Vec<PathBuf>,
    /// How much each pmodule may use.
    pub pmodule_limits: pmodule::Limits,
    /// The program that becomes the monitor, absolute; none: the application's own.
    pub helper: Option<PathBuf>,
    /// The signals that are reported, by number.
    pub signals: Vec<i32>,
    /// Whether handlers that were there before are asked first.
    pub chain_first: bool,
    /// Random bytes of this start, for [`Identity::Session`].
    #[doc(hidden)]
    pub session: [u8; 16],
    /// The application's program, whatever program the monitor is: its frames are unwound with this file.
    #[doc(hidden)]
    pub program: Option<PathBuf>,
}

impl Config {
    /// Settings for an application by name and version. Everything else has the more private default:
    /// nothing is kept before consent is granted.
    pub fn new(application: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            settings: ValidConfig {
                application: application.into(),
                version: version.into(),
                environment: "production".to_owned(),
                tenant: String::new(),
                spool: PathBuf::new(),
                destinations: Vec::new(),
                certificate_authorities: Vec::new(),
                audience: Audience::General,
                consent_policy: ConsentPolicy::default(),
                detail: Detail::Minidump,
                identity: Identity::default(),
                release_at: ReleaseAt::default(),
                panics: true,
                secrets: Vec::new(),
                rules: Vec::new(),
                rules_files: Vec::new(),
                levels: Default::default(),
                deadline_ms: 10_000,
                indirect_budget: 64 * 1024,
                linger_ms: 60_000,
                keep_core: false,
                start_up_ms: 5_000,
                safe_mode_after: 3,
                reports_per_signature: 5,
                log: None,
                pmodules: Vec::new(),
                plugins: Vec::new(),
                pmodule_limits: pmodule::Limits::default(),
                helper: None,
                signals: SIGNALS.to_vec(),
                chain_first: false,
                session: [0; 16],
                program: None,
            },
            detail: None,
            identity: None,
            spool: None,
            release_at: None,
            pmodules: Vec::new(),
            seat: None,
        }
    }

    /// A server that takes reports. May be called more than once: each report goes to every destination.
    pub fn destination(mut self, destination: Destination) -> Self {
        self.settings.destinations.push(destination);
        self
    }

    /// Where sealed reports wait. Default: `$XDG_STATE_HOME/<application>/cenotaph`
    /// (`~/.local/state/...`, XDG Base Directory Specification 0.8).
    pub fn spool(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spool = Some(directory.into());
        self
    }

    /// Trusts the certificate authorities of a PEM file besides the system's: for collectors on premise.
    pub fn certificate_authority(mut self, pem: impl Into<PathBuf>) -> Self {
        self.settings.certificate_authorities.push(pem.into());
        self
    }

    /// Whom the application is made for. `ChildDirected` narrows all other settings.
    pub fn audience(mut self, audience: Audience) -> Self {
        self.settings.audience = audience;
        self
    }

    /// What happens before the person was asked.
    pub fn consent(mut self, policy: ConsentPolicy) -> Self {
        self.settings.consent_policy = policy;
        self
    }

    /// How much a report shows, at most.
    pub fn detail(mut self, detail: Detail) -> Self {
        self.detail = Some(detail);
        self
    }

    /// The device identifier.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The deployment: "production" (default), "beta".
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.settings.environment = environment.into();
        self
    }

    /// Separates the identifiers of customers that share one application.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.settings.tenant = tenant.into();
        self
    }

    /// When the dying application may go on.
    ///
    /// By default [`install`](Self::install) decides: [`ReleaseAt::Spooled`] where what the application leaves behind is ended
    /// with it, which is in a pid namespace of its own (a container, a sandbox) and in the control group of a service
    /// (systemd.kill(5)); else [`ReleaseAt::Read`]. As the first process of its pid namespace an application waits for the commit
    /// whatever is set here.
    pub fn release_at(mut self, release_at: ReleaseAt) -> Self {
        self.release_at = Some(release_at);
        self
    }

    /// Whether Rust panics are reported. Default: yes.
    pub fn panics(mut self, report: bool) -> Self {
        self.settings.panics = report;
        self
    }

    /// A value that must never leave the device: an account name, a licence key. Blanked wherever it is found.
    pub fn secret(mut self, value: impl Into<String>) -> Self {
        self.settings.secrets.push(value.into());
        self
    }

    /// A rule for what else must never leave: the account numbers of a shop, the player ids of a game. It is searched for in
    /// every text and in memory, in all encodings, like the built-in ones.
    pub fn rule(mut self, rule: scrub::Rule) -> Self {
        self.settings.rules.push(rule);
        self
    }

    /// How much of a place stays, where that differs from what [`detail`](Self::detail) says of memory; see
    /// [`Policy::level_of`](crate::scrub::Policy::level_of). For applications for children it can only be less than by default.
    pub fn level(mut self, place: Place, level: scrub::Level) -> Self {
        self.settings.levels.insert(place, level);
        self
    }

    /// A TOML file with rules; see [`rules_from_toml`](crate::scrub::rules_from_toml) for its form. It is read when the settings are
    /// checked: the monitor gets the rules, not the file.
    pub fn rules_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.rules_files.push(path.into());
        self
    }

    /// The longest time that a dying application is held up, all told. Default: 10 s. A monitor that has not taken the crash on
    /// within an eighth of it is given up for a fresh one. A fifth of it, a second at most, is kept for the minimal record that the
    /// application writes itself should that not answer either.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// How many bytes of memory that registers and stacks point to go into a dump, at most. 64 KiB by default, and so
    /// many are for what the crashing thread points to; what is given beyond is for the other threads too.
    pub fn indirect_budget(mut self, bytes: u64) -> Self {
        self.settings.indirect_budget = bytes;
        self
    }

    /// How long the monitor goes on retrying a delivery after the application has ended. Default: 60 s.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger_ms = u64::try_from(linger.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Lets the kernel write a core file of a child-directed application after its crash, where the system is set up so.
    /// It holds everything that the report leaves out. Others' core files are never touched.
    pub fn keep_core(mut self) -> Self {
        self.settings.keep_core = true;
        self
    }

    /// A crash within so long after [`install`](Self::install) is one of the start: the next `install` then waits for up to 2 s
    /// until what can be delivered is delivered, since the application may crash again before it is. Default: 5 s; 0 switches
    /// this and [`safe_mode_after`](Self::safe_mode_after) off.
    pub fn start_up(mut self, window: Duration) -> Self {
        self.settings.start_up_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// After more than so many crashes of the start in a row [`Guard::safe_mode`](crate::Guard::safe_mode) is true. Default: 3.
    pub fn safe_mode_after(mut self, crashes: u32) -> Self {
        self.settings.safe_mode_after = crashes;
        self
    }

    /// So many reports of one fingerprint are stored in a day. Further ones are counted, and the counts travel with the next
    /// report ([`Report::repeats`](crate::report::Report::repeats)). Reports by [`capture`](crate::capture) are always
    /// stored. Default: 5; `u32::MAX` stores all.
    pub fn reports_per_signature(mut self, limit: u32) -> Self {
        self.settings.reports_per_signature = limit;
        self
    }

    /// A file for a line per outcome ("report ... delivered", "certificate expired"). Default: none.
    pub fn log(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.log = Some(file.into());
        self
    }

    /// A pmodule in Rust; see [`pmodule`](crate::pmodule). It runs in the monitor, which is this program executed again: if
    /// `main` begins with [`monitor_entry`](crate::monitor_entry), that line must be
    /// [`monitor_entry_with`](crate::monitor_entry_with) and name the same pmodules.
    pub fn pmodule<P: Pmodule + Clone + Send + Sync + 'static>(mut self, pmodule: P) -> Self {
        self.pmodules.push(Registered::of(pmodule));
        self
    }

    /// A shared object with a pmodule (`include/cenotaph_pmodule.h`). It must be owned by root or by this user and not be
    /// writable by others. Needs a [`helper`](Self::helper) that loads plug-ins, such as `cenotaph-monitor`.
    pub fn plugin(mut self, shared_object: impl Into<PathBuf>) -> Self {
        self.settings.plugins.push(shared_object.into());
        self
    }

    /// How much each pmodule may use.
    pub fn pmodule_limits(mut self, limits: pmodule::Limits) -> Self {
        self.settings.pmodule_limits = limits;
        self
    }

    /// A program that becomes the monitor in the place of this one: `cenotaph-monitor`, for applications whose start must
    /// not happen twice (constructors, single-instance locks, windows) or which load pmodules as shared objects. It must be owned
    /// by root or by this user and not be writable by others.
    pub fn helper(mut self, program: impl Into<PathBuf>) -> Self {
        self.settings.helper = Some(program.into());
        self
    }

    /// Whether a signal is reported. By default SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP and SIGSYS are; SIGQUIT,
    /// SIGXCPU and SIGXFSZ can be asked for. `number` is that of signal(7). One that is not reported makes no unclean exit
    /// either.
    pub fn signal(mut self, number: i32, report: bool) -> Self {
        self.settings.signals.retain(|&signal| signal != number);
        if report {
            self.settings.signals.push(number);
        }
        self
    }

    /// Asks the signal handlers that were installed before Cenotaph first, and takes for a crash only what they leave where
    /// it was: program counter and stack pointer unchanged. (A handler that makes memory accessible
    /// and returns to the same instruction cannot be told from one that did nothing: it is taken for a crash, and has the signal to
    /// itself from then on. Opt out of that [signal](Self::signal).) For managed runtimes (ART, Go, Mono), which meet SIGSEGV in the ordinary course of things. Those handlers then
    /// run a second time when the process is about to die, as they would without Cenotaph.
    pub fn chain_first(mut self) -> Self {
        self.settings.chain_first = true;
        self
    }

    /// Shares the monitor of another process of the same application: `seat` is a descriptor that
    /// [`share_monitor`](crate::share_monitor) gave there, inherited or sent over a socket. Both must run as the same user, with
    /// the same settings. A process that the other one's monitor does not take (or that finds it gone) starts one of its own,
    /// as without this; [`install`](Self::install) waits up to a second for the answer.
    pub fn share_monitor(mut self, seat: OwnedFd) -> Self {
        self.seat = Some(Arc::new(seat));
        self
    }
}
