//! `cenotaph-monitor`: the process that watches an application which names it with `Config::helper`.
//!
//! It is the application's monitor and its uploaders: the same code as in the application's own image, in a program
//! that does nothing else and loads pmodules from shared objects.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
cenotaph-monitor is started by an application that crash reports are made of, which names it so:
  Rust  Config::helper(\"/path/of/cenotaph-monitor\")
  C     cenotaph_options_set_helper(options, \"/path/of/cenotaph-monitor\")
There is nothing to start by hand but 'cenotaph-monitor --version'.
";

fn main() -> ExitCode {
    cenotaph::monitor_entry();
    let mut arguments = std::env::args_os().skip(1);
    let only = arguments.next().filter(|_| arguments.next().is_none());
    let version = only.is_some_and(|argument| argument == "--version" || argument == "-V");
    let (written, code) = if version {
        (writeln!(std::io::stdout(), "cenotaph-monitor {}", env!("CARGO_PKG_VERSION")), ExitCode::SUCCESS)
    } else {
        (std::io::stderr().write_all(USAGE.as_bytes()), ExitCode::from(2))
    };
    // Nobody reads it (`| head`): then nobody misses it.
    drop(written);
    code
}
