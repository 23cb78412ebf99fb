//! The texts of a report outside its dump.
#![forbid(unsafe_code)]

use serde_json::Value;

use super::aliases::{Shared, masked};
use super::echoes::Echoes;
use super::edit::{Addresses, Editor, Encoding, Finding};
use super::known::Known;
use super::places::{self, DROPPED, THREAD_NAME};
use super::receipt::{Entry, Place, Receipt};
use super::{Level, Policy, cut_off, finder, rules};
use crate::error::Error;
use crate::report::{AnnotationLevel, AttributeValue, Origin, Reason, Report};

/// What is sought in texts.
pub(super) struct Means<'a> {
    pub(super) known: &'a Known,
    pub(super) echoes: &'a Echoes,
    pub(super) policy: &'a Policy,
    pub(super) aliases: &'a Shared,
}

impl Means<'_> {
    /// What is to be blanked in a text of this place.
    fn find(&self, text: &str, place: Place) -> Vec<Finding> {
        let text = &*masked(text);
        let whole = |rule| Finding { range: 0..text.len(), encoding: Encoding::Utf8, rule };
        match self.policy.level_of(place) {
            Level::Keep => finder::known_in_utf8(text, self.known),
            Level::Pattern => finder::in_utf8(text, self.known, self.echoes),
            Level::Pointers | Level::Drop => vec![whole(DROPPED)],
        }
    }

    /// The same in the value of a key, which may announce it: "password".
    fn find_under(&self, key: &str, text: &str, place: Place) -> Vec<Finding> {
        let mut findings = self.find(text, place);
        let Announced { text: line, value } = Announced::new(key, text);
        findings.extend(self.find(&line, place).into_iter().filter_map(|finding| {
            let range = finding.range.start.max(value.start)..finding.range.end.min(value.end);
            let range = (!range.is_empty()).then(|| range.start - value.start..range.end - value.start)?;
            Some(Finding { range, ..finding })
        }));
        findings
    }
}

/// A key and its value in one text, as rules know them from JSON.
struct Announced {
    text: String,
    /// Where the value stands.
    value: std::ops::Range<usize>,
}

impl Announced {
    fn new(key: &str, value: &str) -> Self {
        let start = key.len() + 4;
        // A quote would end it.
        let text = format!("\"{key}\":\"{}\"", value.replace('"', "'"));
        Self { text, value: start..start + value.len() }
    }
}

/// Scrubs attributes (keys by rules alone: they are the developer's words, but one may have been made of a value), breadcrumbs, the reason, thread names, and what pmodules said.
pub(super) fn scrub(report: &mut Report, means: &Means<'_>, receipt: &mut Receipt) {
    for attribute in &mut report.attributes {
        let (mut hits, key) = (Vec::new(), attribute.key.clone());
        rules::find_in(masked(&attribute.key).as_bytes(), &mut hits);
        blank(
            &mut attribute.key,
            hits.into_iter().map(Finding::from).collect(),
            Place::Attribute,
            means,
            receipt,
        );
        match &mut attribute.value {
            AttributeValue::String(value) => {
                let mut findings = means.find_under(&key, value, Place::Attribute);
                if attribute.truncated {
                    findings.extend(cut_off::cut_end_of_utf8(&masked(value), means.known));
                }
                blank(value, findings, Place::Attribute, means, receipt);
            }
            // A card number or an account fits into an integer.
            AttributeValue::Integer(value) => {
                let text = value.to_string();
                if let Some(finding) = means.find_under(&key, &text, Place::Attribute).first() {
                    *value = 0;
                    log(receipt, Place::Attribute, finding.rule, 0..text.len());
                }
            }
            // Languages with one type of number hand everything over as this one, exact up to 2^53.
            AttributeValue::Float(value) => {
                let text = value.to_string();
                if let Some(finding) = means.find_under(&key, &text, Place::Attribute).first() {
                    *value = 0.0;
                    log(receipt, Place::Attribute, finding.rule, 0..text.len());
                }
            }
            AttributeValue::Bool(_) => {}
        }
    }
    for breadcrumb in &mut report.breadcrumbs {
        scrub_text(&mut breadcrumb.category, means, Place::Breadcrumb, receipt);
        let mut findings = means.find(&breadcrumb.message, Place::Breadcrumb);
        if breadcrumb.truncated {
            findings.extend(cut_off::cut_end_of_utf8(&masked(&breadcrumb.message), means.known));
        }
        blank(&mut breadcrumb.message, findings, Place::Breadcrumb, means, receipt);
    }
    match &mut report.reason {
        Reason::Panic { message, location, thread } => {
            for text in [message, location] {
                scrub_text(text, means, Place::Reason, receipt);
            }
            scrub_text(thread, means, Place::ThreadName, receipt);
        }
        Reason::Requested { reason } => scrub_text(reason, means, Place::Reason, receipt),
        Reason::Signal { .. } | Reason::Hang { .. } | Reason::UncleanExit { .. } => {}
    }
    if let Some(text) = report.origin.as_mut().and_then(Origin::text_mut) {
        scrub_text(text, means, Place::Reason, receipt);
    }
    for annotation in &mut report.annotations {
        match annotation.level {
            AnnotationLevel::Json => json(&mut annotation.text, means, receipt),
            _ => scrub_text(&mut annotation.text, means, Place::Annotation, receipt),
        }
    }
    for classifier in &mut report.classifiers {
        scrub_text(classifier, means, Place::Annotation, receipt);
    }
    for name in report.stack_trace.threads.iter_mut().filter_map(|thread| thread.name.as_mut()) {
        if name.len() >= THREAD_NAME && cut_off::is_cut_value(masked(name).as_bytes(), means.known) {
            let whole = Finding { range: 0..name.len(), encoding: Encoding::Utf8, rule: "cut-off" };
            blank(name, vec![whole], Place::ThreadName, means, receipt);
        } else {
            scrub_text(name, means, Place::ThreadName, receipt);
        }
    }
}

/// Has `echoes` remember the values in a report's texts.
pub(super) fn learn(report: &Report, known: &Known, echoes: &mut Echoes) {
    let attributes = report.attributes.iter().filter_map(|attribute| match &attribute.value {
        AttributeValue::String(value) => Some(Announced::new(&attribute.key, value).text),
        _ => None,
    });
    let attributes: Vec<String> = attributes.collect();
    let breadcrumbs = report.breadcrumbs.iter().map(|breadcrumb| &breadcrumb.message);
    let reason = match &report.reason {
        Reason::Panic { message, .. } => Some(message),
        Reason::Requested { reason } => Some(reason),
        Reason::Signal { .. } | Reason::Hang { .. } | Reason::UncleanExit { .. } => None,
    };
    let annotations = report.annotations.iter().map(|annotation| &annotation.text);
    let texts = attributes.iter().chain(breadcrumbs).chain(reason).chain(annotations).map(String::as_str);
    for text in texts.chain(report.origin.as_ref().and_then(Origin::text)) {
        let text = &*masked(text);
        let findings = finder::in_utf8(text, known, &Echoes::default());
        finder::learn(echoes, text.as_bytes(), &findings);
    }
}

/// Takes all texts out of a report that cannot be scrubbed.
pub(super) fn empty(report: &mut Report, why: &Error) {
    for attribute in &mut report.attributes {
        if !matches!(attribute.value, AttributeValue::Bool(_) | AttributeValue::Float(_)) {
            attribute.value = AttributeValue::String(String::new());
        }
    }
    report.breadcrumbs.clear();
    match &mut report.reason {
        Reason::Panic { message, location, thread } => {
            [message, location, thread].into_iter().for_each(String::clear);
        }
        Reason::Requested { reason } => reason.clear(),
        Reason::Signal { .. } | Reason::Hang { .. } | Reason::UncleanExit { .. } => {}
    }
    if let Some(text) = report.origin.as_mut().and_then(Origin::text_mut) {
        text.clear();
    }
    report.annotations.clear();
    report.classifiers.clear();
    for thread in &mut report.stack_trace.threads {
        thread.name = None;
    }
    report.notes.push(format!("texts were left out, because they could not be scrubbed: {why}"));
}

pub(super) fn scrub_text(text: &mut String, means: &Means<'_>, place: Place, receipt: &mut Receipt) {
    let findings = means.find(text, place);
    blank(text, findings, place, means, receipt);
}

/// JSON is scrubbed value by value: its escapes would hide text from rules, and `*` in a number would break it.
fn json(text: &mut String, means: &Means<'_>, receipt: &mut Receipt) {
    let Ok(mut value) = serde_json::from_str(text) else {
        return scrub_text(text, means, Place::Annotation, receipt);
    };
    json_value("", &mut value, means, receipt);
    *text = value.to_string();
}

fn json_value(key: &str, value: &mut Value, means: &Means<'_>, receipt: &mut Receipt) {
    match value {
        Value::String(text) => {
            let findings = means.find_under(key, text, Place::Annotation);
            blank(text, findings, Place::Annotation, means, receipt);
        }
        Value::Number(number) => {
            let text = number.to_string();
            if let Some(finding) = means.find_under(key, &text, Place::Annotation).first() {
                *value = Value::from(0);
                log(receipt, Place::Annotation, finding.rule, 0..text.len());
            }
        }
        Value::Array(values) => {
            values.iter_mut().for_each(|value| json_value(key, value, means, receipt));
        }
        Value::Object(map) => {
            // Keys may be data here.
            let scrubbed = std::mem::take(map).into_iter().map(|(mut key, mut value)| {
                json_value(&key, &mut value, means, receipt);
                scrub_text(&mut key, means, Place::Annotation, receipt);
                (key, value)
            });
            *map = scrubbed.collect();
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Fills the findings with as many `*` as they have bytes, or with aliases. They lie on character boundaries.
fn blank(text: &mut String, findings: Vec<Finding>, place: Place, means: &Means<'_>, receipt: &mut Receipt) {
    if findings.is_empty() {
        return;
    }
    let (mut bytes, mut aliases) = (std::mem::take(text).into_bytes(), means.aliases.lock());
    let mut editor = Editor::naming(&mut bytes, receipt, &mut aliases);
    places::blank(&mut editor, 0, findings, place, None);
    editor.finish(&Addresses::default(), 8);
    // Characters went whole, so this is what it is; if not, nothing of it may stay.
    *text = String::from_utf8(bytes).unwrap_or_default();
}

fn log(receipt: &mut Receipt, place: Place, rule: &str, range: std::ops::Range<usize>) {
    receipt.entries.push(Entry {
        place,
        rule: rule.to_owned(),
        encoding: "utf-8".to_owned(),
        offset: range.start as u64,
        length: range.len() as u64,
        alias: None,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{
        Annotation, Attribute, Breadcrumb, Detail, Fingerprint, Level, ReportId, StackTrace, Thread,
    };

    fn report() -> Report {
        let attribute =
            |key: &str, value: AttributeValue, truncated| Attribute { key: key.to_owned(), value, truncated };
        let annotation = |level, text: &str| Annotation { pmodule: "p".into(), level, text: text.into() };
        let thread =
            |name: &str| Thread { id: 1, name: Some(name.to_owned()), crashed: false, frames: vec![] };
        Report {
            id: ReportId([0; 16]),
            time_ms: 0,
            application: "a".into(),
            version: "1".into(),
            environment: String::new(),
            reason: Reason::Panic {
                message: "no user alice@example.com, jürgen müller".into(),
                location: "/home/someone/src/main.rs:1:2".into(),
                thread: "main".into(),
            },
            detail: Detail::Minidump,
            attributes: vec![
                attribute("alice@example.com", "ip 203.0.113.9".into(), false),
                attribute("cut", "level 7 bob.smi".into(), true),
                attribute("card", 4_111_111_111_111_111_i64.into(), false),
                attribute("time", 1_700_000_000_000_000_i64.into(), false),
                attribute("level", "dark forest 3".into(), false),
                attribute("card as number", AttributeValue::Float(4_111_111_111_111_111.0), false),
                attribute("speed", AttributeValue::Float(0.25), false),
            ],
            breadcrumbs: vec![Breadcrumb {
                time_ms: 0,
                level: Level::Info,
                category: "net".into(),
                message: "GET https://u:p@host/".into(),
                truncated: false,
            }],
            stack_trace: StackTrace {
                modules: vec![],
                threads: vec![thread("alice.smith@exa"), thread("tokio-runtime-w"), thread("Jürgen Müller")],
            },
            fingerprint: Fingerprint::default(),
            device_id: None,
            annotations: vec![
                annotation(AnnotationLevel::Comment, "by alice@example.com"),
                annotation(
                    AnnotationLevel::Json,
                    r#"{"a":["\u0061lice@example.com",4111111111111111,7],"alice@example.com":null}"#,
                ),
                annotation(AnnotationLevel::Json, "no JSON, alice@example.com"),
            ],
            classifiers: vec!["oom".into(), "alice@example.com".into()],
            origin: None,
            repeats: Vec::new(),
            notes: vec!["alice@example.com".into()],
            stages_ms: Default::default(),
            stages_bytes: Default::default(),
        }
    }

    #[test]
    fn keys_announce_their_values() {
        let (known, echoes) = (Known::new(&[]).unwrap(), Echoes::default());
        let (policy, aliases) = (Policy::default(), Shared::default());
        let means = Means { known: &known, echoes: &echoes, policy: &policy, aliases: &aliases };
        for (before, left) in [
            (r#"{"password":"Tr0ub4dor&3x"}"#, "Tr0ub"),
            (r#"{"a":{"password":["Tr0ub\"4dor 3x"]}}"#, "dor"),
            (r#"{"phone":"010-6552-9988"}"#, "9988"),
            (r#"{"ssn":"219099999"}"#, "219099999"),
            (r#"{"ssn":219099999}"#, "219099999"),
        ] {
            let mut text = before.to_owned();
            json(&mut text, &means, &mut Receipt::default());
            assert!(!text.contains(left), "{text}");
            let (once, mut receipt) = (text.clone(), Receipt::default());
            json(&mut text, &means, &mut receipt);
            assert_eq!((&text, receipt.entries.len()), (&once, 0));
        }
        for stays in [r#"{"level":"dark forest 3"}"#, r#"{"count":219099999}"#, r#"{"passwords":3}"#] {
            let mut text = stays.to_owned();
            json(&mut text, &means, &mut Receipt::default());
            assert_eq!(text, stays);
        }
        let mut report = report();
        report.attributes = vec![Attribute {
            key: "user.password".to_owned(),
            value: "Tr0ub4dor 3x".into(),
            truncated: false,
        }];
        let mut learnt = Echoes::default();
        learn(&report, &known, &mut learnt);
        scrub(&mut report, &means, &mut Receipt::default());
        assert!(!format!("{:?}", report.attributes[0].value).contains("3x"));
        let mut again = 0;
        learnt.find(b"it was Tr0ub4dor 3x", |_| again += 1);
        assert_eq!(again, 1);
    }

    #[test]
    fn texts_are_scrubbed_and_notes_stay() {
        let (mut scrubbed, mut receipt) = (report(), Receipt::default());
        let known = Known::new(&["Jürgen Müller".to_owned()]).unwrap();
        let (echoes, policy, aliases) = (Echoes::default(), Policy::default(), Shared::default());
        let means = Means { known: &known, echoes: &echoes, policy: &policy, aliases: &aliases };
        scrub(&mut scrubbed, &means, &mut receipt);
        let mut expected = report();
        expected.reason = Reason::Panic {
            message: "no user [email#101]******, [#103]*********".into(),
            location: "/home/[#104]*/src/main.rs:1:2".into(),
            thread: "main".into(),
        };
        expected.attributes[0].key = "[email#101]******".into();
        expected.attributes[0].value = "ip [ipv4#102]*".into();
        expected.attributes[1].value = "level 7 *******".into();
        expected.attributes[2].value = AttributeValue::Integer(0);
        expected.attributes[5].value = AttributeValue::Float(0.0);
        expected.breadcrumbs[0].message = "GET https://***@host/".into();
        expected.annotations[0].text = "by [email#101]******".into();
        expected.annotations[1].text = r#"{"[email#101]******":null,"a":["[email#101]******",0,7]}"#.into();
        expected.annotations[2].text = "no JSON, [email#101]******".into();
        expected.classifiers[1] = "[email#101]******".into();
        expected.stack_trace.threads[0].name = Some("*".repeat(15));
        expected.stack_trace.threads[2].name = Some("*".repeat(15));
        // Which numbers were drawn does not matter, if they are the same in the same places.
        let in_order =
            |report: &Report| super::super::aliases::in_order(&serde_json::to_string(report).unwrap());
        assert_eq!(in_order(&scrubbed), in_order(&expected));
        let count = |place| receipt.entries.iter().filter(|entry| entry.place == place).count();
        assert_eq!(
            [Place::Attribute, Place::Breadcrumb, Place::Reason, Place::ThreadName, Place::Annotation]
                .map(count),
            [5, 1, 3, 2, 6]
        );
        let again = receipt.entries.len();
        scrub(&mut scrubbed, &means, &mut receipt);
        assert_eq!(receipt.entries.len(), again, "nothing is left to change");
    }
}
