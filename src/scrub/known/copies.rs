//! Which values of an environment and a command line may be secrets that programs copy into their heap.
#![forbid(unsafe_code)]

use super::{COPIES, Known, LONGEST, MOST};
use crate::error::Result;

impl Known {
    /// The values of an environment and a command line (both as the kernel keeps them: separated by zero bytes) that may be
    /// secrets: programs copy them into their heap. `None` if there are none.
    ///
    /// # Errors
    /// As [`Known::new`].
    pub(in crate::scrub) fn copies(environment: &[u8], arguments: &[u8]) -> Result<Option<Self>> {
        let variables = environment.split(|&byte| byte == 0).filter_map(|variable| {
            let equals = variable.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (&variable[..equals], &variable[equals + 1..]);
            (!is_harmless_variable(name)).then_some(value)
        });
        let arguments = arguments.split(|&byte| byte == 0).map(|argument| {
            let option = argument.starts_with(b"-");
            let equals = argument.iter().position(|&byte| byte == b'=').filter(|_| option);
            equals.map_or(argument, |equals| &argument[equals + 1..])
        });
        let values = variables.chain(arguments).filter(|value| is_secret_like(value));
        let values: Vec<String> =
            values.filter_map(|value| String::from_utf8(value.to_vec()).ok()).take(MOST).collect();
        if values.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { rule: COPIES, ..Self::new(&values)? }))
    }
}

/// Variables whose values are the same on many machines and mean something to a developer.
fn is_harmless_variable(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"TERM",
        b"COLORTERM",
        b"LANG",
        b"LANGUAGE",
        b"SHELL",
        b"PATH",
        b"TZ",
        b"LS_COLORS",
        b"RUST_LOG",
        b"RUST_BACKTRACE",
        b"LD_LIBRARY_PATH",
        b"LD_PRELOAD",
        b"DESKTOP_SESSION",
    ];
    NAMES.contains(&name) || name.starts_with(b"LC_") || name.starts_with(b"XDG_")
}

/// Long enough, letters and digits, and no path: paths are for the rules, and blanking the directories that a module and
/// a variable share would hide where libraries come from.
fn is_secret_like(value: &[u8]) -> bool {
    (8..=LONGEST).contains(&value.len())
        && !value.starts_with(b"/")
        && value.iter().any(u8::is_ascii_digit)
        && value.iter().any(u8::is_ascii_alphabetic)
}
