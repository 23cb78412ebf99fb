//! The command line of Cenotaph. A library, so that tests can use its collector in their own process.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod collect;
pub mod failure;
mod interrupt;
mod output;

mod commands;
mod demo;
mod score;

use std::process::ExitCode;

use failure::{Failure, Result};

const HELP: &str = "\
Cenotaph: crash reports without the person

Usage: cenotaph COMMAND [ARGUMENTS]

Commands:
  demo [--dir DIR] [--json FILE]
      A program with personal data in it crashes; shows its report, what was removed from it, and a search of
      everything that was written or sent. Needs nothing set up; DIR (default: a new one) keeps what there was.
  collect --listen ADDR --dir DIR --self-signed [--fail N:STATUS[:SECONDS]]
      An HTTPS collector on loopback for development. Writes its certificate authority to DIR/ca.pem,
      prints the address it listens on, and keeps each request in a folder of its own, DIR/NUMBER-REPORT/.
      --fail answers the first N requests with STATUS (and Retry-After SECONDS).
  inspect FILE [--json FILE]
      What is in a minidump: the reason, the crashing thread's frames, threads, modules, streams.
  scrub IN -o OUT [--level [PLACE=]LEVEL].. [--known VALUE].. [--rules FILE].. [--receipt FILE]
      Removes personal data from a minidump or an ELF core file and prints what was removed, by place and rule.
      LEVEL is keep, pattern (default), pointers or drop: 'cenotaph scrub --help' says of what, and what the rest means.
  receipt verify DUMP RECEIPT
      Whether RECEIPT (of 'scrub --receipt', of a report, or cenotaph.json) is about DUMP, and what it names was removed
      from it. Says 'verified', or what does not agree.
  open CONTAINER --key KEY -o DIR
      Unseals a report of a spool, with the spool's file 'key'.
  score [--seed S] [--small] [--json FILE] [OPTIONS]
      How much personal data is left after scrubbing, and how much else is lost: made-up values in every kind, encoding
      and place. Draws them with benches/pii/generate.py; --small takes a committed draw and needs no Python. For the
      repository's folder: 'cenotaph score --help'.
  spool list DIR [--json FILE]
      The reports that wait in a spool.
  pmodule run MODULE.so CORE [--json FILE] [--dump FILE] [--debug]
      Has a pmodule see a core file as it would see a crash, through the same stages: prints what it asked for, what
      came of it, and what it cost. For its developer: what the module itself writes is shown as it is, unscrubbed.
      --dump keeps the scrubbed minidump; --debug is for gdb: 'cenotaph pmodule --help'.

FILE may be '-' for standard output where JSON or a receipt is written.

Exit codes: 0 done, 1 it failed, 2 the command line cannot be understood.
";

/// Whether `--help` stands where a command's first words do.
fn wants_help() -> bool {
    std::env::args_os().skip(2).take(2).any(|argument| argument == "--help" || argument == "-h")
}

/// What [`HELP`] says of `command`. One with a page of its own shows that.
fn help_of(command: &str) -> Option<String> {
    if matches!(command, "pmodule" | "scrub" | "score") {
        return None;
    }
    let is_head = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let own = |line: &&str| line.split_whitespace().next() == Some(command);
    let lines: Vec<&str> = HELP.lines().skip_while(|line| !(is_head(line) && own(line))).collect();
    let mut rest = lines.iter().skip(1).take_while(|line| !line.is_empty() && !is_head(line));
    let first = lines.first()?;
    let all: Vec<&str> = std::iter::once(*first).chain(rest.by_ref().copied()).collect();
    Some(all.join("\n"))
}

/// Runs the command of this process's command line.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(format_args!("cenotaph: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

fn run() -> Result<()> {
    use lexopt::prelude::*;
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Long("help") | Short('h')) => output::line(HELP.trim_end()),
        Some(Long("version") | Short('V')) => {
            output::line(format_args!("cenotaph {}", env!("CARGO_PKG_VERSION")))
        }
        Some(Value(command)) if wants_help() && help_of(&command.to_string_lossy()).is_some() => {
            output::line(help_of(&command.to_string_lossy()).unwrap_or_default())
        }
        Some(Value(command)) => match command.to_str() {
            Some("demo") => demo::demo(arguments),
            Some("demo-victim") => demo::victim(arguments),
            Some("collect") => commands::collect(arguments),
            Some("inspect") => commands::inspect(arguments),
            Some("open") => commands::open(arguments),
            Some("receipt") => commands::receipt(arguments),
            Some("scrub") => commands::scrub(arguments),
            Some("score-victim") => score::victim(arguments),
            Some("score") => score::score(arguments),
            Some("spool") => commands::spool(arguments),
            Some("pmodule") => commands::pmodule(arguments),
            Some("help") => output::line(HELP.trim_end()),
            _ => Err(Failure::Usage(format!("unknown command {}", command.display()))),
        },
        Some(other) => Err(other.unexpected().into()),
        None => Err(Failure::Usage("no command given".to_owned())),
    }
}
