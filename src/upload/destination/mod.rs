//! From a report to the request that a kind of server expects. Pure: no network, no clock.
#![forbid(unsafe_code)]

mod backtrace;
mod crashpad;

use serde::Serialize;

use super::multipart::{File, Form};
use crate::config::{Destination, Protocol};
use crate::error::{Error, Result};
use crate::report::{Reason, Report, signal_name};
use crate::scrub::Receipt;

/// The dump's field name, the same in every protocol so far.
const DUMP_FIELD: &str = "upload_file_minidump";

/// An opened report: everything that is sent. It was scrubbed before it was sealed.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The report.
    pub report: Report,
    /// The minidump of the report's level of detail; for a stack trace the synthetic one.
    pub dump: Vec<u8>,
    /// What was removed.
    pub receipt: Receipt,
}

/// The form that `destination` expects for a report.
///
/// # Errors
/// If the report cannot be written as JSON (a number that JSON does not know).
pub fn form(destination: &Destination, opened: &Opened) -> Result<Form> {
    match destination.protocol {
        Protocol::Crashpad => crashpad::form(opened),
        Protocol::Backtrace => backtrace::form(opened),
    }
}

/// `cenotaph.json`: the report and its receipt.
#[derive(Serialize)]
struct Attachment<'a> {
    report: &'a Report,
    receipt: &'a Receipt,
}

fn attachment(opened: &Opened, field: &str) -> Result<File> {
    let Opened { report, receipt, .. } = opened;
    let bytes = serde_json::to_vec(&Attachment { report, receipt })
        .map_err(|e| Error::malformed("report", format!("cannot be written as JSON: {e}")))?;
    Ok(File {
        name: field.to_owned(),
        file_name: "cenotaph.json".to_owned(),
        media_type: "application/json",
        bytes,
    })
}

fn dump(opened: &Opened) -> File {
    File {
        name: DUMP_FIELD.to_owned(),
        file_name: format!("{}.dmp", opened.report.id),
        media_type: "application/octet-stream",
        bytes: opened.dump.clone(),
    }
}

/// The classifiers and the application's attributes as fields, after `fields`. One that would stand in for a field of the protocol or of
/// Cenotaph is left out (it is in `cenotaph.json`): an attribute must not change what a server does with a report.
fn with_attributes(
    mut fields: Vec<(String, String)>,
    report: &Report,
    reserved: fn(&str) -> bool,
) -> Vec<(String, String)> {
    if !report.classifiers.is_empty() {
        fields.push(("cenotaph.classifiers".to_owned(), report.classifiers.join(",")));
    }
    for attribute in &report.attributes {
        let key = attribute.key.as_str();
        let own = key == DUMP_FIELD || key.starts_with("cenotaph.") || reserved(key);
        if !key.is_empty() && !own && fields.iter().all(|(name, _)| name != key) {
            fields.push((key.to_owned(), attribute.value.to_string()));
        }
    }
    fields
}

/// One line for people: the signal and its address, the panic's message, the caller's words, how it ended.
fn summary(reason: &Reason) -> String {
    match reason {
        Reason::Signal { address: Some(address), .. } => format!("{} at {address:#x}", reason.name()),
        Reason::Signal { code, .. } => format!("{} (code {code})", reason.name()),
        Reason::Panic { message, location, .. } => format!("panicked at {location}: {message}"),
        Reason::Requested { reason } => reason.clone(),
        Reason::Hang { limit_ms } => format!("a watched thread hung for more than {limit_ms} ms"),
        Reason::UncleanExit { signal: Some(signal), .. } => format!("ended by {}", signal_name(*signal)),
        Reason::UncleanExit { signal: None, .. } => "ended uncleanly".to_owned(),
    }
}

#[cfg(test)]
mod tests;
