//! Any bytes as a consent record: nothing that is not authentic reads as a grant.
#![no_main]

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use cenotaph::privacy::Consent;
use cenotaph::privacy::consent;
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

const KEY: [u8; 32] = [3; 32];

fn record() -> &'static Mutex<(File, PathBuf)> {
    static RECORD: OnceLock<Mutex<(File, PathBuf)>> = OnceLock::new();
    RECORD.get_or_init(|| {
        let path = tempfile::tempdir().expect("a temporary directory").keep().join("consent");
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        Mutex::new((file.expect("a file"), path))
    })
}

/// Even first byte: the rest is the record. Odd: it gets an authentic code.
fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let (mut content, authentic) = (rest.to_vec(), choice % 2 == 1);
    if authentic {
        content.truncate(32);
        let mut code = Hmac::<Sha256>::new_from_slice(&KEY).expect("any length");
        code.update(&content);
        content.extend(code.finalize().into_bytes());
    }
    let mut record = record().lock().expect("one thread");
    let (file, path) = &mut *record;
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(&content))
        .expect("a written file");
    let loaded = consent::load(path, &KEY);
    assert_eq!(consent::read(path, &KEY), loaded.map_or(Consent::Unknown, |record| record.consent));
    assert!(authentic || loaded.is_none(), "a record without an authentic code was believed");
    assert!(loaded.is_none_or(|record| record.consent != Consent::Unknown));
});
