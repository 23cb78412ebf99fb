//! A report's dump as it was sealed or sent, against the one before scrubbing: but for the annotations that were put behind it, the
//! bytes that differ are those of the receipt.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use cenotaph::report::{Detail, Report};
use cenotaph::scrub::Receipt;
use cenotaph::spool::{LocalKey, PartKind, container};

use super::tap::Tap;

#[path = "../../../support/byte_diff.rs"]
pub(crate) mod byte_diff;

use byte_diff::assert_equals_receipt;

/// `MINIDUMP_HEADER`: signature, version, number of streams, where their directory stands.
const HEADER: usize = 32;
/// `MINIDUMP_DIRECTORY`: stream type, length, offset.
const ENTRY: usize = 12;
const CRASHPAD_INFO: u32 = 0x4350_0001;

/// Compares the dump of every report that a spool holds with the one that went through `tap`, and returns how many had one. Without its
/// key, or damaged, nobody can open one.
pub(crate) fn check_spool(tap: &Tap, spool: &Path) -> usize {
    let Ok(Some(key)) = LocalKey::load(spool) else { return 0 };
    let states = ["pending", "sending", "rejected"].map(|state| fs::read_dir(spool.join(state)));
    let reports = states.into_iter().flatten().flatten();
    let opened = reports.filter_map(|entry| container::open(&fs::read(entry.ok()?.path()).ok()?, &key).ok());
    let checked = opened.filter(|parts| {
        let part = |kind| parts.iter().find(|part| part.kind == kind).map(|part| &part.bytes[..]);
        let dump = part(PartKind::Minidump).or(part(PartKind::Pointers));
        let report: Report = serde_json::from_slice(part(PartKind::Report).unwrap()).unwrap();
        let receipt: Receipt = serde_json::from_slice(part(PartKind::Receipt).unwrap()).unwrap();
        check(tap, &report, dump, &receipt)
    });
    checked.count()
}

/// One report; whether there was anything to check.
pub(crate) fn check(tap: &Tap, report: &Report, dump: Option<&[u8]>, receipt: &Receipt) -> bool {
    let dump = dump.filter(|_| report.detail > Detail::StackTrace);
    if let Some(dump) = dump {
        assert_sent_equals_receipt(&format!("report {}", report.id), &tap.of(report.id), dump, receipt);
    }
    dump.is_some()
}

/// Panics unless `sent` is what became of `raw`, as `receipt` says, all of whose first part is about it.
fn assert_sent_equals_receipt(what: &str, raw: &[u8], sent: &[u8], receipt: &Receipt) {
    let about = receipt.dump.clone().unwrap_or_else(|| panic!("{what}: the receipt names no dump"));
    let mut own = receipt.clone();
    own.describe(sent, about.entries);
    assert_eq!(own.dump.unwrap(), about, "{what}: length and hash");
    let mut entries = receipt.entries[..about.entries].to_vec();
    // What the application registered as secret was zero before there was a dump.
    entries.retain(|entry| {
        let range =
            usize::try_from(entry.offset).unwrap()..usize::try_from(entry.offset + entry.length).unwrap();
        let hidden = entry.rule == "secret-range";
        let zero = |bytes: &[u8]| bytes[range.clone()].iter().all(|&byte| byte == 0);
        assert!(!hidden || (zero(raw) && zero(sent)), "{what}: a secret range is not zero: {entry:?}");
        !hidden
    });
    let after = without_annotations(what, raw, sent);
    assert_equals_receipt(what, raw, &after, &Receipt { entries, ..Receipt::default() });
}

/// What scrubbing left, with the directory where it was, from what was sent: the one stream more is Crashpad's, and all that is more
/// stands behind.
fn without_annotations(what: &str, raw: &[u8], sent: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let directory = |bytes: &[u8]| (number(bytes, 8) as usize, number(bytes, 12) as usize);
    assert!(sent.len() > raw.len(), "{what}: behind it are annotations");
    let ((streams, old), (more, new)) = (directory(raw), directory(sent));
    let mut after = sent[..raw.len()].to_vec();
    let is_crashpads =
        |at: usize| number(sent, at) == CRASHPAD_INFO && number(sent, at + 8) as usize >= raw.len();
    if new == old {
        // In the place of an entry that was not used.
        let all = (0..streams).map(|at| old + at * ENTRY);
        let unused: Vec<usize> = all.filter(|&at| number(raw, at) == 0 && is_crashpads(at)).collect();
        assert_eq!((unused.len(), more), (1, streams), "{what}: one entry more");
        after[unused[0]..unused[0] + ENTRY].copy_from_slice(&raw[unused[0]..unused[0] + ENTRY]);
        return after;
    }
    assert!(more == streams + 1 && new >= raw.len(), "{what}: a longer directory, behind");
    assert_eq!(
        (&raw[..8], &raw[16..HEADER]),
        (&sent[..8], &sent[16..HEADER]),
        "{what}: the rest of the header"
    );
    let old = old..old + streams * ENTRY;
    assert!(sent[old.clone()].iter().all(|&byte| byte == 0), "{what}: the old directory is gone");
    assert!(is_crashpads(new + old.len()), "{what}: the stream that is new");
    after[..HEADER].copy_from_slice(&raw[..HEADER]);
    after[old.clone()].copy_from_slice(&sent[new..new + old.len()]);
    after
}
