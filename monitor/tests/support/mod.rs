//! What the tests of this package share: building C, folders.
#![allow(dead_code, reason = "no test uses all of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cenotaph::report::Report;
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use tempfile::TempDir;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// On a file system that programs may run from, and that nobody else may write to.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// One for all tests of this process, gone when it ends.
pub(crate) fn shared_directory() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    extern "C" fn remove() {
        if let Some(folder) = FOLDER.get() {
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
    let make = || {
        // SAFETY: a function that touches nothing that ends before it.
        unsafe { libc::atexit(remove) };
        directory()
    };
    FOLDER.get_or_init(make).path()
}

/// A shared object of a file of the repository.
pub(crate) fn build(source: &str, folder: &Path) -> PathBuf {
    let source = root().join(source);
    let object = folder.join(source.file_stem().unwrap()).with_extension("so");
    compile(&["-shared", "-fPIC"], &source, &object);
    object
}

/// A shared object of some text.
pub(crate) fn build_source(text: &str, object: &Path) -> PathBuf {
    let source = object.with_extension("c");
    std::fs::write(&source, text).unwrap();
    compile(&["-D_POSIX_C_SOURCE=200809L", "-shared", "-fPIC"], &source, object);
    object.to_owned()
}

/// Compiles one C file strictly.
pub(crate) fn compile(arguments: &[&str], source: &Path, output: &Path) {
    let built = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-g", "-pthread"])
        .arg(format!("-I{}", root().join("include").display()))
        .arg(format!("-I{}", root().join("examples/pmodules").display()))
        .args(arguments.iter().filter(|argument| !argument.starts_with("-l") && !argument.ends_with(".a")))
        .arg(source)
        .arg("-o")
        .arg(output)
        .args(arguments.iter().filter(|argument| argument.starts_with("-l") || argument.ends_with(".a")))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// The helper program, as a user would have it: cargo's own folder may let its group write.
pub(crate) fn helper() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_cenotaph-monitor"))
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < limit, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A part of each report in a spool, opened with its key.
pub(crate) fn parts(spool: &Path, kind: PartKind) -> Vec<Option<Vec<u8>>> {
    let items = Spool::new(spool).list().unwrap();
    let open = |path: &Path| {
        let key = LocalKey::from_file(&spool.join("key")).unwrap();
        let part = container::read_part(&std::fs::read(path).unwrap(), kind, &key).unwrap();
        part.map(|part| part.bytes.clone())
    };
    items.iter().map(|item| open(&item.path)).collect()
}

/// Every report in a spool.
pub(crate) fn reports(spool: &Path) -> Vec<Report> {
    let parts = parts(spool, PartKind::Report).into_iter();
    parts.map(|part| serde_json::from_slice(&part.unwrap()).unwrap()).collect()
}

/// The C interface as cargo built it for this test: beside the test program.
pub(crate) fn static_library() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libcenotaph_ffi.a");
    assert!(library.exists(), "{} was not built", library.display());
    library
}

/// The game of `examples/pmodules` with its library; `reported`: with Cenotaph in it.
pub(crate) fn build_game(folder: &Path, reported: bool) -> PathBuf {
    let (examples, game) = (root().join("examples/pmodules"), folder.join("game"));
    let telemetry = folder.join("libtelemetry.so");
    compile(&["-shared", "-fPIC"], &examples.join("telemetry.c"), &telemetry);
    let library = static_library().display().to_string();
    let (find, load) = (format!("-L{}", folder.display()), format!("-Wl,-rpath,{}", folder.display()));
    let mut arguments = vec!["-O2", "-rdynamic", &find, &load, "-ltelemetry"];
    if reported {
        arguments.extend(["-DGAME_IS_REPORTED", &library, "-lgcc_s", "-lutil", "-lrt", "-lm", "-ldl"]);
    }
    compile(&arguments, &examples.join("game.c"), &game);
    game
}
