//! Backtrace's minidump submission: a form whose fields are attributes and whose `attachment_` parts are attachments
//! (Sauce Labs Error Reporting, "HTTP submission" and "File attachments").

use super::{Opened, attachment, dump, summary, with_attributes};
use crate::error::Result;
use crate::report::Reason;
use crate::upload::multipart::Form;

pub(super) fn form(opened: &Opened) -> Result<Form> {
    let report = &opened.report;
    let mut fields: Vec<(String, String)> = [
        ("application", report.application.clone()),
        ("application.version", report.version.clone()),
        // Backtrace refuses a second object with the same uuid, which makes a repeated try harmless.
        ("uuid", report.id.to_string()),
        ("error.type", error_type(&report.reason).to_owned()),
        ("error.message", summary(&report.reason)),
        ("classifier", report.reason.name().to_owned()),
        ("environment", report.environment.clone()),
        ("timestamp", (report.time_ms / 1_000).to_string()),
        ("backtrace.agent", "cenotaph".to_owned()),
        ("backtrace.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("cenotaph.detail", report.detail.to_string()),
        // An attribute of our own and not `_mod_fingerprint`, which would replace the server's grouping by symbols.
        ("cenotaph.fingerprint", report.fingerprint.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Reason::Signal { address: Some(address), .. } = report.reason {
        fields.push(("fault.address".to_owned(), format!("{address:#x}")));
    }
    if let Some(device) = &report.device_id {
        fields.push(("guid".to_owned(), device.clone()));
    }
    let fields = with_attributes(fields, report, reserved);
    Ok(Form { fields, files: vec![dump(opened), attachment(opened, "attachment_cenotaph.json")?] })
}

/// The names that Backtrace's own clients use.
fn error_type(reason: &Reason) -> &'static str {
    match reason {
        Reason::Signal { .. } | Reason::UncleanExit { .. } => "Crash",
        Reason::Hang { .. } => "Hang",
        Reason::Panic { .. } => "Unhandled exception",
        Reason::Requested { .. } => "Message",
    }
}

/// `_mod_*` steers the server, `attachment_*` and `upload_file*` are parts, the rest belongs to the URL or to us.
fn reserved(key: &str) -> bool {
    key.starts_with('_')
        || key.starts_with("attachment")
        || key.starts_with("upload_file")
        || matches!(
            key,
            "guid" | "fault.address" | "token" | "format" | "universe" | "object" | "fingerprint"
        )
}
