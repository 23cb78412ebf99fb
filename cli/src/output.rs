//! The one place that writes to standard output and standard error.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "a command line tool talks to its user")]

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::failure::{Failure, Result};

/// Writes one line to standard output.
///
/// A reader that has gone away (`| head`) is no failure: the line is not wanted any more.
pub(crate) fn line(text: impl Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("standard output: cannot write: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one line to standard error.
pub(crate) fn note(text: impl Display) {
    eprintln!("{text}");
}

/// Says on standard error what is being done, in one line that the next one replaces; nothing if that is no terminal.
pub(crate) fn progress(text: impl Display) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        // To the first column, and erase to the line's end (ECMA-48, CR and EL).
        let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
    }
}

/// Whether standard output is a terminal that wants colour (<https://no-color.org>).
pub(crate) fn colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    io::stdout().is_terminal() && !refused && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// `text` in bold, where colour is wanted.
pub(crate) fn bold(text: &str) -> String {
    if colour() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text from a file or from the wire without anything that a terminal would act on.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A table: aligned under a heading on a terminal, else one line a row with tabs between the columns.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    if !io::stdout().is_terminal() {
        return rows.iter().try_for_each(|row| line(row.join("\t")));
    }
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let aligned = |cells: Vec<String>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    line(bold(&aligned(heading.iter().map(|cell| (*cell).to_owned()).collect())))?;
    rows.into_iter().try_for_each(|row| line(aligned(row)))
}
