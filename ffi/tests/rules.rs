//! Rules of a C program's own: what only they can find is gone from the dump of its crash, and what stands beside it is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use applications::Watched;
use cenotaph::report::{Detail, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use minidump::{Minidump, MinidumpMemoryList};
use tempfile::TempDir;

#[path = "../../tests/crasher/tests/support/applications.rs"]
mod applications;

/// signal(7), on every Linux.
const SIGSEGV: i32 = 11;
const LIBRARIES: [&str; 7] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];
const RULES: &str = "[[rule]]\nname = \"player-id\"\npattern = 'PLR-([A-Z]{4}-[0-9]{6})'\n";
/// The values in tests/c/rules.c, in UTF-8 and in UTF-16.
const VALUES: [&str; 2] = ["KQZX-418203", "ZBFN-351728"];

#[test]
fn rules_as_text_and_as_a_file_reach_the_monitor() {
    let place = directory();
    let program = compiled(&place);
    let file = place.path().join("rules.toml");
    fs::write(&file, RULES).unwrap();
    let crash = |name: &str, rules: &[&str]| memory(&program, &place.path().join(name), rules);
    let without = crash("none", &[]);
    for memory in [crash("text", &["text", RULES]), crash("file", &["file", file.to_str().unwrap()])] {
        for (value, wide) in VALUES.into_iter().zip([false, true]) {
            let [value, before, after] =
                [value, "rank gold PLR-", " of the castle"].map(|text| encoded(text, wide));
            let whole = [&before[..], &value, &after].concat();
            // Without the rule it stays: no other finds it.
            assert!(has(&without, &whole));
            for other in [false, true] {
                let value = encoded(VALUES[usize::from(wide)], other);
                assert!(!has(&memory, &value), "{value:?}");
            }
            assert!(beside(&memory, &before, value.len(), &after), "neighbours stay, wide: {wide}");
        }
    }
}

/// All memory in the dump of the program's crash.
fn memory(program: &Path, spool: &Path, rules: &[&str]) -> Vec<Vec<u8>> {
    let mut command = Command::new(program);
    let watched = Watched::on(command.arg(spool).args(rules));
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), Some(SIGSEGV), "{rules:?}: {output:?}");
    assert_eq!(watched.check(spool), 1, "{rules:?}: the dump was compared with its receipt");
    let items = Spool::new(spool).list().unwrap();
    assert_eq!(items.len(), 1, "{rules:?}");
    let key = LocalKey::from_file(&spool.join("key")).unwrap();
    let bytes = fs::read(&items[0].path).unwrap();
    let part = |kind| container::read_part(&bytes, kind, &key).unwrap().unwrap().bytes;
    let report: Report = serde_json::from_slice(&part(PartKind::Report)).unwrap();
    assert_eq!(report.detail, Detail::Minidump, "{:?}", report.notes);
    let dump = part(PartKind::Minidump);
    let dump = Minidump::read(&dump[..]).unwrap();
    let list = dump.get_stream::<MinidumpMemoryList<'_>>().unwrap();
    list.iter().map(|memory| memory.bytes.to_vec()).collect()
}

fn encoded(text: &str, wide: bool) -> Vec<u8> {
    match wide {
        true => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        false => text.as_bytes().to_vec(),
    }
}

fn has(memory: &[Vec<u8>], bytes: &[u8]) -> bool {
    memory.iter().any(|region| region.windows(bytes.len()).any(|window| window == bytes))
}

/// Whether `after` stands `between` bytes behind `before` somewhere.
fn beside(memory: &[Vec<u8>], before: &[u8], between: usize, after: &[u8]) -> bool {
    let length = before.len() + between + after.len();
    let mut windows = memory.iter().flat_map(|region| region.windows(length));
    windows.any(|window| window.starts_with(before) && window.ends_with(after))
}

fn compiled(place: &TempDir) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // All crate types of a package are built at once, beside its tests.
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libcenotaph_ffi.a");
    let program = place.path().join("rules");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-std=c99", "-g", "-pthread", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    command.arg(format!("-I{}", package.join("../include").display()));
    command.arg(package.join("tests/c/rules.c")).arg(library).args(LIBRARIES).arg("-o").arg(&program);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// On a file system that programs may run from: in the target directory, or where another user may write.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempdir()).unwrap()
}
