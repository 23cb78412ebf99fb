//! `cenotaph spool`: what waits on this device. Needs no key: names and sizes only.

use std::path::PathBuf;

use cenotaph::spool::file::Spool;
use lexopt::prelude::*;
use serde::Serialize;

use super::{missing, take, write_json};
use crate::failure::{Failure, Result};
use crate::output;

#[derive(Serialize)]
struct ItemJson {
    id: String,
    state: &'static str,
    stored_ms: u64,
    not_before_ms: u64,
    attempts: u32,
    delivered_mask: u32,
    bytes: u64,
    path: PathBuf,
}

pub(crate) fn spool(mut arguments: lexopt::Parser) -> Result<()> {
    match arguments.next()? {
        Some(Value(command)) if command == "list" => list(arguments),
        Some(Value(command)) => Err(Failure::Usage(format!("unknown command spool {}", command.display()))),
        Some(other) => Err(other.unexpected().into()),
        None => Err(missing("spool", "the command (list)")),
    }
}

fn list(mut arguments: lexopt::Parser) -> Result<()> {
    let (mut dir, mut json) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("json") => json = Some(PathBuf::from(arguments.value()?)),
            Value(value) => take(&mut dir, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = dir.ok_or_else(|| missing("spool list", "DIR"))?;
    if !dir.is_dir() {
        return Err(Failure::Failed(format!(
            "{}: no such folder; name the one that the application gave to .spool()",
            dir.display()
        )));
    }
    if !dir.join("pending").is_dir() {
        return Err(Failure::Failed(format!(
            "{}: no report was ever stored here (there is no folder `pending`); name the one that the application gave to .spool()",
            dir.display()
        )));
    }
    let items: Vec<ItemJson> = Spool::new(&dir)
        .list()?
        .into_iter()
        .map(|item| ItemJson {
            id: item.id.to_string(),
            state: item.state.name(),
            stored_ms: item.stored_ms,
            not_before_ms: item.not_before_ms,
            attempts: item.attempts,
            delivered_mask: item.delivered_mask,
            bytes: item.size,
            path: item.path,
        })
        .collect();
    if let Some(json) = &json {
        write_json(json, &items)?;
        if json.as_os_str() == "-" {
            return Ok(());
        }
    }
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            [&item.id as &dyn std::fmt::Display, &item.state, &item.bytes, &item.attempts, &item.stored_ms]
                .map(ToString::to_string)
                .to_vec()
        })
        .collect();
    output::table(&["report", "state", "bytes", "attempts", "stored (Unix ms)"], &rows)
}
