//! Why a program of C or C++ aborted, as its report says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use applications::Watched;
use cenotaph::report::{Origin, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use tempfile::TempDir;

#[path = "../../tests/crasher/tests/support/applications.rs"]
mod applications;

/// signal(7), on every Linux.
const SIGABRT: i32 = 6;
const LIBRARIES: [&str; 7] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

fn exception(type_name: &str, what: Option<&str>) -> Option<Origin> {
    Some(Origin::CxxException { type_name: type_name.into(), what: what.map(str::to_owned) })
}

#[test]
fn aborts_of_c_and_cxx_say_why() {
    let place = directory();
    let program = compiled(&place);
    let std_error = |what| exception("std::runtime_error", Some(what));
    let cases = [
        ("both", exception("(anonymous namespace)::Both", Some("two bases"))),
        // Where a virtual base lies only the program's own code knows.
        ("virtual", exception("(anonymous namespace)::Virtual", None)),
        ("bare", exception("(anonymous namespace)::Bare", None)),
        ("text", exception("const char *", Some("only text"))),
        ("number", exception("int", None)),
        ("system-error", exception("std::system_error", Some("load: No such file or directory"))),
        ("own-handler", std_error("before the program's own handler")),
        ("rethrown", std_error("kept and thrown again")),
        ("thread", std_error("on another thread")),
        ("terminate", Some(Origin::CxxTerminate)),
        ("abort-while-handling", Some(Origin::Abort)),
        ("abort", Some(Origin::Abort)),
    ];
    for (how, expected) in cases {
        assert_eq!(report(&program, &place, how).origin, expected, "{how}");
    }
}

/// The address is taken out, as from every text; the message keeps its length.
#[test]
fn what_an_exception_says_is_scrubbed() {
    let place = directory();
    let origin = report(&compiled(&place), &place, "runtime-error").origin;
    let Some(Origin::CxxException { type_name, what: Some(what) }) = origin else { panic!("{origin:?}") };
    assert_eq!((type_name.as_str(), what.len()), ("std::runtime_error", 37), "{what}");
    let alias = what.strip_prefix("the mail of [email#").and_then(|rest| rest.strip_suffix("* is full"));
    let alias = alias.and_then(|rest| rest.trim_end_matches('*').strip_suffix(']'));
    assert!(alias.is_some_and(|number| number.parse::<u32>().is_ok()), "{what}");
}

#[test]
fn the_c_librarys_messages_are_kept_and_scrubbed() {
    let place = directory();
    let program = compiled(&place);
    let message = |how| {
        let origin = report(&program, &place, how).origin.unwrap();
        (origin.name(), origin.text().unwrap().to_owned())
    };
    let (name, text) = message("assert");
    assert_eq!(name, "assertion");
    assert!(text.contains("how == \"never\"") && text.contains("reasons.cpp"), "{text}");
    assert!(!text.contains("alice") && text.contains("*****"), "{text}");
    let (name, text) = message("fortify");
    assert_eq!((name, text.as_str()), ("fortify", "*** buffer overflow detected ***: terminated"));
    let (name, text) = message("invalid-free");
    assert_eq!(name, "heap-corruption");
    assert!(text.contains("invalid pointer") || text.contains("invalid size"), "{text}");
}

fn report(program: &Path, place: &TempDir, how: &str) -> Report {
    let spool = place.path().join(how);
    let mut command = Command::new(program);
    let watched = Watched::on(command.arg(how).arg(&spool));
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), Some(SIGABRT), "{how}: {output:?}");
    assert_eq!(watched.check(&spool), 1, "{how}: the dump was compared with its receipt");
    let items = Spool::new(&spool).list().unwrap();
    assert_eq!(items.len(), 1, "{how}");
    let key = LocalKey::from_file(&spool.join("key")).unwrap();
    let bytes = fs::read(&items[0].path).unwrap();
    let part = container::read_part(&bytes, PartKind::Report, &key).unwrap().unwrap();
    serde_json::from_slice(&part.bytes).unwrap()
}

fn compiled(place: &TempDir) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // All crate types of a package are built at once, beside its tests.
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libcenotaph_ffi.a");
    let program = place.path().join("reasons");
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let mut command = Command::new(compiler);
    // Checked functions need optimisation.
    command.args(["-std=c++11", "-O1", "-g", "-pthread", "-w"]);
    command.arg(format!("-I{}", package.join("../include").display()));
    command.arg(package.join("tests/c/reasons.cpp")).arg(library).args(LIBRARIES).arg("-o").arg(&program);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// On a file system that programs may run from: in the target directory, or where another user may write.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempdir()).unwrap()
}
