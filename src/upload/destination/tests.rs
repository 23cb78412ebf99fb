use super::*;
use crate::report::{Attribute, AttributeValue, Detail, Fingerprint, ReportId, StackTrace};

fn opened() -> Opened {
    let attribute =
        |key: &str, value: AttributeValue| Attribute { key: key.to_owned(), value, truncated: false };
    Opened {
        report: Report {
            id: ReportId([0x11; 16]),
            time_ms: 1_700_000_000_123,
            application: "skyforge".to_owned(),
            version: "1.2.3".to_owned(),
            environment: "beta".to_owned(),
            reason: Reason::Signal { number: libc::SIGSEGV, code: 1, address: Some(0x10) },
            detail: Detail::Minidump,
            attributes: vec![
                attribute("level", AttributeValue::String("castle".to_owned())),
                attribute("fps", AttributeValue::Float(59.5)),
                attribute("lives", AttributeValue::Integer(3)),
                attribute("hd", AttributeValue::Bool(true)),
                attribute("uuid", AttributeValue::String("mine".to_owned())),
                attribute("_mod_sync", AttributeValue::String("1".to_owned())),
                attribute("upload_file_minidump", AttributeValue::String("x".to_owned())),
                attribute("prod", AttributeValue::String("other".to_owned())),
                attribute("cenotaph.report", AttributeValue::String("x".to_owned())),
                attribute("guid", AttributeValue::String("x".to_owned())),
            ],
            breadcrumbs: Vec::new(),
            stack_trace: StackTrace::default(),
            fingerprint: Fingerprint([0xab; 32]),
            device_id: None,
            annotations: Vec::new(),
            classifiers: Vec::new(),
            origin: None,
            repeats: Vec::new(),
            notes: Vec::new(),
            stages_ms: Default::default(),
            stages_bytes: Default::default(),
        },
        dump: b"MDMP dump".to_vec(),
        receipt: Receipt { engine: 7, ..Receipt::default() },
    }
}

fn value<'a>(form: &'a Form, name: &str) -> Vec<&'a str> {
    form.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
}

fn crashpad() -> Destination {
    Destination::crashpad("https://collect.example/submit").unwrap()
}

fn backtrace() -> Destination {
    Destination::backtrace("https://submit.backtrace.io/universe/token/minidump").unwrap()
}

#[test]
fn crashpad_names() {
    let form = form(&crashpad(), &opened()).unwrap();
    for (name, expected) in [
        ("prod", "skyforge"),
        ("ver", "1.2.3"),
        ("ProductName", "skyforge"),
        ("Version", "1.2.3"),
        ("environment", "beta"),
        ("reason", "SIGSEGV at 0x10"),
        ("CrashTime", "1700000000"),
        ("cenotaph.report", "11111111-1111-1111-1111-111111111111"),
        ("level", "castle"),
        ("fps", "59.5"),
        ("lives", "3"),
        ("hd", "true"),
        ("_mod_sync", "1"),
    ] {
        assert_eq!(value(&form, name), [expected], "{name}");
    }
    for absent in ["uuid", "guid", DUMP_FIELD] {
        assert!(value(&form, absent).is_empty(), "{absent}");
    }
    assert_eq!(form.files.len(), 2);
    assert_eq!(form.files[0].name, DUMP_FIELD);
    assert_eq!(form.files[0].file_name, "11111111-1111-1111-1111-111111111111.dmp");
    assert_eq!(form.files[0].media_type, "application/octet-stream");
    assert_eq!(form.files[0].bytes, b"MDMP dump");
    assert_eq!(form.files[1].name, "cenotaph.json");
}

#[test]
fn backtrace_names() {
    let form = form(&backtrace(), &opened()).unwrap();
    for (name, expected) in [
        ("application", "skyforge"),
        ("application.version", "1.2.3"),
        ("uuid", "11111111-1111-1111-1111-111111111111"),
        ("error.type", "Crash"),
        ("error.message", "SIGSEGV at 0x10"),
        ("classifier", "SIGSEGV"),
        ("fault.address", "0x10"),
        ("prod", "other"),
    ] {
        assert_eq!(value(&form, name), [expected], "{name}");
    }
    for absent in ["_mod_sync", "_mod_fingerprint", "guid", "cenotaph.report", DUMP_FIELD] {
        assert!(value(&form, absent).is_empty(), "{absent}");
    }
    assert_eq!(form.files[0].name, DUMP_FIELD);
    assert_eq!(form.files[1].name, "attachment_cenotaph.json");
    assert_eq!(form.files[1].file_name, "cenotaph.json");
}

#[test]
fn the_attachment_is_report_and_receipt() {
    for destination in [crashpad(), backtrace()] {
        let form = form(&destination, &opened()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&form.files[1].bytes).unwrap();
        assert_eq!(serde_json::from_value::<Report>(json["report"].clone()).unwrap(), opened().report);
        assert_eq!(serde_json::from_value::<Receipt>(json["receipt"].clone()).unwrap(), opened().receipt);
    }
}

#[test]
fn a_device_identifier_only_if_there_is_one() {
    let mut opened = opened();
    opened.report.device_id = Some("d-1".to_owned());
    for destination in [crashpad(), backtrace()] {
        assert_eq!(value(&form(&destination, &opened).unwrap(), "guid"), ["d-1"]);
    }
}

#[test]
fn error_types() {
    let mut opened = opened();
    opened.report.reason = Reason::Panic {
        message: "index out of bounds".to_owned(),
        location: "src/main.rs:3:5".to_owned(),
        thread: "main".to_owned(),
    };
    let panic = form(&backtrace(), &opened).unwrap();
    assert_eq!(value(&panic, "error.type"), ["Unhandled exception"]);
    assert_eq!(value(&panic, "error.message"), ["panicked at src/main.rs:3:5: index out of bounds"]);
    opened.report.reason = Reason::Requested { reason: "stuck".to_owned() };
    let asked = form(&backtrace(), &opened).unwrap();
    assert_eq!(value(&asked, "error.type"), ["Message"]);
    assert_eq!(value(&asked, "error.message"), ["stuck"]);
}
