//! C programs that use the header and both libraries: compiled strictly, run as processes of their own, crashed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use applications::Watched;
use cenotaph::report::{AttributeValue, Detail, Level, Reason, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, State, container};
use tempfile::TempDir;

#[path = "../../tests/crasher/tests/support/applications.rs"]
mod applications;

const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wstrict-prototypes", "-Werror"];
/// signal(7), on every Linux.
const SIGSEGV: i32 = 11;

/// How a program links the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linked {
    Static,
    Shared,
}

#[test]
fn wrong_use_gives_defined_errors() {
    for linked in [Linked::Static, Linked::Shared] {
        let spool = directory();
        succeed(&check(linked, "usage", spool.path()), linked);
        assert!(reports(spool.path()).is_empty());
    }
}

#[test]
fn capture_leaves_a_report_and_a_living_process() {
    for linked in [Linked::Static, Linked::Shared] {
        let spool = directory();
        let output = check(linked, "capture", spool.path());
        succeed(&output, linked);
        let id = String::from_utf8(output.stdout).unwrap();
        let reports = reports(spool.path());
        assert_eq!(reports.len(), 2, "{linked:?}");
        let named = reports.iter().find(|report| report.id.to_string() == id.trim()).expect(&id);
        assert_eq!(named.reason, Reason::Requested { reason: "asked for again".into() });
        noted(named);
    }
}

#[test]
fn a_null_write_is_reported_and_stays_a_null_write() {
    for linked in [Linked::Static, Linked::Shared] {
        let spool = directory();
        let output = check(linked, "crash", spool.path());
        assert_eq!(output.status.signal(), Some(SIGSEGV), "{linked:?} {output:?}");
        crashed(spool.path());
    }
}

/// A thread made by C has no alternate signal stack: without `cenotaph_protect_thread` this would leave no report.
#[test]
fn a_stack_overflow_in_a_protected_thread_is_reported() {
    let spool = directory();
    let output = check(Linked::Static, "overflow", spool.path());
    assert_eq!(output.status.signal(), Some(SIGSEGV), "{output:?}");
    let reports = reports(spool.path());
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].reason.name(), "SIGSEGV");
    assert_eq!(reports[0].stack_trace.threads.len(), 2);
    noted(&reports[0]);
}

/// Without the line at the top of main, install() makes the monitor.
#[test]
fn a_program_without_monitor_entry_is_reported_too() {
    let spool = directory();
    let mut command = Command::new(program(Linked::Static));
    let output = output(command.env("CHECK_COMMAND", "crash").env("CHECK_SPOOL", spool.path()), spool.path());
    assert_eq!(output.status.signal(), Some(SIGSEGV), "{output:?}");
    crashed(spool.path());
}

#[test]
fn withdrawal_empties_the_spool() {
    let spool = directory();
    succeed(&check(Linked::Static, "withdraw", spool.path()), Linked::Static);
    assert!(Spool::new(spool.path()).list().unwrap().is_empty());
}

#[test]
fn shutdown_puts_the_handlers_back() {
    for linked in [Linked::Static, Linked::Shared] {
        let spool = directory();
        succeed(&check(linked, "shutdown", spool.path()), linked);
    }
}

/// The program of README's 60 seconds.
#[test]
fn the_example_is_strict_c_and_reports_its_crash() {
    let folder = directory();
    let example =
        compile(&root().join("examples/c/minimal.c"), Linked::Static, &folder.path().join("minimal"));
    let spool = folder.path().join("spool");
    let mut command = Command::new(&example);
    let watched = Watched::on(command.arg(&spool));
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), Some(SIGSEGV), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    // It keeps the default and lets the dying program go as soon as its memory is read: the report comes a moment later.
    let limit = Instant::now() + Duration::from_secs(120);
    while Spool::new(&spool).list().unwrap().is_empty() {
        assert!(Instant::now() < limit, "no report in the spool");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(watched.check(&spool), 1, "the dump was compared with its receipt");
    let report = &reports(&spool)[0];
    assert_eq!((report.application.as_str(), report.reason.name()), ("minimal", "SIGSEGV"));
    assert_eq!(report.attributes[0].key, "level");
    let usage = Command::new(&example).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn the_header_is_strict_c99_and_cxx11() {
    let folder = directory();
    let source = folder.path().join("header.c");
    // Twice, for the guard; used, for the linkage.
    let text = "#include \"cenotaph.h\"\n#include \"cenotaph.h\"\n\
                const char *version(void);\nconst char *version(void) { return cenotaph_version(); }\n";
    fs::write(&source, text).unwrap();
    for (compiler, language, standard) in [
        ("cc", "c", "-std=c99"),
        ("cc", "c", "-std=c11"),
        ("c++", "c++", "-std=c++11"),
        ("c++", "c++", "-std=c++20"),
    ] {
        let mut command = Command::new(tool(compiler));
        command.args(["-x", language, standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c"]);
        command.arg(include()).arg(&source).arg("-o").arg(folder.path().join("header.o"));
        run(&mut command);
    }
    let symbols = run(Command::new("nm").arg("--undefined-only").arg(folder.path().join("header.o")));
    assert!(symbols.contains(" cenotaph_version\n"), "C++ mangled it: {symbols}");
}

/// The shared library exports the header's functions and nothing else.
#[test]
fn exports_are_the_functions_of_the_header() {
    let listed = run(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library("so")));
    let exported: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let header = fs::read_to_string(root().join("include/cenotaph.h")).unwrap();
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '#', '/']))
        .filter_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("cenotaph_"))
        .collect();
    declared.sort_unstable();
    assert!(declared.len() > 30, "{declared:?}");
    let mut exported_sorted = exported;
    exported_sorted.sort_unstable();
    assert_eq!(exported_sorted, declared);
}

/// The list that this test links with is the one that users are told.
#[test]
fn the_libraries_to_link_are_stated() {
    let stated = native_libraries().join(" ");
    let cmake = fs::read_to_string(root().join("examples/c/CMakeLists.txt")).unwrap();
    assert!(cmake.contains(&format!("cenotaph INTERFACE {})", stated.trim_end_matches(" -lc"))), "{stated}");
    // rustc's own, for a library with nothing in it: what it asks for must be among ours.
    let folder = directory();
    let empty = folder.path().join("empty.rs");
    fs::write(&empty, "").unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--crate-type", "staticlib", "--print", "native-static-libs"]).arg(&empty);
    let output = command.current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let (_, asked) = said.split_once("native-static-libs: ").unwrap_or_else(|| panic!("{said}"));
    for library in asked.lines().next().unwrap().split_whitespace() {
        assert!(stated.split(' ').any(|ours| ours == library), "{library} is missing in: {stated}");
    }
}

/// What `note()` in check.c noted.
fn noted(report: &Report) {
    let attribute = |key: &str| report.attributes.iter().find(|a| a.key == key).map(|a| a.value.clone());
    let text = |value: &str| Some(AttributeValue::String(value.into()));
    assert_eq!(attribute("level"), text("castle"));
    assert_eq!(attribute("region"), text("northern"));
    assert_eq!(attribute("empty"), text(""));
    assert_eq!(attribute("score"), Some(AttributeValue::Integer(-7)));
    assert_eq!(attribute("fps"), Some(AttributeValue::Float(59.5)));
    assert_eq!(attribute("online"), Some(AttributeValue::Bool(true)));
    assert_eq!(attribute("gone"), None);
    let breadcrumbs: Vec<_> =
        report.breadcrumbs.iter().map(|b| (b.level, b.category.as_str(), b.message.as_str())).collect();
    assert_eq!(breadcrumbs, [(Level::Warning, "net", "slow"), (Level::Debug, "ui", "opened")]);
    assert_eq!((report.application.as_str(), report.version.as_str()), ("check", "1.2.3"));
}

/// The one report of a null write.
fn crashed(spool: &Path) {
    let reports = reports(spool);
    assert_eq!(reports.len(), 1);
    let Reason::Signal { number, address, .. } = reports[0].reason else {
        panic!("{:?}", reports[0].reason);
    };
    assert_eq!((number, address), (SIGSEGV, Some(0)));
    noted(&reports[0]);
    let crashed = &reports[0].stack_trace.threads[0];
    assert!(crashed.crashed && crashed.frames.len() >= 2, "{crashed:?}");
    assert!(reports[0].detail <= Detail::Minidump);
}

/// Every report in a spool, opened with its key.
fn reports(spool: &Path) -> Vec<Report> {
    let items = Spool::new(spool).list().unwrap();
    assert!(items.iter().all(|item| item.state == State::Pending));
    let open = |path: &Path| {
        let key = LocalKey::from_file(&spool.join("key")).unwrap();
        let part = container::read_part(&fs::read(path).unwrap(), PartKind::Report, &key).unwrap().unwrap();
        serde_json::from_slice(&part.bytes).unwrap()
    };
    items.iter().map(|item| open(&item.path)).collect()
}

fn check(linked: Linked, command: &str, spool: &Path) -> Output {
    output(Command::new(program(linked)).arg(command).arg(spool), spool)
}

/// Runs it, and compares the dumps of its reports with their receipts.
fn output(command: &mut Command, spool: &Path) -> Output {
    let watched = Watched::on(command);
    let output = command.output().unwrap();
    watched.check(spool);
    output
}

fn succeed(output: &Output, linked: Linked) {
    assert!(
        output.status.success(),
        "{linked:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// check.c as a program; compiled once.
fn program(linked: Linked) -> &'static Path {
    static PROGRAMS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    PROGRAMS[linked as usize].get_or_init(|| {
        let name = format!("check-{linked:?}");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/check.c");
        compile(&source, linked, &Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    })
}

fn compile(source: &Path, linked: Linked, program: &Path) -> PathBuf {
    let mut command = Command::new(tool("cc"));
    command
        .args(["-std=c99", "-g", "-pthread"])
        .args(WARNINGS)
        .arg(include())
        .arg(source)
        .arg("-o")
        .arg(program);
    match linked {
        Linked::Static => {
            command.arg(library("a")).args(native_libraries());
        }
        Linked::Shared => {
            let folder = library("so").parent().unwrap().to_owned();
            let folder = folder.display();
            command.args([format!("-Wl,-rpath,{folder}"), format!("-L{folder}")]).arg("-lcenotaph_ffi");
        }
    }
    run(&mut command);
    program.to_owned()
}

/// What the crate's documentation tells users to link.
fn native_libraries() -> Vec<String> {
    let documentation = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let (_, line) = documentation.split_once("libcenotaph_ffi.a ").expect("the line to link with");
    line.lines().next().unwrap().split_whitespace().map(str::to_owned).collect()
}

/// The library that cargo built for this test lies beside it: all crate types of a package are built at once.
fn library(extension: &str) -> PathBuf {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let library = beside.join(format!("libcenotaph_ffi.{extension}"));
    assert!(library.exists(), "{} was not built", library.display());
    library
}

fn include() -> String {
    format!("-I{}", root().join("include").display())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The compiler, as `CC` and `CXX` may name it.
fn tool(name: &str) -> OsString {
    let variable = if name == "cc" { "CC" } else { "CXX" };
    std::env::var_os(variable).unwrap_or_else(|| name.into())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// On a file system that programs may run from.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
