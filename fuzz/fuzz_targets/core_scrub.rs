//! Any bytes as a core file to be scrubbed: refused, or of the same length, readable again, and changed only where the receipt
//! says.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use cenotaph::scrub::{Engine, Level, Policy, Receipt};
use libfuzzer_sys::fuzz_target;
use tempfile::NamedTempFile;

struct Files {
    input: NamedTempFile,
    output: NamedTempFile,
    twice: NamedTempFile,
}

thread_local! {
    static FILES: RefCell<Option<Files>> = const { RefCell::new(None) };
    static ENGINES: RefCell<[Engine; 2]> = RefCell::new([Level::Pattern, Level::Pointers].map(engine));
}

fn engine(level: Level) -> Engine {
    let known = ["marguerite", "/home/marguerite", "ab"].map(str::to_owned).to_vec();
    Engine::new(&Policy { level, known, ..Policy::default() }).expect("a policy within the limits")
}

fn file() -> NamedTempFile {
    NamedTempFile::new_in("/dev/shm").expect("a file in memory")
}

fn read(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().expect("its length").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("its bytes");
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    FILES.with_borrow_mut(|files| {
        let files = files.get_or_insert_with(|| Files { input: file(), output: file(), twice: file() });
        let input = files.input.as_file();
        input.set_len(0).and_then(|()| input.write_all_at(bytes, 0)).expect("room");
        // A clone each time: what an engine has found it looks for in the next file.
        ENGINES.with_borrow(|engines| {
            engines.iter().for_each(|engine| check(bytes, files, &mut engine.clone()));
        });
    });
});

fn check(bytes: &[u8], files: &Files, engine: &mut Engine) {
    let (output, twice) = (files.output.as_file(), files.twice.as_file());
    output.set_len(0).and_then(|()| twice.set_len(0)).expect("empty files");
    let mut receipt = Receipt::default();
    if engine.core_file(files.input.as_file(), output, &mut receipt).is_err() {
        return;
    }
    let scrubbed = read(output);
    assert_eq!(scrubbed.len(), bytes.len());
    assert_eq!(receipt.discrepancy(bytes, &scrubbed), None);
    engine.core_file(output, twice, &mut Receipt::default()).expect("a scrubbed core file can be scrubbed");
}
