//! `crasher matrix`'s command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;

use lexopt::prelude::{Long, Short};

use crate::lockdown::Lockdown;
use crate::monitor_state::State;
use crate::options::Usage;
use crate::ways::Way;

pub(crate) const USAGE: &str = "\
usage: crasher matrix [OPTIONS]

Kills victims in every way, with the monitor in every state, and under every lock-down, many times, and compares each
with what it must come to: one usable report, the right ending with the right cause, within the deadline.

  --repeat N           victims for each case; default 200, under a lock-down 20
  --jobs N             victims at a time; default: processors
  --deadline-ms N      the victims' deadline; default 10000, for stopped states 1000
  --only WAY[,WAY..]   these ways to die; default: all, under a lock-down null,abort,stack-overflow-thread
  --states STATE[,..]  these monitor states (without a lock-down); default: all; `-` for none
  --lockdown WHAT[,..] these lock-downs (with the monitor alive and killed); default: all; `-` for none
  --seed N             the order of the runs; default: random, and printed
  --json FILE          the same as JSON; written every half minute too
  --resume             go on where the matrix that wrote the JSON file was interrupted
  --keep-core          keep the folders of victims with a problem: spool, core file, output
  --keep-all           keep the folders of all victims
  --folder DIR         where victims have their folders; default: the temporary folder

exit code: 0 if every case is complete, 1 if one is not, 2 for a usage error
";

/// The parsed command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) repeat: Option<usize>,
    pub(crate) jobs: usize,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) only: Option<Vec<Way>>,
    pub(crate) states: Vec<State>,
    pub(crate) lockdowns: Vec<Lockdown>,
    pub(crate) seed: Option<u64>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) resume: bool,
    pub(crate) keep: bool,
    pub(crate) keep_all: bool,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) help: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            repeat: None,
            jobs: thread::available_parallelism().map_or(1, usize::from),
            deadline_ms: None,
            only: None,
            states: State::ALL.to_vec(),
            lockdowns: Lockdown::ALL.to_vec(),
            seed: None,
            json: None,
            resume: false,
            keep: false,
            keep_all: false,
            folder: None,
            help: false,
        }
    }
}

/// Reads the arguments behind `matrix`.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Options, Usage> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Short('h') | Long("help") => options.help = true,
            Long("keep-core") => options.keep = true,
            Long("keep-all") => options.keep_all = true,
            Long("resume") => options.resume = true,
            Long(name) => {
                let name = name.to_owned();
                let value = parser.value().map_err(usage)?;
                options.set(&name, value).map_err(|Usage(reason)| Usage(format!("--{name}: {reason}")))?;
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    if options.resume && options.json.is_none() {
        return Err(usage("--resume needs the file of --json"));
    }
    Ok(options)
}

impl Options {
    fn set(&mut self, name: &str, value: OsString) -> Result<(), Usage> {
        if matches!(name, "json" | "folder") {
            let path = std::path::absolute(PathBuf::from(value)).map_err(usage)?;
            *(if name == "json" { &mut self.json } else { &mut self.folder }) = Some(path);
            return Ok(());
        }
        let text = value.into_string().map_err(|_| Usage("not UTF-8".to_owned()))?;
        match name {
            "repeat" => self.repeat = Some(number(&text, 1)? as usize),
            "jobs" => self.jobs = number(&text, 1)? as usize,
            "deadline-ms" => self.deadline_ms = Some(number(&text, 1)?),
            "seed" => self.seed = Some(number(&text, 0)?),
            "only" => self.only = Some(list(&text)?),
            "states" => self.states = list(&text)?,
            "lockdown" => self.lockdowns = list(&text)?,
            _ => return Err(Usage("unknown option".to_owned())),
        }
        Ok(())
    }
}

fn number(text: &str, least: u64) -> Result<u64, Usage> {
    let number = text.parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| Usage(format!("expected a number from {least} on")))
}

fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, Usage> {
    if text == "-" {
        return Ok(Vec::new());
    }
    text.split(',').map(|word| word.parse().map_err(|_| Usage(format!("unknown: {word}")))).collect()
}

fn usage(error: impl std::fmt::Display) -> Usage {
    Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Options, Usage> {
        parse(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn reads_every_option() {
        let options = parse_words(
            "--repeat 3 --jobs 4 --deadline-ms 5 --only null,abort --states killed,none --lockdown - --seed 6 \
             --json j --resume --keep-core --folder f",
        )
        .unwrap_or_else(|Usage(reason)| unreachable!("{reason}"));
        assert_eq!((options.repeat, options.jobs, options.deadline_ms), (Some(3), 4, Some(5)));
        assert_eq!(options.only, Some(vec![Way::Null, Way::Abort]));
        assert_eq!(options.states, [State::Killed, State::None]);
        assert!(options.lockdowns.is_empty() && options.keep && options.resume && options.seed == Some(6));
        assert!(options.json.iter().chain(&options.folder).all(|path| path.is_absolute()));
    }

    #[test]
    fn refuses_mistakes() {
        for (words, reason) in [
            ("--repeat 0", "--repeat: expected a number from 1"),
            ("--only drown", "--only: unknown: drown"),
            ("--states", "missing"),
            ("--lockdown jail", "--lockdown: unknown: jail"),
            ("--no-such 1", "unknown option"),
            ("null", "unexpected"),
            ("--resume", "needs the file"),
        ] {
            let refusal = parse_words(words).err().map(|Usage(text)| text).unwrap_or_default();
            assert!(refusal.contains(reason), "{words:?}: {refusal:?}");
        }
    }
}
