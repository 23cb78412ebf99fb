//! The Breakpad/Crashpad form, as Antenna (Socorro), Crashpad's and classic Breakpad collectors take it.
//!
//! `prod`, `ver` and `guid` are the classic names (Breakpad, `common/linux/http_upload`), `ProductName` and `Version`
//! those of Socorro's crash report specification. Files go under their bare names, as Crashpad sends them
//! (`handler/crash_report_upload_thread.cc`).

use super::{Opened, attachment, dump, summary, with_attributes};
use crate::error::Result;
use crate::upload::multipart::Form;

pub(super) fn form(opened: &Opened) -> Result<Form> {
    let report = &opened.report;
    let mut fields: Vec<(String, String)> = [
        ("prod", report.application.clone()),
        ("ver", report.version.clone()),
        ("ProductName", report.application.clone()),
        ("Version", report.version.clone()),
        ("CrashTime", (report.time_ms / 1_000).to_string()),
        ("environment", report.environment.clone()),
        ("reason", summary(&report.reason)),
        ("cenotaph.report", report.id.to_string()),
        ("cenotaph.detail", report.detail.to_string()),
        ("cenotaph.fingerprint", report.fingerprint.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    // In the form only: Crashpad's query parameter of this name ends up in every access log.
    if let Some(device) = &report.device_id {
        fields.push(("guid".to_owned(), device.clone()));
    }
    let fields = with_attributes(fields, report, reserved);
    Ok(Form { fields, files: vec![dump(opened), attachment(opened, "cenotaph.json")?] })
}

/// Names that collectors act on: Antenna refuses a client's `uuid` and parses `extra` as all annotations at once.
fn reserved(key: &str) -> bool {
    matches!(key, "guid" | "uuid" | "extra" | "cenotaph.json")
}
