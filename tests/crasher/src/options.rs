//! The command line.

use std::ffi::OsString;
use std::path::{self, PathBuf};
use std::time::Duration;

use cenotaph::pmodule::Limits;
use cenotaph::privacy::{Audience, ConsentPolicy};
use cenotaph::scrub::Rule;
use cenotaph::{Destination, ReleaseAt};
use lexopt::prelude::{Long, Short, Value};

use crate::lockdown::Lockdown;
use crate::monitor_state::State;
use crate::pmodules::Kind;
use crate::reexec;
use crate::ways::Way;

/// Printed for `--help` and behind a usage error.
pub(crate) const USAGE: &str = "\
usage: crasher [OPTIONS] WAY

ways to die: null abort panic bus ill fpe trap sys stack-overflow stack-overflow-thread heap-lock
             two-threads abort-in-handler-chain panic-abort panic-in-panic cxx-throw oom-rust sigkill
             stack-smash double-free fork-child hang capture none
`none` prints `ready` and takes commands on standard input, one a line, each answered by a line `ok ...`
or `error ...`: grant, deny, withdraw, capture, vetoed, flush MS, die WAY, exit (or the end of input).

  --spool DIR                where reports wait
  --destination KIND=URL     crashpad=URL or backtrace=URL; repeatable
  --ca FILE                  a PEM file of trusted certificate authorities; repeatable
  --consent WHAT             granted, denied or unknown (leaves the record as it is); default unknown
  --consent-policy WHAT      ask, drop or not-required; default ask
  --audience WHAT            general or child; default general
  --release-at WHAT          read or spooled; default: as Cenotaph decides
  --deadline-ms N            longest wait of the dying process for its monitor
  --wait-delivery-ms N       before a peaceful end, wait so long for reports to be delivered
  --secret VALUE             must never leave; repeatable
  --rule NAME=PATTERN        what it finds must never leave; repeatable
  --rules FILE               a TOML file with such rules; repeatable
  --log FILE                 a line for each outcome
  --threads N                in all: main and N-1 parked ones; default 1
  --heap-mib N               heap in blocks of 100 KiB, every page touched; default 0
  --plant FILE               values and their places, see src/plant.rs
  --pmodule KIND             a pmodule, see src/pmodules.rs; repeatable
  --pmodule-ms N             how long each of them may look; default 250
  --reports-per-signature N  stored in a day; default: all
  --start-up-ms N            how long a start takes; default 0: crash loops are not looked for
  --no-sdk                   die without Cenotaph
  --monitor-state STATE      of the monitor at the death: alive, killed, stopped, none (killed, and execve
                             refused), or, for the worker while it is attached: stopped-attached,
                             killed-attached; says `state reached` or `state missed`. The monitor is known by
                             its arguments, which are the victim's: give each victim a spool of its own
  --lockdown WHAT            what keeps others from looking into the victim: yama1 yama2 yama3 nnp
                             seccomp-ptrace seccomp-vmread seccomp-kill pidns pid1 cgroup-kill uid nodump traced
  --announce                 say `dying NANOSECONDS` (CLOCK_MONOTONIC) on standard output before it dies
  --chained-handler          a handler from before Cenotaph that says `siginfo SIGNAL CODE ADDRESS`

`crasher matrix --help`: all of these ways, in all of these states, many times.

exit code: of the way to die; 2 for a usage error, 1 if it cannot die as asked
";

/// The most threads that make sense here.
const MOST_THREADS: usize = 32_768;

/// A mistake on the command line or in the plant file. The text holds no planted value.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

/// What to do about the consent record after installing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ConsentChoice {
    /// Nothing.
    #[default]
    Unknown,
    /// Grant.
    Granted,
    /// Deny.
    Denied,
}

/// The parsed command line. Paths are absolute.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) way: Way,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) destinations: Vec<Destination>,
    pub(crate) authorities: Vec<PathBuf>,
    pub(crate) consent: ConsentChoice,
    pub(crate) policy: ConsentPolicy,
    pub(crate) audience: Audience,
    pub(crate) release_at: Option<ReleaseAt>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) wait_delivery: Option<Duration>,
    pub(crate) secrets: Vec<String>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) rules_files: Vec<PathBuf>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) threads: usize,
    pub(crate) heap_mib: usize,
    pub(crate) plant: Option<PathBuf>,
    pub(crate) pmodules: Vec<Kind>,
    pub(crate) pmodule_limits: Limits,
    pub(crate) reports_per_signature: u32,
    pub(crate) start_up: Duration,
    pub(crate) sdk: bool,
    pub(crate) monitor_state: Option<State>,
    pub(crate) lockdown: Option<Lockdown>,
    pub(crate) announce: bool,
    pub(crate) chained_handler: bool,
    pub(crate) re_executed: bool,
    pub(crate) help: bool,
}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, Usage> {
    let mut options = Options {
        way: Way::None,
        spool: None,
        destinations: Vec::new(),
        authorities: Vec::new(),
        consent: ConsentChoice::default(),
        policy: ConsentPolicy::AskFirst,
        audience: Audience::default(),
        release_at: None,
        deadline: None,
        wait_delivery: None,
        secrets: Vec::new(),
        rules: Vec::new(),
        rules_files: Vec::new(),
        log: None,
        threads: 1,
        heap_mib: 0,
        plant: None,
        pmodules: Vec::new(),
        pmodule_limits: Limits::default(),
        reports_per_signature: u32::MAX,
        start_up: Duration::ZERO,
        sdk: true,
        monitor_state: None,
        lockdown: None,
        announce: false,
        chained_handler: false,
        re_executed: false,
        help: false,
    };
    let mut way = None;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Short('h') | Long("help") => options.help = true,
            Long("no-sdk") => options.sdk = false,
            Long("announce") => options.announce = true,
            Long("chained-handler") => options.chained_handler = true,
            Long(name) if name == reexec::MARK => options.re_executed = true,
            Long(name) => {
                let name = name.to_owned();
                let value = parser.value().map_err(usage)?;
                options.set(&name, value).map_err(|Usage(reason)| Usage(format!("--{name}: {reason}")))?;
            }
            Value(word) if way.is_none() => way = Some(text(word)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    options.way = match way.as_deref().map(str::parse) {
        Some(Ok(way)) => way,
        Some(Err(())) => return Err(Usage("unknown way to die".to_owned())),
        None if options.help => Way::None,
        None => return Err(Usage("a way to die is missing".to_owned())),
    };
    Ok(options)
}

impl Options {
    fn set(&mut self, name: &str, value: OsString) -> Result<(), Usage> {
        match name {
            // The value only has to lie in the argument block.
            reexec::ARGUMENT => {}
            "spool" => self.spool = Some(absolute(value)?),
            "destination" => self.destinations.push(Destination::parse(&text(value)?).map_err(usage)?),
            "ca" => self.authorities.push(absolute(value)?),
            "log" => self.log = Some(absolute(value)?),
            "plant" => self.plant = Some(absolute(value)?),
            "secret" => self.secrets.push(text(value)?),
            "rule" => {
                let rule = text(value)?;
                let (name, pattern) = rule.split_once('=').ok_or_else(|| usage("expected NAME=PATTERN"))?;
                self.rules.push(Rule::new(name, pattern));
            }
            "rules" => self.rules_files.push(absolute(value)?),
            "threads" => self.threads = number(value, 1..=MOST_THREADS)?,
            "heap-mib" => self.heap_mib = number(value, 0..=1 << 20)?,
            "pmodule" => self.pmodules.push(text(value)?.parse().map_err(Usage)?),
            "pmodule-ms" => {
                let limit = milliseconds(value)?;
                self.pmodule_limits =
                    Limits { inspect: limit, scrub: limit, all: 4 * limit, ..Limits::default() };
            }
            "reports-per-signature" => {
                self.reports_per_signature = number(value, 0..=1000)?.try_into().map_err(usage)?;
            }
            "start-up-ms" => self.start_up = milliseconds(value)?,
            "deadline-ms" => self.deadline = Some(milliseconds(value)?),
            "wait-delivery-ms" => self.wait_delivery = Some(milliseconds(value)?),
            "monitor-state" => {
                self.monitor_state = Some(choose(value, &State::ALL.map(|state| (state.name(), state)))?);
            }
            "lockdown" => {
                let choices = Lockdown::ALL.map(|lockdown| (lockdown.name(), lockdown));
                self.lockdown = Some(choose(value, &choices)?);
            }
            "consent" => {
                let choices = [
                    ("granted", ConsentChoice::Granted),
                    ("denied", ConsentChoice::Denied),
                    ("unknown", ConsentChoice::Unknown),
                ];
                self.consent = choose(value, &choices)?;
            }
            "consent-policy" => {
                let choices = [
                    ("ask", ConsentPolicy::AskFirst),
                    ("drop", ConsentPolicy::DropUntilGranted),
                    ("not-required", ConsentPolicy::NotRequired),
                ];
                self.policy = choose(value, &choices)?;
            }
            "audience" => {
                let choices = [("general", Audience::General), ("child", Audience::ChildDirected)];
                self.audience = choose(value, &choices)?;
            }
            "release-at" => {
                let choices = [("read", ReleaseAt::Read), ("spooled", ReleaseAt::Spooled)];
                self.release_at = Some(choose(value, &choices)?);
            }
            _ => return Err(Usage("unknown option".to_owned())),
        }
        Ok(())
    }
}

fn choose<T: Copy>(value: OsString, choices: &[(&str, T)]) -> Result<T, Usage> {
    let word = text(value)?;
    let known = choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice);
    known.ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        Usage(format!("expected one of: {}", names.join(", ")))
    })
}

fn number(value: OsString, range: std::ops::RangeInclusive<usize>) -> Result<usize, Usage> {
    let (least, most) = (*range.start(), *range.end());
    let parsed = text(value)?.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| Usage(format!("expected a number from {least} to {most}")))
}

fn milliseconds(value: OsString) -> Result<Duration, Usage> {
    number(value, 0..=86_400_000).map(|number| Duration::from_millis(number as u64))
}

fn absolute(value: OsString) -> Result<PathBuf, Usage> {
    path::absolute(PathBuf::from(value)).map_err(usage)
}

fn text(value: OsString) -> Result<String, Usage> {
    value.into_string().map_err(|_| Usage("not UTF-8".to_owned()))
}

fn usage(error: impl std::fmt::Display) -> Usage {
    Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Options, Usage> {
        parse(words.split_whitespace().map(OsString::from))
    }

    #[test]
    fn reads_every_option() {
        let options = parse_words(
            "--spool /s --destination crashpad=https://h/x --destination backtrace=https://h/y --ca c.pem \
             --consent granted --consent-policy drop --audience child --release-at spooled --deadline-ms 5 \
             --wait-delivery-ms 7 --secret a --secret b --rule ticket=T[0-9]=x --rules r.toml --log l --threads 16 --heap-mib 3 --plant p --no-sdk \
             --monitor-state stopped-attached --lockdown pid1 --announce --chained-handler \
             --re-executed two-threads --planted --looks-like-an-option",
        )
        .unwrap_or_else(|Usage(reason)| unreachable!("{reason}"));
        assert_eq!(options.way, Way::TwoThreads);
        assert_eq!(options.destinations.len(), 2);
        assert!(
            options.authorities.iter().chain(&options.log).chain(&options.plant).all(|p| p.is_absolute())
        );
        assert_eq!(options.consent, ConsentChoice::Granted);
        assert_eq!(options.policy, ConsentPolicy::DropUntilGranted);
        assert_eq!(options.audience, Audience::ChildDirected);
        assert_eq!(options.release_at, Some(ReleaseAt::Spooled));
        assert_eq!(options.deadline, Some(Duration::from_millis(5)));
        assert_eq!(options.wait_delivery, Some(Duration::from_millis(7)));
        assert_eq!(options.secrets, ["a", "b"]);
        assert_eq!(options.rules, [Rule::new("ticket", "T[0-9]=x")]);
        assert!(options.rules_files.len() == 1 && options.rules_files[0].is_absolute());
        assert_eq!((options.threads, options.heap_mib), (16, 3));
        assert!(!options.sdk && options.re_executed && options.announce && options.chained_handler);
        assert_eq!(options.monitor_state, Some(State::StoppedAttached));
        assert_eq!(options.lockdown, Some(Lockdown::Pid1));
    }

    #[test]
    fn defaults() {
        let options = parse_words("null").unwrap_or_else(|Usage(reason)| unreachable!("{reason}"));
        assert_eq!((options.policy, options.consent), (ConsentPolicy::AskFirst, ConsentChoice::Unknown));
        assert!(options.sdk && !options.re_executed && options.threads == 1);
    }

    #[test]
    fn refuses_mistakes() {
        for (words, reason) in [
            ("", "missing"),
            ("drown", "unknown way"),
            ("null null", "unexpected"),
            ("null --spool", "missing"),
            ("null --threads 0", "--threads: expected a number"),
            ("null --threads many", "--threads: expected a number"),
            ("null --rule ticket", "--rule: expected NAME=PATTERN"),
            ("null --consent yes", "granted, denied, unknown"),
            ("null --monitor-state asleep", "alive, killed, stopped,"),
            ("null --lockdown jail", "yama1, yama2,"),
            ("null --destination crashpad=http://h/", "--destination"),
            ("null --destination pigeon=https://h/", "--destination"),
            ("null --no-such 1", "unknown option"),
        ] {
            let refusal = parse_words(words).err().map(|Usage(text)| text).unwrap_or_default();
            assert!(refusal.contains(reason), "{words:?}: {refusal:?}");
        }
    }
}
