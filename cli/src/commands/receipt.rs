//! `cenotaph receipt verify`: whether a dump is the one that a receipt is about, and was scrubbed as it says.

use std::fs::File;
use std::path::PathBuf;

use cenotaph::scrub::Receipt;
use lexopt::prelude::*;

use super::{missing, read};
use crate::failure::{Failure, Result};
use crate::output;

pub(crate) fn receipt(mut arguments: lexopt::Parser) -> Result<()> {
    match arguments.next()? {
        Some(Value(command)) if command == "verify" => verify(arguments),
        Some(Value(command)) => Err(Failure::Usage(format!("unknown command receipt {}", command.display()))),
        Some(other) => Err(other.unexpected().into()),
        None => Err(missing("receipt", "the command (verify)")),
    }
}

fn verify(mut arguments: lexopt::Parser) -> Result<()> {
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(value) if paths.len() < 2 => paths.push(PathBuf::from(value)),
            other => return Err(other.unexpected().into()),
        }
    }
    let [dump, path] = paths.as_slice() else { return Err(missing("receipt verify", "DUMP RECEIPT")) };
    let receipt: Receipt = serde_json::from_slice(&read(path)?)
        .map_err(|e| Failure::Failed(format!("{}: not a receipt: {e}", path.display())))?;
    let file = File::open(dump).map_err(|e| Failure::file(dump, "read", e))?;
    receipt.verify(&file).map_err(|e| Failure::Failed(format!("{}: {e}", dump.display())))?;
    let described = receipt.dump.as_ref();
    output::line(format_args!(
        "{}: {} changes, SHA-256 {}, engine {}, policy {}",
        dump.display(),
        described.map_or(0, |dump| dump.entries),
        described.map_or("", |dump| &dump.sha256),
        receipt.engine,
        receipt.policy,
    ))
}
