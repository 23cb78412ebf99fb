//! What the tests of this package share: building C, folders.
#![allow(dead_code, reason = "no test uses all of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// On a file system that programs may run from, and that nobody else may write to.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
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
        .args(arguments.iter().filter(|argument| !argument.starts_with("-l") && !argument.ends_with(".a")))
        .arg(source)
        .arg("-o")
        .arg(output)
        .args(arguments.iter().filter(|argument| argument.starts_with("-l") || argument.ends_with(".a")))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}
