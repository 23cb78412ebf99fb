//! Any bytes as a container, and containers that were sealed here and then changed.
#![no_main]

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

use cenotaph::report::ReportId;
use cenotaph::spool::{LocalKey, Part, PartKind, container};
use libfuzzer_sys::fuzz_target;

const KINDS: [PartKind; 5] =
    [PartKind::Report, PartKind::Receipt, PartKind::StackTrace, PartKind::Pointers, PartKind::Minidump];

fn key() -> &'static LocalKey {
    static KEY: OnceLock<LocalKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&[7; 32])).expect("a key file");
        LocalKey::from_file(&path).expect("a key")
    })
}

fn read(bytes: &[u8]) {
    let Ok(header) = container::header(bytes) else {
        assert!(container::open(bytes, key()).is_err());
        return;
    };
    for kind in KINDS {
        let less = container::without_part(bytes, kind).expect("what has a header can lose a part");
        let less = container::header(&less).expect("what lost a part has a header");
        assert_eq!(less.parts.len(), header.parts.len());
        assert!(less.parts.iter().all(|part| !part.present || part.kind != kind));
        let _ = container::read_part(bytes, kind, key());
    }
    let _ = container::open(bytes, key());
}

/// Even first byte: the rest is a container. Odd: the rest is sealed, and byte `[1]` of it changed by `[2]`.
fuzz_target!(|bytes: &[u8]| {
    let Some((&[choice, position, change], rest)) = bytes.split_first_chunk() else { return };
    if choice % 2 == 0 {
        return read(rest);
    }
    let cut = rest.len() * usize::from(choice) / 256;
    let (first, second) = rest.split_at(cut);
    let parts = [
        Part { kind: PartKind::Report, bytes: first.to_vec() },
        Part { kind: PartKind::Minidump, bytes: second.to_vec() },
    ];
    let sealed = container::seal(ReportId([9; 16]), 1, &parts, key()).expect("two parts can be sealed");
    assert_eq!(container::open(&sealed.bytes, key()).expect("what was sealed opens"), parts);
    let mut changed = sealed.bytes;
    let at = changed.len() * usize::from(position) / 256;
    changed[at] ^= change;
    read(&changed);
    if let Ok(opened) = container::open(&changed, key()) {
        // Only the mark of a part that was left out may change, and then its bytes would be missing.
        assert!(change == 0, "a changed byte at {at} was not noticed");
        assert_eq!(opened, parts);
    }
});
