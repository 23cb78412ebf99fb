//! Rules of the application's own, in a real monitor: what only they can find is gone from the report of a real crash, and what
//! stands beside it is still there. The same crash without them keeps the values: no other rule would have found them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/came.rs"]
#[allow(dead_code, reason = "another test's")]
mod came;
#[path = "../src/plant.rs"]
#[allow(dead_code, reason = "the program's own")]
mod plant;
#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;

use came::{Came, crash, memory};
use cenotaph::scrub::Receipt;
use serde_json::{Value, json};

/// A text that is planted: what stands before the value, the value, what stands behind.
struct Planted {
    place: &'static str,
    encoding: &'static str,
    before: &'static str,
    value: &'static str,
    after: &'static str,
}

const fn planted(place: &'static str, encoding: &'static str, value: &'static str) -> Planted {
    Planted { place, encoding, before: "rank gold PLR-", value, after: " of the castle" }
}

/// Values of their own, so that none goes as a copy of another.
const PLAYERS: [Planted; 8] = [
    planted("stack", "utf8", "KQZX-418203"),
    planted("stack", "utf16le", "WVJB-975310"),
    planted("stack", "utf32le", "HDGT-286424"),
    planted("heap", "utf8", "MRPY-640917"),
    planted("heap", "utf16le", "ZBFN-351728"),
    planted("heap", "utf32le", "TLCW-809146"),
    planted("attribute", "utf8", "XGSD-127395"),
    planted("breadcrumb", "utf8", "BNKV-563081"),
];
const PATTERN: &str = "player-id=PLR-([A-Z]{4}-[0-9]{6})";

/// The same rule and one with all that a file can ask for.
const FILE: &str = r#"
[[rule]]
name = "player-id"
pattern = 'PLR-([A-Z]{4}-[0-9]{6})'

[[rule]]
name = "ticket"
pattern = '[A-Z]{2}[0-9]{10}'
context = ["ticket"]
prefixes = ["KD"]
"#;
const TICKETS: [Planted; 2] = [
    Planted { place: "stack", encoding: "utf8", before: "ticket ", value: "KD4407182935", after: " is open" },
    Planted {
        place: "heap",
        encoding: "utf16le",
        before: "Ticket: ",
        value: "KD9152830746",
        after: ", closed",
    },
];
/// What that rule does not mean: another beginning, no such word before.
const NO_TICKETS: [&str; 2] = ["ticket GH3381906254 is open", "voucher KD7719305822 is open"];

/// The bytes of `text` in the encoding of this name.
fn encoded(text: &str, encoding: &str) -> Vec<u8> {
    let entry = json!([{ "value": text, "place": "stack", "encoding": encoding }]);
    plant::parse(entry.to_string().as_bytes(), "null").unwrap()[0].encoded()
}

/// A crash with these texts planted.
fn crashed(texts: &[&Planted], plain: &[&str], options: &[&str]) -> Came {
    let entry = |p: &&Planted| {
        let text = [p.before, p.value, p.after].concat();
        json!({ "value": text, "place": p.place, "encoding": p.encoding, "key": "planted" })
    };
    let mut entries: Vec<Value> = texts.iter().map(entry).collect();
    entries.extend(plain.iter().map(|text| json!({ "value": text, "place": "stack" })));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plant.json");
    fs::write(&file, Value::from(entries).to_string()).unwrap();
    let came = crash(&[], &[&["--plant", file.to_str().unwrap()], options].concat());
    assert_eq!(came.detail(), "minidump", "{:?}", came.notes());
    came
}

/// Addresses in the dump before scrubbing at which these bytes stand.
fn addresses(came: &Came, bytes: &[u8]) -> Vec<u64> {
    let at = |(start, content): &(u64, Vec<u8>)| {
        support::occurrences(content, bytes).into_iter().map(|at| start + at as u64).collect::<Vec<_>>()
    };
    memory(&came.raw).iter().flat_map(at).collect()
}

/// What the dump that was sent has at this address.
fn sent(memory: &[(u64, Vec<u8>)], address: u64, length: usize) -> Vec<u8> {
    let within = |(start, bytes): &&(u64, Vec<u8>)| (*start..start + bytes.len() as u64).contains(&address);
    let (start, bytes) = memory.iter().find(within).expect("the same memory is there");
    let at = usize::try_from(address - start).unwrap();
    bytes[at..at + length].to_vec()
}

/// Whether the report kept this text; whichever it is, its neighbours are there.
fn is_kept(came: &Came, planted: &Planted) -> bool {
    let Planted { place, encoding, before, value, after } = planted;
    let whole = [*before, value, after].concat();
    let kept = if matches!(*place, "attribute" | "breadcrumb") {
        let (list, field) =
            if *place == "attribute" { ("attributes", "value") } else { ("breadcrumbs", "message") };
        let texts = came.report()[list].as_array().unwrap();
        let ours = |text: &&Value| text["key"] == "planted" || text["category"] == "planted";
        let text = texts.iter().find(ours).and_then(|text| text[field].as_str()).unwrap();
        let middle = text.strip_prefix(before).and_then(|text| text.strip_suffix(after));
        let middle = middle.unwrap_or_else(|| panic!("neighbours went: {text}"));
        assert_eq!(middle.len(), value.len());
        middle == *value
    } else {
        let sent_memory = memory(&came.dump);
        let found = addresses(came, &encoded(&whole, encoding));
        assert!(!found.is_empty(), "{whole} was planted as {encoding}");
        let mut kept = found.into_iter().map(|address| {
            let unit = encoded("a", encoding).len();
            let text = sent(&sent_memory, address, whole.len() * unit);
            let (head, rest) = text.split_at(before.len() * unit);
            let (middle, tail) = rest.split_at(value.len() * unit);
            assert_eq!(head, encoded(before, encoding), "{whole} as {encoding}");
            assert_eq!(tail, encoded(after, encoding), "{whole} as {encoding}");
            let original = encoded(value, encoding);
            let same = middle.chunks(unit).zip(original.chunks(unit)).filter(|(a, b)| a == b).count();
            // The digits of an alias may be the same by chance.
            assert!(same <= 3 || same == value.len(), "{same} characters of {value} as {encoding}");
            same > 3
        });
        kept.any(|kept| kept)
    };
    // Nowhere else either, in any encoding.
    let everything = [came.json.to_string().as_bytes(), &came.dump].concat();
    let anywhere = ["utf8", "utf16le", "utf32le"]
        .iter()
        .any(|encoding| !support::occurrences(&everything, &encoded(value, encoding)).is_empty());
    assert_eq!(anywhere, kept, "{value}");
    kept
}

/// The receipt is about the dump that was sent and names the rule in these places.
fn check_receipt(came: &Came, rule: &str, places: &[&str]) {
    let receipt: Receipt = serde_json::from_value(came.json["receipt"].clone()).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&came.dump, 0).unwrap();
    receipt.verify(&file).unwrap();
    for place in places {
        let entries = came.json["receipt"]["entries"].as_array().unwrap();
        assert!(entries.iter().any(|e| e["rule"] == rule && e["place"] == *place), "{rule} {place}");
    }
}

#[test]
fn a_rule_of_the_settings_reaches_the_monitor() {
    let players: Vec<&Planted> = PLAYERS.iter().collect();
    let came = crashed(&players, &[], &["--rule", PATTERN]);
    let kept: Vec<_> = players.iter().filter(|p| is_kept(&came, p)).map(|p| p.value).collect();
    assert_eq!(kept, [""; 0]);
    check_receipt(&came, "player-id", &["stack", "heap", "attribute", "breadcrumb"]);
    let without = crashed(&players, &[], &[]);
    let gone: Vec<_> = players.iter().filter(|p| !is_kept(&without, p)).map(|p| p.value).collect();
    assert_eq!(gone, [""; 0], "no other rule finds them");
    assert_ne!(came.json["receipt"]["policy"], without.json["receipt"]["policy"]);
}

#[test]
fn a_file_with_rules_reaches_the_monitor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    fs::write(&file, FILE).unwrap();
    let all: Vec<&Planted> = PLAYERS.iter().chain(&TICKETS).collect();
    let came = crashed(&all, &NO_TICKETS, &["--rules", file.to_str().unwrap()]);
    let kept: Vec<_> = all.iter().filter(|p| is_kept(&came, p)).map(|p| p.value).collect();
    assert_eq!(kept, [""; 0]);
    check_receipt(&came, "player-id", &["stack", "heap", "attribute", "breadcrumb"]);
    check_receipt(&came, "ticket", &["stack", "heap"]);
    for text in NO_TICKETS {
        let sent_memory = memory(&came.dump);
        let found = addresses(&came, text.as_bytes());
        assert!(!found.is_empty(), "{text} was planted");
        for address in found {
            let sent = sent(&sent_memory, address, text.len());
            assert_eq!(String::from_utf8_lossy(&sent), text);
        }
    }
    let without = crashed(&TICKETS.iter().collect::<Vec<_>>(), &[], &[]);
    assert!(TICKETS.iter().all(|ticket| is_kept(&without, ticket)), "no other rule finds them");
}
